//! Reads chunks out of packs, with the last frames kept decoded.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::Store;
use super::index::Place;
use super::packs::Pack;
use crate::compression::Decompressor;
use crate::ids::ChunkId;
use crate::pack::FrameView;
use crate::reassembly::{ChunkReader, SourceError};
use crate::recipe::ChunkRef;

/// Frames kept decoded by one reader: some 2 MiB; neighbours of the next chunk are mostly in the last.
const FRAMES_KEPT: usize = 8;

/// A reader of one thread.
#[derive(Debug)]
pub struct StoreReader<'a> {
    store: &'a Store,
    zstd: Decompressor,
    frames: VecDeque<Decoded>,
    /// Which frame, counted since the start, holds a chunk, and where.
    chunks: HashMap<ChunkId, (u64, Range<usize>)>,
    /// How many frames were dropped from the front.
    dropped: u64,
}

#[derive(Debug)]
struct Decoded {
    plain: Vec<u8>,
    ids: Vec<ChunkId>,
    pack: Arc<Pack>,
}

impl<'a> StoreReader<'a> {
    /// Starts with nothing decoded.
    pub fn new(store: &'a Store) -> Self {
        Self { store, zstd: Decompressor::new(), frames: VecDeque::new(), chunks: HashMap::new(), dropped: 0 }
    }

    /// The store that is read.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    fn place(&self, id: &ChunkId) -> Result<(Place, Arc<Pack>), SourceError> {
        let found = self.store.locate(id).map_err(|error| SourceError::Index(error.to_string()))?;
        found.ok_or(SourceError::Unknown(*id))
    }

    /// Decodes the frame that holds the chunk.
    fn decode(&mut self, id: &ChunkId) -> Result<(), SourceError> {
        let (place, pack) = self.place(id)?;
        let damaged = || SourceError::Damaged { id: *id, place: pack.path().display().to_string() };
        if self.frames.len() == FRAMES_KEPT {
            self.drop_oldest();
        }
        let number = self.dropped + self.frames.len() as u64;
        let mut ids = Vec::new();
        let mut plain = Vec::new();
        let frame_bytes = {
            let bytes = pack.frame(u64::from(place.frame_offset))?;
            let frame = FrameView::parse(&bytes, u64::from(place.frame_offset)).map_err(|_| damaged())?;
            let decoded =
                self.zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
            decoded.map_err(|_| damaged())?;
            let mut offset = 0;
            for chunk in frame.chunks() {
                let end = offset + chunk.bytes as usize;
                ids.push(chunk.id);
                self.chunks.insert(chunk.id, (number, offset..end));
                offset = end;
            }
            frame.bytes().len()
        };
        pack.release(u64::from(place.frame_offset), frame_bytes);
        self.frames.push_back(Decoded { plain, ids, pack });
        Ok(())
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            for id in frame.ids {
                // The same chunk may be in a later frame as well.
                if self.chunks.get(&id).is_some_and(|(number, _)| *number == self.dropped) {
                    self.chunks.remove(&id);
                }
            }
            self.dropped += 1;
        }
    }
}

impl ChunkReader for StoreReader<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if !self.chunks.contains_key(&chunk.id) {
            self.decode(&chunk.id)?;
        }
        let (number, range) = self.chunks.get(&chunk.id).ok_or(SourceError::Unknown(chunk.id))?;
        let slot = usize::try_from(number - self.dropped).unwrap_or(usize::MAX);
        let frame = self.frames.get(slot).ok_or(SourceError::Unknown(chunk.id))?;
        let bytes = frame.plain.get(range.clone()).unwrap_or_default();
        if bytes.len() != chunk.bytes as usize || ChunkId::of(bytes) != chunk.id {
            let place = frame.pack.path().display().to_string();
            return Err(SourceError::Damaged { id: chunk.id, place });
        }
        out.extend_from_slice(bytes);
        Ok(())
    }
}
