//! A cache of pushed chunks, against which the next push encodes what changed.
//!
//! One store of chunks for each proxy, space and application, below the state folder. Without it a push sends more bytes,
//! never other content. Every chunk is verified when it is read, so nothing is synced. A push out of a store has that store in its place.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lazy_store::LazyStore;
use super::memory::Key;
use super::scan::{LastOpened, Spool};
use super::tally;
use crate::restore::{ChunkReader, SharedSource};
use crate::store::{self, StoreReader};
use delta::compression::{Compressor, LEVEL_FAST};
use disk::files::{self, Lock};
use format::manifest::SegmentIndex;
use format::pack::{Frame, FrameEnd, FrameKind, Framer, frame_bytes, split};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// 2 GiB: the caches of all applications together.
pub const CACHE_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
/// A cache this many times larger than the release holds mostly older ones: it is emptied.
const DEAD_FACTOR: u64 = 3;
/// 64 MiB: a smaller cache is never emptied for that.
const DEAD_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// A cache that lacks less than this part of what it may have counts as full.
const FULL_PART: u64 = 8;
/// Segments that are looked at to judge whether a release is cached.
const SEGMENTS_LOOKED_AT: usize = 64;

/// The content here that a push encodes against.
pub enum ChunkCache {
    /// What earlier pushes of the application kept. One process has it at a time.
    Kept(Kept),
    /// The store that the release itself is in; nothing is added to it.
    Stored(Arc<dyn SharedSource>),
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kept(_) => "Kept",
            Self::Stored(_) => "Stored",
        })
    }
}

/// The cache of one application, locked.
#[derive(Debug)]
pub struct Kept {
    store: Arc<LazyStore>,
    folder: PathBuf,
    /// Bytes of the frames added by this push.
    added: AtomicU64,
    _lock: Lock,
}

impl ChunkCache {
    /// Takes the cache for `key`, which is opened or created at its first use; returns none where another push has it.
    pub fn open(state: &Path, key: &Key) -> Option<Self> {
        let folder = state.join("kept").join(key.to_string());
        files::create_folder(&folder).ok()?;
        let mut lock = Lock::take(&folder.join("lock"), Duration::ZERO).ok()??;
        // Its modification time is when the cache was last used.
        lock.describe("a push uses this folder").ok()?;
        let options = store::Options { reserve_bytes: DEAD_BYTES_MIN, ..store::Options::PASSING };
        let store = Arc::new(LazyStore::new(folder.join("content"), options));
        Some(Self::Kept(Kept { store, folder, added: AtomicU64::new(0), _lock: lock }))
    }

    /// Returns whether earlier pushes have left content for `key`.
    pub fn is_there(state: &Path, key: &Key) -> bool {
        state.join("kept").join(key.to_string()).join("content").exists()
    }

    /// Returns whether earlier pushes have left content that this one had no use for.
    pub fn is_untouched(&self) -> bool {
        matches!(self, Self::Kept(kept) if kept.store.is_untouched())
    }

    /// Returns whether a chunk of this id is cached, whatever its length. A store is taken to have those of its releases.
    pub fn knows(&self, id: &ChunkId) -> bool {
        match self {
            Self::Kept(kept) => {
                kept.store.if_there().is_some_and(|store| store.find(id).is_ok_and(|place| place.is_some()))
            }
            Self::Stored(_) => true,
        }
    }

    /// Returns whether the chunk was pushed from here before, so that the proxy most likely has it.
    pub fn was_pushed(&self, chunk: &ChunkRef) -> bool {
        matches!(self, Self::Kept(_)) && self.has(chunk)
    }

