//! Collects the symbols of a block and writes it as Go does.
//!
//! Source of the algorithm: `writeBlock`, `writeBlockDynamic`, `writeBlockHuff`, `indexTokens` and
//! `generateCodegen` of Go's `compress/flate/huffman_bit_writer.go` (The Go Authors, BSD licence).

use super::super::bits::BitWriter;
use super::super::codes::{
    DISTANCE_EXTRA, DISTANCES, END, FIXED_DISTANCE_BITS, FIXED_LITERAL_BITS, LENGTH_BASE, LENGTH_CODE,
    LENGTH_EXTRA, LITERALS, RUN_EXTRA, RUNS, distance_code,
};
use super::super::symbols::{self, Run, Symbol, fix, lengths_sent, write_codes, write_stored, write_symbols};
use super::super::tree::Code;
use super::STORED_BYTES_MAX;
use super::huffman::Builder;

/// 3 bits for the form of the block, 5, 5 and 4 for how many lengths follow.
const HEAD_BITS: usize = 3 + 5 + 5 + 4;

/// The symbols since the last block, and room to build codes.
pub(super) struct Block {
    symbols: Vec<Symbol>,
    literal_counts: [u32; LITERALS],
    distance_counts: [u32; DISTANCES],
    literals: Code<LITERALS>,
    distances: Code<DISTANCES>,
    run_code: Code<RUNS>,
    lengths: Vec<u8>,
    runs: Vec<Run>,
    builder: Builder,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            symbols: Vec::new(),
            literal_counts: [0; LITERALS],
            distance_counts: [0; DISTANCES],
            literals: Code::new(),
            distances: Code::new(),
            run_code: Code::new(),
            lengths: Vec::with_capacity(LITERALS + DISTANCES),
            runs: Vec::with_capacity(LITERALS + DISTANCES),
            builder: Builder::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Returns how many symbols it has.
    #[inline]
    pub(super) fn symbols(&self) -> usize {
        self.symbols.len()
    }

    #[inline]
    pub(super) fn literal(&mut self, byte: u8) {
        self.symbols.push(Symbol::from(byte));
    }

    #[inline]
    pub(super) fn literals(&mut self, bytes: &[u8]) {
        self.symbols.extend(bytes.iter().map(|byte| Symbol::from(*byte)));
    }

    /// Adds a copy of 4 to 258 bytes from 1 to 32,768 bytes before.
    #[inline]
    pub(super) fn copy(&mut self, distance: usize, length: usize) {
        self.symbols.push(symbols::copy(distance, length));
    }

    /// Writes the block in the shortest form; `plain` are its plain bytes, unless they have left the window.
    pub(super) fn write(&mut self, plain: Option<&[u8]>, bits: &mut BitWriter, out: &mut Vec<u8>) {
        self.count();
        let own = self.build();
        let plain = plain.filter(|plain| plain.len() <= STORED_BYTES_MAX);
        let extra = self.extra_bits();
        let fixed = 3
            + cost(&self.literal_counts, &FIXED_LITERAL_BITS)
            + cost(&self.distance_counts, &FIXED_DISTANCE_BITS);
        if let Some(plain) = plain.filter(|plain| stored_bits(plain) < own.min(fixed) + extra) {
            write_stored(plain, false, bits, out);
        } else {
            if own < fixed {
                self.write_codes(bits, out);
            } else {
                bits.put(1 << 1, 3, out);
                fix(&mut self.literals, &mut self.distances);
            }
            write_symbols(self.symbols.iter().copied(), (&self.literals, &self.distances), bits, out);
        }
        self.clear();
    }

    /// Writes the block with codes of its own, or stored where these gain less than a 16th.
    pub(super) fn write_coded(&mut self, plain: &[u8], bits: &mut BitWriter, out: &mut Vec<u8>) {
        self.count();
        let own = self.build();
        if gains_little(plain, own) {
            write_stored(plain, false, bits, out);
        } else {
            self.write_codes(bits, out);
            write_symbols(self.symbols.iter().copied(), (&self.literals, &self.distances), bits, out);
        }
        self.clear();
    }

