//! The signature of a reference: the checksums of its blocks, for a sender without it.
//!
//! | size | field |
//! |---|---|
//! | varint | reference bytes |
//! | varint | bytes of one block |
//! | 1 | bits of one checksum |
//! | the rest | the checksums of all blocks in order, the tail last, packed low bits first; the remaining bits of the last byte are zero |

use super::rolling;
use super::{Error, Geometry};
use ground::leb128;

/// 8: below, there are false matches everywhere.
const BITS_MIN: u8 = 8;
/// 48: more than any reference within bounds needs.
const BITS_MAX: u8 = 48;
/// One region in 16,384 has a false match at worst, and its chunk is then sent in full: cheaper than
/// more bits.
pub const ODDS_DEFAULT: u32 = 14;
/// 64: below, more checksums cost more than the literals they save, however dense the edits (measured on
/// executables).
const BLOCK_BYTES_DENSE: u64 = 64;
/// 1 KiB: above, a single edit's literals cost more than the checksums that are saved.
const BLOCK_BYTES_SPARSE: u64 = 1024;

/// Returns the bits of a checksum that keep the odds of a false match in a region at or below 2 in 2^`odds`.
///
/// A match needs two neighbouring blocks: among `new_bytes` places and all blocks as candidates, chance makes
/// `new_bytes` · blocks / 2^(2 · bits) of them. Each block is also tried alone in line with a match beside it:
/// blocks / 2^bits at most.
pub fn checksum_bits(geometry: &Geometry, new_bytes: u64, odds: u32) -> u8 {
    let log = |number: u64| number.max(1).next_power_of_two().trailing_zeros();
    let (places, blocks) = (log(new_bytes), log(u64::from(geometry.blocks())));
    let bits = (places + blocks + odds).div_ceil(2).max(blocks + odds);
    u8::try_from(bits.clamp(u32::from(BITS_MIN), u32::from(BITS_MAX))).expect("clamped")
}

/// Returns the block length that costs the fewest bytes both ways.
///
/// An edit turns about one block into literals, which compress to `literal_percent`, and a block costs some 2.6 bytes of
/// checksum: the sum is least at the root of reference / edits · 2.6 / share. `edits` is the caller's guess for the region, at
/// least 1.
pub fn block_bytes(reference_bytes: u64, edits: u64, literal_percent: u64) -> u32 {
    let between = reference_bytes / edits.max(1);
    let block =
        (between * 260 / literal_percent.clamp(1, 100)).isqrt().clamp(BLOCK_BYTES_DENSE, BLOCK_BYTES_SPARSE);
    u32::try_from(block.next_multiple_of(16)).expect("clamped")
}

/// The checksums of a reference's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    geometry: Geometry,
    bits: u8,
    sums: Vec<u64>,
}

