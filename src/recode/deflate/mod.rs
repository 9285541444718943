//! Deflate, so that a stream unpacked can be reproduced bit for bit.
//!
//! Decoding has one answer, encoding has many: [`Encoder`] gives that of zlib, for every setting, of its relatives
//! (Chromium's fork of it, which Node, npm and Electron use, GNU gzip, Info-ZIP, pigz), of Go, and of two libraries of
//! Rust; [`Guesser`] finds the setting. A stream made by anything else has no [`Method`]. The encoder is our own but
//! for these libraries, which are pinned, because what it writes must never change.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "codes, lengths and positions in a window of 64 KiB; their bounds are the format's"
)]

mod bits;
mod block;
mod codes;
mod encoder;
mod finder;
mod go;
mod guess;
mod inflater;
mod method;
mod miniz;
mod other_encoder;
mod other_encoders;
mod pieces;
mod positions;
mod rust;
mod symbols;
mod tree;
mod window;

pub use encoder::Encoder;
pub use guess::{Guesser, Hint, Known, Learned, Stream};
pub use inflater::{Broken, Inflater, Progress};
pub use method::{Error, Maker, Method, Strategy};
