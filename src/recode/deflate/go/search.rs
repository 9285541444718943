//! Levels 2 to 9: chains of positions that begin alike, in a window of 64 KiB.
//!
//! Source of the algorithm: `deflate`, `fillDeflate` and `findMatch` of Go's `compress/flate/deflate.go` (The
//! Go Authors, BSD licence), the same in Go 1.8 to 1.26. Which positions are in reach depends on when the
//! window slides, which is part of the promise.

use super::super::bits::BitWriter;
use super::super::window::common;
use super::block::Block;

/// Shortest copy.
const MATCH_MIN: usize = 4;
/// Longest copy.
const MATCH_MAX: usize = 258;
/// With fewer bytes ahead, the window needs more.
const AHEAD_MIN: usize = MATCH_MIN + MATCH_MAX;
/// Half the window, and the farthest a copy can reach.
const HALF: usize = 32 * 1024;
const WINDOW_BYTES: usize = 2 * HALF;
/// From here on the window slides before it takes more.
const SLIDE_AT: usize = WINDOW_BYTES - AHEAD_MIN;
/// A copy of four bytes from farther back costs more than four literals.
const SHORT_DISTANCE_MAX: usize = 4096;
const CHAIN_BITS: u32 = 17;
/// Symbols of a block.
const SYMBOLS_MAX: usize = 1 << 14;

/// How hard to search; a row of Go's `levels`. Its `good` has no effect, as each search begins from no copy.
#[derive(Clone, Copy)]
struct Effort {
    /// From this length on no better copy is searched for. 0: each copy is taken as it is found.
    lazy: usize,
    /// A copy of this length ends the search.
    nice: usize,
    /// Candidates tried.
    chain: u32,
    /// Without laziness, positions inside longer copies are not kept.
    kept: usize,
}

/// From level 2 on.
const EFFORTS: [Effort; 8] = [
    Effort { lazy: 0, nice: 16, chain: 8, kept: 5 },
    Effort { lazy: 0, nice: 32, chain: 32, kept: 6 },
    Effort { lazy: 4, nice: 16, chain: 16, kept: MATCH_MAX },
    Effort { lazy: 16, nice: 32, chain: 32, kept: MATCH_MAX },
    Effort { lazy: 16, nice: 128, chain: 128, kept: MATCH_MAX },
    Effort { lazy: 32, nice: 128, chain: 256, kept: MATCH_MAX },
    Effort { lazy: 128, nice: 258, chain: 1024, kept: MATCH_MAX },
    Effort { lazy: 258, nice: 258, chain: 4096, kept: MATCH_MAX },
];

/// Memory: 450 KiB.
pub(super) struct Search {
    effort: Effort,
    /// The window, and the bytes past its end that a comparison reads and rejects as too long.
    bytes: Vec<u8>,
    /// The last position of each chain, plus 1; 0 is none.
    heads: Vec<u16>,
    /// The position before each one in its chain, plus 1.
    links: Vec<u16>,
    /// Where the next symbol begins.
    at: usize,
    /// End of the bytes known.
    end: usize,
    /// Where the block begins, unless that has left the window.
    block: Option<usize>,
    /// The copy found one byte before; the length is below the shortest where there is none.
    length: usize,
    distance: usize,
    /// True if the byte before is a literal that was not yet written.
    waiting: bool,
    /// True if what is ahead is to be looked at before more is taken.
    paused: bool,
}

impl Search {
    pub(super) fn new(level: u8) -> Self {
        let mut search = Self {
            effort: EFFORTS[0],
            bytes: vec![0; WINDOW_BYTES + MATCH_MAX + 8],
            heads: vec![0; 1 << CHAIN_BITS],
            links: vec![0; HALF],
            at: 0,
            end: 0,
            block: Some(0),
            length: MATCH_MIN - 1,
            distance: 0,
            waiting: false,
            paused: false,
        };
        search.reset(level);
        search
    }

    /// Resets; `level` is at least 2.
    pub(super) fn reset(&mut self, level: u8) {
        self.effort = EFFORTS[usize::from(level).saturating_sub(2).min(7)];
        self.heads.fill(0);
        (self.at, self.end, self.block) = (0, 0, Some(0));
        (self.length, self.waiting, self.paused) = (MATCH_MIN - 1, false, false);
    }

    /// Takes the next bytes.
    pub(super) fn write(
        &mut self,
        mut plain: &[u8],
        block: &mut Block,
        bits: &mut BitWriter,
        out: &mut Vec<u8>,
    ) {
        while !plain.is_empty() {
            if self.paused || self.end == WINDOW_BYTES {
                self.run(false, block, bits, out);
                self.slide();
                self.paused = false;
            }
            let taken = plain.len().min(WINDOW_BYTES - self.end);
            self.bytes[self.end..self.end + taken].copy_from_slice(&plain[..taken]);
            self.end += taken;
            plain = &plain[taken..];
        }
    }

    /// Ends the program's piece: the bytes ahead are searched before the next is taken.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Writes the rest.
    pub(super) fn finish(&mut self, block: &mut Block, bits: &mut BitWriter, out: &mut Vec<u8>) {
        self.run(true, block, bits, out);
        if self.waiting {
            block.literal(self.bytes[self.at - 1]);
            self.waiting = false;
        }
        if block.symbols() > 0 {
            self.flush(self.at, block, bits, out);
        }
    }

