//! The sliding window and the chains of positions that begin alike.
//!
//! Source of the algorithm: `fill_window`, `slide_hash` and `longest_match` of zlib's deflate.c. Positions
//! have 16 bits and slide with the window as there: which candidates are in reach is part of the promise.

use super::finder::Hash;

/// Longest copy.
pub(super) const MATCH_MAX: usize = 258;
/// Shortest copy.
pub(super) const MATCH_MIN: usize = 3;
/// With fewer bytes ahead, the window needs more: a longest copy and the start of the next.
pub(super) const AHEAD_MIN: usize = MATCH_MAX + MATCH_MIN + 1;
/// Both halves of the largest window, and the bytes past its end that a comparison reads (and rejects as too long).
const WINDOW_BYTES: usize = 65_536 + MATCH_MAX + 14;
/// As many chains as the largest memory level asks for.
const CHAINS: usize = 65_536;
const LINKS: usize = 32_768;

/// How hard to search; a row of zlib's `configuration_table`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// From this length on only a quarter of the chain is tried.
    pub(super) good: usize,
    /// From this length on no better copy is looked for (or, at levels 1 to 3, no inner position kept).
    pub(super) lazy: usize,
    /// A copy of this length ends the search.
    pub(super) nice: usize,
    /// Candidates tried.
    pub(super) chain: u32,
}

pub(super) struct Window {
    bytes: Box<[u8; WINDOW_BYTES]>,
    heads: Box<[u16; CHAINS]>,
    links: Box<[u16; LINKS]>,
    /// Bytes of half the window: how far back a copy can reach, about.
    half: usize,
    chains: usize,
    /// Where the next symbol begins.
    pub(super) at: usize,
    /// Bytes known from there on.
    pub(super) ahead: usize,
    /// Where the block begins; before the window if negative.
    pub(super) block: isize,
    /// Where the last copy found begins; modulo the word size if that has left the window.
    pub(super) found: usize,
    slid: bool,
    /// Positions before `at` that are not in their chains yet.
    late: usize,
}

#[expect(clippy::unnecessary_box_returns, reason = "100 KiB, never on the stack")]
fn zeros<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].try_into().unwrap_or_else(|_| unreachable!("the vector has N elements"))
}

impl Window {
    pub(super) fn new(window_bits: u8, chain_bits: u32) -> Self {
        let mut window = Self {
            bytes: zeros(),
            heads: zeros(),
            links: zeros(),
            half: 0,
            chains: 0,
            at: 0,
            ahead: 0,
            block: 0,
            found: 0,
            slid: false,
            late: 0,
        };
        window.reset(window_bits, chain_bits);
        window
    }

    /// Resets.
    pub(super) fn reset(&mut self, window_bits: u8, chain_bits: u32) {
        (self.half, self.chains) = (1 << window_bits, 1 << chain_bits);
        self.heads[..self.chains].fill(0);
        (self.at, self.ahead, self.block, self.found, self.slid, self.late) = (0, 0, 0, 0, false, 0);
    }

    /// Resets, but the last bytes, at most half the window, can still be copied. No input may be pending.
    pub(super) fn prime(&mut self, hash: &impl Hash) {
        let end = self.at;
        let known = end.min(self.half);
        self.bytes.copy_within(end - known..end, 0);
        self.heads[..self.chains].fill(0);
        (self.at, self.block, self.found, self.slid) = (known, known as isize, 0, false);
        self.late = known.min(MATCH_MIN - 1);
        for at in 0..known - self.late {
            self.insert(at, hash);
        }
    }

    /// Adds positions before the start to their chains, once later bytes have completed their hashes.
    pub(super) fn catch_up(&mut self, hash: &impl Hash) {
        while self.late > 0 && MATCH_MIN <= self.late + self.ahead {
            self.insert(self.at - self.late, hash);
            self.late -= 1;
        }
    }

    /// Takes as much of `plain` as fits and returns its length; nothing fits into a full window.
    pub(super) fn fill(&mut self, plain: &[u8]) -> usize {
        let end = self.at + self.ahead;
        let length = plain.len().min(2 * self.half - end);
        self.bytes[end..end + length].copy_from_slice(&plain[..length]);
        self.ahead += length;
        length
    }

    pub(super) fn is_full(&self) -> bool {
        self.at + self.ahead == 2 * self.half
    }

