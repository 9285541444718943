//! How likely each bit of a patch is, learnt from the bits before it.
//!
//! Several contexts each remember a probability; a small online network weighs them (Mahoney, "Adaptive
//! weighing of context models", 2005; the arithmetic of lpaq). Integers only, so that every machine agrees.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "probabilities have 12 bits and contexts are hashed; conversions that check would cost a third of the speed"
)]

use super::coder::Coder;

/// Contexts of one bit.
const INPUTS: usize = 5;
/// 2^18 probabilities for each context.
const TABLE_LOG: u32 = 18;
/// After so many bytes that are the basis's, whole blocks are asked for at once.
const LONG_RUN: u32 = 192;
/// Bytes of such a block.
const BLOCK: usize = 64;
/// The kind of number beside which blocks are learnt.
const BLOCK_KIND: usize = 3;

/// The logistic function, from 1/256ths to 4096ths.
fn squash(x: i32) -> i32 {
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
fn stretches() -> Vec<i16> {
    let mut table = vec![0i16; 4096];
    let mut next = 0;
    for x in -2047..=2047i16 {
        let value = squash(i32::from(x));
        for entry in &mut table[next..=(value as usize)] {
            *entry = x;
        }
        next = next.max(value as usize + 1);
    }
    table[next..].fill(2047);
    table
}

/// One kind of decision: its tables and its weights.
struct Predictor {
    tables: Vec<u16>,
    weights: Vec<[i32; INPUTS]>,
}

impl Predictor {
    fn new(sets: usize) -> Self {
        Self { tables: vec![1 << 15; INPUTS << TABLE_LOG], weights: vec![[(1 << 16) * 2 / 5; INPUTS]; sets] }
    }

    /// Codes one bit under five contexts, weighed by the set `set`.
    #[inline]
    fn bit(
        &mut self,
        coder: &mut impl Coder,
        stretch: &[i16],
        bit: bool,
        contexts: [u32; INPUTS],
        set: usize,
    ) -> bool {
        let slots: [usize; INPUTS] = std::array::from_fn(|at| {
            (at << TABLE_LOG) + (contexts[at].wrapping_mul(0x9e37_79b1) >> (32 - TABLE_LOG)) as usize
        });
        let inputs: [i32; INPUTS] =
            std::array::from_fn(|at| i32::from(stretch[usize::from(self.tables[slots[at]] >> 4)]));
        let weights = &mut self.weights[set];
        let sum: i64 = inputs.iter().zip(weights.iter()).map(|(x, w)| i64::from(*x) * i64::from(*w)).sum();
        let one = squash((sum >> 16).clamp(-2047, 2047) as i32).clamp(1, 4095);
        let bit = coder.bit(bit, one as u32);
        let error = ((i32::from(bit) << 12) - one) * 6;
        for (input, weight) in inputs.iter().zip(weights) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-(1 << 22), 1 << 22);
        }
        for slot in slots {
            let known = &mut self.tables[slot];
            if bit { *known += (u16::MAX - *known) >> 4 } else { *known -= *known >> 4 }
        }
        bit
    }
}

