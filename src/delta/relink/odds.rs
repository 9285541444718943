//! Adaptive odds for the decisions of the models here, over the arithmetic coder with 16 bits.

use crate::arithmetic::{self, Coder};

/// Turns decisions into bytes.
pub type Encoder = arithmetic::Encoder<16, 0>;
/// Turns bytes into decisions; after the end of the stream it reads zeros, and the file's hash decides.
pub type Decoder<'a> = arithmetic::Decoder<'a, 16>;

/// The odds of `true` in 65,536ths, and how often the decision was met.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    odds: u16,
    met: u8,
}

/// Odds follow the last decisions ever more slowly, down to one part in about this many.
const MET_MAX: u8 = 60;

impl Odds {
    /// Even odds, never met.
    pub const EVEN: Self = Self { odds: 1 << 15, met: 0 };

    /// Moves 1 / (`met` + 1.5) of the way to the decision: two thirds at first, a 61st in the end.
    fn learn(&mut self, bit: bool) {
        let odds = i32::from(self.odds);
        let goal = if bit { 65_535 } else { 0 };
        let step = (goal - odds) * 2 / (2 * i32::from(self.met) + 3);
        // Never 0 or 1: an outcome of no odds could not be coded.
        self.odds = u16::try_from((odds + step).clamp(32, 65_535 - 32)).expect("it was clamped");
        self.met = (self.met + 1).min(MET_MAX);
    }
}

/// Decisions, one after another.
pub trait Bits {
    /// Codes one decision and learns from it: returns `bit` when encoding, the decoded bit otherwise.
    fn code(&mut self, odds: &mut Odds, bit: bool) -> bool;
}

impl<C: Coder<16>> Bits for C {
    fn code(&mut self, odds: &mut Odds, bit: bool) -> bool {
        let bit = self.bit(bit, odds.odds.into());
        odds.learn(bit);
        bit
    }
}

/// Codes a number below 2^`bits` from its highest bit down; `tree` holds odds for each prefix.
pub fn tree(coder: &mut impl Bits, tree: &mut [Odds], bits: u32, value: u32) -> u32 {
    let mut node = 1usize;
    for shift in (0..bits).rev() {
        let bit = coder.code(&mut tree[node], value >> shift & 1 == 1);
        node = 2 * node + usize::from(bit);
    }
    u32::try_from(node - (1 << bits)).expect("as many bits as asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_and_expected_ones_are_cheap() {
        let decisions: Vec<bool> =
            (0..10_000u32).map(|at| at % 97 == 0 || at.wrapping_mul(0x9e37_79b9) >> 27 == 0).collect();
        let (mut encoder, mut odds) = (Encoder::new(), Odds::EVEN);
        for bit in &decisions {
            assert_eq!(encoder.code(&mut odds, *bit), *bit);
        }
        let bytes = encoder.finish();
        assert!(bytes.len() < 400, "{}", bytes.len());
        let (mut decoder, mut odds) = (Decoder::new(&bytes), Odds::EVEN);
        assert!(decisions.iter().all(|bit| decoder.code(&mut odds, false) == *bit));
    }

    #[test]
    fn numbers_come_back_through_a_tree() {
        let numbers: Vec<u32> = (0..1000).map(|at| at * at % 512).collect();
        let (mut encoder, mut odds) = (Encoder::new(), vec![Odds::EVEN; 512]);
        for number in &numbers {
            tree(&mut encoder, &mut odds, 9, *number);
        }
        let bytes = encoder.finish();
        let (mut decoder, mut odds) = (Decoder::new(&bytes), vec![Odds::EVEN; 512]);
        assert!(numbers.iter().all(|number| tree(&mut decoder, &mut odds, 9, 0) == *number));
    }
}
