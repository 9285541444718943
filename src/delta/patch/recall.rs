//! Recalls what followed the same context the last time: a byte to expect, and how long such predictions have held.
//!
//! lpaq's match model, three times: for bytes that replace others, by the old bytes ahead (a name that one place has
//! changed is changed alike in the next); for bytes that replace nothing, by the bytes before, here and in the reference.

#![expect(
    clippy::cast_possible_truncation,
    reason = "places in patches have 32 bits; hashes are cut to a table's"
)]

/// Replaced bytes that are kept for each place of the table.
const PAIRS: usize = 4;
/// Old bytes ahead that must be equal.
const AHEAD: usize = 6;
/// The longest length that is distinguished.
const LENGTH_MAX: u32 = 31;

/// The byte that came the last time, and how many predictions before it were right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) byte: u8,
    pub(super) length: u32,
}

impl Expected {
    /// Packs both into a number; 0 for none.
    pub(super) fn word(this: Option<Self>) -> u64 {
        this.map_or(0, |this| 1 + u64::from(this.byte) + (u64::from(this.length) << 9))
    }
}

/// The latest place of each seed plus 1, by the seed's hash; 0 is none.
struct Heads(Vec<u32>, u32);

impl Heads {
    fn new(log: u32) -> Self {
        Self(vec![0; 1 << log], log)
    }

    /// Returns the slot of the first `seed` bytes; reads fewer than eight one by one.
    #[inline]
    fn slot(&self, bytes: &[u8], seed: usize) -> usize {
        let word = match bytes.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight) & (u64::MAX >> (64 - 8 * seed)),
            None => bytes[..seed].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - self.1)) as usize
    }

    fn get(&self, slot: usize) -> Option<usize> {
        (self.0[slot] as usize).checked_sub(1)
    }

    fn put(&mut self, slot: usize, place: usize) {
        self.0[slot] = place as u32 + 1;
    }
}

/// Predicts a byte from what replaced the same old bytes before.
pub(super) struct Replaced {
    /// Pairs of old and new bytes, in a ring.
    pairs: Vec<[u8; 2]>,
    count: usize,
    heads: Heads,
    /// The slot of the seed ahead, where there is one.
    slot: Option<usize>,
    at: Option<usize>,
    length: u32,
}

impl Replaced {
    /// Creates a memory of 2^`log` places.
    pub(super) fn new(log: u32) -> Self {
        let heads = Heads::new(log);
        Self { pairs: vec![[0; 2]; PAIRS << log], count: 0, heads, slot: None, at: None, length: 0 }
    }

    fn pair(&self, at: usize) -> [u8; 2] {
        self.pairs[at & (self.pairs.len() - 1)]
    }

    fn old(&self, at: usize) -> Option<u8> {
        (at < self.count && self.count - at <= self.pairs.len()).then(|| self.pair(at)[0])
    }

    /// Predicts the byte that replaces `ahead`'s first. Call [`Replaced::push`] once after it.
    pub(super) fn expect(&mut self, ahead: &[u8]) -> Option<Expected> {
        self.slot = (ahead.len() >= AHEAD).then(|| self.heads.slot(ahead, AHEAD));
        self.at = self.at.filter(|at| self.old(*at) == ahead.first().copied());
        if self.at.is_none() {
            self.length = 0;
            let found = self.slot.and_then(|slot| self.heads.get(slot));
            self.at = found
                .filter(|at| ahead.iter().take(AHEAD).zip(*at..).all(|(old, at)| self.old(at) == Some(*old)));
        }
        self.at.map(|at| Expected { byte: self.pair(at)[1], length: self.length.min(LENGTH_MAX) })
    }

    /// Learns the byte that came.
    pub(super) fn push(&mut self, old: u8, new: u8) {
        let right = self.at.filter(|at| self.pair(*at)[1] == new);
        self.at = right.map(|at| at + 1);
        self.length = if right.is_some() { self.length + 1 } else { 0 };
        if let Some(slot) = self.slot {
            self.heads.put(slot, self.count);
        }
        let at = self.count & (self.pairs.len() - 1);
        self.pairs[at] = [old, new];
        self.count += 1;
    }
}

/// Predicts a byte from what followed the same bytes in a text.
pub(super) struct Repeated {
    seed: usize,
    heads: Heads,
    /// The place in the text of the next predicted byte, and the length of the output that matched before it.
    at: Option<(usize, usize)>,
    length: u32,
}

impl Repeated {
    /// Creates a memory of 2^`log` places for matches of at least `seed` bytes.
    pub(super) fn new(seed: usize, log: u32) -> Self {
        Self { seed, heads: Heads::new(log), at: None, length: 0 }
    }

    /// Learns a whole text; 4 ns a byte.
    pub(super) fn learn(&mut self, text: &[u8]) {
        for at in 0..(text.len() + 1).saturating_sub(self.seed) {
            let slot = self.heads.slot(&text[at..], self.seed);
            self.heads.put(slot, at + self.seed);
        }
    }

    /// Learns the end of `made`.
    pub(super) fn learn_end(&mut self, made: &[u8]) {
        if let Some(seed) = end_of(made, self.seed) {
            let slot = self.heads.slot(seed, self.seed);
            self.heads.put(slot, made.len());
        }
    }

    /// Predicts the byte of `text` after `made`. Call [`Repeated::push`] once after it.
    pub(super) fn expect(&mut self, text: &[u8], made: &[u8]) -> Option<Expected> {
        self.at = self.at.filter(|(at, end)| *at < text.len() && *end == made.len());
        if self.at.is_none()
            && let Some(seed) = end_of(made, self.seed)
            && let Some(at) = self.heads.get(self.heads.slot(seed, self.seed)).filter(|at| *at < text.len())
        {
            let alike = text[..at].iter().rev().zip(made.iter().rev()).take(LENGTH_MAX as usize);
            self.length = alike.take_while(|(one, other)| one == other).count() as u32;
            self.at = (self.length as usize >= self.seed).then_some((at, made.len()));
        }
        self.at.map(|(at, _)| Expected { byte: text[at], length: self.length.min(LENGTH_MAX) })
    }

    /// Learns the byte that came.
    pub(super) fn push(&mut self, text: &[u8], byte: u8) {
        self.at = self.at.filter(|(at, _)| text[*at] == byte).map(|(at, end)| (at + 1, end + 1));
        self.length += 1;
    }
}

/// Returns the last `length` bytes.
fn end_of(made: &[u8], length: usize) -> Option<&[u8]> {
    made.len().checked_sub(length).map(|from| &made[from..])
}
