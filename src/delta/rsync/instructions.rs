//! Instructions that make new bytes from a reference and literals.
//!
//! Repeated until the announced number of bytes is made:
//!
//! | size | field |
//! |---|---|
//! | varint | bytes to insert; if they end the new bytes, nothing follows |
//! | varint | first block to copy, less the block at or after the place where the last copy ended plus the bytes inserted since: folded |
//! | varint | number of blocks; 0 is all remaining ones |
//!
//! So an edit in place costs 3 or 4 bytes, mostly equal ones, which zstd shortens where the caller puts the deltas of many
//! regions into one frame.

use std::ops::Range;

use super::{Error, Geometry};
use ground::leb128;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Take this many bytes of the literals.
    Insert(u64),
    /// Take blocks of the reference.
    Copy {
        /// The first one.
        first: u32,
        /// How many; the last may be the tail.
        count: u32,
    },
}

/// Why a delta could not be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError<E> {
    /// The literals end before the inserts do.
    #[error("a delta inserts more bytes than it contains")]
    Literals,
    /// The reference could not be read.
    #[error(transparent)]
    Reference(E),
}

/// Instructions, checked: each copy lies in the reference, and together they make exactly the announced bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    geometry: Geometry,
    new_bytes: u64,
    instructions: Vec<Instruction>,
}

impl Delta {
    /// Creates a delta without instructions.
    pub(super) fn empty(geometry: Geometry) -> Self {
        Self { geometry, new_bytes: 0, instructions: Vec::new() }
    }

    /// Appends an insert of this many bytes.
    pub(super) fn insert(&mut self, bytes: u64) {
        if bytes > 0 {
            self.new_bytes += bytes;
            self.instructions.push(Instruction::Insert(bytes));
        }
    }

    /// Appends a copy of existing blocks; joins it to the last copy where it continues that.
    pub(super) fn copy(&mut self, first: u32, count: u32) {
        let bytes = self.geometry.range(first, count).map(|range| range.end - range.start);
        let mut bytes = bytes.expect("the matcher names blocks of its signature");
        match self.instructions.last_mut() {
            Some(Instruction::Copy { first: before, count: so_far }) if *before + *so_far == first => {
                let joined = self.geometry.range(*before, *so_far + count).map(|range| range.end);
                let end = self.geometry.range(*before, *so_far).map(|range| range.end);
                bytes = joined.zip(end).map_or(0, |(joined, end)| joined - end);
                *so_far += count;
            }
            _ => self.instructions.push(Instruction::Copy { first, count }),
        }
        self.new_bytes += bytes;
    }

    /// Returns the bytes that the delta makes.
    pub fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    /// Returns the bytes that it takes from the literals.
    pub fn insert_bytes(&self) -> u64 {
        let inserted = |instruction: &Instruction| match instruction {
            Instruction::Insert(bytes) => *bytes,
            Instruction::Copy { .. } => 0,
        };
        self.instructions.iter().map(inserted).sum()
    }

