//! Models which target comes next, among all targets of a file in the order of their addresses.
//!
//! Code repeats itself: the same targets follow the same ones. A target that does not repeat is mostly near the one before
//! it, or near the function itself; the rest is coded by how often each part of the file was a target so far. Contexts of two and of one symbol with an escape to the next one are those of PPM (Cleary and
//! Witten, 1984); each predicts one target with a confidence, as in the match models of lpaq.
//!
//! Memory: at most 8 B for each target, and 4 MiB.

use super::odds::{Bits, Odds, tree};

/// Slots of each table of what followed what: four for each target, within these bounds.
const SLOT_BITS: (u32, u32) = (10, 18);
/// Steps of a short way: below 2^6 either way.
const NEAR_BITS: u32 = 6;
/// A guess is trusted by how often it was right of late.
const TRUST_MAX: u8 = 7;

#[derive(Debug, Clone, Copy, Default)]
struct Guess {
    value: u32,
    trust: u8,
}

impl Guess {
    fn learn(&mut self, value: u32) {
        if self.value == value {
            self.trust = (self.trust + 1).min(TRUST_MAX);
        } else if self.trust < 2 {
            *self = Self { value, trust: 0 };
        } else {
            self.trust /= 2;
        }
    }
}

#[derive(Debug)]
struct Near {
    chosen: [Odds; 4],
    back: Odds,
    steps: Vec<Odds>,
}

impl Near {
    fn new() -> Self {
        Self { chosen: [Odds::EVEN; 4], back: Odds::EVEN, steps: vec![Odds::EVEN; 1 << NEAR_BITS] }
    }

    /// Codes `value` if it is a short way from `anchor`.
    fn code(&mut self, bits: &mut impl Bits, context: usize, anchor: u32, value: u32) -> Option<u32> {
        let steps = value.abs_diff(anchor);
        if !bits.code(&mut self.chosen[context], steps < 1 << NEAR_BITS) {
            return None;
        }
        let back = bits.code(&mut self.back, value < anchor);
        let steps = tree(bits, &mut self.steps, NEAR_BITS, steps);
        Some(if back { anchor.wrapping_sub(steps) } else { anchor.wrapping_add(steps) })
    }
}

/// The model, and what it has seen so far.
#[derive(Debug)]
pub struct Choices {
    after_two: Vec<Guess>,
    after_one: Vec<Guess>,
    right: [[Odds; TRUST_MAX as usize + 1]; 4],
    near_last: Near,
    near_here: Near,
    all: Vec<Odds>,
    bits: u32,
    slot_bits: u32,
    last: [u32; 2],
    was: usize,
}

impl Choices {
    /// Starts with `count` targets to choose from, of which `length` are to be coded.
    pub fn new(count: usize, length: usize) -> Self {
        let bits = count.max(2).next_power_of_two().trailing_zeros();
        let slot_bits = (usize::BITS - length.leading_zeros() + 2).clamp(SLOT_BITS.0, SLOT_BITS.1);
        Self {
            after_two: vec![Guess::default(); 1 << slot_bits],
            after_one: vec![Guess::default(); 1 << slot_bits],
            right: [[Odds::EVEN; TRUST_MAX as usize + 1]; 4],
            near_last: Near::new(),
            near_here: Near::new(),
            all: vec![Odds::EVEN; 1 << bits],
            bits,
            slot_bits,
            last: [0; 2],
            was: 0,
        }
    }

    /// Codes the next target; `here` is where the function itself would be among the targets.
    pub fn code(&mut self, bits: &mut impl Bits, here: u32, value: u32) -> u32 {
        let slots = [self.slot(self.last[1]), self.slot(u32::MAX)];
        let guesses = [self.after_two[slots[0]], self.after_one[slots[1]]];
        let value = self.choose(bits, guesses, here, value);
        self.after_two[slots[0]].learn(value);
        self.after_one[slots[1]].learn(value);
        self.last = [value, self.last[0]];
        value
    }

    /// Tries the predictions in turn. Each costs one decision: "it is this", or an escape to the next.
    fn choose(&mut self, bits: &mut impl Bits, guesses: [Guess; 2], here: u32, value: u32) -> u32 {
        let [two, one] = guesses;
        let was = std::mem::replace(&mut self.was, 0);
        // What followed the last two targets before; by whether it was right the last time.
        let odds = &mut self.right[usize::from(was == 0)][usize::from(two.trust)];
        if bits.code(odds, two.value == value) {
            return two.value;
        }
        // What followed the last target, if that is another guess: the same one was just ruled out.
        let odds = &mut self.right[2 + usize::from(two.trust > 0)][usize::from(one.trust)];
        if one.value != two.value && bits.code(odds, one.value == value) {
            self.was = 1;
            return one.value;
        }
        // A short way from the last target, then from the function itself.
        self.was = 2;
        let context = usize::from(was == 2);
        if let Some(value) = self.near_last.code(bits, context, self.last[0], value) {
            return value;
        }
        if let Some(value) = self.near_here.code(bits, context, here, value) {
            return value;
        }
        // Anything: a binary tree over the ranks of all targets, whose odds learn which parts are called often.
        self.was = 3;
        tree(bits, &mut self.all, self.bits, value)
    }

    /// Returns the slot for what follows the last target and the one before it (Fibonacci hashing, Knuth, volume 3).
    fn slot(&self, before: u32) -> usize {
        let mixed = (u64::from(self.last[0]) << 32 | u64::from(before)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(mixed >> (u64::BITS - self.slot_bits)).expect("a few bits")
    }
}
