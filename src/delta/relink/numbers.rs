//! Reads and writes numbers in bytes that nobody vouches for: `None` where they do not fit.

use ground::leb128;

/// Returns the little-endian `u16` at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|found| u16::from_le_bytes(*found))
}

/// Returns the little-endian `u32` at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|found| u32::from_le_bytes(*found))
}

/// Returns the little-endian `u64` at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|found| u64::from_le_bytes(*found))
}

/// Returns the `u64` at `at` as an offset or a length, where this machine can hold it.
pub fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

/// Writes `value` at `at`.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_le_bytes();
    Some(())
}

/// Writes `value` at `at`.
pub fn put_u64(bytes: &mut [u8], at: usize, value: u64) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_le_bytes();
    Some(())
}

/// Adds a signed 32-bit displacement to an address.
pub fn displaced(address: u64, displacement: u32) -> u64 {
    address.wrapping_add_signed(i64::from(displacement.cast_signed()))
}

/// The displacement from `address` to `target`: the low half of their difference.
#[expect(
    clippy::cast_possible_truncation,
    reason = "displaced() widens it again, and the file's hash decides"
)]
pub fn displacement(address: u64, target: u64) -> u32 {
    target.wrapping_sub(address) as u32
}

/// A place in bytes that are read from front to back.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns how many bytes were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Returns the rest.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// Takes a number in LEB128.
    pub fn leb128(&mut self) -> Option<u64> {
        let mut rest = self.rest();
        let number = leb128::read(&mut rest).ok()?;
        self.at = self.bytes.len() - rest.len();
        Some(number)
    }

    /// Takes a number of things or bytes.
    pub fn size(&mut self) -> Option<usize> {
        usize::try_from(self.leb128()?).ok()
    }
}