    /// Returns the steps in order; inserts and copies, no two inserts side by side.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Returns the ranges of the new bytes that are copied, with their places in the reference, in order.
    ///
    /// Both sides have these bytes before any literal: a dictionary for the literals.
    pub fn copies(&self) -> impl Iterator<Item = (Range<u64>, Range<u64>)> + '_ {
        let mut made = 0;
        self.instructions.iter().filter_map(move |instruction| match *instruction {
            Instruction::Insert(bytes) => {
                made += bytes;
                None
            }
            Instruction::Copy { first, count } => {
                let reference = self.reference_range(first, count);
                let new = made..made + (reference.end - reference.start);
                made = new.end;
                Some((new, reference))
            }
        })
    }

    fn reference_range(&self, first: u32, count: u32) -> Range<u64> {
        self.geometry.range(first, count).expect("copies were checked when the delta was made or decoded")
    }

    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (mut place, mut made, mut inserted) = (0u64, 0u64, 0u64);
        for instruction in &self.instructions {
            match *instruction {
                Instruction::Insert(bytes) => inserted = bytes,
                Instruction::Copy { first, count } => {
                    leb128::write(inserted, out);
                    let expected = expected(&self.geometry, place + inserted);
                    leb128::write(leb128::folded(i64::from(first) - expected), out);
                    let all = first + count == self.geometry.blocks();
                    leb128::write(if all { 0 } else { u64::from(count) }, out);
                    let range = self.reference_range(first, count);
                    made += inserted + (range.end - range.start);
                    (place, inserted) = (range.end, 0);
                }
            }
        }
        debug_assert_eq!(made + inserted, self.new_bytes);
        if inserted > 0 {
            leb128::write(inserted, out);
        }
    }

    /// Decodes a delta that makes `new_bytes` bytes from the front of `bytes`.
    ///
    /// Memory: at most 16 bytes for each byte of the encoding, and two instructions for each block that fits into
    /// `new_bytes`.
    ///
    /// # Errors
    /// [`Error::Copy`] for a copy outside the reference, [`Error::Total`] past `new_bytes`, and errors of
    /// the encoding itself.
    pub fn decode(bytes: &mut &[u8], geometry: Geometry, new_bytes: u64) -> Result<Self, Error> {
        let mut delta = Self::empty(geometry);
        let mut place = 0u64;
        while delta.new_bytes < new_bytes {
            let inserted = leb128::read(bytes)?;
            if inserted > new_bytes - delta.new_bytes {
                return Err(Error::Total(new_bytes));
            }
            delta.insert(inserted);
            if delta.new_bytes == new_bytes {
                break;
            }
            let step = leb128::unfolded(leb128::read(bytes)?);
            let count = leb128::read(bytes)?;
            let blocks = geometry.blocks();
            let at = expected(&geometry, place.saturating_add(inserted)).saturating_add(step);
            let wrong = Error::Copy { first: at, count, blocks };
            let first = u32::try_from(at).ok().filter(|first| *first < blocks).ok_or(wrong)?;
            let count = if count == 0 { blocks - first } else { u32::try_from(count).map_err(|_| wrong)? };
            let range = geometry.range(first, count).ok_or(wrong)?;
            if range.end - range.start > new_bytes - delta.new_bytes {
                return Err(Error::Total(new_bytes));
            }
            place = range.end;
            delta.new_bytes += range.end - range.start;
            delta.instructions.push(Instruction::Copy { first, count });
        }
        Ok(delta)
    }

    /// Appends the new bytes to `out`, with inserts from the front of `literals`.
    ///
    /// `read` appends a range of the reference, and exactly that, to its buffer. The new bytes are **not proven**: hash
    /// their chunks. Memory: [`Delta::new_bytes`] in `out`.
    ///
    /// # Errors
    /// [`ApplyError::Literals`] where the literals end too early; the first error of `read`.
    pub fn apply<E>(
        &self,
        literals: &mut &[u8],
        mut read: impl FnMut(Range<u64>, &mut Vec<u8>) -> Result<(), E>,
        out: &mut Vec<u8>,
    ) -> Result<(), ApplyError<E>> {
        if self.insert_bytes() > literals.len() as u64 {
            return Err(ApplyError::Literals);
        }
        out.reserve(usize::try_from(self.new_bytes).unwrap_or(0));
        for instruction in &self.instructions {
            match *instruction {
                Instruction::Insert(bytes) => {
                    let bytes = usize::try_from(bytes).map_err(|_| ApplyError::Literals)?;
                    let (taken, rest) = literals.split_at_checked(bytes).ok_or(ApplyError::Literals)?;
                    out.extend_from_slice(taken);
                    *literals = rest;
                }
                Instruction::Copy { first, count } => {
                    read(self.reference_range(first, count), out).map_err(ApplyError::Reference)?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the block at or after `place`.
fn expected(geometry: &Geometry, place: u64) -> i64 {
    place.div_ceil(u64::from(geometry.block_bytes())).try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(1000, 64).expect("in bounds")
    }

    fn delta() -> Delta {
        let mut delta = Delta::empty(geometry());
        delta.copy(0, 2);
        delta.copy(2, 1);
        delta.insert(64);
        delta.copy(4, 3);
        delta.insert(1000);
        delta.copy(14, 2);
        delta.copy(1, 1);
        delta.insert(5);
        delta
    }

    fn encoded(delta: &Delta) -> Vec<u8> {
        let mut bytes = Vec::new();
        delta.encode(&mut bytes);
        bytes
    }

    #[test]
    fn neighbouring_copies_are_one() {
        assert_eq!(delta().instructions()[0], Instruction::Copy { first: 0, count: 3 });
        assert_eq!(delta().new_bytes(), 192 + 64 + 192 + 1000 + 104 + 64 + 5);
        let mut tail = Delta::empty(geometry());
        tail.copy(14, 1);
        tail.copy(15, 1);
        assert_eq!(tail.new_bytes(), 104);
        assert_eq!(tail.copies().collect::<Vec<_>>(), [(0..104, 896..1000)]);
    }

    #[test]
    fn an_edit_in_place_costs_four_bytes() {
        let mut delta = Delta::empty(geometry());
        delta.copy(0, 2);
        delta.insert(64);
        delta.copy(3, 13);
        assert_eq!(encoded(&delta), [0, 0, 2, 64, 0, 0]);
    }

    #[test]
    fn an_encoding_survives_and_nothing_shorter_does() {
        let (delta, bytes) = (delta(), encoded(&delta()));
        let mut rest = bytes.as_slice();
        assert_eq!(Delta::decode(&mut rest, geometry(), delta.new_bytes()), Ok(delta.clone()));
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            let result = Delta::decode(&mut &bytes[..cut], geometry(), delta.new_bytes());
            assert_eq!(result, Err(Error::Short));
        }
    }

    #[test]
    fn any_flipped_byte_is_refused_or_stays_within_what_was_announced() {
        let (delta, bytes) = (delta(), encoded(&delta()));
        for at in 0..bytes.len() {
            for flip in 1..=255 {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let result = Delta::decode(&mut bad.as_slice(), geometry(), delta.new_bytes());
                if let Ok(other) = result {
                    assert_eq!(other.new_bytes(), delta.new_bytes());
                    assert!(other.copies().all(|(_, reference)| reference.end <= 1000));
                }
            }
        }
    }

    #[test]
    fn copies_outside_the_reference_are_refused() {
        for bytes in [[0, 32, 1], [0, 0, 17], [0, 1, 1]] {
            let result = Delta::decode(&mut bytes.as_slice(), geometry(), 10_000);
            assert!(matches!(result, Err(Error::Copy { .. })), "{bytes:?}: {result:?}");
        }
        let long = Delta::decode(&mut [0, 0, 16].as_slice(), geometry(), 999);
        assert_eq!(long, Err(Error::Total(999)));
    }

    #[test]
    fn literals_that_end_early_are_refused() {
        let result = delta().apply::<()>(
            &mut [0; 1068].as_slice(),
            |range, out| {
                out.resize(out.len() + usize::try_from(range.end - range.start).expect("small"), 0);
                Ok(())
            },
            &mut Vec::new(),
        );
        assert_eq!(result, Err(ApplyError::Literals));
    }
}
