//! The chunks that a pull has fetched: in memory, and once they are many or it takes long, in a store beside what is pulled.
//!
//! What the tree gets is thus written once, where it is not much. A pull that fails or is dropped writes what is in memory to the store,
//! where the next one finds it; one that is killed has lost what came within some seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::agent::lazy_store::LazyStore;
use crate::restore::{ChunkReader, SourceError};
use crate::store::{self, DecodedFrames, Store, StoreReader};
use delta::compression::Decompressor;
use disk::files;
use format::manifest::{NodeRef, SegmentName};
use format::pack::{Frame, frame_bytes};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ShortId};
use ground::poison::Unpoisoned as _;

/// 64 MiB: most updates are smaller, and an agent has 200 MB.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// 10 s: a pull that is killed fetches at most this much of its time again.
const HELD_FOR_MAX: Duration = Duration::from_secs(10);
/// Memory that a chunk takes beside its frame.
const CHUNK_OVERHEAD_BYTES: usize = 64;

/// Fetched chunks. All methods may be called from any thread; those that look something up may read the store.
pub struct FetchedChunks {
    folder: PathBuf,
    store: LazyStore,
    held: Mutex<Held>,
    held_bytes_max: usize,
    /// True if they are of use to one command alone.
    is_passing: bool,
}

/// Frames in memory.
#[derive(Default)]
struct Held {
    frames: Vec<Arc<Frame>>,
    /// The frame of each chunk, and the chunk's length.
    chunks: BTreeMap<ChunkId, (usize, u32)>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Held {
    fn find(&self, id: &ChunkId) -> Option<ChunkRef> {
        self.chunks.get(id).map(|(_, bytes)| ChunkRef { id: *id, bytes: *bytes })
    }

    /// Returns the first chunk whose id is not below `lowest`.
    fn from(&self, lowest: ChunkId) -> Option<ChunkRef> {
        let (id, (_, bytes)) = self.chunks.range((Bound::Included(lowest), Bound::Unbounded)).next()?;
        Some(ChunkRef { id: *id, bytes: *bytes })
    }

    fn is_old(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() > HELD_FOR_MAX)
    }
}

impl FetchedChunks {
    /// Begins with what an earlier pull left in the store in `folder`, if there is one.
    pub fn new(folder: PathBuf) -> Self {
        let store = LazyStore::new(folder.clone(), store::Options::PASSING);
        Self { folder, store, held: Mutex::default(), held_bytes_max: HELD_BYTES_MAX, is_passing: false }
    }

    /// Begins as [`Self::new`] does, for one command: nothing is left to a later one.
    pub fn passing(folder: PathBuf) -> Self {
        let mut passing = Self::new(folder);
        passing.is_passing = true;
        passing
    }

