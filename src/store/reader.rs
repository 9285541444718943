//! Reads chunks out of packs, and caches the frames it decoded last.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

use super::Store;
use super::decoded::DecodedFrames;
use super::packs::Pack;
use super::place::Place;
use crate::restore::{ChunkReader, ChunkSource, Rebuilt, SharedSource, SourceError};
use delta::compression::Decompressor;
use format::pack::FrameView;
use format::recipe::ChunkRef;
use ground::faults::Faulty;
use ground::ids::ChunkId;

/// Copies of one chunk that are tried: the recent one, and that of the index.
const COPIES_TRIED: usize = 2;

/// A reader of one thread, over a borrowed or a shared store.
#[derive(Debug)]
pub struct StoreReader<S> {
    store: S,
    zstd: Decompressor,
    decoded: DecodedFrames,
}

impl<S: Deref<Target = Store>> StoreReader<S> {
    /// Starts with nothing decoded.
    pub fn new(store: S) -> Self {
        Self { store, zstd: Decompressor::new(), decoded: DecodedFrames::default() }
    }

    fn place(&self, id: &ChunkId) -> Result<(Place, Arc<Pack>), SourceError> {
        self.store.locate(id).map_err(|error| unanswered(&error))?.ok_or(SourceError::Unknown(*id))
    }

    /// Decodes the frame that holds the chunk, and returns its place.
    fn decode(&mut self, id: &ChunkId) -> Result<(Place, Arc<Pack>), SourceError> {
        let (place, pack) = self.place(id)?;
        let offset = u64::from(place.frame_offset);
        let damaged = |store: &Store| {
            store.mark_damaged(*id, place, &pack);
            SourceError::Damaged { id: *id, location: pack.location().display().to_string() }
        };
        let mut plain = Vec::new();
        let frame_bytes = {
            let bytes = match pack.frame(offset) {
                Err(error) if is_damage(&error.source) => {
                    tracing::error!(%error, "a pack cannot be read");
                    return Err(damaged(&self.store));
                }
                bytes => bytes?,
            };
            let frame = FrameView::parse(&bytes, offset).map_err(|_| damaged(&self.store))?;
            let decoded =
                self.zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
            decoded.map_err(|_| damaged(&self.store))?;
            self.decoded.push(plain, frame.chunks());
            frame.bytes().len()
        };
        pack.release(offset, frame_bytes);
        Ok((place, pack))
    }
}

impl<S: Deref<Target = Store>> ChunkReader for StoreReader<S> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if self.decoded.copy(chunk, out) {
            return Ok(());
        }
        let is_known = self.store.find(&chunk.id).ok().flatten();
        if let Some(place) = is_known.filter(|place| place.bytes != chunk.bytes) {
            // The manifest has a wrong length for the chunk; the chunk itself is not damaged.
            let location = format!("a manifest of {} B, expected {} B", chunk.bytes, place.bytes);
            return Err(SourceError::Damaged { id: chunk.id, location });
        }
        // Not decoded yet, or the copy in a frame that was decoded for a neighbour is damaged. Where one copy is, the
        // store may have another.
        let mut first = None;
        for _ in 0..COPIES_TRIED {
            match self.decode(&chunk.id) {
                Ok(_) if self.decoded.copy(chunk, out) => return Ok(()),
                Ok((place, pack)) => {
                    self.store.mark_damaged(chunk.id, place, &pack);
                    let location = pack.location().display().to_string();
                    first = first.or(Some(SourceError::Damaged { id: chunk.id, location }));
                }
                Err(error @ SourceError::Damaged { .. }) => first = first.or(Some(error)),
                Err(error) => return Err(first.unwrap_or(error)),
            }
        }
        Err(first.unwrap_or(SourceError::Unknown(chunk.id)))
    }
}

/// Returns whether the error means that a pack is damaged: its content is not there, or the disk cannot read it.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Turns a failed lookup into an error of the source.
pub fn unanswered(error: &super::Error) -> SourceError {
    SourceError::Index { fault: error.fault(), text: error.to_string() }
}

/// A store whose readers may outlive the borrow.
impl ChunkSource for Arc<Store> {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        self.as_ref().reader()
    }

    fn rebuilt(&self) -> Option<&Rebuilt> {
        self.as_ref().rebuilt()
    }

    fn shared(&self) -> Option<Arc<dyn SharedSource>> {
        Some(Arc::clone(self) as Arc<dyn SharedSource>)
    }
}

impl SharedSource for Store {
    fn shared_reader(self: Arc<Self>) -> Box<dyn ChunkReader + Send> {
        Box::new(StoreReader::new(self))
    }

    fn holds_chunk(&self, chunk: &ChunkRef) -> bool {
        self.holds(chunk).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::store::Options;
    use crate::store::blobs::{Blobs, LocalBlobs};
    use delta::compression::Codec;
    use format::pack::{Frame, FrameKind};

    #[test]
    fn a_chunk_brought_again_is_read_though_its_neighbours_frame_has_it_damaged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let parts: [&[u8]; 2] = [b"the first chunk", b"the second chunk"];
        let chunks = parts.map(|bytes| ChunkRef {
            id: ChunkId::of(bytes),
            bytes: u32::try_from(bytes.len()).expect("short"),
        });
        let frame = |places: &[usize]| Frame {
            kind: FrameKind::Content,
            codec: Codec::Raw,
            chunks: places.iter().map(|place| chunks[*place]).collect(),
            payload: places.iter().flat_map(|place| parts[*place]).copied().collect(),
        };
        let store = Store::open(folder.path(), options).expect("a new store");
        store.append(&frame(&[0, 1])).expect("appended");
        drop(store);
        let blobs = LocalBlobs::new(folder.path().join("packs"));
        let pack = blobs.location(blobs.list().expect("listed")[0]);
        let bytes = fs::read(&pack).expect("a pack");
        let at = bytes.windows(parts[1].len()).position(|window| window == parts[1]).expect("it is raw");
        let file = fs::File::options().write(true).open(&pack).expect("a pack");
        file.write_all_at(b"T", at as u64).expect("damaged");

        let store = Store::open(folder.path(), options).expect("the old store");
        let read = |reader: &mut StoreReader<&Store>, place: usize| {
            let mut bytes = Vec::new();
            reader.read(&chunks[place], &mut bytes).map(|()| bytes)
        };
        let mut reader = StoreReader::new(&store);
        assert_eq!(read(&mut reader, 0).expect("intact"), parts[0]);
        assert!(matches!(read(&mut reader, 1), Err(SourceError::Damaged { .. })));
        store.append(&frame(&[1])).expect("appended");
        let mut reader = StoreReader::new(&store);
        assert_eq!(read(&mut reader, 0).expect("intact"), parts[0]);
        assert_eq!(read(&mut reader, 1).expect("brought again"), parts[1]);
    }
}
