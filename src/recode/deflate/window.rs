//! The sliding window and the chains of positions that begin alike.
//!
//! Source of the algorithm: `fill_window`, `slide_hash` and `longest_match` of zlib's deflate.c. Positions
//! have 16 bits and slide with the window as there: which candidates are in reach is part of the promise.

use super::finder::Hash;
use super::positions::{CHAINS, Positions, zeros};

/// Longest copy.
pub(super) const MATCH_MAX: usize = 258;
/// Shortest copy.
pub(super) const MATCH_MIN: usize = 3;
/// With fewer bytes ahead, the window needs more: a longest copy and the start of the next.
pub(super) const AHEAD_MIN: usize = MATCH_MAX + MATCH_MIN + 1;
/// Both halves of the largest window, and the bytes past its end that a comparison reads (and rejects as too long).
const WINDOW_BYTES: usize = 65_536 + MATCH_MAX + 14;
const LINKS: usize = 32_768;
/// 16 KiB: sorting has a cost for each chain, too.
const SORTED_MIN: usize = 16 * 1024;

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

impl Effort {
    /// Returns the candidates tried where a copy of `least` bytes is there already.
    #[inline]
    fn chain_from(&self, least: usize) -> u32 {
        if least >= self.good { self.chain >> 2 } else { self.chain }
    }
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
    /// Used instead of `heads` and `links` if `is_sorted`; made for the first such stream, then kept.
    positions: Option<Box<Positions>>,
    is_sorted: bool,
    /// Positions before `at` that are not in their chains yet.
    late: usize,
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
            positions: None,
            is_sorted: false,
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
        self.is_sorted = false;
    }

    /// Chooses sorted positions for the stream that begins, unless it is short. All of it or a whole window must be known, and
    /// every position must be one that zlib adds to its chain.
    pub(super) fn choose(&mut self) {
        if self.at > 0 || self.slid || self.is_sorted || self.half < LINKS || self.ahead < SORTED_MIN {
            return;
        }
        self.positions.get_or_insert_with(|| Box::new(Positions::new())).reset();
        self.is_sorted = true;
    }

    /// Resets, but the last bytes, at most half the window, can still be copied. No input may be pending.
    pub(super) fn prime(&mut self, hash: &impl Hash) {
        let end = self.at;
        let known = end.min(self.half);
        self.bytes.copy_within(end - known..end, 0);
        (self.at, self.block, self.found, self.slid) = (known, known as isize, 0, false);
        if let Some(positions) = self.positions.as_mut().filter(|_| self.is_sorted) {
            positions.reset();
            return;
        }
        self.heads[..self.chains].fill(0);
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
        self.slid = true;
        if let Some(positions) = self.positions.as_mut().filter(|_| self.is_sorted) {
            positions.slide(self.half);
            return;
        }
        let half = u16::try_from(self.half).expect("at most 32,768");
        for positions in [&mut self.heads[..self.chains], &mut self.links[..self.half]] {
            for position in positions {
                *position = position.saturating_sub(half);
            }
        }
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

    /// Adds a position to its chain and returns the one before it there; 0 is none.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, hash: &impl Hash) -> usize {
        let chain = hash.chain(word(&self.bytes, at));
        let head = self.heads[chain & (CHAINS - 1)];
        self.links[at & (self.half - 1) & (LINKS - 1)] = head;
        self.heads[chain & (CHAINS - 1)] = at as u16;
        usize::from(head)
    }

    /// Adds the position where the next symbol begins to its chain. Looks along the chain for a copy longer than `least`, which
    /// is at least 2; returns its length and leaves where it begins in `found`.
    ///
    /// With none found the length is `least`, or what is ahead; it is 0 with no candidate in reach, or without `least`. GNU gzip
    /// goes on past the end of the input for the longest.
    #[inline]
    pub(super) fn search_links<const PAST_END: bool>(
        &mut self,
        least: Option<usize>,
        effort: &Effort,
        hash: &impl Hash,
    ) -> usize {
        let scan = self.at;
        let head = self.insert(scan, hash);
        let Some(least) = least.filter(|_| head != 0 && scan - head <= self.reach()) else { return 0 };
        let limit = scan.saturating_sub(self.reach());
        let mut best = Best::new::<PAST_END>(&self.bytes, scan, self.ahead, least, effort);
        let mut chain = effort.chain_from(least);
        let mut candidate = head;
        loop {
            if best.may_be_longer(candidate) && best.compare(candidate, &mut self.found) {
                break;
            }
            candidate = usize::from(self.links[candidate & (self.half - 1) & (LINKS - 1)]);
            chain -= 1;
            if candidate <= limit || chain == 0 {
                break;
            }
        }
        best.length.min(self.ahead)
    }

    /// Searches as [`Self::search_links`] does, in sorted positions.
    #[inline]
    pub(super) fn search_sorted<const PAST_END: bool, H: Hash>(
        &mut self,
        least: usize,
        effort: &Effort,
        hash: &H,
    ) -> usize {
        let scan = self.at;
        // The last position of a stream may have too few bytes; it is searched for, and never found.
        let end = scan + self.ahead - (H::BYTES - 1);
        let positions = self.positions.as_mut().expect("they were chosen");
        positions.sort_to(scan, &self.bytes[..], end, self.chains, hash);
        let lists = positions.before(scan, hash.chain(word(&self.bytes, scan)));
        let reach = self.half - AHEAD_MIN;
        let head = usize::from(*lists[0].last().or(lists[1].last()).unwrap_or(&0));
        if head == 0 || scan - head > reach {
            return 0;
        }
        // The first candidate may be one farther away than the others.
        let limit = scan.saturating_sub(reach);
        let limit = if head == limit { limit - 1 } else { limit };
        let mut best = Best::new::<PAST_END>(&self.bytes, scan, self.ahead, least, effort);
        let mut chain = effort.chain_from(least) as usize;
        'lists: for list in lists {
            let mut tried = &list[list.len().saturating_sub(chain)..];
            chain -= tried.len();
            while let Some(at) = best.last_that_may_be_longer(tried) {
                let candidate = usize::from(tried[at]);
                if candidate <= limit || best.compare(candidate, &mut self.found) {
                    break 'lists;
                }
                tried = &tried[..at];
            }
        }
        best.length.min(self.ahead)
    }

    pub(super) fn is_sorted(&self) -> bool {
        self.is_sorted
    }
}