    /// Adds the chunks of a release that are not cached, until the cache has `bytes_max`; does nothing where it nearly has, or
    /// the chunks of some segments are cached. Leaves out chunks that cannot be read.
    pub fn fill(&self, spool: &Spool, segments: usize, bytes_max: u64) {
        let step = (segments / SEGMENTS_LOOKED_AT).max(1);
        let mut some = SegmentIndex::range(0..segments).step_by(step);
        let lacks = some.any(|index| {
            let located = spool.chunks(index).unwrap_or_default();
            located.first().into_iter().chain(located.last()).any(|located| !self.has(&located.chunk))
        });
        if !lacks {
            return;
        }
        let Self::Kept(kept) = self else { return };
        let stored = kept.store.if_there().map_or(0, |store| store.stored_bytes().unwrap_or(u64::MAX));
        let mut left = bytes_max.saturating_sub(stored);
        // Of a release that is larger, not every push reads a part anew.
        if left < bytes_max / FULL_PART {
            return;
        }
        let (mut last, mut plain) = (LastOpened::default(), Vec::new());
        for index in SegmentIndex::range(0..segments) {
            let Ok(located) = spool.chunks(index) else { return };
            let mut chunks = Vec::new();
            plain.clear();
            for located in located.into_iter().filter(|located| !self.has(&located.chunk)) {
                let begin = plain.len();
                let bytes = u64::from(located.chunk.bytes);
                if bytes > left || located.read_verified(&mut last, &mut plain).is_err() {
                    plain.truncate(begin);
                    continue;
                }
                left -= bytes;
                chunks.push(located.chunk);
            }
            self.add(&chunks, &plain);
        }
    }

    /// Returns whether the chunk is cached.
    pub fn has(&self, chunk: &ChunkRef) -> bool {
        match self {
            Self::Kept(kept) => {
                kept.store.if_there().is_some_and(|store| store.holds(chunk).unwrap_or(false))
            }
            Self::Stored(source) => source.holds_chunk(chunk),
        }
    }

    /// Returns a reader of cached chunks.
    pub fn reader(&self) -> CacheReader {
        match self {
            Self::Kept(kept) => CacheReader::Kept(Arc::clone(&kept.store)),
            Self::Stored(source) => CacheReader::Open(Arc::clone(source).shared_reader()),
        }
    }

    /// Adds chunks that follow one another in `plain`; leaves out those that `plain` does not have whole. A failure is logged only.
    pub fn add(&self, chunks: &[ChunkRef], plain: &[u8]) {
        let Self::Kept(_) = self else { return };
        let mut compressor = Compressor::new(LEVEL_FAST);
        let framer = Framer::new(FrameKind::Content, FrameEnd::Below, &mut compressor);
        let parts = chunks.iter().copied().zip(split(plain, chunks.iter().map(|chunk| &chunk.bytes)));
        let Ok(()) = framer.frame_all(parts, |frame| {
            self.add_frame(&frame);
            Ok::<_, Infallible>(())
        });
    }

    /// Adds a frame of chunks as it is. A failure is logged only.
    pub fn add_frame(&self, frame: &Frame) {
        let Self::Kept(kept) = self else { return };
        match kept.store.get().and_then(|store| store.append(frame)) {
            Ok(_) => {
                let bytes = frame_bytes(frame.chunks.len(), frame.payload.len());
                kept.added.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "pushed chunks are not cached"),
        }
    }

    /// Closes the cache after the push of a release of `release_bytes`; empties caches where all are more than `bytes_max`.
    /// Neither looks at other caches nor at many packs, but now and then.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn finish(self, state: &Path, release_bytes: u64, bytes_max: u64) -> files::Result<()> {
        let Self::Kept(Kept { store, folder, added, _lock }) = self else { return Ok(()) };
        let Some(opened) = store.if_open() else { return Ok(()) };
        if let Err(error) = opened.close_gathered() {
            tracing::debug!(%error, "small packs stay as they are");
        }
        let stored = opened.stored_bytes().unwrap_or(u64::MAX);
        let is_old = stored > DEAD_BYTES_MIN.max(release_bytes.saturating_mul(DEAD_FACTOR));
        drop(store);
        if is_old || stored > bytes_max {
            drop(files::remove(&folder.join("content")));
        }
        let all = state.join("kept");
        tally::count(&all, added.into_inner(), bytes_max, || evict(&all, &folder, bytes_max))
    }
}

