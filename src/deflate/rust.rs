//! Streams of Rust's `flate2` with `zlib-rs`: Cargo's packages, and npm packages packed by Rust tools.
//!
//! The one encoder here that is a library's: `zlib-rs`, pinned to the release whose output the vectors in
//! this module hold. Unlike zlib's, its output depends on the pieces in which the input came, and on those in
//! which the output was taken. They are those of Rust's `tar` crate: a header, the content in pieces of 8 KiB
//! (`std::io::copy`), the padding; and those of `flate2`: 32 KiB.

use zlib_rs::{Deflate, DeflateFlush};

/// `std::io::copy` moves so much at once.
const PIECE_BYTES: usize = 8 * 1024;
const HEADER_BYTES: usize = 512;
/// 32 KiB: what `flate2` takes of the output at once. Where that is full, a search may begin anew.
const OUTPUT_BYTES: usize = 32 * 1024;

pub(super) struct RustEncoder {
    deflate: Deflate,
    level: u8,
    cutter: Cutter,
    /// The beginning of the present piece.
    held: Vec<u8>,
    output: Vec<u8>,
}

impl RustEncoder {
    pub(super) fn new(level: u8) -> Self {
        let deflate = Deflate::new(i32::from(level), false, 15);
        Self { deflate, level, cutter: Cutter::default(), held: Vec::new(), output: vec![0; OUTPUT_BYTES] }
    }

    pub(super) fn reset(&mut self, level: u8) {
        if level == self.level {
            self.deflate.reset();
        } else {
            (self.deflate, self.level) = (Deflate::new(i32::from(level), false, 15), level);
        }
        self.cutter = Cutter::default();
        self.held.clear();
    }

    pub(super) fn write(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let wanted = self.cutter.wanted - self.held.len();
            let (now, rest) = plain.split_at(wanted.min(plain.len()));
            plain = rest;
            if now.len() < wanted {
                self.held.extend_from_slice(now);
            } else if self.held.is_empty() {
                self.cutter.advance(now);
                self.encode(now, out);
            } else {
                let mut piece = std::mem::take(&mut self.held);
                piece.extend_from_slice(now);
                self.cutter.advance(&piece);
                self.encode(&piece, out);
                piece.clear();
                self.held = piece;
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let piece = std::mem::take(&mut self.held);
        self.encode(&piece, out);
        while self.step(&[], DeflateFlush::Finish, out).1 == OUTPUT_BYTES {}
    }

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

/// Where the pieces end; what is no tar archive comes in pieces of 8 KiB.
struct Cutter {
    next: Next,
    /// Bytes of the present piece.
    wanted: usize,
}

enum Next {
    Header,
    /// Bytes of content still to come after the present piece, and of padding.
    Content(u64, usize),
    Padding,
    Rest,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { next: Next::Header, wanted: HEADER_BYTES }
    }
}

impl Cutter {
    /// Goes on to the next piece, after `piece`.
    fn advance(&mut self, piece: &[u8]) {
        match self.next {
            Next::Header => match size(piece) {
                None => (self.next, self.wanted) = (Next::Rest, PIECE_BYTES),
                Some(bytes) => {
                    let padding = (HEADER_BYTES - (bytes % HEADER_BYTES as u64) as usize) % HEADER_BYTES;
                    // A long name is written without its final zero, then that.
                    let first = if piece[156] == b'L' { bytes.saturating_sub(1) } else { bytes };
                    self.content(bytes, first, padding);
                }
            },
            Next::Content(left, padding) => self.content(left, left, padding),
            Next::Padding => *self = Self::default(),
            Next::Rest => {}
        }
    }

    fn content(&mut self, left: u64, first: u64, padding: usize) {
        if left > 0 {
            let wanted = first.clamp(1, PIECE_BYTES as u64);
            (self.next, self.wanted) = (Next::Content(left - wanted, padding), wanted as usize);
        } else if padding > 0 {
            (self.next, self.wanted) = (Next::Padding, padding);
        } else {
            *self = Self::default();
        }
    }
}

/// The size in a tar header, if the field can be one.
fn size(header: &[u8]) -> Option<u64> {
    let field = header.get(124..136)?;
    if header[0] == 0 || header.get(257..262)? != b"ustar" {
        return None;
    }
    let mut digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    digits.try_fold(0u64, |value, digit| {
        (*digit < b'8' && value < 1 << 40).then(|| value * 8 + u64::from(digit - b'0'))
    })
}
