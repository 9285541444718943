//! How likely a bit is, weighed from what several contexts remember.
//!
//! Each context remembers a probability, which a first bit moves by more than half and later ones ever less; a small
//! online network weighs them (Mahoney, "Adaptive weighing of context models", 2005; the arithmetic of lpaq).
//! Integers only, so that every machine agrees.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "probabilities have 12 or 22 bits and contexts are hashed; conversions that check would cost a third of the speed"
)]

use crate::arithmetic::Coder;

/// Width of the probability of a bit.
pub(super) const BITS: u32 = 12;

/// Low bits of an entry, which count its updates; its probability is in the bits above.
const COUNT_BITS: u32 = 10;
/// One half, stored as 0: untouched pages of zeros take no memory.
const HALF: u32 = 1 << 31;
/// Updates after which the rate of learning stays constant: programs are not alike from end to end.
const COUNT_MAX: u32 = 14;
/// How much the first, second, … bit moves a probability, in 65536ths.
const STEPS: [u32; COUNT_MAX as usize + 1] = {
    let mut steps = [0; COUNT_MAX as usize + 1];
    let mut count = 0;
    while count < steps.len() {
        steps[count] = 655_360 / (10 * count as u32 + 16);
        count += 1;
    }
    steps
};
/// The rate at which the weights learn.
const LEARNING: i32 = 32;
/// Probabilities for half a byte: those of one context lie in one cache line.
const LINE: usize = 16;

/// Returns the logistic function of `x` 256ths, in 4096ths.
const fn squash(x: i32) -> i32 {
    const KNOTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
        3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    if x > 2047 {
        return 4095;
    }
    if x < -2047 {
        return 0;
    }
    let (part, at) = (x & 127, ((x >> 7) + 16) as usize);
    (KNOTS[at] * (128 - part) + KNOTS[at + 1] * part + 64) >> 7
}

/// The inverse of [`squash`].
static STRETCHED: [i16; 4096] = {
    let mut table = [2047i16; 4096];
    let (mut x, mut next) = (-2047i16, 0);
    while x <= 2047 {
        let value = squash(x as i32) as usize;
        while next <= value {
            table[next] = x;
            next += 1;
        }
        x += 1;
    }
    table
};

/// One kind of decision under a number of contexts: a table of probabilities for each, a power of two long, and the weights.
pub(super) struct Predictor<const CONTEXTS: usize> {
    log: u32,
    tables: Vec<u32>,
    weights: Vec<[i32; CONTEXTS]>,
}

impl<const CONTEXTS: usize> Predictor<CONTEXTS> {
    /// Creates a predictor that has learnt nothing, with tables of 2^`log` entries and `sets` sets of weights.
    pub(super) fn new(log: u32, sets: usize) -> Self {
        let even = (1 << 17) / i32::try_from(CONTEXTS).expect("some contexts");
        Self { log, tables: vec![0; CONTEXTS << log], weights: vec![[even; CONTEXTS]; sets] }
    }

    /// Codes one bit with the weights of `set`.
    #[inline]
    pub(super) fn bit(
        &mut self,
        coder: &mut impl Coder<BITS>,
        bit: bool,
        contexts: [u32; CONTEXTS],
        set: usize,
    ) -> bool {
        let slots = self.slots(contexts);
        self.at(coder, bit, slots, set)
    }

    /// Codes one byte, its highest bit first; `set` gives the weights for the bits before, prefixed by a 1.
    #[inline]
    pub(super) fn byte(
        &mut self,
        coder: &mut impl Coder<BITS>,
        byte: u8,
        contexts: [u32; CONTEXTS],
        set: impl Fn(usize) -> usize,
    ) -> u8 {
        let mut node = 1usize;
        for half in [4, 0] {
            // The first half is part of the second's contexts.
            let lines = self.slots(contexts.map(|context| hash(node as u32, context.into())));
            let mut within = 1;
            for place in (half..half + 4).rev() {
                let slots = lines.map(|slot| slot ^ within);
                let bit = usize::from(self.at(coder, byte >> place & 1 == 1, slots, set(node)));
                (node, within) = (node << 1 | bit, within << 1 | bit);
            }
            debug_assert!(within < 2 * LINE);
        }
        node.to_le_bytes()[0]
    }

    #[inline]
    fn slots(&self, contexts: [u32; CONTEXTS]) -> [usize; CONTEXTS] {
        std::array::from_fn(|at| {
            (at << self.log) + (contexts[at].wrapping_mul(0x9e37_79b1) >> (32 - self.log)) as usize
        })
    }

    #[inline]
    fn at(&mut self, coder: &mut impl Coder<BITS>, bit: bool, slots: [usize; CONTEXTS], set: usize) -> bool {
        let inputs: [i32; CONTEXTS] = std::array::from_fn(|at| {
            i32::from(STRETCHED[((self.tables[slots[at]] ^ HALF) >> (32 - BITS)) as usize])
        });
        let weights = &mut self.weights[set];
        let sum: i32 = inputs.iter().zip(weights.iter()).map(|(x, w)| (x * w) >> 16).sum();
        let one = squash(sum.clamp(-2047, 2047)).clamp(1, 4095);
        let bit = coder.bit(bit, one as u32);
        let error = ((i32::from(bit) << BITS) - one) * LEARNING;
        for (input, weight) in inputs.iter().zip(weights) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-(1 << 19), 1 << 19);
        }
        for slot in slots {
            let known = self.tables[slot] ^ HALF;
            let (one, count) = (known >> COUNT_BITS, known & ((1 << COUNT_BITS) - 1));
            let all = (1 << (32 - COUNT_BITS)) - 1;
            let far = if bit { all - one } else { one };
            let moved = ((far >> 6) * STEPS[count as usize]) >> 10;
            let one = if bit { one + moved } else { one - moved };
            self.tables[slot] = (one << COUNT_BITS | (count + 1).min(COUNT_MAX)) ^ HALF;
        }
        bit
    }
}

/// Hashes a context; `kind` separates contexts of different sorts.
#[inline]
pub(super) fn hash(kind: u32, word: u64) -> u32 {
    let mixed =
        (word ^ u64::from(kind).wrapping_mul(0x85eb_ca6b_c2b2_ae35)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}
