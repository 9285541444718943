//! The release that a pulling agent has: new segments and chunks are sent as changes to it.

use crate::likeness::{BaseRelease, Edges, SegmentsReplaced, prefix_of};
use crate::pull::ReleaseView;
use crate::transfer::read_segment;
use crate::wire::{Marks, SegmentBatch};
use crate::{ContentView, Error};
use delta::compression::{LEVEL_DEFAULT, LEVEL_SMALL};
use format::manifest::{self, Gap, NodeRef, Outline, SegmentIndex};
use ground::limits::{FRAME_CHUNKS_MAX, PULL_THIN_BYTES_MAX, SEGMENT_BATCH_BYTES};

/// 512 KiB: new segments up to this size are compressed as far as possible, which takes a second for 2 MB; many
/// machines may pull at the same time.
const SMALL_BYTES: usize = 512 * 1024;

/// A release that both sides have.
#[derive(Debug)]
pub(super) struct Base {
    pub release: BaseRelease,
    outline: Outline,
}

impl Base {
    /// Compares the release that the agent has with the one that it pulls; `None` where it cannot be read.
    pub fn open(segments: Vec<NodeRef>, leaves: &[NodeRef], view: &mut impl ContentView) -> Option<Self> {
        let outline = Outline::of(&segments, leaves.iter().copied().map(Some));
        let gaps = outline.gaps(segments.len());
        let read = |_: SegmentIndex, node: &NodeRef| read_segment(node, view);
        let release = BaseRelease::read(segments, &gaps, &Edges::new(), read).ok()?;
        Some(Self { release, outline })
    }

    /// Returns where the pulled release has other segments.
    pub fn gaps(&self) -> Vec<Gap> {
        self.outline.gaps(self.release.segments().len())
    }

    /// Returns how the pulled release's segments follow from the base's, and the new ones; none where too much is new for
    /// an agent to hold until its chunks come.
    pub fn outline(&self, leaves: &[NodeRef]) -> Option<(Outline, Outlining)> {
        let new = leaves.iter().filter(|node| !self.release.has(node));
        let new_bytes: usize = new.map(|node| node.bytes as usize).sum();
        if new_bytes > PULL_THIN_BYTES_MAX || !self.outline.is_bounded() {
            return None;
        }
        let gaps = self.gaps();
        let new: Vec<_> = gaps.iter().flat_map(|gap| SegmentIndex::range(gap.new.clone())).collect();
        let bytes: usize = new.iter().map(|index| leaves[usize::from(*index)].bytes as usize).sum();
        let level = if bytes <= SMALL_BYTES { LEVEL_SMALL } else { LEVEL_DEFAULT };
        Some((self.outline.clone(), Outlining { new, sent: 0, replaced: SegmentsReplaced::new(gaps), level }))
    }
}

/// New segments on their way, thin and compressed against those that they replace.
#[derive(Debug)]
pub(super) struct Outlining {
    new: Vec<SegmentIndex>,
    sent: usize,
    replaced: SegmentsReplaced,
    level: i32,
}

impl Outlining {
    /// Returns the next batch; `None` at the end. Memory: the batch and its prefix.
    pub fn next(
        &mut self,
        base: &Base,
        leaves: &[NodeRef],
        view: &mut impl ReleaseView,
    ) -> Result<Option<SegmentBatch>, Error> {
        let rest = &self.new[self.sent..];
        if rest.is_empty() {
            return Ok(None);
        }
        let mut bytes = 0;
        let fits = |index: &&SegmentIndex| {
            bytes += leaves[usize::from(**index)].bytes as usize;
            bytes <= SEGMENT_BATCH_BYTES
        };
        let count = rest.iter().take(FRAME_CHUNKS_MAX).take_while(fits).count().max(1);
        let some = &rest[..count];
        let older = base.release.segments();
        let replaced = self.replaced.by(some).into_iter().map(|index| &older[usize::from(index)]);
        let prefix = prefix_of(replaced.map(|node| read_segment(node, view)))??;
        let thin = some.iter().map(|index| {
            let bytes = read_segment(&leaves[usize::from(*index)], view)?;
            Ok::<_, Error>(manifest::shorten(&bytes)?)
        });
        let thin = thin.collect::<Result<Vec<_>, Error>>()?;
        self.sent += count;
        Ok(Some(SegmentBatch::at_level(self.level, &thin, Some(&prefix), Marks::default())))
    }
}
