//! Collects the symbols of a block and writes it in the shortest of the three forms.
//!
//! Source of the algorithm: `_tr_tally`, `_tr_flush_block`, `scan_tree` and `send_tree` of zlib's trees.c.

use super::bits::BitWriter;
use super::codes::{
    DISTANCE_EXTRA, DISTANCES, END, FIXED_DISTANCE_BITS, FIXED_LITERAL_BITS, LENGTH_BASE, LENGTH_CODE,
    LENGTH_EXTRA, LITERALS, RUN_EXTRA, RUNS, distance_code,
};
use super::symbols::{self, Run, Symbol, fix, lengths_sent, write_codes, write_stored, write_symbols};
use super::tree::{Alphabet, Builder, Code, Cost};

const LITERAL_ALPHABET: Alphabet =
    Alphabet { extra: &LENGTH_EXTRA, extra_from: LENGTH_BASE, fixed: &FIXED_LITERAL_BITS, bits_max: 15 };
const DISTANCE_ALPHABET: Alphabet =
    Alphabet { extra: &DISTANCE_EXTRA, extra_from: 0, fixed: &FIXED_DISTANCE_BITS, bits_max: 15 };
const RUN_ALPHABET: Alphabet = Alphabet { extra: &RUN_EXTRA, extra_from: 0, fixed: &[], bits_max: 7 };

/// The symbols since the last block, how often each occurs, and room to build codes.
pub(super) struct Block {
    symbols: Vec<Symbol>,
    symbols_max: usize,
    literal_counts: [u16; LITERALS],
    distance_counts: [u16; DISTANCES],
    literals: Code<LITERALS>,
    distances: Code<DISTANCES>,
    run_code: Code<RUNS>,
    runs: Vec<Run>,
    builder: Builder,
    fixed_only: bool,
}

impl Block {
    /// Creates a block for one symbol less than `symbols`, with `fixed_only` of the fixed codes alone.
    pub(super) fn new(symbols: usize, fixed_only: bool) -> Self {
        let mut block = Self {
            symbols: Vec::with_capacity(symbols),
            symbols_max: 0,
            literal_counts: [0; LITERALS],
            distance_counts: [0; DISTANCES],
            literals: Code::new(),
            distances: Code::new(),
            run_code: Code::new(),
            runs: Vec::with_capacity(LITERALS + DISTANCES),
            builder: Builder::new(),
            fixed_only,
        };
        block.reset(symbols, fixed_only);
        block
    }

    /// Resets.
    pub(super) fn reset(&mut self, symbols: usize, fixed_only: bool) {
        (self.symbols_max, self.fixed_only) = (symbols - 1, fixed_only);
        self.clear();
    }

    fn clear(&mut self) {
        self.symbols.clear();
        self.literal_counts.fill(0);
        self.distance_counts.fill(0);
        self.literal_counts[END] = 1;
    }

    /// Adds a literal; returns whether the block is full.
    #[inline]
    pub(super) fn literal(&mut self, byte: u8) -> bool {
        self.symbols.push(u32::from(byte));
        self.literal_counts[usize::from(byte)] += 1;
        self.symbols.len() == self.symbols_max
    }

