//! Streams of Rust's `flate2` with `zlib-rs`: Cargo's packages, npm packages packed by Rust tools, wheels.
//!
//! The encoder is a library's: `zlib-rs`, pinned to the release whose output `tests/it/deflate.golden` holds. Unlike
//! zlib's, its output depends on the pieces in which the input came, and on those in which the output was taken:
//! those of `flate2` are 32 KiB. The wheels of `maturin` have an empty block before the last, as the writer was
//! flushed.

use zlib_rs::{Deflate, DeflateFlush};

use super::method::{Maker, Method};
use super::other_encoder::OtherEncoder;
use super::pieces::Pieces;

/// 32 KiB: what `flate2` takes of the output at once. Where that is full, a search may restart.
const OUTPUT_BYTES: usize = 32 * 1024;

pub(super) struct RustEncoder {
    stream: Stream,
    pieces: Pieces,
    maker: Maker,
}

struct Stream {
    deflate: Deflate,
    level: u8,
    /// True if the last stream came to its end.
    ended: bool,
    output: Vec<u8>,
    /// Bytes of `output` that `flate2` has not passed on.
    filled: usize,
}

impl RustEncoder {
    pub(super) fn new(method: &Method) -> Self {
        let deflate = Deflate::new(i32::from(method.level), false, 15);
        let output = vec![0; OUTPUT_BYTES];
        let stream = Stream { deflate, level: method.level, ended: true, output, filled: 0 };
        Self { stream, pieces: Pieces::of_rust_tar(), maker: method.maker }
    }
}

impl OtherEncoder for RustEncoder {
    fn reset(&mut self, method: &Method) {
        let stream = &mut self.stream;
        // After a stream that was given up, its `reset` ignores the output that was already taken, and it panics later.
        if method.level == stream.level && stream.ended {
            stream.deflate.reset();
        } else {
            stream.level = method.level;
            stream.deflate = Deflate::new(i32::from(method.level), false, 15);
        }
        stream.ended = false;
        stream.filled = 0;
        self.maker = method.maker;
        self.pieces = match method.maker {
            Maker::RustZip => Pieces::of_copies(),
            Maker::WholeRustZip => Pieces::of_windows(),
            _ => Pieces::of_rust_tar(),
        };
    }

    fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let (stream, whole) = (&mut self.stream, self.maker == Maker::WholeRustZip);
        self.pieces.cut(plain, &mut |piece| stream.encode(piece, whole, out));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let (stream, whole) = (&mut self.stream, self.maker == Maker::WholeRustZip);
        self.pieces.finish(&mut |piece| stream.encode(piece, whole, out));
        if self.maker != Maker::Rust {
            stream.step(&[], DeflateFlush::SyncFlush, out);
            stream.filled = 0;
            while stream.step(&[], DeflateFlush::NoFlush, out).1 > 0 {
                stream.filled = 0;
            }
        }
        stream.filled = 0;
        while stream.step(&[], DeflateFlush::Finish, out).1 == OUTPUT_BYTES {
            stream.filled = 0;
        }
        stream.ended = true;
    }
}

impl Stream {
    /// Encodes a piece; one that is part of a whole goes on where the output was full.
    fn encode(&mut self, mut piece: &[u8], part: bool, out: &mut Vec<u8>) {
        while !piece.is_empty() {
            if !part || self.filled == OUTPUT_BYTES {
                self.filled = 0;
            }
            let (read, _) = self.step(piece, DeflateFlush::NoFlush, out);
            piece = &piece[read..];
        }
    }

    /// Returns the bytes read and written. An error leaves a stream too short, which no proof accepts.
    fn step(&mut self, piece: &[u8], flush: DeflateFlush, out: &mut Vec<u8>) -> (usize, usize) {
        let before = (self.deflate.total_in(), self.deflate.total_out());
        let room = &mut self.output[self.filled..];
        let done = self.deflate.compress(piece, room, flush);
        let written = (self.deflate.total_out() - before.1) as usize;
        out.extend_from_slice(&room[..written]);
        self.filled += written;
        let read = if done.is_ok() { (self.deflate.total_in() - before.0) as usize } else { piece.len() };
        (read, written)
    }
}
