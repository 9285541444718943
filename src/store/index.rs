//! The index: chunk id to place, kept by sled, never the only home of a fact.
//!
//! sled 0.34 loses everything silently at a power loss unless its file is synced for it, and panics on
//! damaged bytes. So: small batches, a small cache, our own sync after each flush, every call guarded
//! against panics, and a catalogue of the packs taken in, by which [`super::recovery`] notices an index
//! that is empty, cut short or behind. A wrong answer is never dangerous: what a place gives is verified.
//!
//! An index that is built anew keeps what all packs have in a [`Run`] beside sled, which then only answers for
//! what came later: sled's places come first, and a place of the run counts while the catalogue has its pack.

use std::collections::HashSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::place::Place;
use super::run::{self, Merged, Run};
use crate::crash;
use crate::faults::{Fault, Faulty};
use crate::files::{self, OnPath};
use crate::ids::{ChunkId, ShortId};
use crate::pack::{FooterView, PackId};

/// Why the index cannot answer. What to do is always the same: set it aside and rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// sled found its files damaged, or the disk failed.
    #[error("the index failed: {0}")]
    Failed(#[from] sled::Error),
    /// sled panicked, which is how it meets most damage.
    #[error("the index is damaged: {0}")]
    Panicked(String),
    /// An entry that was never written so.
    #[error("the index holds a malformed entry")]
    Entry,
    /// The run that holds most of it cannot be used.
    #[error("{0}; the next start builds the index anew")]
    Run(#[from] run::Damaged),
    /// The index folder cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
}

impl Error {
    /// Whether sled's own lock was taken; sled says so in words alone.
    fn is_lock(&self) -> bool {
        matches!(self, Self::Failed(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock"))
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::File(error) => error.fault(),
            Self::Failed(sled::Error::Io(error)) => Fault::of_io(error),
            Self::Failed(_) | Self::Panicked(_) | Self::Entry | Self::Run(_) => Fault::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            _ if self.fault() == Fault::Corrupt => {
                Some("start the proxy again: it builds its index anew from the packs".to_owned())
            }
            _ => None,
        }
    }
}

/// 32 MiB: enough for the upper levels of the tree; the system caches the rest.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Larger batches cost 3 KB of memory a key (docs/decisions/0005).
const BATCH_KEYS: usize = 1000;

/// Beyond so many entries in sled, some hundreds of megabytes of memory, the next opening builds the index anew.
const GROWN_KEYS: usize = 250_000;

/// A dropped index holds its lock until sled's own threads have let go of it: a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The open index of one space.
#[derive(Debug)]
pub struct Index {
    db: sled::Db,
    chunks: sled::Tree,
    /// Pack number (4, big-endian) to pack id (16) and its chunks (4).
    catalogue: sled::Tree,
    /// `next`: the first pack number that was never given. `run`: the run's hash.
    numbers: sled::Tree,
    file: PathBuf,
    run: Option<Run>,
    /// The packs in the catalogue: the run is never changed, and may know others.
    live: RwLock<HashSet<u32>>,
}

impl Index {
    /// Opens or creates the index in `folder`.
    ///
    /// # Errors
    /// The folder is damaged, locked by another process, or unreadable.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        files::create_folder(folder)?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::open_once(folder) {
                Err(error) if error.is_lock() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn open_once(folder: &Path) -> Result<Self, Error> {
        guarded(|| {
            let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            let db = config.mode(sled::Mode::LowSpace).open()?;
            let chunks = db.open_tree("chunks")?;
            let catalogue = db.open_tree("packs")?;
            let numbers = db.open_tree("numbers")?;
            let (file, live) = (folder.join("db"), RwLock::default());
            Ok(Self { db, chunks, catalogue, numbers, file, run: None, live })
        })
        .and_then(|mut index| {
            files::sync_folder(folder)?;
            if let Some(hash) = guarded(|| Ok(index.numbers.get("run")?))? {
                let path = run_path(folder);
                let run = Run::open(&path)?;
                if *hash != run.hash()[..] {
                    return Err(Error::Entry);
                }
                index.run = Some(run);
            }
            let live = index.packs()?.into_iter().map(|(number, _, _)| number).collect();
            index.live = RwLock::new(live);
            Ok(index)
        })
    }

    /// Takes many packs in at once, durably, where the index has none; numbered from below `next_number`.
    ///
    /// Time O(n log packs), some 1 M chunks a second; memory does not grow with the chunks.
    ///
    /// # Errors
    /// The index is damaged or the disk full; no pack counts as taken in.
    pub fn fill(
        &mut self,
        packs: &[(PackId, (u32, FooterView<'_>))],
        next_number: u32,
        folder: &Path,
    ) -> Result<(), Error> {
        guarded(|| Ok(self.numbers.insert("next", &next_number.to_le_bytes()).map(drop)?))?;
        let footers: Vec<_> = packs.iter().map(|(_, footer)| *footer).collect();
        let run = Run::create(&run_path(folder), Merged::new(&footers))?;
        guarded(|| Ok(self.numbers.insert("run", run.hash()).map(drop)?))?;
        self.sync()?;
        crash::point("run.named");
        // Last, as it says that the chunks are there.
        for some in packs.chunks(BATCH_KEYS) {
            let mut batch = sled::Batch::default();
            for (id, (number, footer)) in some {
                let count = u32::try_from(footer.chunk_count()).map_err(|_| Error::Entry)?;
                batch.insert(&number.to_be_bytes(), &catalogue_entry(*id, count));
            }
            guarded(|| Ok(self.catalogue.apply_batch(batch)?))?;
        }
        self.sync()?;
        crash::point("run.catalogued");
        self.run = Some(run);
        self.live = RwLock::new(footers.iter().map(|(number, _)| *number).collect());
        Ok(())
    }

    /// Whether sled holds so much that the index is better built anew.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn is_overgrown(&self) -> Result<bool, Error> {
        Ok(guarded(|| Ok(self.chunks.len()))? > GROWN_KEYS)
    }

    fn in_run(&self, begin: &[u8]) -> Result<Option<(ChunkId, Place)>, Error> {
        let Some(run) = &self.run else { return Ok(None) };
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        Ok(run.find(begin, |pack| live.contains(&pack))?)
    }

    /// Where the chunk lies, if a pack taken in has it.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find(&self, id: &ChunkId) -> Result<Option<Place>, Error> {
        match guarded(|| Ok(self.chunks.get(id.as_bytes())?))? {
            None => Ok(self.in_run(id.as_bytes())?.map(|(_, place)| place)),
            Some(value) => Place::decode(&value).map(Some).ok_or(Error::Entry),
        }
    }

    /// The first chunk whose id begins with the 8 bytes of `name`.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_name(&self, name: u64) -> Result<Option<(ChunkId, Place)>, Error> {
        self.find_beginning(&name.to_le_bytes())
    }

    /// The first chunk whose id begins so.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_short(&self, short: ShortId) -> Result<Option<(ChunkId, Place)>, Error> {
        self.find_beginning(short.as_bytes())
    }

    fn find_beginning(&self, begin: &[u8]) -> Result<Option<(ChunkId, Place)>, Error> {
        let Some((key, value)) = guarded(|| Ok(self.chunks.scan_prefix(begin).next().transpose()?))? else {
            return self.in_run(begin);
        };
        let id = ChunkId::from_bytes(key.as_ref().try_into().map_err(|_| Error::Entry)?);
        Ok(Some((id, Place::decode(&value).ok_or(Error::Entry)?)))
    }

    /// Takes in all chunks of a sealed pack, durably; the catalogue learns of it last.
    ///
    /// # Errors
    /// The index is damaged or the disk full; the pack counts as not taken in.
    pub fn take_in(
        &self,
        number: u32,
        id: PackId,
        chunks: impl ExactSizeIterator<Item = (ChunkId, Place)>,
    ) -> Result<(), Error> {
        let count = u32::try_from(chunks.len()).map_err(|_| Error::Entry)?;
        // Burnt first: entries that a crash leaves half written must never point into another pack.
        crash::point("take-in.before");
        let next = self.next_number()?.max(number + 1);
        guarded(|| Ok(self.numbers.insert("next", &next.to_le_bytes()).map(drop)?))?;
        crash::point("take-in.burnt");
        let mut chunks = chunks.peekable();
        while chunks.peek().is_some() {
            let mut batch = sled::Batch::default();
            for (id, place) in chunks.by_ref().take(BATCH_KEYS) {
                batch.insert(id.as_bytes(), &place.encode());
            }
            guarded(|| Ok(self.chunks.apply_batch(batch)?))?;
            crash::point("take-in.chunks");
        }
        self.sync()?;
        crash::point("take-in.synced");
        guarded(|| {
            Ok(self.catalogue.insert(number.to_be_bytes(), &catalogue_entry(id, count)).map(drop)?)
        })?;
        crash::point("take-in.catalogued");
        self.sync()?;
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(number);
        crash::point("take-in.after");
        Ok(())
    }

    /// The first pack number that was never given.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn next_number(&self) -> Result<u32, Error> {
        match guarded(|| Ok(self.numbers.get("next")?))? {
            None => Ok(0),
            Some(value) => Ok(u32::from_le_bytes(value.as_ref().try_into().map_err(|_| Error::Entry)?)),
        }
    }

    /// Takes a pack out of the catalogue, and those of its chunks that went with it, durably.
    ///
    /// The catalogue forgets it first: what a crash leaves of its entries leads nowhere.
    ///
    /// # Errors
    /// The index is damaged or the disk full.
    pub fn take_out(&self, number: u32, chunks: &[ChunkId]) -> Result<(), Error> {
        crash::point("take-out.before");
        // Its number is not given again, were it the last: an entry that a crash leaves must lead nowhere.
        if self.next_number()? <= number {
            let next = (number + 1).to_le_bytes();
            guarded(|| Ok(self.numbers.insert("next", &next).map(drop)?))?;
        }
        guarded(|| Ok(self.catalogue.remove(number.to_be_bytes()).map(drop)?))?;
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        crash::point("take-out.catalogue");
        for some in chunks.chunks(BATCH_KEYS) {
            let mut batch = sled::Batch::default();
            for id in some {
                if self.find(id)?.is_some_and(|place| place.pack == number) {
                    batch.remove(id.as_bytes());
                }
            }
            guarded(|| Ok(self.chunks.apply_batch(batch)?))?;
        }
        crash::point("take-out.chunks");
        self.sync()
    }

    /// The packs taken in: number, id, chunks.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn packs(&self) -> Result<Vec<(u32, PackId, u32)>, Error> {
        let entries = guarded(|| Ok(self.catalogue.iter().collect::<Result<Vec<_>, _>>()?))?;
        let read = |(key, value): (sled::IVec, sled::IVec)| {
            let number = u32::from_be_bytes(key.as_ref().try_into().ok()?);
            let id = PackId::from_bytes(value.get(..16)?.try_into().ok()?);
            Some((number, id, u32::from_le_bytes(value.get(16..)?.try_into().ok()?)))
        };
        entries.into_iter().map(|entry| read(entry).ok_or(Error::Entry)).collect()
    }

    /// Makes what was written durable: sled's flush writes, but never syncs.
    fn sync(&self) -> Result<(), Error> {
        guarded(|| Ok(self.db.flush().map(drop)?))?;
        File::open(&self.file).and_then(|file| file.sync_data()).on("sync", &self.file)?;
        Ok(())
    }
}

