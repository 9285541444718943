//! Damaged copies of chunks: each counts as missing.
//!
//! `lost` in the space's folder, an entry for each damaged copy (FORMAT 7):
//!
//! | size | field |
//! |---|---|
//! | 32 | the chunk's id |
//! | 16 | the pack's id |
//! | 4 | where its frame begins in the pack, little-endian |
//! | 4 | the first bytes of the BLAKE3 of the 52 before |
//!
//! An entry does not affect copies elsewhere, older or newer: so a chunk that was brought again needs no removal here, and
//! an entry that outlives its pack has no effect. Entries are appended and synced, as the next push may come to another
//! process. An entry that cannot be written holds until the store is closed.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use super::packs::{self, Pack};
use super::place::Place;
use super::{Result, Store};
use disk::files::{self, OnPath};
use format::pack::PackId;
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;

const BODY_BYTES: usize = 52;
const ENTRY_BYTES: usize = 56;
/// 256 MiB: the entries of 4 million chunks, which is 64 GB of damage; the next verify finds more.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A damaged copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DamagedCopy {
    /// The chunk.
    pub id: ChunkId,
    /// The pack that holds the copy.
    pub pack: PackId,
    /// The offset of the chunk's frame.
    pub frame_offset: u32,
}

impl DamagedCopy {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut entry = [0; ENTRY_BYTES];
        entry[..32].copy_from_slice(self.id.as_bytes());
        entry[32..48].copy_from_slice(self.pack.as_bytes());
        entry[48..BODY_BYTES].copy_from_slice(&self.frame_offset.to_le_bytes());
        let check = blake3::hash(&entry[..BODY_BYTES]);
        entry[BODY_BYTES..].copy_from_slice(&check.as_bytes()[..ENTRY_BYTES - BODY_BYTES]);
        entry
    }

    fn decode(entry: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let (body, check) = entry.split_at(BODY_BYTES);
        if blake3::hash(body).as_bytes()[..check.len()] != *check {
            return None;
        }
        Some(Self {
            id: ChunkId::from_bytes(*body.first_chunk()?),
            pack: PackId::from_bytes(body[32..48].try_into().ok()?),
            frame_offset: u32::from_le_bytes(body[48..].try_into().ok()?),
        })
    }
}

/// The damaged copies of a space.
#[derive(Debug)]
pub struct Lost {
    path: PathBuf,
    copies: RwLock<HashSet<DamagedCopy>>,
    writing: Mutex<()>,
    /// The number of damages noted since the store was opened.
    met: AtomicU64,
}

impl Lost {
    /// Reads the entries of packs that still exist.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(path: &Path, packs: &HashSet<PackId>) -> Result<Self> {
        let bytes = match files::read_if_there(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "the list of damaged chunks cannot be read; the next verify rebuilds it");
                Vec::new()
            }
        };
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let copies: HashSet<DamagedCopy> = entries
            .iter()
            .filter_map(DamagedCopy::decode)
            .filter(|copy| packs.contains(&copy.pack))
            .collect();
        if !bytes.is_empty() && copies.is_empty() {
            files::remove(path)?;
        } else if copies.len() * ENTRY_BYTES < bytes.len() {
            let kept: Vec<u8> = copies.iter().flat_map(DamagedCopy::encode).collect();
            if let Err(error) = files::publish(path, &kept, 0o600) {
                tracing::warn!(%error, "entries of packs that are gone stay in the list of damaged chunks");
            }
        }
        let (path, copies) = (path.to_owned(), RwLock::new(copies));
        Ok(Self { path, copies, writing: Mutex::new(()), met: AtomicU64::new(0) })
    }

    /// Returns whether nothing is known to be damaged.
    pub fn is_empty(&self) -> bool {
        self.copies.read().unpoisoned().is_empty()
    }

    /// Returns whether that copy is damaged.
    pub fn has(&self, copy: &DamagedCopy) -> bool {
        self.copies.read().unpoisoned().contains(copy)
    }

    /// Adds damaged copies; returns how many of them are new.
    pub fn add(&self, damaged: impl IntoIterator<Item = DamagedCopy>) -> usize {
        let _alone = self.writing.lock().unpoisoned();
        let mut entries = Vec::new();
        {
            let mut copies = self.copies.write().unpoisoned();
            for copy in damaged {
                if copies.insert(copy) {
                    entries.extend_from_slice(&copy.encode());
                }
            }
        }
        if entries.is_empty() {
            return 0;
        }
        self.met.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.append(&entries) {
            tracing::error!(%error, "the list of damaged chunks could not be written");
        }
        entries.len() / ENTRY_BYTES
    }

    /// Returns a number that changes whenever damage is added.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Acquire)
    }

    fn append(&self, entries: &[u8]) -> Result<()> {
        let mut options = OpenOptions::new();
        let mut file =
            options.append(true).create(true).mode(0o600).open(&self.path).on("open", &self.path)?;
        // Cut off an entry that was written in part, so that the entries after it are aligned.
        let bytes = file.metadata().on("examine", &self.path)?.len();
        let whole = bytes - bytes % ENTRY_BYTES as u64;
        if whole < bytes {
            file.set_len(whole).on("cut", &self.path)?;
        }
        file.write_all(entries).and_then(|()| file.sync_data()).on("write", &self.path)?;
        Ok(files::sync_folder(self.path.parent().unwrap_or(Path::new(".")))?)
    }
}