    /// Adds a copy of 3 to 258 bytes from 1 to 32,768 bytes before; returns whether the block is full.
    #[inline]
    pub(super) fn copy(&mut self, distance: usize, length: usize) -> bool {
        self.symbols.push(symbols::copy(distance, length));
        self.literal_counts[LENGTH_BASE + usize::from(LENGTH_CODE[(length - 3) & 255])] += 1;
        self.distance_counts[distance_code(distance - 1)] += 1;
        self.symbols.len() == self.symbols_max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// Returns whether GNU gzip ends the block here, asked once in 4,096 symbols: at few copies, and at less than half of `plain`
    /// bytes by a rough bound.
    pub(super) fn ends_early(&self, plain: usize) -> bool {
        let symbols = self.symbols.len();
        if !symbols.is_multiple_of(4096) {
            return false;
        }
        let codes = self.distance_counts.iter().zip(DISTANCE_EXTRA);
        let bits: usize = codes.map(|(count, extra)| usize::from(*count) * (5 + usize::from(extra))).sum();
        let copies: usize = self.distance_counts.iter().map(|count| usize::from(*count)).sum();
        copies < symbols / 2 && (symbols * 8 + bits) / 8 < plain / 2
    }

    /// Writes the block; `plain` are its plain bytes, unless they have left the window.
    pub(super) fn write(
        &mut self,
        plain: Option<&[u8]>,
        last: bool,
        bits: &mut BitWriter,
        out: &mut Vec<u8>,
    ) {
        let mut cost = Cost::default();
        self.builder.build(&self.literal_counts, &LITERAL_ALPHABET, &mut self.literals, &mut cost);
        self.builder.build(&self.distance_counts, &DISTANCE_ALPHABET, &mut self.distances, &mut cost);
        let fixed_bytes = (cost.fixed + 3 + 7) >> 3;
        self.build_runs(&mut cost);
        let own_bytes = (cost.own + 3 + 7) >> 3;
        let fixed = fixed_bytes <= own_bytes || self.fixed_only;
        let best = if fixed { fixed_bytes } else { own_bytes };
        let flag = u64::from(last);
        if let Some(plain) = plain.filter(|plain| plain.len() as i64 + 4 <= best) {
            write_stored(plain, last, bits, out);
        } else if fixed {
            bits.put(1 << 1 | flag, 3, out);
            fix(&mut self.literals, &mut self.distances);
            self.write_symbols(bits, out);
        } else {
            bits.put(2 << 1 | flag, 3, out);
            let codes = (&self.literals, &self.distances);
            write_codes(codes, (&self.runs, &self.run_code), bits, out);
            self.write_symbols(bits, out);
        }
        self.clear();
        if last {
            bits.align(out);
        }
    }

    /// Makes the code for the code lengths.
    fn build_runs(&mut self, cost: &mut Cost) {
        self.runs.clear();
        append_runs(&self.literals.bits[..=self.literals.last], &mut self.runs);
        append_runs(&self.distances.bits[..=self.distances.last], &mut self.runs);
        let mut counts = [0; RUNS];
        for (symbol, _) in &self.runs {
            counts[usize::from(*symbol)] += 1;
        }
        self.builder.build(&counts, &RUN_ALPHABET, &mut self.run_code, cost);
        cost.own += 3 * lengths_sent(&self.run_code) as i64 + 5 + 5 + 4;
    }

    fn write_symbols(&self, bits: &mut BitWriter, out: &mut Vec<u8>) {
        write_symbols(self.symbols.iter().copied(), (&self.literals, &self.distances), bits, out);
    }
}

/// Appends the run-length form of code lengths, RFC 1951 section 3.2.7, cut into runs as zlib cuts them.
fn append_runs(lengths: &[u8], runs: &mut Vec<Run>) {
    let (mut count, mut before) = (0u8, None);
    let (mut most, mut least) = if lengths[0] == 0 { (138, 3) } else { (7, 4) };
    for (at, length) in lengths.iter().enumerate() {
        let next = lengths.get(at + 1);
        count += 1;
        if count < most && next == Some(length) {
            continue;
        }
        if count < least {
            runs.extend((0..count).map(|_| (*length, 0)));
        } else if *length != 0 {
            if before != Some(length) {
                runs.push((*length, 0));
                count -= 1;
            }
            runs.push((16, count - 3));
        } else if count <= 10 {
            runs.push((17, count - 3));
        } else {
            runs.push((18, count - 11));
        }
        (count, before) = (0, Some(length));
        (most, least) = match next {
            Some(0) => (138, 3),
            same if same == Some(length) => (6, 3),
            _ => (7, 4),
        };
    }
}
