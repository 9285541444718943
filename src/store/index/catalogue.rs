//! The catalogue of the index: the packs that are indexed, and the runs that hold their chunks. sled keeps it.
//!
//! sled 0.34 loses everything silently at a power loss unless its file is synced for it, and panics on
//! damaged bytes. So: small batches, a small cache, our own sync after each flush, and every call guarded
//! against panics. And it takes some 9 MB for each database that is open. So it is opened for each change, and
//! closed again: memory has all that is read of it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::Error;
use disk::files::{self, Durability, OnPath};
use format::pack::PackId;

/// 1 MiB: the catalogue has some 100 B for each pack of 64 MiB.
const CACHE_BYTES: u64 = 1024 * 1024;
/// 64 KiB: the file of a small catalogue is no longer than one segment.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Larger batches cost 3 KB of memory a key (docs/decisions/0005).
const BATCH_KEYS: usize = 1000;
/// A dropped database holds its lock until sled's own threads have let go of it: a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(1);
/// The file that holds all of a database, and its lock.
const FILE: &str = "db";

/// The open catalogue.
#[derive(Debug)]
pub struct Catalogue {
    db: sled::Db,
    /// Pack number (4, big-endian) to pack id (16) and its chunks (4).
    packs: sled::Tree,
    /// `next`: the first pack number that was never given. `runs`: number (4) and hash (32) of each, newest first.
    numbers: sled::Tree,
    file: PathBuf,
    durability: Durability,
}

impl Catalogue {
    /// Opens the catalogue in `folder`; returns none where nothing was ever indexed.
    ///
    /// # Errors
    /// As [`Catalogue::open`].
    pub fn open_if_there(folder: &Path, durability: Durability) -> Result<Option<Self>, Error> {
        let file = folder.join(FILE);
        let is_there = file.try_exists().on("find", &file)?;
        is_there.then(|| Self::open(folder, durability)).transpose()
    }

    /// Opens or creates the catalogue in `folder`.
    ///
    /// # Errors
    /// The catalogue is damaged, locked by another process, or unreadable.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, Error> {
        let is_new = !folder.join(FILE).exists();
        wait_for_lock(&folder.join(FILE));
        let opened = guarded(|| {
            let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
            let config = config.segment_size(SEGMENT_BYTES).mode(sled::Mode::LowSpace);
            let db = match config.open() {
                // Other segments: another whit made it.
                Err(sled::Error::Unsupported(_)) => return Err(Error::Older),
                result => result?,
            };
            if db.tree_names().iter().any(|name| name.as_ref() == b"chunks") {
                return Err(Error::Older);
            }
            let (packs, numbers) = (db.open_tree("packs")?, db.open_tree("numbers")?);
            Ok(Self { db, packs, numbers, file: folder.join(FILE), durability })
        })?;
        if is_new && durability == Durability::Synced {
            files::sync_folder(folder)?;
        }
        Ok(opened)
    }

    /// Returns the runs that count, newest first: their numbers and hashes.
    ///
    /// # Errors
    /// The catalogue is damaged.
    pub fn runs(&self) -> Result<Vec<(u32, [u8; 32])>, Error> {
        let Some(names) = guarded(|| Ok(self.numbers.get("runs")?))? else { return Ok(Vec::new()) };
        let (names, []) = names.as_chunks::<36>() else { return Err(Error::Entry) };
        let read = |name: &[u8; 36]| {
            let (number, hash) = name.split_first_chunk()?;
            Some((u32::from_le_bytes(*number), hash.try_into().ok()?))
        };
        names.iter().map(|name| read(name).ok_or(Error::Entry)).collect()
    }

    /// Replaces the list of runs, newest first, and the first free pack number, durably.
    ///
    /// # Errors
    /// The catalogue is damaged or the disk full.
    pub fn name_runs<'a>(
        &self,
        runs: impl Iterator<Item = (u32, &'a [u8; 32])>,
        next: u32,
    ) -> Result<(), Error> {
        let mut names = Vec::new();
        for (number, hash) in runs {
            names.extend_from_slice(&number.to_le_bytes());
            names.extend_from_slice(hash);
        }
        let mut batch = sled::Batch::default();
        batch.insert("next", &next.to_le_bytes());
        batch.insert("runs", names);
        guarded(|| Ok(self.numbers.apply_batch(batch)?))?;
        self.sync()
    }

    /// Returns the first pack number that was never given.
    ///
    /// # Errors
    /// The catalogue is damaged.
    pub fn next_number(&self) -> Result<u32, Error> {
        match guarded(|| Ok(self.numbers.get("next")?))? {
            None => Ok(0),
            Some(value) => Ok(u32::from_le_bytes(value.as_ref().try_into().map_err(|_| Error::Entry)?)),
        }
    }

    /// Returns the indexed packs: number, id, chunks.
    ///
    /// # Errors
    /// The catalogue is damaged.
    pub fn packs(&self) -> Result<Vec<(u32, PackId, u32)>, Error> {
        let entries = guarded(|| Ok(self.packs.iter().collect::<Result<Vec<_>, _>>()?))?;
        let read = |(key, value): (sled::IVec, sled::IVec)| {
            let number = u32::from_be_bytes(key.as_ref().try_into().ok()?);
            let id = PackId::from_bytes(value.get(..16)?.try_into().ok()?);
            Some((number, id, u32::from_le_bytes(value.get(16..)?.try_into().ok()?)))
        };
        entries.into_iter().map(|entry| read(entry).ok_or(Error::Entry)).collect()
    }

    /// Enters packs; durable after [`Catalogue::sync`].
    ///
    /// # Errors
    /// The catalogue is damaged or the disk full.
    pub fn insert(&self, packs: &[(u32, PackId, u32)]) -> Result<(), Error> {
        for some in packs.chunks(BATCH_KEYS) {
            let mut batch = sled::Batch::default();
            for (number, id, chunks) in some {
                let mut entry = [0; 20];
                entry[..16].copy_from_slice(id.as_bytes());
                entry[16..].copy_from_slice(&chunks.to_le_bytes());
                batch.insert(&number.to_be_bytes(), &entry);
            }
            guarded(|| Ok(self.packs.apply_batch(batch)?))?;
        }
        Ok(())
    }

    /// Removes packs; durable after [`Catalogue::sync`].
    ///
    /// # Errors
    /// The catalogue is damaged or the disk full.
    pub fn remove(&self, packs: &[u32]) -> Result<(), Error> {
        packs
            .iter()
            .try_for_each(|number| guarded(|| Ok(self.packs.remove(number.to_be_bytes()).map(drop)?)))
    }

    /// Makes all changes as durable as the catalogue is: sled's flush writes, but never syncs.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> Result<(), Error> {
        guarded(|| Ok(self.db.flush().map(drop)?))?;
        if self.durability == Durability::Synced {
            File::open(&self.file).and_then(|file| file.sync_data()).on("sync", &self.file)?;
        }
        Ok(())
    }
}

/// Waits while a database that was dropped still holds the lock of sled's file.
///
/// Asks for the same lock, as only the text of sled's error distinguishes a taken lock from other failures. If it stays
/// taken, another process has it, and sled's own error says so.
fn wait_for_lock(file: &Path) {
    let Ok(file) = File::open(file) else { return };
    let deadline = Instant::now() + LOCK_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        && Instant::now() < deadline
    {
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// Runs a call into sled; a panic inside becomes an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // After a panic the catalogue is dropped and rebuilt, so that no broken state of sled's is used again.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Error::Panicked(text.lines().next().unwrap_or_default().to_owned()))
    })
}