    /// Zeroes the bytes past the end that a hash or a comparison may read in a stream that never slid.
    pub(super) fn end(&mut self, gzip: bool) {
        let end = self.at + self.ahead;
        if !self.slid {
            self.bytes[end..(end + MATCH_MAX + 8).min(WINDOW_BYTES)].fill(0);
        } else if gzip {
            self.bytes[end..end + MATCH_MIN - 1].fill(0);
        }
    }

    /// Moves the upper half down if the lower one is out of reach.
    pub(super) fn slide(&mut self) {
        if self.at < self.half + self.reach() {
            return;
        }
        let end = self.at + self.ahead;
        self.bytes.copy_within(self.half..end, 0);
        self.at -= self.half;
        self.found = self.found.wrapping_sub(self.half);
        self.block -= self.half as isize;
        let half = u16::try_from(self.half).expect("at most 32,768");
        for position in self.heads[..self.chains].iter_mut().chain(&mut self.links[..self.half]) {
            *position = position.saturating_sub(half);
        }
        self.slid = true;
    }

    /// Returns the farthest a copy may begin back.
    #[inline]
    pub(super) fn reach(&self) -> usize {
        self.half - AHEAD_MIN
    }

    #[inline]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// Returns the bytes of the block, if they all are still here.
    pub(super) fn block_bytes(&self) -> Option<&[u8]> {
        usize::try_from(self.block).ok().map(|begin| &self.bytes[begin..self.at])
    }

    /// Returns the bytes equal to the one before `at`, from `at` on; at most a longest copy.
    pub(super) fn run(&self) -> usize {
        if self.ahead < MATCH_MIN || self.at == 0 {
            return 0;
        }
        let before = self.bytes[self.at - 1];
        let ahead = &self.bytes[self.at..self.at + self.ahead.min(MATCH_MAX)];
        ahead.iter().position(|byte| *byte != before).unwrap_or(ahead.len())
    }

    #[inline]
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// Adds a position to its chain and returns the one before it there; 0 is none.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, hash: &impl Hash) -> usize {
        let chain = hash.chain(self.word(at));
        let head = self.heads[chain & (CHAINS - 1)];
        self.links[at & (self.half - 1) & (LINKS - 1)] = head;
        self.heads[chain & (CHAINS - 1)] = at as u16;
        usize::from(head)
    }

    /// Looks along a chain for a copy longer than `least`, which is at least 2; returns its length and
    /// leaves where it begins in `found`. With none found the length is `least`, or what is ahead. GNU gzip
    /// goes on past the end of the input for the longest.
    #[inline]
    pub(super) fn search<const PAST_END: bool>(
        &mut self,
        mut candidate: usize,
        least: usize,
        effort: &Effort,
    ) -> usize {
        let scan = self.at;
        let limit = scan.saturating_sub(self.reach());
        let mut chain = if least >= effort.good { effort.chain >> 2 } else { effort.chain };
        let nice = if PAST_END { effort.nice } else { effort.nice.min(self.ahead) };
        let mut best = least;
        // A longer copy agrees in the four bytes that end just past the best one; in three if that has two.
        let (mut tail_at, mut tail_mask) = if best < 3 { (0, 0x00ff_ffff) } else { (best - 3, u32::MAX) };
        let mut tail = self.word(scan + tail_at) & tail_mask;
        loop {
            if self.word(candidate + tail_at) & tail_mask == tail {
                let length = common(&self.bytes[..], candidate, scan);
                if length > best {
                    (self.found, best) = (candidate, length);
                    if length >= nice {
                        break;
                    }
                    (tail_at, tail_mask) = (best - 3, u32::MAX);
                    tail = self.word(scan + tail_at);
                }
            }
            candidate = usize::from(self.links[candidate & (self.half - 1) & (LINKS - 1)]);
            if candidate <= limit {
                break;
            }
            chain -= 1;
            if chain == 0 {
                break;
            }
        }
        best.min(self.ahead)
    }
}

/// Returns the length of the common bytes at two positions of `bytes`, at most a longest copy; bytes past the end of the input may
/// count. After either position there are more than that.
#[inline]
pub(super) fn common(bytes: &[u8], one: usize, other: usize) -> usize {
    let (one, _) = bytes[one..one + MATCH_MAX + 6].as_chunks::<8>();
    let (other, _) = bytes[other..other + MATCH_MAX + 6].as_chunks::<8>();
    for (at, (one, other)) in one.iter().zip(other).enumerate() {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differ != 0 {
            return (at * 8 + (differ.trailing_zeros() / 8) as usize).min(MATCH_MAX);
        }
    }
    MATCH_MAX
}
