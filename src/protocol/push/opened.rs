//! Decodes, hashes and sketches the chunks of a frame: what takes processors, and needs nothing of the push.

use crate::Error;
use crate::wire::Batch;
use delta::compression::Decompressor;
use delta::similar::Sketch;
use format::recipe::ChunkRef;

/// Opens batches of chunks; keeps its working memory (some 300 KB) for the next.
#[derive(Debug, Default)]
pub struct Opener {
    zstd: Decompressor,
    plain: Vec<u8>,
}

/// Chunks as they came, with the ids that hashing gave.
#[derive(Debug)]
pub struct OpenedBatch {
    batch: Batch,
    chunks: Vec<(ChunkRef, Option<Sketch>)>,
}

impl Opener {
    /// Decodes the chunks, and hashes and sketches each. Some 0.7 GB/s.
    ///
    /// # Errors
    /// [`Error::Batch`] for one out of bounds, or a payload that is not what it announced.
    pub fn open(&mut self, batch: Batch) -> Result<OpenedBatch, Error> {
        let parts = batch.open(&mut self.zstd, &mut self.plain)?;
        let parts = parts.into_iter().map(|part| &self.plain[part]);
        let chunks = parts.map(|part| (ChunkRef::of(part), Sketch::of(part))).collect();
        Ok(OpenedBatch { batch, chunks })
    }

    /// Decodes the chunks of an opened batch again.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub(super) fn plain(&mut self, batch: &Batch) -> Result<&[u8], Error> {
        batch.open(&mut self.zstd, &mut self.plain)?;
        Ok(&self.plain)
    }
}

impl OpenedBatch {
    /// Returns the chunks, in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkRef> {
        self.chunks.iter().map(|(chunk, _)| *chunk)
    }

    /// Returns the batch, and the sketch of each chunk that has one.
    pub(super) fn into_parts(self) -> (Batch, Vec<(ChunkRef, Option<Sketch>)>) {
        (self.batch, self.chunks)
    }
}
