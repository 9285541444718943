//! A binary arithmetic coder: a bit costs as little as its probability was high.
//!
//! The carryless coder of Mahoney's lpaq (2007). Probabilities are 12 bits and never 0 or 1.

/// One side of a stream: codes a bit that is known here, or finds out one that is not.
pub(super) trait Coder {
    /// Codes `bit` (the decoder ignores it), which is 1 with a probability of `one` / 4096; returns the bit.
    fn bit(&mut self, bit: bool, one: u32) -> bool;
}

/// Writes.
pub(super) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::new() }
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&self.low.wrapping_add(1).to_be_bytes());
        self.out
    }
}

/// The last place of the lower part, which stands for a 1.
fn middle(low: u32, high: u32, one: u32) -> u32 {
    let part = (u64::from(high - low) * u64::from(one)) >> 12;
    low + u32::try_from(part).expect("a part of 32 bits")
}

impl Coder for Encoder {
    #[inline]
    fn bit(&mut self, bit: bool, one: u32) -> bool {
        let middle = middle(self.low, self.high, one);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push(self.high.to_be_bytes()[0]);
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
        }
        bit
    }
}

/// Reads; after the end of the bytes come zeros, and it remembers how many.
pub(super) struct Decoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: &'a [u8],
    beyond: u32,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, code: 0, bytes, beyond: 0 };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    /// Whether bytes were needed that do not exist.
    pub(super) fn is_over(&self) -> bool {
        self.beyond > 0
    }

    fn shift(&mut self) {
        let byte = if let Some((byte, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            *byte
        } else {
            self.beyond = self.beyond.saturating_add(1);
            0
        };
        self.code = (self.code << 8) | u32::from(byte);
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn bit(&mut self, _: bool, one: u32) -> bool {
        let middle = middle(self.low, self.high, one);
        let bit = self.code <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
            self.shift();
        }
        bit
    }
}