/// Reads cached chunks; verifies each.
pub enum CacheReader {
    /// Nothing was read yet.
    Kept(Arc<LazyStore>),
    /// Reads an open store.
    Open(Box<dyn ChunkReader + Send>),
}

impl CacheReader {
    /// Appends a chunk's bytes; returns false, leaving `out` as it was, where it is not cached or is damaged.
    pub fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let read = self.open().is_some_and(|reader| reader.read(chunk, out).is_ok());
        if !read {
            out.truncate(begin);
        }
        read
    }

    fn open(&mut self) -> Option<&mut (dyn ChunkReader + Send)> {
        if let Self::Kept(store) = self {
            let reader = StoreReader::new(Arc::clone(store.if_there()?));
            *self = Self::Open(Box::new(reader));
        }
        match self {
            Self::Open(reader) => Some(reader.as_mut()),
            Self::Kept(_) => None,
        }
    }
}

/// Removes the least recently used caches, except `current`, where all are more than `bytes_max`; returns the bytes left.
fn evict(cached: &Path, current: &Path, bytes_max: u64) -> files::Result<u64> {
    use disk::files::OnPath;
    let mut all = Vec::new();
    for entry in fs::read_dir(cached).on("read", cached)? {
        let path = entry.on("read", cached)?.path();
        let used = fs::metadata(path.join("lock")).and_then(|lock| lock.modified()).ok();
        all.push((used, bytes_below(&path), path));
    }
    all.sort();
    let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    let kept = if total > bytes_max { tally::kept_bytes(all.len(), bytes_max) } else { bytes_max };
    for (_, bytes, path) in all {
        if total <= kept {
            break;
        }
        if path != *current
            && let Ok(Some(_lock)) = Lock::take(&path.join("lock"), Duration::ZERO)
            && files::remove(&path).is_ok()
        {
            total -= bytes;
        }
    }
    Ok(total)
}

