//! Writes bit fields, the lowest bit first, as RFC 1951 section 3.1.1 packs them.

/// Bytes that are buffered before they go to the output.
const BUFFER_BYTES: usize = 4096;

/// Bits that wait for a whole byte, and bytes that wait for the output.
pub(super) struct BitWriter {
    /// The lowest `count` bits are waiting.
    held: u64,
    count: u32,
    buffer: [u8; BUFFER_BYTES],
    length: usize,
}

impl BitWriter {
    pub(super) fn new() -> Self {
        Self { held: 0, count: 0, buffer: [0; BUFFER_BYTES], length: 0 }
    }

    /// Clears everything.
    pub(super) fn reset(&mut self) {
        (self.held, self.count, self.length) = (0, 0, 0);
    }

    /// Appends the low `width` bits of `value`, at most 56; its other bits are 0.
    #[inline]
    pub(super) fn put(&mut self, value: u64, width: u32, out: &mut Vec<u8>) {
        self.held |= value << self.count;
        self.count += width;
        if self.length > BUFFER_BYTES - 8 {
            self.flush_bytes(out);
        }
        let at = self.length;
        self.buffer[at..at + 8].copy_from_slice(&self.held.to_le_bytes());
        let whole = self.count & !7;
        self.length += (whole >> 3) as usize;
        self.held >>= whole;
        self.count &= 7;
    }

    /// Returns the bits that wait for a whole byte.
    pub(super) fn waiting(&self) -> u32 {
        self.count
    }

    /// Fills the last byte with zeros and appends everything to `out`.
    pub(super) fn align(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            self.put(0, 8 - self.count, out);
        }
        self.flush_bytes(out);
    }

    fn flush_bytes(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.buffer[..self.length]);
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_packed_from_the_lowest_bit() {
        let (mut bits, mut out) = (BitWriter::new(), Vec::new());
        bits.put(0b1, 1, &mut out);
        bits.put(0b10, 2, &mut out);
        bits.put(0x1ff, 9, &mut out);
        bits.put((1 << 56) - 2, 56, &mut out);
        bits.align(&mut out);
        assert_eq!(out, [0xfd, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    }
}
