//! Level 1: blocks of 65,535 bytes, one candidate for each hash.
//!
//! Source of the algorithm: `encode` of Go's `compress/flate/deflatefast.go` (The Go Authors, BSD licence), itself
//! from Snappy, and `encSpeed` of its `deflate.go`; the same in Go 1.8 to 1.26.

use super::STORED_BYTES_MAX;
use super::block::Block;

/// Longest copy.
const MATCH_MAX: usize = 258;
const REACH: u32 = 32 * 1024;
const TABLE_BITS: u32 = 14;
/// Bytes before the end of a block in which no copy is searched for.
const MARGIN: usize = 15;
/// No copy reaches back to the entries of an empty table from here on.
const FIRST: u32 = 2 * REACH;
/// 16 MiB: positions restart here, far below their limit.
const RENUMBER_AT: u32 = 1 << 24;

/// Four bytes, and where they stood.
#[derive(Clone, Copy, Default)]
struct Entry {
    word: u32,
    position: u32,
}

/// Memory: 256 KiB.
pub(super) struct Fast {
    table: Vec<Entry>,
    /// The last block, and the current one.
    bytes: Vec<u8>,
    /// Where the current one begins.
    begin: usize,
    /// The position of its first byte.
    first: u32,
}

impl Fast {
    pub(super) fn new() -> Self {
        Self {
            table: vec![Entry::default(); 1 << TABLE_BITS],
            bytes: Vec::with_capacity(2 * STORED_BYTES_MAX),
            begin: 0,
            first: FIRST,
        }
    }

    /// Resets.
    pub(super) fn reset(&mut self) {
        self.table.fill(Entry::default());
        self.bytes.clear();
        (self.begin, self.first) = (0, FIRST);
    }

    /// Takes as much as fits into the block and returns its length; nothing fits into a full one.
    pub(super) fn fill(&mut self, plain: &[u8]) -> usize {
        let length = plain.len().min(STORED_BYTES_MAX - self.plain().len());
        self.bytes.extend_from_slice(&plain[..length]);
        length
    }

    /// Returns the bytes of the present block.
    pub(super) fn plain(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }

    /// Begins the next block; the current one becomes the last.
    pub(super) fn advance(&mut self) {
        self.first += self.plain().len() as u32;
        self.bytes.drain(..self.begin);
        self.begin = self.bytes.len();
        if self.first >= RENUMBER_AT {
            let less = self.first - FIRST;
            for entry in &mut self.table {
                entry.position = entry.position.saturating_sub(less);
            }
            self.first = FIRST;
        }
    }

    /// Adds the symbols of the present block, which has at least 17 bytes.
    pub(super) fn encode(&mut self, block: &mut Block) {
        let limit = self.bytes.len().saturating_sub(MARGIN);
        let mut at = self.begin;
        let mut literals_from = at;
        while let Some((mut begin, mut candidate)) = self.seek(at, limit) {
            block.literals(&self.bytes[literals_from..begin]);
            // One copy after another, as long as each begins where the last ended.
            loop {
                let distance = (self.position(begin) - candidate) as usize;
                let length = self.common(begin - distance, begin);
                block.copy(distance, length);
                at = begin + length;
                literals_from = at;
                if at >= limit {
                    break;
                }
                self.swap(at - 1);
                let entry = self.swap(at);
                if !self.fits(at, entry) {
                    at += 1;
                    break;
                }
                (begin, candidate) = (at, entry.position);
            }
            if literals_from >= limit {
                break;
            }
        }
        block.literals(&self.bytes[literals_from..]);
    }

    /// Returns the next place from `at` on where a copy begins, and its candidate. The longer there is none, the more is skipped.
    fn seek(&mut self, mut at: usize, limit: usize) -> Option<(usize, u32)> {
        let mut skip = 32;
        loop {
            let step = skip >> 5;
            skip += step;
            if at + step > limit {
                return None;
            }
            let entry = self.swap(at);
            if self.fits(at, entry) {
                return Some((at, entry.position));
            }
            at += step;
        }
    }

    #[inline]
    fn position(&self, at: usize) -> u32 {
        self.first + (at - self.begin) as u32
    }

    #[inline]
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// Puts a place of the current block into the table and returns the entry that was there.
    #[inline]
    fn swap(&mut self, at: usize) -> Entry {
        let word = self.word(at);
        // The byte before the block belongs to the one before.
        let position = self.first.wrapping_add((at as u32).wrapping_sub(self.begin as u32));
        let slot = word.wrapping_mul(0x1e35_a7bd) >> (32 - TABLE_BITS);
        std::mem::replace(&mut self.table[slot as usize], Entry { word, position })
    }

    #[inline]
    fn fits(&self, at: usize, entry: Entry) -> bool {
        self.position(at) - entry.position <= REACH && self.word(at) == entry.word
    }

    /// Returns the length of what two places have in common, which is at least 4 and at most a longest copy.
    fn common(&self, one: usize, other: usize) -> usize {
        let other = &self.bytes[other..self.bytes.len().min(other + MATCH_MAX)];
        let pairs = self.bytes[one..].iter().zip(other);
        pairs.take_while(|(one, other)| one == other).count()
    }
}
