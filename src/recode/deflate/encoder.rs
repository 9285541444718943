//! A deflate encoder whose output is, bit for bit, that of zlib with the same settings.
//!
//! Source of the algorithm: `deflate_stored`, `deflate_fast`, `deflate_slow`, `deflate_huff` and
//! `deflate_rle` of zlib's deflate.c (1.2.11 to 1.3.2 agree), by Jean-loup Gailly and Mark Adler, and
//! Chromium's fork of it; `compress_thread` of Mark Adler's pigz 2.6. The output is that of one call with
//! all input and enough room, whatever the pieces in which the input comes here.

use super::bits::BitWriter;
use super::block::Block;
use super::finder::{Castagnoli, Hash, Multiplicative, Rolling};
use super::method::{Maker, Method, Strategy};
use super::other_encoders::OtherEncoders;
use super::symbols::write_stored;
use super::window::{AHEAD_MIN, Effort, MATCH_MAX, MATCH_MIN, Window};

/// A copy of three bytes from farther back costs more than three literals.
const SHORT_DISTANCE_MAX: usize = 4096;
/// RFC 1951 section 3.2.4: the length has 16 bits.
const STORED_BYTES_MAX: usize = 65_535;

/// 128 KiB: what a thread of pigz takes.
const JOB_BYTES: usize = 128 * 1024;

/// zlib's `configuration_table`; level 0 does not search.
const EFFORTS: [Effort; 10] = [
    Effort { good: 0, lazy: 0, nice: 0, chain: 0 },
    Effort { good: 4, lazy: 4, nice: 8, chain: 4 },
    Effort { good: 4, lazy: 5, nice: 16, chain: 8 },
    Effort { good: 4, lazy: 6, nice: 32, chain: 32 },
    Effort { good: 4, lazy: 4, nice: 16, chain: 16 },
    Effort { good: 8, lazy: 16, nice: 32, chain: 32 },
    Effort { good: 8, lazy: 16, nice: 128, chain: 128 },
    Effort { good: 8, lazy: 32, nice: 128, chain: 256 },
    Effort { good: 32, lazy: 128, nice: 258, chain: 1024 },
    Effort { good: 32, lazy: 258, nice: 258, chain: 4096 },
];

/// Encodes one stream after another.
///
/// Memory: about 450 KiB, as much again after a stream of more than 16 KiB, 2 MiB more after streams of Go and of Rust,
/// kept from one stream to the next, and the output that was not yet taken.
pub struct Encoder {
    method: Method,
    window: Window,
    block: Block,
    bits: BitWriter,
    /// Length of the copy found one byte before, and where it began: zlib's lazy evaluation.
    length: usize,
    /// True if the byte before is a literal that was not yet written.
    waiting: bool,
    /// Remaining bytes of the current job of pigz.
    job_left: usize,
    /// Level 0 only: bytes of the next stored block.
    stored: Vec<u8>,
    foreigners: OtherEncoders,
}

impl Encoder {
    /// Begins a stream made by `method`, which must have passed [`Method::check`].
    pub fn new(method: &Method) -> Self {
        let mut encoder = Self {
            method: *method,
            window: Window::new(method.window, chain_bits(method)),
            block: Block::new(symbols(method), method.strategy == Strategy::Fixed),
            bits: BitWriter::new(),
            length: MATCH_MIN - 1,
            waiting: false,
            job_left: 0,
            stored: Vec::new(),
            foreigners: OtherEncoders::default(),
        };
        encoder.reset(method);
        encoder
    }

    /// Forgets the stream and begins another.
    pub fn reset(&mut self, method: &Method) {
        self.method = *method;
        if self.foreigners.reset(method) {
            return;
        }
        self.window.reset(method.window, chain_bits(method));
        self.block.reset(symbols(method), method.strategy == Strategy::Fixed);
        self.bits.reset();
        (self.length, self.waiting) = (MATCH_MIN - 1, false);
        self.job_left = if method.maker == Maker::Pigz { JOB_BYTES } else { usize::MAX };
        self.stored.clear();
    }

    /// Takes the next plain bytes; appends the part of the stream that is certain by now to `out`.
    pub fn write(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        if let Some(foreign) = self.foreigners.of(self.method.maker) {
            return foreign.write(plain, out);
        }
        if self.method.level == 0 {
            return self.store(plain, out);
        }
        while !plain.is_empty() {
            if self.job_left == 0 {
                self.end_job(out);
            }
            let taken = self.window.fill(&plain[..plain.len().min(self.job_left)]);
            plain = &plain[taken..];
            if self.method.maker == Maker::Pigz {
                self.job_left -= taken;
                self.window.catch_up(&Rolling::new(chain_bits(&self.method)));
            }
            if self.window.is_full() {
                self.run(false, out);
            }
        }
    }