/// The longest copy found by a search.
struct Best<'a> {
    bytes: &'a [u8; WINDOW_BYTES],
    scan: usize,
    length: usize,
    /// A copy of this length ends the search.
    nice: usize,
    /// A longer copy agrees in the four bytes that end just past this one; in three if this has two.
    tail: u32,
    tail_at: usize,
    tail_mask: u32,
}

impl<'a> Best<'a> {
    #[inline]
    fn new<const PAST_END: bool>(
        bytes: &'a [u8; WINDOW_BYTES],
        scan: usize,
        ahead: usize,
        least: usize,
        effort: &Effort,
    ) -> Self {
        let nice = if PAST_END { effort.nice } else { effort.nice.min(ahead) };
        let (tail_at, tail_mask) = if least < 3 { (0, 0x00ff_ffff) } else { (least - 3, u32::MAX) };
        let tail = word(bytes, scan + tail_at) & tail_mask;
        Self { bytes, scan, length: least, nice, tail, tail_at, tail_mask }
    }

    #[inline]
    fn may_be_longer(&self, candidate: usize) -> bool {
        word(self.bytes, candidate + self.tail_at) & self.tail_mask == self.tail
    }

    /// Returns the index of the last candidate that may be longer.
    #[inline]
    fn last_that_may_be_longer(&self, candidates: &[u16]) -> Option<usize> {
        // As an array its bounds need no check.
        let bytes: &[u8; 65_536 + 3] =
            self.bytes[self.tail_at..].first_chunk().expect("a longest copy after the window");
        let (tail, mask) = (self.tail, self.tail_mask);
        candidates.iter().rposition(|candidate| word(bytes, usize::from(*candidate)) & mask == tail)
    }

