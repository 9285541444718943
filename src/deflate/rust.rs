//! Streams of Rust's `flate2` with `zlib-rs`: Cargo's packages, and npm packages packed by Rust tools.
//!
//! The one encoder here that is a library's: `zlib-rs`, pinned to the release whose output the vectors in
//! this module hold. Unlike zlib's, its output depends on the pieces in which the input came, and on those in
//! which the output was taken. They are those of Rust's `tar` crate: a header, the content in pieces of 8 KiB
//! (`std::io::copy`), the padding; and those of `flate2`: 32 KiB.

use zlib_rs::{Deflate, DeflateFlush};

use super::foreign::Foreign;
use super::method::Method;
use super::pieces::Pieces;

/// 32 KiB: what `flate2` takes of the output at once. Where that is full, a search may begin anew.
const OUTPUT_BYTES: usize = 32 * 1024;

pub(super) struct RustEncoder {
    stream: Stream,
    pieces: Pieces,
}

struct Stream {
    deflate: Deflate,
    level: u8,
    /// Whether the last stream came to its end.
    ended: bool,
    output: Vec<u8>,
}

impl RustEncoder {
    pub(super) fn new(level: u8) -> Self {
        let deflate = Deflate::new(i32::from(level), false, 15);
        let stream = Stream { deflate, level, ended: true, output: vec![0; OUTPUT_BYTES] };
        Self { stream, pieces: Pieces::of_rust() }
    }
}

impl Foreign for RustEncoder {
    fn reset(&mut self, method: &Method) {
        let stream = &mut self.stream;
        // Its `reset` forgets that part of the output of a stream that was left was taken, and panics later.
        if method.level == stream.level && stream.ended {
            stream.deflate.reset();
        } else {
            stream.level = method.level;
            stream.deflate = Deflate::new(i32::from(method.level), false, 15);
        }
        stream.ended = false;
        self.pieces = Pieces::of_rust();
    }

    fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let stream = &mut self.stream;
        self.pieces.cut(plain, &mut |piece| stream.encode(piece, out));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let stream = &mut self.stream;
        self.pieces.finish(&mut |piece| stream.encode(piece, out));
        while stream.step(&[], DeflateFlush::Finish, out).1 == OUTPUT_BYTES {}
        stream.ended = true;
    }
}

impl Stream {
    fn encode(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while !piece.is_empty() {
            let (read, _) = self.step(piece, DeflateFlush::NoFlush, out);
            piece = &piece[read..];
        }
    }

    /// Bytes read and written. An error leaves a stream too short, which no proof accepts.
    fn step(&mut self, piece: &[u8], flush: DeflateFlush, out: &mut Vec<u8>) -> (usize, usize) {
        let before = (self.deflate.total_in(), self.deflate.total_out());
        let done = self.deflate.compress(piece, &mut self.output, flush);
        let written = (self.deflate.total_out() - before.1) as usize;
        out.extend_from_slice(&self.output[..written]);
        let read = if done.is_ok() { (self.deflate.total_in() - before.0) as usize } else { piece.len() };
        (read, written)
    }
}