    /// Appends the rest of the stream to `out`. [`Self::reset`] begins the next.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(foreign) = self.foreigners.of(self.method.maker) {
            return foreign.finish(out);
        }
        if self.method.level == 0 {
            write_stored(&self.stored, true, &mut self.bits, out);
            self.stored.clear();
            return;
        }
        self.window.end(self.method.maker == Maker::Gzip);
        self.run(true, out);
        self.flush(true, out);
    }

    /// Writes what is there up to a whole byte, as pigz's `compress_thread` does, and resets.
    fn end_job(&mut self, out: &mut Vec<u8>) {
        self.window.end(false);
        self.run(true, out);
        if !self.block.is_empty() {
            self.flush(false, out);
        }
        if self.bits.waiting() % 2 == 1 {
            write_stored(&[], false, &mut self.bits, out);
        }
        while self.bits.waiting() > 0 {
            // An empty block of the fixed codes has ten bits.
            self.bits.put(1 << 1, 10, out);
        }
        self.length = MATCH_MIN - 1;
        self.window.prime(&Rolling::new(chain_bits(&self.method)));
        self.job_left = JOB_BYTES;
    }

    fn store(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            if self.stored.len() == STORED_BYTES_MAX {
                write_stored(&self.stored, false, &mut self.bits, out);
                self.stored.clear();
            }
            let taken = plain.len().min(STORED_BYTES_MAX - self.stored.len());
            self.stored.extend_from_slice(&plain[..taken]);
            plain = &plain[taken..];
        }
    }

    fn run(&mut self, last: bool, out: &mut Vec<u8>) {
        match self.method.strategy {
            Strategy::Huffman => return self.huffman(last, out),
            Strategy::Runs => return self.runs(last, out),
            Strategy::Default | Strategy::Filtered | Strategy::Fixed => {}
        }
        let bits = chain_bits(&self.method);
        match self.method.maker {
            Maker::Gzip => self.search::<true, true>(last, Rolling::new(bits), out),
            Maker::Zip => self.search::<true, false>(last, Rolling::new(bits), out),
            Maker::EarlyChromium | Maker::CastagnoliChromium if self.method.level >= 6 => {
                self.search::<false, false>(last, Castagnoli::<3>::new(bits), out);
            }
            Maker::EarlyChromium | Maker::CastagnoliChromium => {
                self.search::<false, false>(last, Castagnoli::<4>::new(bits), out);
            }
            Maker::Chromium => self.search::<false, false>(last, Multiplicative::new(bits), out),
            // Zlib: other makers have encoders of their own.
            _ => self.search::<false, false>(last, Rolling::new(bits), out),
        }
    }

    /// Searches for copies. `GZIP` ends blocks as GNU gzip and Info-ZIP do; `PAST_END` searches past the end of the input, as GNU
    /// gzip does.
    fn search<const GZIP: bool, const PAST_END: bool>(
        &mut self,
        last: bool,
        hash: impl Hash,
        out: &mut Vec<u8>,
    ) {
        if self.method.level <= 3 {
            self.greedy::<GZIP, PAST_END>(last, hash, out);
        } else {
            self.lazy::<GZIP, PAST_END>(last, hash, out);
        }
    }

    /// Returns whether there is enough ahead to go on; slides the window if not.
    #[inline]
    fn goes_on(&mut self, last: bool, ahead_min: usize) -> bool {
        if self.window.ahead >= ahead_min {
            return true;
        }
        self.window.slide();
        last && self.window.ahead > 0
    }

    /// Levels 1 to 3: takes each copy that it finds.
    fn greedy<const GZIP: bool, const PAST_END: bool>(
        &mut self,
        last: bool,
        hash: impl Hash,
        out: &mut Vec<u8>,
    ) {
        let effort = EFFORTS[usize::from(self.method.level)];
        while self.goes_on(last, AHEAD_MIN) {
            let at = self.window.at;
            let mut length = 0;
            if self.window.ahead >= MATCH_MIN {
                length = self.window.search_links::<PAST_END>(Some(MATCH_MIN - 1), &effort, &hash);
            }
            let full = if length >= MATCH_MIN {
                let mut full = self.block.copy(at - self.window.found, length);
                full |= GZIP && self.ends_early(at);
                self.window.ahead -= length;
                self.window.at += length;
                if length <= effort.lazy && self.window.ahead >= MATCH_MIN {
                    for inner in at + 1..at + length {
                        self.window.insert(inner, &hash);
                    }
                }
                full
            } else {
                let byte = self.window.byte(at);
                self.window.ahead -= 1;
                self.window.at += 1;
                self.block.literal(byte) | (GZIP && self.ends_early(at))
            };
            if full {
                self.flush(false, out);
            }
        }
    }

    /// Levels 4 to 9: takes a copy only when the next byte does not begin a longer one.
    fn lazy<const GZIP: bool, const PAST_END: bool>(
        &mut self,
        last: bool,
        hash: impl Hash,
        out: &mut Vec<u8>,
    ) {
        let effort = EFFORTS[usize::from(self.method.level)];
        let filtered = self.method.strategy == Strategy::Filtered;
        self.window.choose();
        let is_sorted = self.window.is_sorted();
        while self.goes_on(last, AHEAD_MIN) {
            let at = self.window.at;
            let (before, before_found) = (self.length, self.window.found);
            let least = Some(before).filter(|before| *before < effort.lazy);
            let mut length = match least {
                _ if self.window.ahead < MATCH_MIN => 0,
                Some(least) if is_sorted => self.window.search_sorted::<PAST_END, _>(least, &effort, &hash),
                None if is_sorted => 0,
                _ => self.window.search_links::<PAST_END>(least, &effort, &hash),
            };
            let far = || at.wrapping_sub(self.window.found) > SHORT_DISTANCE_MAX;
            if length <= 5 && (filtered || length < MATCH_MIN || length == MATCH_MIN && far()) {
                length = MATCH_MIN - 1;
            }
            if before >= MATCH_MIN && length <= before {
                let insert_end = at + self.window.ahead - (MATCH_MIN - 1);
                let mut full = self.block.copy((at - 1).wrapping_sub(before_found), before);
                full |= GZIP && self.ends_early(at);
                let next = at + before - 1;
                if !is_sorted {
                    for inner in at + 1..next.min(insert_end) {
                        self.window.insert(inner, &hash);
                    }
                }
                self.window.ahead -= before - 1;
                self.window.at = next;
                (self.waiting, self.length) = (false, MATCH_MIN - 1);
                if full {
                    self.flush(false, out);
                }
                continue;
            }
            self.length = length;
            if self.waiting {
                let full = self.block.literal(self.window.byte(at - 1));
                if full | (GZIP && self.ends_early(at)) {
                    self.flush(false, out);
                }
            }
            self.waiting = true;
            self.window.at += 1;
            self.window.ahead -= 1;
        }
        if last && self.waiting {
            self.block.literal(self.window.byte(self.window.at - 1));
            self.waiting = false;
        }
    }

    /// Returns whether a block seems to be coded well enough to end here (`ct_tally` of GNU gzip and Info-ZIP).
    fn ends_early(&self, at: usize) -> bool {
        let bytes = (at as isize - self.window.block).unsigned_abs();
        self.method.level > 2 && self.block.ends_early(bytes)
    }

    fn huffman(&mut self, last: bool, out: &mut Vec<u8>) {
        while self.goes_on(last, 1) {
            let full = self.block.literal(self.window.byte(self.window.at));
            self.window.at += 1;
            self.window.ahead -= 1;
            if full {
                self.flush(false, out);
            }
        }
    }

    fn runs(&mut self, last: bool, out: &mut Vec<u8>) {
        while self.goes_on(last, MATCH_MAX + 1) {
            let run = self.window.run();
            let (length, full) = if run >= MATCH_MIN {
                (run, self.block.copy(1, run))
            } else {
                (1, self.block.literal(self.window.byte(self.window.at)))
            };
            self.window.at += length;
            self.window.ahead -= length;
            if full {
                self.flush(false, out);
            }
        }
    }

    fn flush(&mut self, last: bool, out: &mut Vec<u8>) {
        self.block.write(self.window.block_bytes(), last, &mut self.bits, out);
        self.window.block = self.window.at as isize;
    }
}

/// Returns zlib's `hash_bits`; Chromium's fork has no smaller tables.
fn chain_bits(method: &Method) -> u32 {
    let bits = u32::from(method.memory) + 7;
    match method.maker {
        Maker::Gzip | Maker::Zip | Maker::EarlyChromium => 15,
        Maker::CastagnoliChromium | Maker::Chromium => bits.max(15),
        _ => bits,
    }
}

/// Returns zlib's `lit_bufsize`.
fn symbols(method: &Method) -> usize {
    if matches!(method.maker, Maker::Gzip | Maker::Zip) { 32_768 } else { 1 << (method.memory + 6) }
}
