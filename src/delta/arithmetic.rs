//! A binary arithmetic coder: a bit costs as little as its probability was high.
//!
//! The carryless range coder of Mahoney's lpaq (2007). A model calls [`Coder::bit`] for every decision: an encoder is
//! given the bit, a decoder returns it, so that one model serves both. `BITS` is the width of a probability, 12 or 16;
//! the bytes depend on it.

/// One side of a stream of decisions.
pub trait Coder<const BITS: u32> {
    /// Codes `bit`, which is 1 with a probability of `one` / 2^`BITS`; returns the bit. A decoder ignores `bit`.
    ///
    /// `one` is neither 0 nor 2^`BITS`, so that each outcome keeps a part of the range.
    fn bit(&mut self, bit: bool, one: u32) -> bool;
}

/// The numbers that are still possible: both ends included.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: u32,
    high: u32,
}

impl Range {
    const ALL: Self = Self { low: 0, high: u32::MAX };

    /// Returns the last number of the lower part, which stands for a 1.
    #[inline]
    fn middle<const BITS: u32>(self, one: u32) -> u32 {
        let part = (u64::from(self.high - self.low) * u64::from(one)) >> BITS;
        self.low + u32::try_from(part).expect("a part of 32 bits")
    }

    /// Keeps the part of `bit`.
    #[inline]
    fn narrow(&mut self, bit: bool, middle: u32) {
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
    }

    /// Shifts out the first byte once both ends agree on it.
    #[inline]
    fn settled(&mut self) -> Option<u8> {
        let settled = (self.low ^ self.high) >> 24 == 0;
        settled.then(|| {
            let byte = self.high.to_be_bytes()[0];
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            byte
        })
    }
}

/// Turns decisions into bytes. The last four are the low end of the range plus `END`, 0 or 1: each format keeps its own.
#[derive(Debug)]
pub struct Encoder<const BITS: u32, const END: u32> {
    range: Range,
    bytes: Vec<u8>,
}

impl<const BITS: u32, const END: u32> Encoder<BITS, END> {
    /// Starts without bytes.
    pub fn new() -> Self {
        Self { range: Range::ALL, bytes: Vec::new() }
    }

    /// Returns the number of bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes of all decisions.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&self.range.low.wrapping_add(END).to_be_bytes());
        self.bytes
    }
}

impl<const BITS: u32, const END: u32> Coder<BITS> for Encoder<BITS, END> {
    #[inline]
    fn bit(&mut self, bit: bool, one: u32) -> bool {
        let middle = self.range.middle::<BITS>(one);
        self.range.narrow(bit, middle);
        while let Some(byte) = self.range.settled() {
            self.bytes.push(byte);
        }
        bit
    }
}

/// Turns bytes into decisions. After the end of the bytes it reads zeros.
#[derive(Debug)]
pub struct Decoder<'a, const BITS: u32> {
    range: Range,
    value: u32,
    bytes: &'a [u8],
    is_over: bool,
}

impl<'a, const BITS: u32> Decoder<'a, BITS> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { range: Range::ALL, value: 0, bytes, is_over: false };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    /// Returns whether it has read past the end of the bytes.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    fn shift(&mut self) {
        let byte = self.bytes.split_off_first().copied();
        self.is_over |= byte.is_none();
        self.value = self.value << 8 | u32::from(byte.unwrap_or(0));
    }
}

impl<const BITS: u32> Coder<BITS> for Decoder<'_, BITS> {
    #[inline]
    fn bit(&mut self, _: bool, one: u32) -> bool {
        let middle = self.range.middle::<BITS>(one);
        let bit = self.value <= middle;
        self.range.narrow(bit, middle);
        while self.range.settled().is_some() {
            self.shift();
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_and_likely_ones_are_cheap() {
        let bits: Vec<bool> = (0..8000u32).map(|at| at.wrapping_mul(0x9e37_79b9) >> 26 == 0).collect();
        let mut encoder = Encoder::<12, 1>::new();
        for bit in &bits {
            assert_eq!(encoder.bit(*bit, 64), *bit);
        }
        let bytes = encoder.finish();
        assert!(bytes.len() < 200, "{} B", bytes.len());
        let mut decoder = Decoder::<12>::new(&bytes);
        assert!(bits.iter().all(|bit| decoder.bit(false, 64) == *bit) && !decoder.is_over());
    }

    #[test]
    fn a_decoder_notices_that_bytes_are_missing() {
        let mut decoder = Decoder::<16>::new(&[0x80, 0, 0, 0]);
        assert!(!decoder.is_over());
        for _ in 0..8 {
            decoder.bit(false, 1 << 15);
        }
        assert!(decoder.is_over());
    }
}
