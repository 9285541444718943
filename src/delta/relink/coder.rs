//! A binary arithmetic coder with adaptive odds, in both directions.
//!
//! The carry-free coder of Mahoney's lpaq (2007). A model asks [`Bits::code`] for every decision: who
//! encodes passes the decision in, who decodes gets it out, so that one model serves both.

/// What a model believes of a decision: the odds of `true`, and how often it was met.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    odds: u16,
    met: u8,
}

/// Odds follow the last decisions ever more slowly, down to one part in this many.
const MET_MAX: u8 = 60;

impl Odds {
    /// Even odds, met never.
    pub const EVEN: Self = Self { odds: 1 << 15, met: 0 };

    fn learn(&mut self, bit: bool) {
        let odds = i32::from(self.odds);
        let goal = if bit { 65_535 } else { 0 };
        let step = (goal - odds) * 2 / (2 * i32::from(self.met) + 3);
        self.odds = u16::try_from((odds + step).clamp(32, 65_535 - 32)).expect("it was clamped");
        self.met = (self.met + 1).min(MET_MAX);
    }
}

/// Decisions, one after another.
pub trait Bits {
    /// Codes one decision: gives back `bit` when encoding, and what `bit` was when decoding.
    fn code(&mut self, odds: &mut Odds, bit: bool) -> bool;
}

/// Turns decisions into bytes.
#[derive(Debug)]
pub struct Encoder {
    low: u32,
    high: u32,
    bytes: Vec<u8>,
}

impl Encoder {
    /// Starts without bytes.
    pub fn new() -> Self {
        Self { low: 0, high: u32::MAX, bytes: Vec::new() }
    }

    /// The bytes of all decisions.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&self.low.to_be_bytes());
        self.bytes
    }
}

impl Bits for Encoder {
    fn code(&mut self, odds: &mut Odds, bit: bool) -> bool {
        let middle = middle(self.low, self.high, *odds);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        odds.learn(bit);
        while (self.low ^ self.high) >> 24 == 0 {
            self.bytes.push(self.high.to_be_bytes()[0]);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }
}

/// Turns bytes into decisions; after their end it reads zeros.
#[derive(Debug)]
pub struct Decoder<'a> {
    low: u32,
    high: u32,
    value: u32,
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, value: 0, bytes: bytes.iter() };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        self.value = self.value << 8 | u32::from(self.bytes.next().copied().unwrap_or(0));
    }
}

impl Bits for Decoder<'_> {
    fn code(&mut self, odds: &mut Odds, _bit: bool) -> bool {
        let middle = middle(self.low, self.high, *odds);
        let bit = self.value <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        odds.learn(bit);
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.shift();
        }
        bit
    }
}

/// Divides what is left between the two outcomes; each keeps a part, as odds are never 0 or 1.
fn middle(low: u32, high: u32, odds: Odds) -> u32 {
    let part = (u64::from(high - low) * u64::from(odds.odds)) >> 16;
    low + u32::try_from(part).expect("a part of 32 bits")
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