impl Store {
    /// Marks a damaged copy and all damaged chunks of its frame as missing, so that the next push that has them brings them.
    pub(super) fn mark_damaged(&self, id: ChunkId, place: Place, pack: &Pack) {
        tracing::error!(chunk = %id, pack = %pack.id, "a chunk is damaged; the next push that contains it sends it again");
        let neighbours = self.shares_damage(place, pack).unwrap_or_else(|error| {
            tracing::warn!(%error, "the other damaged chunks of its frame could not be found");
            Vec::new()
        });
        let frame_offset = place.frame_offset;
        let copies = neighbours.into_iter().chain([id]);
        self.note_damaged(copies.map(|id| DamagedCopy { id, pack: pack.id, frame_offset }));
    }

    /// Marks damaged copies as missing.
    pub(super) fn note_damaged(&self, copies: impl Iterator<Item = DamagedCopy>) {
        self.lost.add(copies);
        self.note_incomplete();
    }

    /// Notes that something which a release needs was not found: the store should be verified soon.
    pub(super) fn note_incomplete(&self) {
        self.suspect.store(true, Ordering::Relaxed);
        self.mark_incomplete();
    }

    /// Returns the damaged chunks of the frame at `place`: all of them, where it does not decode.
    fn shares_damage(&self, place: Place, pack: &Pack) -> Result<Vec<ChunkId>> {
        if let Some(damaged) = packs::chunks_of_damaged_frame(pack, u64::from(place.frame_offset)) {
            return Ok(damaged);
        }
        if !pack.is_open() {
            return packs::named_in_frame(pack, u64::from(place.frame_offset));
        }
        let recent = self.shared.recent.of_pack(place.pack);
        let here = recent.into_iter().filter(|(_, frame_offset)| *frame_offset == place.frame_offset);
        Ok(here.map(|(id, _)| id).collect())
    }

    /// Returns a number that changes whenever a chunk is found damaged: earlier lookups must then be repeated.
    pub fn damage_met(&self) -> u64 {
        self.lost.met()
    }

    /// Returns whether every release has all its chunks, as far as is known: no pack is damaged or gone.
    pub fn is_whole(&self) -> bool {
        !self.incomplete.exists()
    }

    /// Returns whether damage was found since the last call: then the store should be verified soon.
    pub fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::Relaxed)
    }

    /// Asks for a verification soon unless the store is known to be intact: it may have been repaired.
    pub fn suspect_if_incomplete(&self) {
        if !self.is_whole() {
            self.suspect.store(true, Ordering::Relaxed);
        }
    }

    /// Returns and clears the flag "chunks were cut off when the store was opened; check the releases".
    pub fn take_doubt(&self) -> bool {
        self.unsure.swap(false, Ordering::Relaxed)
    }

    /// Pretends that damage was found, for tests of maintenance.
    #[cfg(test)]
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Returns whether the store knows of damage that it would forget when closed, as nothing verified it yet.
    pub fn has_to_remember(&self) -> bool {
        self.suspect.load(Ordering::Relaxed) || self.unsure.load(Ordering::Relaxed)
    }

    /// Notes that every chunk of every release was found. Damaged copies that no release needs still count as missing.
    pub(super) fn mark_whole(&self) -> Result<()> {
        Ok(files::remove(&self.incomplete)?)
    }

    pub(super) fn mark_incomplete(&self) {
        if let Err(error) = files::publish(&self.incomplete, b"", 0o600) {
            tracing::error!(%error, "the note that chunks are missing could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn copy(number: u8) -> DamagedCopy {
        let pack = PackId::from_bytes([number % 2; 16]);
        DamagedCopy { id: ChunkId::of(&[number]), pack, frame_offset: u32::from(number) }
    }

    #[test]
    fn what_is_damaged_is_known_to_the_next_process_while_its_pack_is_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lost");
        let both = HashSet::from([copy(0).pack, copy(1).pack]);
        let lost = Lost::open(&path, &both).expect("a new list");
        assert_eq!((lost.add([copy(0), copy(1)]), lost.add([copy(1), copy(3)])), (2, 1));
        assert_eq!((lost.add([copy(0)]), lost.met()), (0, 2));
        // A write that was cut off, and a damaged entry.
        let mut bytes = fs::read(&path).expect("a list");
        bytes.extend([7; 20]);
        bytes[3] ^= 1;
        fs::write(&path, bytes).expect("written");
        let lost = Lost::open(&path, &both).expect("a list");
        assert!(!lost.has(&copy(0)) && lost.has(&copy(1)) && lost.has(&copy(3)));
        lost.add([copy(2)]);
        let lost = Lost::open(&path, &HashSet::from([copy(0).pack])).expect("a list");
        assert!(lost.has(&copy(2)) && !lost.has(&copy(1)), "its pack is gone");
        assert!(Lost::open(&path, &HashSet::new()).expect("a list").is_empty() && !path.exists());
    }
}