    /// Adds a frame, whose chunks were verified.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn append(&self, mut frame: Frame) -> store::Result<()> {
        // A compressor leaves room for what could not be made smaller.
        frame.payload.shrink_to_fit();
        frame.chunks.shrink_to_fit();
        let mut held = self.held();
        let number = held.frames.len();
        for chunk in &frame.chunks {
            held.chunks.insert(chunk.id, (number, chunk.bytes));
        }
        held.bytes += frame_bytes(frame.chunks.capacity(), frame.payload.capacity());
        held.bytes += CHUNK_OVERHEAD_BYTES * frame.chunks.len();
        held.since.get_or_insert_with(Instant::now);
        held.frames.push(Arc::new(frame));
        if held.bytes > self.held_bytes_max || held.is_old() { self.write(&mut held) } else { Ok(()) }
    }

    /// Returns whether the chunk is there, with this length.
    ///
    /// # Errors
    /// The store's.
    pub fn holds(&self, chunk: &ChunkRef) -> store::Result<bool> {
        if self.held().find(&chunk.id) == Some(*chunk) {
            return Ok(true);
        }
        self.store.if_there().map_or(Ok(false), |store| store.holds(chunk))
    }

    /// Returns the first chunk with this short id.
    ///
    /// # Errors
    /// The store's.
    pub fn find_short(&self, short: ShortId) -> store::Result<Option<ChunkRef>> {
        let held = self.held().from(short.lowest()).filter(|chunk| ShortId::from(chunk.id) == short);
        match (held, self.store.if_there()) {
            (None, Some(store)) => store.find_short(short),
            (held, _) => Ok(held),
        }
    }

    /// Returns the first segment with this name.
    ///
    /// # Errors
    /// The store's.
    pub fn find_name(&self, name: SegmentName) -> store::Result<Option<NodeRef>> {
        let held = self.held().from(name.lowest()).filter(|chunk| SegmentName::from(chunk.id) == name);
        let held = held.map(|ChunkRef { id, bytes }| NodeRef { id, bytes });
        match (held, self.store.if_there()) {
            (None, Some(store)) => store.find_name(name),
            (held, _) => Ok(held),
        }
    }

    /// Removes all of it, also from the disk: what was fetched has its place.
    ///
    /// # Errors
    /// The store cannot be removed.
    pub fn remove(&self) -> files::Result<()> {
        *self.held() = Held::default();
        self.store.close();
        files::remove(&self.folder)
    }

    /// Leaves all of it in the store, as far as the disk lets: the next pull need not fetch it.
    pub fn leave(&self) {
        if let Err(error) = self.write(&mut self.held()) {
            // It is fetched again.
            tracing::debug!(%error, "fetched chunks are not kept");
        }
        self.store.close();
    }

    /// Writes what is in memory for long to the store, as far as the disk lets.
    pub(super) fn write_old(&self) {
        let mut held = self.held();
        if held.is_old()
            && let Err(error) = self.write(&mut held)
        {
            tracing::debug!(%error, "fetched chunks are not written yet");
        }
    }

    /// Returns a reader for one thread.
    pub(super) fn reader(&self) -> FetchedReader<'_> {
        FetchedReader { chunks: self, zstd: None, decoded: DecodedFrames::default(), stored: None }
    }

    /// Writes what is in memory to the store.
    fn write(&self, held: &mut Held) -> store::Result<()> {
        if held.frames.is_empty() {
            return Ok(());
        }
        let store = self.store.get()?;
        for frame in &held.frames {
            store.append(frame)?;
        }
        *held = Held::default();
        Ok(())
    }

    fn frame_of(&self, id: &ChunkId) -> Option<Arc<Frame>> {
        let held = self.held();
        held.chunks.get(id).map(|(number, _)| Arc::clone(&held.frames[*number]))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unpoisoned()
    }
}

impl Drop for FetchedChunks {
    /// A pull that was dropped leaves what it had fetched. Waits for the disk, on a thread that may be held up.
    fn drop(&mut self) {
        if self.is_passing || self.held().frames.is_empty() {
            return;
        }
        std::thread::scope(|scope| {
            let leaving = std::thread::Builder::new().spawn_scoped(scope, || self.leave());
            // Without a thread it is fetched again.
            drop(leaving.map(std::thread::ScopedJoinHandle::join));
        });
    }
}

impl fmt::Debug for FetchedChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedChunks").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Reads fetched chunks.
#[derive(Debug)]
pub(super) struct FetchedReader<'a> {
    chunks: &'a FetchedChunks,
    zstd: Option<Decompressor>,
    decoded: DecodedFrames,
    /// Reads the store, once there is one.
    stored: Option<StoreReader<Arc<Store>>>,
}