    /// Writes at most 65,535 bytes as literals, or stored where that gains less than a 16th.
    pub(super) fn write_literals(&mut self, plain: &[u8], bits: &mut BitWriter, out: &mut Vec<u8>) {
        self.clear();
        self.literal_counts.fill(0);
        self.distance_counts.fill(0);
        for byte in plain {
            self.literal_counts[usize::from(*byte)] += 1;
        }
        (self.literal_counts[END], self.distance_counts[0]) = (1, 1);
        let own = self.build();
        if gains_little(plain, own) {
            return write_stored(plain, false, bits, out);
        }
        self.write_codes(bits, out);
        let symbols = plain.iter().map(|byte| Symbol::from(*byte));
        write_symbols(symbols, (&self.literals, &self.distances), bits, out);
    }

    fn count(&mut self) {
        self.literal_counts.fill(0);
        self.distance_counts.fill(0);
        self.literal_counts[END] = 1;
        for symbol in &self.symbols {
            let (distance, low) = ((symbol >> 8) as usize, (symbol & 255) as usize);
            if distance == 0 {
                self.literal_counts[low] += 1;
            } else {
                self.literal_counts[LENGTH_BASE + usize::from(LENGTH_CODE[low])] += 1;
                self.distance_counts[distance_code(distance - 1)] += 1;
            }
        }
        if self.distance_counts.iter().all(|count| *count == 0) {
            self.distance_counts[0] = 1;
        }
    }

    /// Makes the block's own codes; returns the bits of the block with them, without the extra bits of copies.
    fn build(&mut self) -> usize {
        self.builder.build(&self.literal_counts, 15, &mut self.literals);
        self.builder.build(&self.distance_counts, 15, &mut self.distances);
        self.lengths.clear();
        self.lengths.extend_from_slice(&self.literals.bits[..=self.literals.last]);
        self.lengths.extend_from_slice(&self.distances.bits[..=self.distances.last]);
        self.runs.clear();
        append_runs(&self.lengths, &mut self.runs);
        let mut counts = [0; RUNS];
        for (symbol, _) in &self.runs {
            counts[usize::from(*symbol)] += 1;
        }
        self.builder.build(&counts, 7, &mut self.run_code);
        HEAD_BITS
            + 3 * lengths_sent(&self.run_code)
            + cost(&counts, &self.run_code.bits)
            + cost(&counts, &RUN_EXTRA)
            + cost(&self.literal_counts, &self.literals.bits)
            + cost(&self.distance_counts, &self.distances.bits)
    }

    fn extra_bits(&self) -> usize {
        cost(&self.literal_counts[LENGTH_BASE..], &LENGTH_EXTRA)
            + cost(&self.distance_counts, &DISTANCE_EXTRA)
    }

    fn write_codes(&self, bits: &mut BitWriter, out: &mut Vec<u8>) {
        bits.put(2 << 1, 3, out);
        write_codes((&self.literals, &self.distances), (&self.runs, &self.run_code), bits, out);
    }
}

/// Returns the bits of symbols that occur `counts` times and have `bits` each.
fn cost(counts: &[u32], bits: &[u8]) -> usize {
    counts.iter().zip(bits).map(|(count, bits)| *count as usize * usize::from(*bits)).sum()
}

/// Returns the bits of a stored block, as Go counts them.
fn stored_bits(plain: &[u8]) -> usize {
    (plain.len() + 5) * 8
}

fn gains_little(plain: &[u8], coded_bits: usize) -> bool {
    stored_bits(plain) < coded_bits + (coded_bits >> 4)
}

/// Appends the run-length form of code lengths; a run goes on from the literals to the distances.
fn append_runs(lengths: &[u8], runs: &mut Vec<Run>) {
    for run in lengths.chunk_by(|one, next| one == next) {
        let (length, mut left) = (run[0], run.len());
        if length == 0 {
            while left >= 11 {
                let now = left.min(138);
                runs.push((18, (now - 11) as u8));
                left -= now;
            }
            if left >= 3 {
                runs.push((17, (left - 3) as u8));
                left = 0;
            }
        } else {
            runs.push((length, 0));
            left -= 1;
            while left >= 3 {
                let now = left.min(6);
                runs.push((16, (now - 3) as u8));
                left -= now;
            }
        }
        runs.extend((0..left).map(|_| (length, 0)));
    }
}
