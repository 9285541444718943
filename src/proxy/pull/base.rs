//! The release that a pulling agent has: new segments and chunks are sent as changes to it.

use std::collections::HashSet;

use super::super::read_scope::ReadScope;
use super::{read_segment, unreadable};
use crate::restore::{self, ChunkReader};
use crate::store::{Store, StoreReader};
use delta::compression::{LEVEL_DEFAULT, LEVEL_SMALL};
use format::manifest::{self, Gap, NodeRef, Outline, SegmentIndex};
use ground::ids::ReleaseId;
use ground::limits::{FRAME_CHUNKS_MAX, PULL_THIN_BYTES_MAX, SEGMENT_BATCH_BYTES};
use protocol::likeness::{ChangedBase, Edges, SegmentsReplaced, prefix_of};
use protocol::wire::{Marks, Refusal, SegmentBatch};

/// 512 KiB: new segments up to this size are compressed as far as possible, which takes a second for 2 MB; many
/// machines may pull at the same time.
const SMALL_BYTES: u64 = 512 * 1024;

/// A release that both sides have.
pub(super) struct Base {
    segments: Vec<NodeRef>,
    outline: Outline,
    present: HashSet<NodeRef>,
    /// The base's content where the pulled release differs.
    pub changed: ChangedBase,
}

impl Base {
    /// Returns the release that the agent says it has, beside the segments of the one that it pulls; none where the
    /// space does not have all of it, or the token may not read it.
    pub fn open(store: &Store, scope: &ReadScope, release: &ReleaseId, leaves: &[NodeRef]) -> Option<Self> {
        if !store.is_whole() || !store.records().has(release, |app| scope.has(app)) {
            return None;
        }
        let mut reader = StoreReader::new(store);
        let root = store.root(release).ok()?;
        let segments = restore::leaves(&root, &mut reader).ok()?;
        let outline = Outline::of(&segments, leaves.iter().copied().map(Some));
        let gaps = outline.gaps(segments.len());
        let changed = ChangedBase::read(&segments, &gaps, &Edges::new(), |index| {
            read_segment(&mut reader, &segments[usize::from(index)])
        })
        .ok()?;
        Some(Self { present: segments.iter().copied().collect(), segments, outline, changed })
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        2 * self.segments.len() * size_of::<NodeRef>() + self.changed.memory_bytes()
    }

    /// Returns its segments, in order.
    pub fn segments(&self) -> &[NodeRef] {
        &self.segments
    }

    /// Returns where the pulled release has other segments.
    pub fn gaps(&self) -> Vec<Gap> {
        self.outline.gaps(self.segments.len())
    }

    /// Returns whether the agent has the segment.
    pub fn has(&self, node: &NodeRef) -> bool {
        self.present.contains(node)
    }

    /// Returns how the pulled release's segments follow from the base's; none where too much is new for an agent to
    /// hold until its chunks come.
    pub fn outline(&self, leaves: &[NodeRef]) -> Option<Outline> {
        let new = leaves.iter().filter(|node| !self.has(node));
        let new_bytes: u64 = new.map(|node| u64::from(node.bytes)).sum();
        let is_bounded = new_bytes <= PULL_THIN_BYTES_MAX as u64 && self.outline.is_bounded();
        is_bounded.then(|| self.outline.clone())
    }

    /// Passes the new segments to `send`, in order, thin and compressed against those that they replace, until it
    /// returns false because nobody listens.
    ///
    /// Memory: one batch and its prefix.
    pub fn tell(
        &self,
        leaves: &[NodeRef],
        reader: &mut StoreReader<&Store>,
        mut send: impl FnMut(SegmentBatch) -> bool,
    ) -> Result<(), Refusal> {
        let gaps = self.outline.gaps(self.segments.len());
        let new: Vec<SegmentIndex> =
            gaps.iter().flat_map(|gap| SegmentIndex::range(gap.new.clone())).collect();
        let replaced = SegmentsReplaced::new(gaps);
        let bytes_of = |index: &SegmentIndex| leaves[usize::from(*index)].bytes as usize;
        let all: usize = new.iter().map(bytes_of).sum();
        let level = if all as u64 <= SMALL_BYTES { LEVEL_SMALL } else { LEVEL_DEFAULT };
        let mut rest = new.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |index: &&SegmentIndex| {
                bytes += bytes_of(index);
                bytes <= SEGMENT_BATCH_BYTES
            };
            let count = rest.iter().take(FRAME_CHUNKS_MAX).take_while(fits).count().max(1);
            let (some, after) = rest.split_at(count);
            rest = after;
            let mut read = |node: &NodeRef| {
                let mut bytes = Vec::new();
                reader.read(&(*node).into(), &mut bytes).map_err(|error| unreadable(&error))?;
                Ok::<_, Refusal>(bytes)
            };
            let against = replaced.by(some).into_iter().map(|index| read(&self.segments[usize::from(index)]));
            let prefix = prefix_of(against)?.map_err(|error| Refusal::of(&error))?;
            let thin = some.iter().map(|index| {
                let bytes = read(&leaves[usize::from(*index)])?;
                manifest::shorten(&bytes).map_err(|error| Refusal::of(&error))
            });
            let thin = thin.collect::<Result<Vec<_>, Refusal>>()?;
            if !send(SegmentBatch::at_level(level, &thin, Some(&prefix), Marks::default())) {
                return Ok(());
            }
        }
        Ok(())
    }
}
