//! Wanted chunks that are sent together, and the older chunks that they are encoded against.

use crate::likeness::Likeness;
use crate::wire::Span;
use format::recipe::ChunkRef;
use ground::limits::FRAME_CHUNKS_MAX;

/// 4 MiB: plain bytes of a unit.
const UNIT_BYTES: usize = 4 * 1024 * 1024;
/// 8 MiB: older bytes that one unit is encoded against.
const UNIT_BASIS_BYTES: usize = 8 * 1024 * 1024;

/// 256 KiB: plain bytes of a pull's first unit, which the link waits for.
const UNIT_BYTES_FIRST: usize = 256 * 1024;

/// The plain bytes of the next unit: few at first, then twice as many each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp(usize);

impl Ramp {
    /// Begins a pull. What is compressed against an older release is not divided more than it must be.
    pub fn begin(has_base: bool) -> Self {
        Self(if has_base { UNIT_BYTES } else { UNIT_BYTES_FIRST })
    }

    /// Goes on to the next unit.
    pub fn advance(&mut self) {
        self.0 = (self.0 * 2).min(UNIT_BYTES);
    }
}

/// Chunks for one parcel, or for frames where they resemble nothing.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// Wanted chunks, in order.
    pub chunks: Vec<ChunkRef>,
    /// Their plain bytes.
    pub bytes: usize,
    /// Runs of the agent's release that the chunks resemble.
    pub spans: Vec<Span>,
    /// The chunks of `spans`.
    pub basis: Vec<ChunkRef>,
    /// Their plain bytes.
    pub basis_bytes: usize,
}

impl Unit {
    /// Returns whether the basis has room for what `likeness` found, or the unit has no chunk yet and is not to be sent.
    pub fn takes(&self, likeness: &Likeness) -> bool {
        self.chunks.is_empty() || self.basis_bytes + plain_bytes(&likeness.chunks) <= UNIT_BASIS_BYTES
    }

    /// Adds a run to the basis; leaves out one that it has, or that alone is too large.
    pub fn add_basis(&mut self, likeness: Likeness) {
        let bytes = plain_bytes(&likeness.chunks);
        if bytes <= UNIT_BASIS_BYTES && !self.spans.contains(&likeness.basis) {
            self.spans.push(likeness.basis);
            self.basis.extend(likeness.chunks);
            self.basis_bytes += bytes;
        }
    }

    /// Adds a wanted chunk.
    pub fn add(&mut self, chunk: ChunkRef) {
        self.bytes += chunk.bytes as usize;
        self.chunks.push(chunk);
    }

    /// Returns whether the unit is to be sent before another chunk is added.
    pub fn is_full(&self, ramp: Ramp) -> bool {
        self.bytes >= ramp.0 || self.chunks.len() == FRAME_CHUNKS_MAX
    }
}

fn plain_bytes(chunks: &[ChunkRef]) -> usize {
    chunks.iter().map(|chunk| chunk.bytes as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta::similar::Rule;
    use format::manifest::{RefAt, SegmentIndex};

    #[test]
    fn a_unit_without_chunks_is_not_sent_for_what_is_too_large_alone() {
        let chunk = ChunkRef::of(&vec![7; 65_536]);
        let at = RefAt { segment: SegmentIndex::of(0), reference: 0 };
        let basis = Span { segment: at.segment, first: 0, count: 129 };
        let large = Likeness {
            base_begin: None,
            new: vec![at],
            basis,
            chunks: vec![chunk; 129],
            rule: Rule::Path,
            base_path: None,
            edits: 0,
        };
        let mut unit = Unit::default();
        assert!(unit.takes(&large));
        unit.add_basis(large);
        assert!(unit.spans.is_empty());
        unit.add(chunk);
        assert_eq!((unit.chunks.len(), unit.bytes), (1, 65_536));
    }
}