fn run_path(folder: &Path) -> PathBuf {
    folder.join("run")
}

fn catalogue_entry(id: PackId, chunks: u32) -> [u8; 20] {
    let mut entry = [0; 20];
    entry[..16].copy_from_slice(id.as_bytes());
    entry[16..].copy_from_slice(&chunks.to_le_bytes());
    entry
}

/// Runs a call into sled; a panic inside becomes an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // After a panic the index is dropped and rebuilt, so that no broken state of sled's is used again.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Error::Panicked(text.lines().next().unwrap_or_default().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_in_is_found_again_after_reopening() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let id = ChunkId::of(b"a");
        let place = Place { pack: 3, frame_offset: 32, plain_offset: 7, bytes: 9 };
        let pack = PackId::from_bytes([1; 16]);
        let index = Index::open(folder.path()).expect("a new index");
        index.take_in(3, pack, [(id, place)].into_iter()).expect("taken in");
        drop(index);
        let index = Index::open(folder.path()).expect("an old index");
        assert_eq!(index.find(&id).expect("readable"), Some(place));
        assert_eq!(index.find_name(id.prefix()).expect("readable"), Some((id, place)));
        assert_eq!(index.find(&ChunkId::of(b"b")).expect("readable"), None);
        assert_eq!(index.packs().expect("readable"), [(3, pack, 1)]);
    }

    #[test]
    fn an_index_that_was_filled_at_once_answers_as_one_that_grew() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let packs: Vec<Vec<u8>> = (0..3u8).map(pack_of).collect();
        let views = || packs.iter().map(|pack| FooterView::of_pack(pack).expect("a pack"));
        let name = |number: u32| PackId::from_bytes(u128::from(number).to_be_bytes());
        let filled: Vec<_> =
            (5..).zip(views()).map(|(number, view)| (name(number), (number, view))).collect();
        let mut index = Index::open(folder.path()).expect("a new index");
        index.fill(&filled, 8, folder.path()).expect("filled");
        let check = |index: &Index, gone: Option<u32>| {
            for (number, view) in (5..).zip(views()) {
                // The last chunk is in every pack: the one with the highest number counts.
                for entry in view.chunks().filter(|entry| entry.chunk.id != ChunkId::of(b"shared")) {
                    let id = entry.chunk.id;
                    let expected = (gone != Some(number)).then_some((id, number));
                    let found = |found: Option<(ChunkId, Place)>| found.map(|(id, place)| (id, place.pack));
                    assert_eq!(index.find(&id).expect("readable").map(|place| (id, place.pack)), expected);
                    assert_eq!(found(index.find_name(id.prefix()).expect("readable")), expected);
                    assert_eq!(found(index.find_short(ShortId::from(id)).expect("readable")), expected);
                }
            }
        };
        check(&index, None);
        assert_eq!(index.find(&ChunkId::of(b"shared")).expect("readable").map(|place| place.pack), Some(7));
        assert_eq!(index.next_number().expect("readable"), 8);
        index.take_out(6, &[]).expect("taken out");
        check(&index, Some(6));
        drop(index);
        let index = Index::open(folder.path()).expect("an old index");
        check(&index, Some(6));
        assert_eq!(index.packs().expect("readable").len(), 2);
        // Without its run it is no index.
        drop(index);
        std::fs::remove_file(folder.path().join("run")).expect("removed");
        assert!(matches!(Index::open(folder.path()), Err(Error::Run(_))));
    }

    /// A sealed pack with 100 chunks of its own and one that all have.
    fn pack_of(number: u8) -> Vec<u8> {
        use crate::pack::{Footer, Frame, FrameKind};
        let parts = (0..100u8).map(|part| vec![number, part]).chain([b"shared".to_vec()]);
        let parts: Vec<Vec<u8>> = parts.collect();
        let mut zstd = crate::compression::Compressor::new(1);
        let frame = Frame::compress(FrameKind::Content, parts.iter().map(Vec::as_slice), &mut zstd);
        let mut bytes = crate::pack::header(PackId::from_bytes([number; 16])).to_vec();
        let begin = bytes.len();
        frame.encode(&mut bytes);
        let length = u32::try_from(bytes.len() - begin).expect("small");
        let mut footer = Footer::default();
        footer.add(begin as u64, length, FrameKind::Content, frame.chunks.iter().copied());
        let end = bytes.len() as u64;
        bytes.extend(footer.encode(end));
        bytes
    }

    #[test]
    fn a_damaged_index_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let index = Index::open(folder.path()).expect("a new index");
        let place = Place { pack: 0, frame_offset: 0, plain_offset: 0, bytes: 1 };
        let chunks: Vec<_> = (0..5000u32).map(|n| (ChunkId::of(&n.to_le_bytes()), place)).collect();
        index.take_in(0, PackId::from_bytes([0; 16]), chunks.into_iter()).expect("taken in");
        drop(index);
        let file = folder.path().join("db");
        let mut bytes = std::fs::read(&file).expect("the index's file");
        for at in (0..bytes.len()).step_by(97) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(&file, bytes).expect("damaged");
        if let Ok(index) = Index::open(folder.path()) {
            let found =
                (0..5000u32).filter(|n| matches!(index.find(&ChunkId::of(&n.to_le_bytes())), Ok(Some(_))));
            assert!(found.count() < 5000, "the damage went unnoticed");
        }
    }
}
