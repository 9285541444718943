//! Where a segment or a chunk reference stands in a manifest, and how a negotiation names a segment.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::NodeRef;
use crate::recipe::ChunkRef;
use ground::ids::ChunkId;

/// A segment's index in its manifest, from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentIndex(u32);

impl SegmentIndex {
    /// Takes over an index that a peer may have sent; checks nothing.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Takes over an index into a list of segments, whose length [`limits`](ground::limits) bounds.
    pub fn of(index: usize) -> Self {
        Self(u32::try_from(index).expect("a manifest's segments are bounded"))
    }

    /// Returns the indexes in a range of a list of segments.
    pub fn range(range: Range<usize>) -> impl Iterator<Item = Self> {
        range.map(Self::of)
    }

    /// Pairs each element of a list of segments with its index.
    pub fn enumerate<T>(segments: impl IntoIterator<Item = T>) -> impl Iterator<Item = (Self, T)> {
        (0..).map(Self).zip(segments)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the next segment's index.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the index of the segment before, if there is one.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl From<SegmentIndex> for usize {
    fn from(index: SegmentIndex) -> Self {
        index.0 as Self
    }
}

/// One chunk reference of a manifest, in the manifest's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RefAt {
    /// The segment that lists it.
    pub segment: SegmentIndex,
    /// Its number among the segment's references, from 0.
    pub reference: u32,
}

/// The first 8 bytes of a segment's id, little-endian: how a negotiation names a segment (PROTOCOL 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SegmentName(u64);

impl SegmentName {
    /// Takes over a received name.
    pub const fn new(name: u64) -> Self {
        Self(name)
    }

    /// Returns the number, as [`ChunkId::prefix`] does.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the lowest id that begins with it.
    pub fn lowest(self) -> ChunkId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        ChunkId::from_bytes(bytes)
    }

    /// Returns the first 4 bytes, little-endian.
    pub fn short(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl From<ChunkId> for SegmentName {
    fn from(id: ChunkId) -> Self {
        Self(id.prefix())
    }
}

impl NodeRef {
    /// Returns the segment's name in a negotiation.
    pub fn name(&self) -> SegmentName {
        self.id.into()
    }
}

impl From<NodeRef> for ChunkRef {
    /// A node or segment is stored as a chunk like any other.
    fn from(node: NodeRef) -> Self {
        Self { id: node.id, bytes: node.bytes }
    }
}

impl From<ChunkRef> for NodeRef {
    fn from(chunk: ChunkRef) -> Self {
        Self { id: chunk.id, bytes: chunk.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec(value).expect("a Vec takes every write")
    }

    #[test]
    fn coordinates_cross_as_the_numbers_that_they_are() {
        let at = RefAt { segment: SegmentIndex::new(7), reference: 9 };
        assert_eq!(bytes(&at), bytes(&(7u32, 9u32)));
        assert_eq!(bytes(&SegmentName::new(1 << 40)), bytes(&(1u64 << 40)));
    }
}
