//! The positions of the window, sorted by their chains.
//!
//! zlib links each position to the one before it in its chain, so each step of a search waits for the last one's memory. Here
//! a chain is a slice, and the processor reads its candidates ahead. They are zlib's, in the same order, if every position is
//! in its chain: at levels 4 to 9.

use super::finder::Hash;

/// As many chains as the largest memory level asks for.
pub(super) const CHAINS: usize = 65_536;
/// Positions that are sorted at once, half of the largest window: a copy reaches back into one part before its own at most.
const PART: usize = 32_768;

/// The latest positions and those before them: all that a copy can reach. Memory: 450 KiB.
pub(super) struct Positions {
    older: Part,
    newer: Part,
    /// The index in `newer` of each of its positions, modulo the size of a part.
    places: Box<[u16; PART]>,
    /// The first position that is not sorted.
    end: usize,
}

/// Positions by chain, rising in each. Those that left the window are 0.
struct Part {
    positions: Box<[u16; PART]>,
    /// Where each chain begins in `positions`; it ends where the next begins.
    begins: Box<[u16; CHAINS + 2]>,
}

#[expect(clippy::unnecessary_box_returns, reason = "100 KiB, never on the stack")]
pub(super) fn zeros<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].try_into().unwrap_or_else(|_| unreachable!("the vector has N elements"))
}

impl Positions {
    pub(super) fn new() -> Self {
        Self { older: Part::new(), newer: Part::new(), places: zeros(), end: 0 }
    }

    /// Forgets all positions.
    pub(super) fn reset(&mut self) {
        self.newer.begins.fill(0);
        self.end = 0;
    }

    /// Sorts the next positions, up to `end`, until `at` is among them.
    #[inline]
    pub(super) fn sort_to(&mut self, at: usize, bytes: &[u8], end: usize, chains: usize, hash: &impl Hash) {
        if self.end <= at {
            self.sort(at, bytes, end, chains, hash);
        }
    }

    #[cold]
    fn sort(&mut self, at: usize, bytes: &[u8], end: usize, chains: usize, hash: &impl Hash) {
        while self.end <= at && self.end < end {
            std::mem::swap(&mut self.older, &mut self.newer);
            let begin = self.end;
            self.end = end.min(begin + PART);
            self.newer.sort(begin, &bytes[begin..self.end + 3], chains, &mut self.places, hash);
        }
    }

    /// Moves down by `half` with the window.
    pub(super) fn slide(&mut self, half: usize) {
        self.end -= half;
        for part in [&mut self.older, &mut self.newer] {
            for position in part.positions.iter_mut() {
                *position = position.saturating_sub(half as u16);
            }
        }
    }

    /// Returns the positions before `at` in its chain, the later ones first, each slice rising. All before it are sorted.
    #[inline]
    pub(super) fn before(&self, at: usize, chain: usize) -> [&[u16]; 2] {
        let chain = chain & (CHAINS - 1);
        let (begin, end) = (self.newer.begins[chain], self.newer.begins[chain + 1]);
        let end = if at < self.end { self.places[at & (PART - 1)] } else { end };
        let newer = &self.newer.positions[usize::from(begin)..usize::from(end)];
        let (begin, end) = (self.older.begins[chain], self.older.begins[chain + 1]);
        [newer, &self.older.positions[usize::from(begin)..usize::from(end)]]
    }
}

impl Part {
    fn new() -> Self {
        Self { positions: zeros(), begins: zeros() }
    }

    /// Sorts the positions from `begin` on, whose `bytes` these are, and three more.
    fn sort(
        &mut self,
        begin: usize,
        bytes: &[u8],
        chains: usize,
        places: &mut [u16; PART],
        hash: &impl Hash,
    ) {
        let begins = &mut self.begins;
        begins[..chains + 2].fill(0);
        for (at, word) in (begin..).zip(bytes.windows(4)) {
            let chain = hash.chain(u32::from_le_bytes(word.try_into().expect("four bytes"))) & (CHAINS - 1);
            places[at & (PART - 1)] = chain as u16;
            begins[chain + 2] += 1;
        }
        let mut sum = 0;
        for begin in &mut begins[2..chains + 2] {
            sum += *begin;
            *begin = sum;
        }
        // Each chain's begin is one further on, and moves to its end.
        for at in begin..begin + bytes.len() - 3 {
            let place = &mut places[at & (PART - 1)];
            let next = &mut begins[usize::from(*place) + 1];
            self.positions[usize::from(*next) & (PART - 1)] = at as u16;
            *place = *next;
            *next += 1;
        }
    }
}
