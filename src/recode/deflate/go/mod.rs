//! Go's `compress/flate`: what builders of container images, and releases packed by Go programs, are made with.
//!
//! Source of the algorithm: Go's `compress/flate` (The Go Authors, BSD licence), whose output is the same in Go
//! 1.8 to 1.26. A stream ends with an empty stored block. What the program writes at once makes a difference
//! only where a piece ends shortly before the window is full: [`Pieces`] says where those of a tar archive do.

mod block;
mod fast;
mod huffman;
mod search;

use super::bits::BitWriter;
use super::method::{Maker, Method, Strategy};
use super::other_encoder::OtherEncoder;
use super::pieces::Pieces;
use super::symbols::write_stored;
use block::Block;
use fast::Fast;
use search::Search;

/// RFC 1951 section 3.2.4: the length has 16 bits. Blocks of levels 0 and 1 have as much.
const STORED_BYTES_MAX: usize = 65_535;

/// Encodes one stream after another. Memory: 900 KiB at most, as far as levels need it.
pub(super) struct GoEncoder {
    coder: Coder,
    /// Finds the ends of the program's pieces, if they matter.
    pieces: Option<Pieces>,
}

struct Coder {
    form: Form,
    /// Levels 2 to 9; made when a stream needs it.
    search: Option<Search>,
    /// Blocks of the other levels.
    fast: Fast,
    block: Block,
    bits: BitWriter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Stored,
    Literals,
    Fast,
    Search(u8),
}

impl GoEncoder {
    pub(super) fn new(method: &Method) -> Self {
        let coder = Coder {
            form: Form::Stored,
            search: None,
            fast: Fast::new(),
            block: Block::new(),
            bits: BitWriter::new(),
        };
        let mut encoder = Self { coder, pieces: None };
        encoder.reset(method);
        encoder
    }
}

impl OtherEncoder for GoEncoder {
    fn reset(&mut self, method: &Method) {
        self.coder.reset(method);
        self.pieces = (method.maker == Maker::GoTar).then(Pieces::of_go_tar);
    }

    fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let coder = &mut self.coder;
        match &mut self.pieces {
            None => coder.write(plain, out),
            Some(pieces) => pieces.cut(plain, &mut |piece| {
                coder.write(piece, out);
                coder.pause();
            }),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let coder = &mut self.coder;
        if let Some(pieces) = &mut self.pieces {
            pieces.finish(&mut |piece| coder.write(piece, out));
        }
        coder.finish(out);
    }
}

impl Coder {
    fn reset(&mut self, method: &Method) {
        self.form = match (method.level, method.strategy) {
            (_, Strategy::Huffman) => Form::Literals,
            (0, _) => Form::Stored,
            (1, _) => Form::Fast,
            (level, _) => Form::Search(level),
        };
        self.block.clear();
        self.bits.reset();
        if let Form::Search(level) = self.form {
            self.search.get_or_insert_with(|| Search::new(level)).reset(level);
        } else {
            self.fast.reset();
        }
    }

    fn write(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        if let Some(search) = self.search.as_mut().filter(|_| matches!(self.form, Form::Search(_))) {
            return search.write(plain, &mut self.block, &mut self.bits, out);
        }
        while !plain.is_empty() {
            if self.fast.plain().len() == STORED_BYTES_MAX {
                self.flush(out);
            }
            plain = &plain[self.fast.fill(plain)..];
        }
    }

    fn pause(&mut self) {
        if let Some(search) = &mut self.search {
            search.pause();
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match &mut self.search {
            Some(search) if matches!(self.form, Form::Search(_)) => {
                search.finish(&mut self.block, &mut self.bits, out);
            }
            _ if !self.fast.plain().is_empty() => self.flush(out),
            _ => {}
        }
        write_stored(&[], true, &mut self.bits, out);
    }

    /// Writes a block of all bytes so far, at any level below 2.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let (block, bits) = (&mut self.block, &mut self.bits);
        let length = self.fast.plain().len();
        match self.form {
            Form::Stored => write_stored(self.fast.plain(), false, bits, out),
            Form::Fast if length <= 16 => write_stored(self.fast.plain(), false, bits, out),
            Form::Fast if length >= 128 => {
                self.fast.encode(block);
                if block.symbols() > length - length / 16 {
                    block.write_literals(self.fast.plain(), bits, out);
                } else {
                    block.write_coded(self.fast.plain(), bits, out);
                }
            }
            _ => block.write_literals(self.fast.plain(), bits, out),
        }
        self.fast.advance();
    }
}