    fn run(&mut self, last: bool, block: &mut Block, bits: &mut BitWriter, out: &mut Vec<u8>) {
        if self.effort.lazy == 0 {
            self.greedy(last, block, bits, out);
        } else {
            self.lazy(last, block, bits, out);
        }
    }

    fn slide(&mut self) {
        if self.at < SLIDE_AT {
            return;
        }
        self.bytes.copy_within(HALF..WINDOW_BYTES, 0);
        self.at -= HALF;
        self.end -= HALF;
        self.block = self.block.and_then(|block| block.checked_sub(HALF));
        for position in self.heads.iter_mut().chain(&mut self.links) {
            *position = position.saturating_sub(HALF as u16);
        }
    }

    #[inline]
    fn goes_on(&self, last: bool) -> bool {
        let ahead = self.end - self.at;
        ahead >= AHEAD_MIN || last && ahead > 0
    }

    /// Levels 2 and 3: takes each copy that it finds.
    fn greedy(&mut self, last: bool, block: &mut Block, bits: &mut BitWriter, out: &mut Vec<u8>) {
        while self.goes_on(last) {
            let at = self.at;
            let head = self.insert(at);
            if let Some((length, distance)) = self.search(head) {
                block.copy(distance, length);
                self.at += length;
                if length <= self.effort.kept {
                    for inner in at + 1..at + length {
                        self.insert(inner);
                    }
                }
            } else {
                block.literal(self.bytes[at]);
                self.at += 1;
            }
            if block.symbols() == SYMBOLS_MAX {
                self.flush(self.at, block, bits, out);
            }
        }
    }

    /// Levels 4 to 9: takes a copy only when the next byte does not begin a longer one.
    fn lazy(&mut self, last: bool, block: &mut Block, bits: &mut BitWriter, out: &mut Vec<u8>) {
        while self.goes_on(last) {
            let at = self.at;
            let head = self.insert(at);
            let (before, before_distance) = (self.length, self.distance);
            let wanted = before < self.effort.lazy && self.end - at > before;
            let found = if wanted { self.search(head) } else { None };
            (self.length, self.distance) = found.unwrap_or((MATCH_MIN - 1, 0));
            if before >= MATCH_MIN && self.length <= before {
                block.copy(before_distance, before);
                self.at += before - 1;
                for inner in at + 1..self.at {
                    self.insert(inner);
                }
                (self.waiting, self.length) = (false, MATCH_MIN - 1);
                if block.symbols() == SYMBOLS_MAX {
                    self.flush(self.at, block, bits, out);
                }
                continue;
            }
            if self.waiting {
                block.literal(self.bytes[at - 1]);
                if block.symbols() == SYMBOLS_MAX {
                    self.flush(at, block, bits, out);
                }
            }
            self.waiting = true;
            self.at += 1;
        }
    }

    /// Ends the block before `end`.
    fn flush(&mut self, end: usize, block: &mut Block, bits: &mut BitWriter, out: &mut Vec<u8>) {
        block.write(self.block.map(|begin| &self.bytes[begin..end]), bits, out);
        self.block = Some(end);
    }

    #[inline]
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// Adds a position to its chain and returns the one before it there, plus 1; 0 with less than four bytes ahead.
    #[inline]
    fn insert(&mut self, at: usize) -> u16 {
        if at + MATCH_MIN > self.end {
            return 0;
        }
        let chain = self.word(at).swap_bytes().wrapping_mul(0x1e35_a7bd) >> (32 - CHAIN_BITS);
        let head = &mut self.heads[chain as usize];
        self.links[at % HALF] = *head;
        std::mem::replace(head, at as u16 + 1)
    }

    /// Searches a chain for the longest copy; returns its length and distance.
    #[inline]
    fn search(&self, head: u16) -> Option<(usize, usize)> {
        let at = self.at;
        let limit = at.saturating_sub(HALF);
        let most = MATCH_MAX.min(self.end - at);
        let nice = self.effort.nice.min(most);
        let mut candidate = usize::from(head).checked_sub(1).filter(|candidate| *candidate >= limit)?;
        let (mut length, mut distance) = (MATCH_MIN - 1, 0);
        // A longer copy must agree in the four bytes that end just past the best one.
        let mut tail = self.word(at + length - 3);
        for _ in 0..self.effort.chain {
            if self.word(candidate + length - 3) == tail {
                let common = common(&self.bytes[..], candidate, at).min(most);
                if common > length && (common > MATCH_MIN || at - candidate <= SHORT_DISTANCE_MAX) {
                    (length, distance) = (common, at - candidate);
                    if common >= nice {
                        break;
                    }
                    tail = self.word(at + length - 3);
                }
            }
            // The link of the farthest position within reach already belongs to `at`.
            if at - candidate == HALF {
                break;
            }
            match usize::from(self.links[candidate % HALF]).checked_sub(1) {
                Some(next) if next >= limit => candidate = next,
                _ => break,
            }
        }
        (length >= MATCH_MIN).then_some((length, distance))
    }
}
