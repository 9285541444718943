//! LEB128: numbers in groups of seven bits, the low ones first, in as few bytes as they need.

/// The reasons why bytes are no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end inside a number.
    #[error("a number is cut off")]
    Short,
    /// A number past 64 bits, or in more bytes than it needs.
    #[error("a number is malformed")]
    Malformed,
}

/// Appends `number`: 1 to 10 bytes.
pub fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Reads a number from the front of `bytes`. Each number has one form.
///
/// # Errors
/// See [`Error`].
pub fn read(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Error::Short)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if (part << shift) >> shift != part || (*byte == 0 && shift > 0) {
            return Err(Error::Malformed);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::Malformed)
}

/// Folds the sign into the lowest bit, so that small numbers of either sign are short (zigzag).
pub fn folded(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

/// Undoes [`folded`].
pub fn unfolded(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            write(number, &mut bytes);
            assert_eq!(read(&mut bytes.as_slice()), Ok(number));
            assert_eq!(read(&mut &bytes[..bytes.len() - 1]), Err(Error::Short));
            for signed in [number.cast_signed(), number.cast_signed().wrapping_neg()] {
                assert_eq!(unfolded(folded(signed)), signed);
            }
        }
    }

    #[test]
    fn long_and_padded_numbers_are_refused() {
        assert_eq!(read(&mut [0xff; 11].as_slice()), Err(Error::Malformed));
        assert_eq!(read(&mut [0x80, 0].as_slice()), Err(Error::Malformed));
    }
}