/// All that is learnt in one patch.
pub(super) struct Model {
    stretch: Vec<i16>,
    numbers: Predictor,
    same: Predictor,
    differences: Predictor,
    literals: Predictor,
    /// The bytes made last, the latest in the low bits.
    bytes: u32,
    /// Old bytes of the stretch, likewise.
    olds: u32,
    /// Whether the latest bytes were those of the basis: a bit each.
    equals: u32,
    /// Bytes since the last difference.
    run: u32,
    /// The run before that.
    run_before: u32,
    /// Differences, the latest in the low bits.
    changes: u32,
    /// Whether the latest blocks were those of the basis: a bit each.
    blocks: u32,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            stretch: stretches(),
            numbers: Predictor::new(8),
            same: Predictor::new(64),
            differences: Predictor::new(16),
            literals: Predictor::new(256),
            bytes: 0,
            olds: 0,
            equals: u32::MAX,
            run: 0,
            run_before: 0,
            changes: 0,
            blocks: 0,
        }
    }

    /// A number of one of up to eight kinds: its length in bits, then its bits, the first ones learnt.
    pub(super) fn number(&mut self, coder: &mut impl Coder, kind: usize, number: u64) -> u64 {
        let length = u64::BITS - number.leading_zeros();
        let mut known = 0;
        let kind_word = (kind as u32) << 24;
        while known < 64 {
            let contexts = [1, 2, 3, 4, 5].map(|at: u32| kind_word | (at << 8) | known);
            if !self.numbers.bit(coder, &self.stretch, known < length, contexts, kind) {
                break;
            }
            known += 1;
        }
        if known < 2 {
            return u64::from(known);
        }
        let mut found = 1u64;
        for place in (0..known - 1).rev() {
            let top = (found as u32) & 0xfff;
            let contexts =
                [6, 7, 8, 9, 10].map(|at: u32| kind_word | (at << 20) | (known << 14) ^ (place << 26) ^ top);
            let bit = self.numbers.bit(coder, &self.stretch, number >> place & 1 == 1, contexts, kind);
            found = (found << 1) | u64::from(bit);
        }
        found
    }

    /// Bytes where the basis has `old`; `byte` gives those that are coded, `made` gets what was coded.
    ///
    /// Where many in a row were the basis's, a block takes one decision; only one that differs is told by bytes.
    pub(super) fn stretch(
        &mut self,
        coder: &mut impl Coder,
        old: &[u8],
        byte: impl Fn(usize) -> u8,
        mut made: impl FnMut(u8),
    ) {
        let mut at = 0;
        while at < old.len() {
            let is_block = self.run >= LONG_RUN;
            let end = if is_block { old.len().min(at + BLOCK) } else { at + 1 };
            let block = &old[at..end];
            let is_same = || (at..end).all(|at| byte(at) == old[at]);
            if is_block && self.block(coder, block, is_same()) {
                block.iter().copied().for_each(&mut made);
            } else {
                (at..end).for_each(|at| made(self.near(coder, old[at], byte(at))));
            }
            at = end;
        }
    }

    /// Whether a block is the basis's.
    fn block(&mut self, coder: &mut impl Coder, old: &[u8], is_same: bool) -> bool {
        let kind_word = (BLOCK_KIND as u32) << 24;
        let runs = (32 - self.run.leading_zeros()) << 8 | (32 - self.run_before.leading_zeros());
        let contexts = [
            kind_word | runs,
            kind_word | 1 << 20 | self.blocks & 0xffff,
            kind_word | 2 << 20 | (self.blocks & 7) << 8 | runs >> 8,
            kind_word | 3 << 20 | old.len() as u32,
            hash(15, self.olds),
        ];
        let same = self.numbers.bit(coder, &self.stretch, is_same, contexts, BLOCK_KIND);
        self.blocks = self.blocks << 1 | u32::from(same);
        if same {
            self.run = self.run.saturating_add(old.len() as u32);
            self.equals = u32::MAX;
            for byte in &old[old.len().saturating_sub(4)..] {
                self.olds = self.olds << 8 | u32::from(*byte);
                self.bytes = self.bytes << 8 | u32::from(*byte);
            }
        }
        same
    }

    /// A byte where the basis has `old`.
    fn near(&mut self, coder: &mut impl Coder, old: u8, byte: u8) -> u8 {
        let old_word = u32::from(old);
        let run = 32 - self.run.leading_zeros();
        let contexts = [
            run << 8 | (32 - self.run_before.leading_zeros()),
            hash(1, old_word | (self.olds & 0xffff) << 8),
            hash(2, (self.equals & 0xffff) << 8 | (self.changes & 0xff)),
            hash(3, old_word | (self.equals & 0xff) << 8 | (self.bytes & 0xff) << 16),
            hash(4, self.olds & 0x00ff_ffff).wrapping_add(self.equals & 3),
        ];
        let set = (run.min(15) << 2 | (self.equals & 3)) as usize;
        let same = self.same.bit(coder, &self.stretch, byte == old, contexts, set);
        self.equals = self.equals << 1 | u32::from(same);
        let made = if same {
            self.run = self.run.saturating_add(1);
            old
        } else {
            let change = self.change(coder, old_word, byte.wrapping_sub(old));
            self.changes = self.changes << 8 | u32::from(change);
            self.run_before = self.run;
            self.run = 0;
            old.wrapping_add(change)
        };
        self.olds = self.olds << 8 | old_word;
        self.bytes = self.bytes << 8 | u32::from(made);
        made
    }

    /// The difference at a place where there is one.
    fn change(&mut self, coder: &mut impl Coder, old: u32, change: u8) -> u8 {
        let beside = self.equals >> 1 & 7;
        let bases = [
            hash(5, (self.changes & 0xff) | beside << 8),
            hash(6, (self.changes & 0xffff) | beside << 16),
            hash(7, old | (self.olds & 0xff) << 8 | (self.changes & 0xff) << 16),
            hash(8, self.changes & 0x00ff_ffff).wrapping_add(self.run.min(255) << 3),
            hash(9, old | beside << 8),
        ];
        let mut node = 1u32;
        for place in (0..8).rev() {
            let contexts = bases.map(|base| base.wrapping_add(node.wrapping_mul(0x0100_0193)));
            let bit =
                self.differences.bit(coder, &self.stretch, change >> place & 1 == 1, contexts, place | 8);
            node = node << 1 | u32::from(bit);
        }
        node.to_le_bytes()[0]
    }

    /// A byte that the basis says nothing of.
    pub(super) fn literal(&mut self, coder: &mut impl Coder, byte: u8) -> u8 {
        let bases = [
            hash(10, 0),
            hash(11, self.bytes & 0xff),
            hash(12, self.bytes & 0xffff),
            hash(13, self.bytes & 0x00ff_ffff),
            hash(14, self.bytes),
        ];
        let mut node = 1u32;
        for place in (0..8).rev() {
            let contexts = bases.map(|base| base.wrapping_add(node.wrapping_mul(0x0100_0193)));
            let bit =
                self.literals.bit(coder, &self.stretch, byte >> place & 1 == 1, contexts, node as usize);
            node = node << 1 | u32::from(bit);
        }
        let made = node.to_le_bytes()[0];
        self.bytes = self.bytes << 8 | u32::from(made);
        made
    }
}

#[inline]
fn hash(kind: u32, word: u32) -> u32 {
    let mixed = (word ^ kind.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 15
}
