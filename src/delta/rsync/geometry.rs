//! How a reference is divided into blocks.

use std::ops::Range;

use super::Error;

/// 16: below, a checksum is as long as its block.
pub const BLOCK_BYTES_MIN: u32 = 16;
/// 64 KiB: above, whole chunks are the better unit.
pub const BLOCK_BYTES_MAX: u32 = 64 * 1024;
/// 1 GiB: a longer reference is split into regions.
pub const REFERENCE_BYTES_MAX: u64 = 1 << 30;

/// A reference's length and the length of its blocks.
///
/// Blocks stand side by side from the start. Where the length is no multiple, one more block, the tail,
/// takes the reference's last bytes and overlaps the one before: the end of a changed region is as likely to be
/// unchanged as its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    reference_bytes: u64,
    block_bytes: u32,
}

impl Geometry {
    /// Checks both lengths.
    ///
    /// # Errors
    /// [`Error::Geometry`] where one is out of bounds.
    pub fn new(reference_bytes: u64, block_bytes: u32) -> Result<Self, Error> {
        if reference_bytes <= REFERENCE_BYTES_MAX
            && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block_bytes)
        {
            Ok(Self { reference_bytes, block_bytes })
        } else {
            Err(Error::Geometry { reference_bytes, block_bytes })
        }
    }

    /// Returns the bytes of the reference.
    pub fn reference_bytes(&self) -> u64 {
        self.reference_bytes
    }

    /// Returns the bytes of one block.
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// Returns the number of blocks, the tail included; 0 where the reference is shorter than a block.
    pub fn blocks(&self) -> u32 {
        let block = u64::from(self.block_bytes);
        if self.reference_bytes < block {
            return 0;
        }
        u32::try_from(self.reference_bytes.div_ceil(block)).expect("a reference has less than 2^30 bytes")
    }

    /// Returns where block `at` begins; `at` is below [`Geometry::blocks`].
    pub fn begin(&self, at: u32) -> u64 {
        let block = u64::from(self.block_bytes);
        (u64::from(at) * block).min(self.reference_bytes - block)
    }

    /// Returns the bytes of `count` blocks from `first`; none unless all of them exist.
    pub fn range(&self, first: u32, count: u32) -> Option<Range<u64>> {
        let end = first.checked_add(count).filter(|end| count > 0 && *end <= self.blocks())?;
        Some(self.begin(first)..self.begin(end - 1) + u64::from(self.block_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_overlaps_and_ends_with_the_reference() {
        let geometry = Geometry::new(100, 32).expect("in bounds");
        assert_eq!(geometry.blocks(), 4);
        assert_eq!(geometry.range(0, 4), Some(0..100));
        assert_eq!(geometry.range(3, 1), Some(68..100));
        assert_eq!(geometry.range(1, 2), Some(32..96));
        assert_eq!((geometry.range(3, 2), geometry.range(0, 0)), (None, None));
        assert_eq!(geometry.range(u32::MAX, 1), None);
        assert_eq!(Geometry::new(31, 32).expect("in bounds").blocks(), 0);
        assert_eq!(Geometry::new(64, 32).expect("in bounds").blocks(), 2);
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        for (reference, block) in [(1, 0), (1, 15), (1, 65_537), (REFERENCE_BYTES_MAX + 1, 512)] {
            assert!(Geometry::new(reference, block).is_err());
        }
    }
}
