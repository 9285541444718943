//! Codecs whose streams are unpacked and reproduced bit for bit: deflate, xz, zstd.
//!
//! A [`Method`] says how a stream was made, [`Encoder`] reproduces it, [`Decoder`] returns its plain bytes, and [`Guesser`]
//! finds the method of an xz or zstd stream, as [`crate::deflate::Guesser`] does of a deflate stream. liblzma and libzstd
//! are pinned to one version each, whose output tests hold; the methods are of that version. Their memory is bounded,
//! whatever a stream or a plan says.

mod decoder;
mod encoder;
mod format;
mod frame;
mod guess;
mod lzma;
mod method;
mod permits;
mod xz;
mod zstandard;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use format::Format;
pub use frame::Frame;
pub use guess::{Guesser, Stream};
pub use method::{Error, Method};
pub use permits::{Permits, Turn};
pub use xz::{Check, EXTREME, Xz};
