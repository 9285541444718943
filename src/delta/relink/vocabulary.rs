//! All targets of a file that must be named, in the order of their addresses.

use super::odds::{Bits, Odds, tree};

/// The distinct targets in rising order; the functions' addresses among them, whether used or not.
#[derive(Debug)]
pub struct Vocabulary {
    words: Vec<u64>,
}

impl Vocabulary {
    /// Joins the functions' addresses and the other targets.
    pub fn new(addresses: &[u64], others: &[u64]) -> Self {
        let mut words = [addresses, others].concat();
        words.sort_unstable();
        words.dedup();
        Self { words }
    }

    /// Returns the number of words.
    pub fn count(&self) -> usize {
        self.words.len()
    }

    /// Returns where `target` is among the words, or would be.
    pub fn place(&self, target: u64) -> u32 {
        let place = self.words.binary_search(&target).unwrap_or_else(|place| place);
        u32::try_from(place).expect("fewer targets than bytes in a file")
    }

    /// Returns the word at `place`.
    pub fn word(&self, place: u32) -> Option<u64> {
        self.words.get(usize::try_from(place).ok()?).copied()
    }
}

/// Bits of a step between words, at most.
const STEP_BITS: usize = 65;

/// Codes words as steps: the number of bits of each, then its bits; the highest have odds of their own.
pub fn steps(bits: &mut impl Bits, words: &mut [u64]) {
    let mut lengths = vec![[Odds::EVEN; 128]; STEP_BITS];
    let mut tops = vec![[Odds::EVEN; 16]; STEP_BITS];
    let mut lows = vec![[Odds::EVEN; 64]; STEP_BITS];
    let (mut last, mut before) = (0u64, 0usize);
    for word in words {
        let step = word.wrapping_sub(last);
        let length = u64::BITS - step.leading_zeros();
        let length = tree(bits, &mut lengths[before], 7, length).min(64);
        before = usize::try_from(length).expect("it was bounded");
        let mut value = u64::from(length > 0);
        let mut context = 1;
        for shift in (0..length.saturating_sub(1)).rev() {
            let bit = step >> shift & 1 == 1;
            let odds = if shift < 4 {
                &mut lows[before][(usize::try_from(shift).expect("below 4") * 16
                    + usize::try_from(value & 7).expect("below 8"))
                .min(63)]
            } else {
                &mut tops[before][context]
            };
            let bit = bits.code(odds, bit);
            value = value << 1 | u64::from(bit);
            context = if context < 8 { context * 2 + usize::from(bit) } else { 0 };
        }
        last = last.wrapping_add(value);
        *word = last;
    }
}
