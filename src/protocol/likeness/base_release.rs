//! The release that a transfer builds on, beside the one that is transferred.

use std::collections::HashSet;

use super::{ChangedBase, Edges, Likeness};
use format::manifest::{self, Gap, NodeRef, SegmentIndex, Thin};
use format::recipe::ChunkRef;

/// A new segment: its index, its form, and the chunks that its references mean, as far as they are not missing.
pub type NewSegment = (SegmentIndex, Thin, Vec<Option<ChunkRef>>);

/// A release that both sides have, and its content where the new release differs.
///
/// Memory: 72 B for each segment, and the changed part of the manifest.
#[derive(Debug)]
pub struct BaseRelease {
    segments: Vec<NodeRef>,
    present: HashSet<NodeRef>,
    changed: ChangedBase,
}

impl BaseRelease {
    /// Reads the part that the `gaps` leave out. `edges` are those in it; `read` returns the bytes of one of the segments.
    ///
    /// # Errors
    /// An error of `read`.
    pub fn read<E: From<manifest::Error>>(
        segments: Vec<NodeRef>,
        gaps: &[Gap],
        edges: &Edges,
        mut read: impl FnMut(SegmentIndex, &NodeRef) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let read = |index: SegmentIndex| read(index, &segments[usize::from(index)]);
        let changed = ChangedBase::read(&segments, gaps, edges, read)?;
        Ok(Self { present: segments.iter().copied().collect(), segments, changed })
    }

    /// Returns its segments, in order.
    pub fn segments(&self) -> &[NodeRef] {
        &self.segments
    }

    /// Returns whether nothing of it is left out of the new release, so that nothing new can resemble it.
    pub fn is_unlike(&self) -> bool {
        self.changed.is_empty()
    }

    /// Returns whether it has the segment.
    pub fn has(&self, node: &NodeRef) -> bool {
        self.present.contains(node)
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        2 * self.segments.len() * size_of::<NodeRef>() + self.changed.memory_bytes()
    }

    /// Finds what the missing chunks of some new segments resemble, in their order. `node` gives the segments of the new
    /// release, as far as they are known, and `read` the bytes of those that stay; `edges` are those in all of these.
    ///
    /// # Errors
    /// An error of `read`.
    pub fn likenesses<E: From<manifest::Error>>(
        &self,
        new: &[NewSegment],
        edges: &Edges,
        node: impl Fn(SegmentIndex) -> Option<NodeRef>,
        mut read: impl FnMut(SegmentIndex, &NodeRef) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<Likeness>, E> {
        if self.is_unlike() {
            return Ok(Vec::new());
        }
        let new: Vec<_> = new.iter().map(|(index, thin, known)| (*index, thin, known.as_slice())).collect();
        self.changed.likenesses(&new, edges, |index| {
            node(index).filter(|node| self.has(node)).map(|node| read(index, &node)).transpose()
        })
    }
}