/// Returns the bytes of all files below a folder, as far as they can be read.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::address::Fingerprint;

    fn key(app: &str) -> Key {
        Key::new(&Fingerprint::of_key(b"a key"), "a token", &app.parse().expect("a name"))
    }

    fn chunk(bytes: &[u8]) -> ChunkRef {
        ChunkRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("small") }
    }

    #[test]
    fn what_was_kept_is_read_back_until_there_is_too_much_of_it() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (one, two) = ([1u8; 5000], [2u8; 3000]);
        let chunks = [chunk(&one), chunk(&two)];
        let cache = ChunkCache::open(state.path(), &key("web")).expect("a new one");
        assert!(ChunkCache::open(state.path(), &key("web")).is_none(), "one process at a time");
        cache.add(&chunks, &[one.as_slice(), two.as_slice()].concat());
        cache.finish(state.path(), 8000, CACHE_BYTES_DEFAULT).expect("finished");

        let cache = ChunkCache::open(state.path(), &key("web")).expect("the one before");
        let mut out = vec![7];
        assert!(cache.has(&chunks[1]) && cache.reader().read(&chunks[1], &mut out));
        assert_eq!((out[0], &out[1..]), (7, two.as_slice()));
        assert!(!cache.reader().read(&chunk(b"never"), &mut out));
        cache.finish(state.path(), 8000, 10).expect("finished");
        let cache = ChunkCache::open(state.path(), &key("web")).expect("a new one");
        assert!(!cache.has(&chunks[1]), "it was let go");
    }

    #[test]
    fn a_cache_is_opened_at_its_first_use() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let open = || ChunkCache::open(state.path(), &key("web")).expect("one");
        let content = state.path().join("kept").join(key("web").to_string()).join("content");
        let (cache, bytes) = (open(), [1u8; 5000]);
        assert!(!cache.is_untouched(), "there is no content");
        cache.finish(state.path(), 0, CACHE_BYTES_DEFAULT).expect("finished");
        assert!(!content.exists());
        let cache = open();
        cache.add(&[chunk(&bytes)], &bytes);
        cache.finish(state.path(), 5000, CACHE_BYTES_DEFAULT).expect("finished");
        let cache = open();
        let mut reader = cache.reader();
        assert!(cache.is_untouched());
        assert!(reader.read(&chunk(&bytes), &mut Vec::new()) && !cache.is_untouched());
    }

    #[test]
    fn a_cache_whose_files_a_power_loss_emptied_begins_anew() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let bytes = [1u8; 5000];
        let fill = || {
            let cache = ChunkCache::open(state.path(), &key("web")).expect("one");
            let was_there = cache.has(&chunk(&bytes));
            cache.add(&[chunk(&bytes)], &bytes);
            cache.finish(state.path(), 5000, CACHE_BYTES_DEFAULT).expect("finished");
            was_there
        };
        assert!(!fill());
        let content = state.path().join("kept").join(key("web").to_string()).join("content");
        let below = |folder: &Path| files::list(&content.join(folder)).expect("a folder");
        let packs = below(Path::new("packs")).into_iter().flat_map(|folder| below(&folder));
        for file in packs.chain(below(Path::new("index"))).filter(|path| path.is_file()) {
            let length = fs::metadata(&file).expect("a file").len();
            fs::write(&file, vec![0; usize::try_from(length).expect("small")]).expect("emptied");
        }
        assert!(!fill());
        assert!(fill(), "it is cached again");
    }

    #[test]
    fn a_chunk_without_all_its_bytes_is_not_cached() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let (one, two) = ([1u8; 5000], [2u8; 3000]);
        let chunks = [chunk(&one), chunk(&two)];
        let cache = ChunkCache::open(state.path(), &key("web")).expect("a new one");
        cache.add(&chunks, &[one.as_slice(), &two[1..]].concat());
        assert!(cache.has(&chunks[0]) && !cache.has(&chunks[1]));
        cache.add(&chunks[1..], &[]);
        assert!(!cache.has(&chunks[1]));
    }

    #[test]
    fn many_small_pushes_leave_few_packs_and_all_chunks() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let open = || ChunkCache::open(state.path(), &key("web")).expect("one");
        let contents: Vec<[u8; 100]> = (0..60u8).map(|push| [push; 100]).collect();
        let packs = state.path().join("kept").join(key("web").to_string()).join("content/packs");
        for content in &contents {
            let cache = open();
            cache.add(&[chunk(content)], content);
            cache.finish(state.path(), 100, CACHE_BYTES_DEFAULT).expect("finished");
            let folders = files::list(&packs).expect("a folder").into_iter();
            let files = folders.flat_map(|folder| files::list(&folder).unwrap_or_default());
            assert!(files.count() <= 17);
        }
        let cache = open();
        let mut reader = cache.reader();
        for content in &contents {
            let mut out = Vec::new();
            assert!(reader.read(&chunk(content), &mut out) && out == content);
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let bytes: Vec<u8> = (0..500u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        for app in ["old", "new"] {
            let cache = ChunkCache::open(state.path(), &key(app)).expect("a new one");
            cache.add(&[chunk(&bytes)], &bytes);
            cache.finish(state.path(), 16_000, CACHE_BYTES_DEFAULT).expect("finished");
        }
        let used = fs::File::options()
            .write(true)
            .open(state.path().join("kept").join(key("old").to_string()).join("lock"));
        let used = used.expect("its lock");
        used.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        drop(used);
        let size = bytes_below(&state.path().join("kept"));
        evict(&state.path().join("kept"), Path::new("/"), size - 1).expect("evicted");
        let has = |app| ChunkCache::open(state.path(), &key(app)).expect("one").has(&chunk(&bytes));
        assert!(has("new") && !has("old"));
    }
}