impl Signature {
    /// Signs the reference that `parts` make, one after another.
    ///
    /// `bits` is from [`checksum_bits`]. About 2 GB/s; memory: 8 bytes a block.
    ///
    /// # Errors
    /// [`Error::Geometry`] and [`Error::Bits`] where a number is out of bounds.
    pub fn new<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
        block_bytes: u32,
        bits: u8,
    ) -> Result<Self, Error> {
        check_bits(bits)?;
        Geometry::new(0, block_bytes)?;
        let block = block_bytes as usize;
        let mixed = |bytes: &[u8]| rolling::mixed(rolling::sum(bytes), u32::from(bits));
        let (mut sums, mut total) = (Vec::new(), 0u64);
        // The last whole block and the bytes after it, which contain the tail.
        let (mut last, mut rest) = (Vec::with_capacity(2 * block), Vec::with_capacity(block));
        for mut part in parts {
            total += part.len() as u64;
            if !rest.is_empty() {
                let (head, behind) = part.split_at(part.len().min(block - rest.len()));
                rest.extend_from_slice(head);
                part = behind;
                if rest.len() == block {
                    sums.push(mixed(&rest));
                    std::mem::swap(&mut last, &mut rest);
                    rest.clear();
                }
            }
            let blocks = part.chunks_exact(block);
            if !part.is_empty() {
                let behind = blocks.remainder();
                if let Some(bytes) = part[..part.len() - behind.len()].rchunks(block).next() {
                    last.clear();
                    last.extend_from_slice(bytes);
                }
                rest.extend_from_slice(behind);
                sums.extend(blocks.map(mixed));
            }
        }
        let geometry = Geometry::new(total, block_bytes)?;
        if !rest.is_empty() && !last.is_empty() {
            last.extend_from_slice(&rest);
            sums.push(mixed(&last[last.len() - block..]));
        }
        debug_assert_eq!(sums.len(), geometry.blocks() as usize);
        Ok(Self { geometry, bits, sums })
    }

    /// Returns how the reference is divided.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the bits of one checksum.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Returns the checksums in the order of the blocks, each in the low [`Signature::bits`] bits.
    pub(super) fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// Appends the encoding: about `bits` / 8 bytes a block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        leb128::write(self.geometry.reference_bytes(), out);
        leb128::write(u64::from(self.geometry.block_bytes()), out);
        out.push(self.bits);
        let (mut word, mut filled) = (0u64, 0u32);
        for sum in &self.sums {
            word |= sum << filled;
            filled += u32::from(self.bits);
            while filled >= 8 {
                out.push(word.to_le_bytes()[0]);
                word >>= 8;
                filled -= 8;
            }
        }
        if filled > 0 {
            out.push(word.to_le_bytes()[0]);
        }
    }

    /// Decodes a signature of at most `reference_bytes_max` bytes from the front of `bytes`.
    ///
    /// Memory: at most eight times the encoding.
    ///
    /// # Errors
    /// All of [`Error`] except those of a delta.
    pub fn decode(bytes: &mut &[u8], reference_bytes_max: u64) -> Result<Self, Error> {
        let reference_bytes = leb128::read(bytes)?;
        let block_bytes = u32::try_from(leb128::read(bytes)?).unwrap_or(u32::MAX);
        if reference_bytes > reference_bytes_max {
            return Err(Error::Geometry { reference_bytes, block_bytes });
        }
        let geometry = Geometry::new(reference_bytes, block_bytes)?;
        let (bits, rest) = bytes.split_first().ok_or(Error::Short)?;
        check_bits(*bits)?;
        let count = geometry.blocks() as usize;
        let length = (count * usize::from(*bits)).div_ceil(8);
        let (packed, rest) = rest.split_at_checked(length).ok_or(Error::Short)?;
        let mut sums = Vec::with_capacity(count);
        let (mut word, mut filled) = (0u64, 0u32);
        let mask = (1u64 << bits) - 1;
        for byte in packed {
            word |= u64::from(*byte) << filled;
            filled += 8;
            if filled >= u32::from(*bits) && sums.len() < count {
                sums.push(word & mask);
                word >>= bits;
                filled -= u32::from(*bits);
            }
        }
        if word != 0 {
            return Err(Error::Number);
        }
        *bytes = rest;
        Ok(Self { geometry, bits: *bits, sums })
    }
}

fn check_bits(bits: u8) -> Result<(), Error> {
    if (BITS_MIN..=BITS_MAX).contains(&bits) { Ok(()) } else { Err(Error::Bits(bits)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Vec<u8> {
        (0..5000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    #[test]
    fn parts_of_any_length_make_the_same_signature() {
        let reference = reference();
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 100, 512, reference.len()] {
            let reference = &reference[..length];
            let whole = Signature::new([reference], 16, 20).expect("in bounds");
            assert_eq!(whole.sums.len(), whole.geometry.blocks() as usize);
            for part in [1, 3, 15, 16, 17, 50] {
                assert_eq!(Signature::new(reference.chunks(part), 16, 20), Ok(whole.clone()));
            }
        }
    }

    #[test]
    fn an_encoding_survives_and_nothing_shorter_or_longer_does() {
        for bits in [8, 19, 33, 48] {
            let signature = Signature::new([reference().as_slice()], 700, bits).expect("in bounds");
            let mut bytes = Vec::new();
            signature.encode(&mut bytes);
            assert!(bytes.len() <= 6 + (signature.sums.len() * usize::from(bits)).div_ceil(8));
            let mut rest = bytes.as_slice();
            assert_eq!(Signature::decode(&mut rest, 20_000), Ok(signature));
            assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Signature::decode(&mut &bytes[..cut], 20_000), Err(Error::Short));
            }
            assert!(Signature::decode(&mut bytes.as_slice(), 19_999).is_err());
        }
    }

    #[test]
    fn any_flipped_byte_is_refused_or_gives_another_signature() {
        let signature = Signature::new([reference().as_slice()], 512, 21).expect("in bounds");
        let mut bytes = Vec::new();
        signature.encode(&mut bytes);
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                assert_ne!(Signature::decode(&mut bad.as_slice(), 1 << 30), Ok(signature.clone()));
            }
        }
    }

    #[test]
    fn a_few_bytes_never_announce_much_memory() {
        let mut bytes = Vec::new();
        leb128::write(1 << 30, &mut bytes);
        leb128::write(16, &mut bytes);
        bytes.push(20);
        assert_eq!(Signature::decode(&mut bytes.as_slice(), 1 << 30), Err(Error::Short));
    }
}