impl ChunkReader for FetchedReader<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if self.decoded.copy(chunk, out) {
            return Ok(());
        }
        if let Some(frame) = self.chunks.frame_of(&chunk.id) {
            let plain_bytes = usize::try_from(frame.plain_bytes()).unwrap_or(usize::MAX);
            let zstd = self.zstd.get_or_insert_with(Decompressor::new);
            let mut plain = Vec::new();
            let decoded = zstd.decompress(frame.codec, &frame.payload, plain_bytes, &mut plain);
            if decoded.is_ok() {
                self.decoded.push(plain, frame.chunks.iter().copied());
            }
            if decoded.is_ok() && self.decoded.copy(chunk, out) {
                return Ok(());
            }
            return Err(SourceError::Damaged { id: chunk.id, location: "memory".to_owned() });
        }
        if self.stored.is_none() {
            self.stored = self.chunks.store.if_there().map(|store| StoreReader::new(Arc::clone(store)));
        }
        self.stored.as_mut().ok_or(SourceError::Unknown(chunk.id))?.read(chunk, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta::compression::{Compressor, LEVEL_FAST};
    use format::pack::FrameKind;

    fn frame(number: u32, bytes: usize) -> (ChunkRef, Frame) {
        let content = crate::restore::noise(number.into(), bytes);
        let mut compressor = Compressor::new(LEVEL_FAST);
        let frame = Frame::compress(FrameKind::Content, [content.as_slice()], &mut compressor);
        (ChunkRef::of(&content), frame)
    }

    fn reads(fetched: &FetchedChunks, chunk: &ChunkRef) -> bool {
        let mut out = Vec::new();
        fetched.reader().read(chunk, &mut out).is_ok() && ChunkRef::of(&out) == *chunk
    }

    #[test]
    fn a_few_chunks_stay_in_memory_and_are_left_by_a_pull_that_ends_before_they_have_a_place() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = folder.path().join("store");
        let fetched = FetchedChunks::new(place.clone());
        let all: Vec<_> = (0..40).map(|number| frame(number, 50_000)).collect();
        for (_, frame) in &all {
            fetched.append(frame.clone()).expect("appended");
        }
        let finds = |fetched: &FetchedChunks, chunk: &ChunkRef| {
            let node = fetched.find_name(chunk.id.into()).expect("looked up");
            let short = fetched.find_short(chunk.id.into()).expect("looked up");
            fetched.holds(chunk).expect("looked up")
                && short == Some(*chunk)
                && node.map(ChunkRef::from) == Some(*chunk)
                && reads(fetched, chunk)
        };
        assert!(all.iter().all(|(chunk, _)| finds(&fetched, chunk)));
        let (other, _) = frame(100, 50_000);
        assert!(!finds(&fetched, &other) && !reads(&fetched, &other));
        assert!(!place.exists(), "nothing is written");
        drop(fetched);
        let later = FetchedChunks::new(place.clone());
        assert!(all.iter().all(|(chunk, _)| finds(&later, chunk)), "the next pull finds them");
        later.append(frame(100, 50_000).1).expect("appended");
        assert!(finds(&later, &other) && finds(&later, &all[3].0));
        later.remove().expect("removed");
        drop(later);
        assert!(!place.exists(), "nor is anything left once they have a place");
    }

    #[test]
    fn memory_is_bounded_and_what_is_beyond_goes_to_the_store() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut fetched = FetchedChunks::new(folder.path().join("store"));
        fetched.held_bytes_max = 1_000_000;
        let all: Vec<_> = (0..100)
            .map(|number| frame(number, 60_000))
            .map(|(chunk, frame)| {
                fetched.append(frame).expect("appended");
                assert!(fetched.held().bytes <= 1_000_000);
                chunk
            })
            .collect();
        assert!(all.iter().all(|chunk| reads(&fetched, chunk)));
    }

    #[test]
    fn what_was_compressed_takes_the_memory_that_is_counted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fetched = FetchedChunks::new(folder.path().join("store"));
        let mut compressor = Compressor::new(LEVEL_FAST);
        let content = vec![7; 256 * 1024];
        let frame = Frame::compress(FrameKind::Content, [content.as_slice()], &mut compressor);
        assert!(frame.payload.capacity() > 10 * frame.payload.len(), "as a compressor leaves it");
        fetched.append(frame).expect("appended");
        let held = fetched.held();
        assert!(held.frames.iter().map(|frame| frame.payload.capacity()).sum::<usize>() <= held.bytes);
        assert!(held.bytes < 10_000, "{}", held.bytes);
    }

    #[test]
    fn what_came_long_ago_goes_to_the_store() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fetched = FetchedChunks::new(folder.path().join("store"));
        let (first, first_frame) = frame(1, 5000);
        fetched.append(first_frame).expect("appended");
        fetched.held().since = Instant::now().checked_sub(HELD_FOR_MAX * 2);
        fetched.append(frame(2, 5000).1).expect("appended");
        assert!(fetched.held().frames.is_empty() && fetched.store.if_open().is_some());
        assert!(reads(&fetched, &first));
        // Also where nothing comes any more.
        fetched.append(frame(3, 5000).1).expect("appended");
        fetched.write_old();
        assert_eq!(fetched.held().frames.len(), 1);
        fetched.held().since = Instant::now().checked_sub(HELD_FOR_MAX * 2);
        fetched.write_old();
        assert!(fetched.held().frames.is_empty());
    }
}