    /// Takes the copy from `candidate` if it is longer; returns whether it is long enough to end the search.
    #[expect(clippy::inline_always, reason = "as a call it would keep the search out of registers")]
    #[inline(always)]
    fn compare(&mut self, candidate: usize, found: &mut usize) -> bool {
        let length = common(&self.bytes[..], candidate, self.scan);
        if length > self.length {
            (*found, self.length) = (candidate, length);
            if length >= self.nice {
                return true;
            }
            (self.tail_at, self.tail_mask) = (length - 3, u32::MAX);
            self.tail = word(self.bytes, self.scan + self.tail_at);
        }
        false
    }
}

#[inline]
fn word<const BYTES: usize>(bytes: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
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

#[cfg(test)]
mod tests {
    use super::super::finder::{Castagnoli, Rolling};
    use super::*;

    /// Returns bytes in which chains are long and copies of all lengths occur.
    fn plain(length: usize, mut state: u64) -> Vec<u8> {
        let mut plain = Vec::with_capacity(length + 700);
        while plain.len() < length {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [kind, count, back, byte] = ((state >> 32) as u32).to_le_bytes();
            let from = plain.len().saturating_sub(usize::from(back) * 150);
            match kind % 8 {
                0 => plain.extend_from_within(from..plain.len().min(from + usize::from(count) * 2)),
                1 => plain.extend(std::iter::repeat_n(byte % 3, usize::from(count) % 40)),
                _ => plain.extend([byte % 4, count % 5]),
            }
        }
        plain.truncate(length);
        plain
    }

    fn both_find_the_same(plain: &[u8], effort: &Effort, hash: &impl Hash) {
        let mut windows = [Window::new(15, 15), Window::new(15, 15)];
        let [links, sorted] = &mut windows;
        let mut rest = plain;
        while !rest.is_empty() {
            links.fill(rest);
            rest = &rest[sorted.fill(rest)..];
            sorted.choose();
            assert!(sorted.is_sorted());
            let last = rest.is_empty();
            while sorted.ahead >= MATCH_MIN {
                if sorted.ahead < AHEAD_MIN {
                    links.slide();
                    sorted.slide();
                    if !last {
                        break;
                    }
                }
                let least = MATCH_MIN - 1 + sorted.at % 9 * (sorted.at % 5);
                let expected = links.search_links::<false>(Some(least), effort, hash);
                let length = sorted.search_sorted::<false, _>(least, effort, hash);
                assert_eq!((length, sorted.found), (expected, links.found), "at {}", sorted.at);
                for window in [&mut *links, &mut *sorted] {
                    (window.at, window.ahead) = (window.at + 1, window.ahead - 1);
                }
            }
        }
    }

    #[test]
    fn a_search_finds_the_same_in_sorted_positions_as_along_links() {
        let effort = Effort { good: 8, lazy: 258, nice: 128, chain: 100 };
        for (length, seed) in [(SORTED_MIN, 1), (65_536, 2), (65_537, 3), (98_200, 4), (200_000, 5)] {
            both_find_the_same(&plain(length, seed), &effort, &Rolling::new(15));
            both_find_the_same(&plain(length, seed), &effort, &Castagnoli::<4>::new(15));
        }
        both_find_the_same(&vec![0; 140_000], &effort, &Rolling::new(15));
        // Noise, so that first candidates are as far away as they may be, where others may not.
        let noise = |at: u32| (at.wrapping_mul(at).wrapping_mul(2_654_435_761) >> 24) as u8;
        let far = (0..32_768 - AHEAD_MIN as u32).map(noise).collect::<Vec<_>>().repeat(4);
        both_find_the_same(&far, &effort, &Rolling::new(15));
    }
}
