//! Takes what a pull receives: proves chunks, completes thin segments, stores both.
//!
//! Every function hashes, decompresses or reads files: none is for an async thread.

use std::ops::Range;
use std::sync::Arc;

use super::listing::{Listing, keep_nodes, keep_parts};
use super::local_chunks::{DirectoryChunks, LocalChunks};
use super::window::{Awaited, Window};
use crate::agent::{Error, Result};
use crate::restore::ChunkSource;
use crate::store::{self, Store};
use delta::compression::{Compressor, Decompressor, LEVEL_FAST};
use format::manifest::{Root, SegmentIndex};
use format::pack::{Frame, FrameEnd, FrameKind, Framer, split};
use format::recipe::ChunkRef;
use ground::limits::PARCEL_BASIS_MAX;
use protocol::transfer::decode_parcel;
use protocol::wire::{Basis, Batch, Marks, Parcel};

/// The state of a pull that receives chunks.
pub(super) struct Assembly {
    listing: Listing,
    awaited: Awaited,
    present: Arc<DirectoryChunks>,
    store: Arc<Store>,
    decompressor: Decompressor,
    plain: Vec<u8>,
}

/// Chunks that came.
pub(super) enum Received {
    /// A frame.
    Batch(Batch),
    /// A parcel, and its payload.
    Parcel(Parcel, Vec<u8>),
}

impl Assembly {
    /// Begins; chunks are looked for in `present` and `store`, and kept in `store`.
    pub fn new(listing: Listing, present: &Arc<DirectoryChunks>, store: &Arc<Store>) -> Self {
        Self {
            listing,
            awaited: Awaited::default(),
            present: Arc::clone(present),
            store: Arc::clone(store),
            decompressor: Decompressor::new(),
            plain: Vec::new(),
        }
    }

    /// Returns how many segments the release has.
    pub fn segments(&self) -> usize {
        self.listing.nodes.len()
    }

    /// Marks the chunks of some segments that are to be asked for.
    pub fn open(&mut self, segments: Range<usize>) -> Result<(Marks, Window)> {
        let segments = SegmentIndex::range(segments);
        self.awaited.open(segments, &mut self.listing, &self.present, &self.store)
    }

    /// Verifies and stores chunks, which must be the next of the window; returns their plain bytes.
    pub fn take(&mut self, received: Received, window: &mut Window) -> Result<u64> {
        let (lengths, frame) = match received {
            Received::Batch(batch) => {
                batch.open(&mut self.decompressor, &mut self.plain)?;
                (batch.lengths, Some((batch.codec, batch.payload)))
            }
            Received::Parcel(parcel, payload) => {
                self.plain = decode_against_local(&parcel, &payload, &self.present, &self.store)?;
                (parcel.lengths, None)
            }
        };
        let mut chunks = Vec::new();
        for part in split(&self.plain, &lengths) {
            chunks.push(self.awaited.arrive(part, window, &mut self.listing)?);
        }
        match frame {
            Some((codec, payload)) => {
                let frame = Frame { kind: FrameKind::Content, codec, chunks, payload };
                self.store.append(&frame).map(drop)?;
            }
            None => keep_anew(&self.store, &chunks, &self.plain)?,
        }
        keep_parts(&self.awaited.whole(), &self.store)?;
        Ok(self.plain.len() as u64)
    }

    /// Proves that the segments make the root, and stores what the rebuild needs of the manifest.
    ///
    /// # Errors
    /// Chunks have not come; the segments make another root.
    pub fn finish(mut self, root: &Root) -> Result<()> {
        keep_parts(&self.awaited.whole(), &self.store)?;
        let segments = self.listing.whole().ok_or(Error::OutOfTurn("End before all chunks"))?;
        keep_nodes(root, &segments, &self.present, &self.store)
    }
}

/// Decodes chunks that are encoded against those of the directory.
fn decode_against_local(
    parcel: &Parcel,
    payload: &[u8],
    present: &DirectoryChunks,
    store: &Store,
) -> Result<Vec<u8>> {
    let (Basis::Prefix(spans) | Basis::Patch(spans)) = &parcel.basis else {
        return Err(Error::OutOfTurn("a parcel of another kind"));
    };
    let local = LocalChunks { present, fetched: store };
    let mut reader = local.reader();
    let mut older = Vec::new();
    for span in spans {
        let left = PARCEL_BASIS_MAX - older.len();
        let chunks = present
            .chunks_of(*span, left)
            .ok_or(Error::OutOfTurn("a parcel whose reference is outside the base release"))?;
        for chunk in chunks {
            reader.read(&chunk, &mut older).map_err(|_| Error::DirectoryChanged)?;
        }
    }
    Ok(decode_parcel(parcel, payload, &older)?)
}

/// Stores chunks that follow one another in `plain`, in frames of its own; leaves out those that `plain` does not have whole.
pub(super) fn keep_anew(store: &Store, chunks: &[ChunkRef], plain: &[u8]) -> store::Result<()> {
    let mut compressor = Compressor::new(LEVEL_FAST);
    let framer = Framer::new(FrameKind::Content, FrameEnd::Below, &mut compressor);
    let parts = chunks.iter().copied().zip(split(plain, chunks.iter().map(|chunk| &chunk.bytes)));
    framer.frame_all(parts, |frame| store.append(&frame).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[test]
    fn a_chunk_without_all_its_bytes_is_not_stored() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path(), Options::PASSING).expect("a new store");
        let (one, two) = ([1u8; 5000], [2u8; 3000]);
        let chunks = [ChunkRef::of(&one), ChunkRef::of(&two)];
        keep_anew(&store, &chunks, &[one.as_slice(), &two[1..]].concat()).expect("stored");
        assert!(store.holds(&chunks[0]).expect("read") && !store.holds(&chunks[1]).expect("read"));
        keep_anew(&store, &chunks, &[]).expect("nothing to store");
    }
}
