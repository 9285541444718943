//! The hashes of the match finder.
//!
//! Sources: `UPDATE_HASH` of zlib's deflate.c, and of Chromium's fork (as Node links it, `deps/zlib`)
//! `insert_string_simd` and `insert_string` of `contrib/optimizations/insert_string.h`. All are written
//! as functions of the next four bytes: zlib's rolling hash forgets all but the last three.

/// Reversed polynomial of CRC32C (Castagnoli).
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// Low half of the CRC32C of each byte, followed by 0 to 3 zero bytes.
static CASTAGNOLI_LOW: [[u16; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut zeros = 0;
        while zeros < 4 {
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (CASTAGNOLI & (crc & 1).wrapping_neg());
                bit += 1;
            }
            tables[zeros][byte] = crc as u16;
            zeros += 1;
        }
        byte += 1;
    }
    tables
};

/// Chooses a chain of earlier positions by the bytes at a position.
pub(super) trait Hash: Copy {
    /// The bytes that count.
    const BYTES: usize;

    /// Returns the chain for four bytes, the first lowest; below 65,536.
    fn chain(&self, word: u32) -> usize;
}

/// Stock zlib: the last three bytes, shifted into each other.
#[derive(Clone, Copy)]
pub(super) struct Rolling {
    shift: u32,
    mask: u32,
}

impl Rolling {
    pub(super) fn new(bits: u32) -> Self {
        Self { shift: bits.div_ceil(3), mask: (1 << bits) - 1 }
    }
}

impl Hash for Rolling {
    const BYTES: usize = 3;

    #[inline]
    fn chain(&self, word: u32) -> usize {
        let (first, second, third) = (word & 255, (word >> 8) & 255, (word >> 16) & 255);
        (((first << (2 * self.shift)) ^ (second << self.shift) ^ third) & self.mask & 0xffff) as usize
    }
}

/// CRC32C of three or four bytes.
#[derive(Clone, Copy)]
pub(super) struct Castagnoli<const BYTES: usize> {
    mask: u16,
}

impl<const BYTES: usize> Castagnoli<BYTES> {
    pub(super) fn new(bits: u32) -> Self {
        Self { mask: u16::MAX >> (16 - bits) }
    }
}

impl<const BYTES: usize> Hash for Castagnoli<BYTES> {
    const BYTES: usize = BYTES;

    #[inline]
    fn chain(&self, word: u32) -> usize {
        let [first, second, third, fourth] = word.to_le_bytes().map(usize::from);
        let [last, later, earlier, earliest] = &CASTAGNOLI_LOW;
        let mut crc = earliest[first] ^ earlier[second] ^ later[third];
        if BYTES == 4 {
            crc ^= last[fourth];
        }
        usize::from(crc & self.mask)
    }
}

/// The fork's later hash: four bytes times a constant.
#[derive(Clone, Copy)]
pub(super) struct Multiplicative {
    mask: u32,
}

impl Multiplicative {
    pub(super) fn new(bits: u32) -> Self {
        Self { mask: (1 << bits) - 1 }
    }
}

impl Hash for Multiplicative {
    const BYTES: usize = 4;

    #[inline]
    fn chain(&self, word: u32) -> usize {
        ((word.wrapping_mul(66_521).wrapping_add(66_521) >> 16) & self.mask & 0xffff) as usize
    }
}
