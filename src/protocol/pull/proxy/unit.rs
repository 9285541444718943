//! Wanted chunks that are sent together, and the older chunks that they are encoded against.

use crate::likeness::Likeness;
use crate::wire::Span;
use format::recipe::ChunkRef;
use ground::limits::FRAME_CHUNKS_MAX;

/// 4 MiB: plain bytes of a unit.
const UNIT_BYTES: usize = 4 * 1024 * 1024;
/// 8 MiB: older bytes that one unit is encoded against.
const UNIT_BASIS_BYTES: usize = 8 * 1024 * 1024;

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
    /// Returns whether the basis has room for what `likeness` found.
    pub fn takes(&self, likeness: &Likeness) -> bool {
        self.basis_bytes + plain_bytes(&likeness.chunks) <= UNIT_BASIS_BYTES
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
    pub fn is_full(&self) -> bool {
        self.bytes >= UNIT_BYTES || self.chunks.len() == FRAME_CHUNKS_MAX
    }
}

fn plain_bytes(chunks: &[ChunkRef]) -> usize {
    chunks.iter().map(|chunk| chunk.bytes as usize).sum()
}
