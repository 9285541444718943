//! Reads and writes numbers in bytes that nobody vouches for: `None` where they do not fit.

/// The little-endian `u16` at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|found| u16::from_le_bytes(*found))
}

/// The little-endian `u32` at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|found| u32::from_le_bytes(*found))
}

/// The little-endian `u64` at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|found| u64::from_le_bytes(*found))
}

/// The `u64` at `at` as an offset or a length, where this machine can hold it.
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

/// Appends `value` in groups of seven bits, lowest first (LEB128).
pub fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Folds the sign into the lowest bit, so that small numbers of either sign are short.
pub fn folded(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Undoes [`folded`].
pub fn unfolded(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
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

    /// How many bytes were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is left.
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

    /// Takes a number that [`put_varint`] wrote; a longer form of it is refused, so that each has one.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return (part != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// Takes a number of things or bytes.
    pub fn size(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were_written() {
        let numbers = [0, 1, 127, 128, 300, 1 << 35, u64::MAX];
        let mut bytes = Vec::new();
        for number in numbers {
            put_varint(&mut bytes, number);
        }
        let mut cursor = Cursor::new(&bytes);
        assert!(numbers.iter().all(|number| cursor.varint() == Some(*number)));
        assert_eq!((cursor.varint(), cursor.rest()), (None, &[][..]));
        assert!([0, 1, -1, i64::MAX, i64::MIN].iter().all(|value| unfolded(folded(*value)) == *value));
    }

    #[test]
    fn a_number_has_one_form_and_sixty_four_bits() {
        assert_eq!(Cursor::new(&[0x80, 0]).varint(), None);
        assert_eq!(Cursor::new(&[0xff; 10]).varint(), None);
    }

    #[test]
    fn what_lies_outside_is_none() {
        let mut bytes = [0; 4];
        assert_eq!(u32_at(&bytes, 1), None);
        assert_eq!(u64_at(&bytes, usize::MAX), None);
        assert_eq!(put_u32(&mut bytes, 1, 7), None);
        assert_eq!(displaced(10, displacement(10, 3)), 3);
    }
}
