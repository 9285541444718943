//! A sorted run: the places of the chunks of many packs in one file, written once and then only read.
//!
//! The sorted footers of new packs are merged into a run, and runs into larger ones: one pass, and memory for
//! fences and the filter alone. A search reads one block. As the index is, a run is never the only home of a
//! fact, and every block that is used is checked.
//!
//! | size | what |
//! |---|---|
//! | 4096 b | blocks: 85 entries of id (32) and place (16), sorted by id, the last block filled with zeros; check (16): BLAKE3 |
//! | 8 b | fences: the first 8 bytes of each block's first id |
//! | 64 f | the filter's blocks (`filter.rs`); none in the largest runs |
//! | 64 | entries (8), BLAKE3 of fences, filter, entries and f (32), f (8), zeros (8), `whitrun2` (8) |

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::filter::{self, Filter};
use crate::store::place::Place;
use disk::crash_points;
use disk::files::{self, Durability, OnPath};
use ground::ids::ChunkId;

const MAGIC: [u8; 8] = *b"whitrun2";
const TRAILER_BYTES: usize = 64;
/// A page of most disks and of the page cache.
const BLOCK_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 48;
const CHECK_BYTES: usize = 16;
const BLOCK_ENTRIES: usize = (BLOCK_BYTES - CHECK_BYTES) / ENTRY_BYTES;
/// 1 MiB is written at once.
const WRITE_BLOCKS: usize = 256;
/// 2,000 M entries, whose fences take 188 MB.
const ENTRIES_MAX: u64 = 2_000_000_000;
/// 32 M: the filter takes 40 MB. A larger run is the oldest, and most misses end in the read of one block of it.
const FILTER_ENTRIES_MAX: u64 = 32_000_000;
/// 340 KiB are read at once where a run is read whole.
const READ_BLOCKS: usize = 85;

/// A run that cannot be used: it is damaged, cut short, or the disk does not return it.
#[derive(Debug, thiserror::Error)]
#[error("{} is damaged or cannot be read", .path.display())]
pub struct Damaged {
    path: PathBuf,
}

/// An open run.
#[derive(Debug)]
pub struct Run {
    file: File,
    path: PathBuf,
    entries: u64,
    fences: Vec<u64>,
    filter: Option<Filter>,
    hash: [u8; 32],
}

impl Run {
    /// Writes the entries, which are sorted by id and at most `most`, durably to `path`.
    ///
    /// Time O(entries); memory 1 MiB and 1.4 B an entry.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(
        path: &Path,
        entries: impl Iterator<Item = (ChunkId, Place)>,
        most: u64,
        durability: Durability,
    ) -> files::Result<Self> {
        let aside = path.with_extension("part");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&aside).on("create", &aside)?;
        let mut fences: Vec<u64> = Vec::new();
        let mut buffer: Vec<u8> = Vec::with_capacity(WRITE_BLOCKS * BLOCK_BYTES);
        let mut filter = (most <= FILTER_ENTRIES_MAX).then(|| Filter::new(most));
        let mut count = 0;
        let mut entries = entries.peekable();
        while let Some((first, _)) = entries.peek() {
            fences.push(fence(first.as_bytes()));
            let begin = buffer.len();
            for (id, place) in entries.by_ref().take(BLOCK_ENTRIES) {
                buffer.extend_from_slice(id.as_bytes());
                buffer.extend_from_slice(&place.encode());
                if let Some(filter) = &mut filter {
                    filter.insert(id.as_bytes());
                }
                count += 1;
            }
            buffer.resize(begin + BLOCK_BYTES - CHECK_BYTES, 0);
            let check = check(&buffer[begin..]);
            buffer.extend_from_slice(&check);
            if buffer.len() >= WRITE_BLOCKS * BLOCK_BYTES || entries.peek().is_none() {
                crash_points::half("run.half", &file, &buffer);
                file.write_all(&buffer).on("write", &aside)?;
                buffer.clear();
            }
        }
        buffer.extend(fences.iter().flat_map(|fence| fence.to_le_bytes()));
        let fences_end = buffer.len();
        buffer.extend(filter.iter().flat_map(Filter::encode));
        let filter_blocks = ((buffer.len() - fences_end) / filter::BLOCK_BYTES) as u64;
        let hash = trailer_hash(&buffer, count, filter_blocks);
        buffer.extend_from_slice(&count.to_le_bytes());
        buffer.extend_from_slice(&hash);
        buffer.extend_from_slice(&filter_blocks.to_le_bytes());
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(&MAGIC);
        file.write_all(&buffer).on("write", &aside)?;
        durability.sync(&file).on("sync", &aside)?;
        durability.rename(&aside, path)?;
        Ok(Self { file, path: path.to_owned(), entries: count, fences, filter, hash })
    }

    /// Opens a run and checks its fences and filter.
    ///
    /// # Errors
    /// The file is missing or incomplete.
    pub fn open(path: &Path) -> Result<Self, Damaged> {
        Self::read(path).ok_or_else(|| Damaged { path: path.to_owned() })
    }

    fn read(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let bytes = file.metadata().ok()?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let trailer_at = bytes.checked_sub(TRAILER_BYTES as u64)?;
        file.read_exact_at(&mut trailer, trailer_at).ok()?;
        let entries = u64::from_le_bytes(*trailer.first_chunk()?);
        let blocks = entries.div_ceil(BLOCK_ENTRIES as u64);
        let blocks_bytes = blocks.checked_mul(BLOCK_BYTES as u64)?;
        let filter_blocks = u64::from_le_bytes(*trailer[40..].first_chunk()?);
        let filter_bytes = filter_blocks.checked_mul(filter::BLOCK_BYTES as u64)?;
        let end = blocks_bytes.checked_add(8 * blocks)?.checked_add(filter_bytes)?;
        if entries > ENTRIES_MAX || trailer[56..] != MAGIC || trailer_at != end {
            return None;
        }
        let fences_bytes = usize::try_from(8 * blocks).ok()?;
        let mut above = vec![0; usize::try_from(end - blocks_bytes).ok()?];
        file.read_exact_at(&mut above, blocks_bytes).ok()?;
        let hash = trailer_hash(&above, entries, filter_blocks);
        let (fences, filter) = above.split_at(fences_bytes);
        let fences = fences.as_chunks::<8>().0.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let filter = Filter::decode(filter);
        let run = Self { file, path: path.to_owned(), entries, fences, filter, hash };
        (trailer[8..40] == hash).then_some(run)
    }

    /// Returns the number of entries.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Returns the path of its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the hash that identifies this run.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The first entry whose id begins with `begin` and whose pack's number `is_live` accepts.
    ///
    /// Reads one block, seldom two; mostly none where there is no such entry.
    ///
    /// # Errors
    /// A block is damaged. The run is then removed, so that the next opening rebuilds it.
    pub fn find(
        &self,
        begin: &[u8],
        is_live: impl Fn(u32) -> bool,
    ) -> Result<Option<(ChunkId, Place)>, Damaged> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(begin)) {
            return Ok(None);
        }
        let low = fence(begin);
        // The last block that begins below; entries that begin so may fill others after it.
        let first = self.fences.partition_point(|fence| *fence < low).saturating_sub(1);
        for block in first..self.fences.len() {
            let bytes = self.block(block)?;
            let entries = &bytes[..ENTRY_BYTES * self.entries_of(block)];
            let entries = entries.as_chunks::<ENTRY_BYTES>().0;
            let from = entries.partition_point(|entry| &entry[..begin.len()] < begin);
            for entry in &entries[from..] {
                if entry[..begin.len()] != *begin {
                    return Ok(None);
                }
                let id = ChunkId::from_bytes(*entry.first_chunk().expect("an entry has 48 bytes"));
                let place = Place::decode(&entry[32..]).ok_or_else(|| self.damaged())?;
                if is_live(place.pack) {
                    return Ok(Some((id, place)));
                }
            }
        }
        Ok(None)
    }

    /// Returns all entries in order; ends early where a block is damaged, and puts the error into `damage`.
    pub fn read_all<'a>(
        &'a self,
        damage: &'a RefCell<Option<Damaged>>,
    ) -> impl Iterator<Item = (ChunkId, Place)> + 'a {
        let parts = (0..self.fences.len()).step_by(READ_BLOCKS);
        let mut is_whole = true;
        parts.flat_map(move |first| {
            let entries = if is_whole { self.part(first) } else { Ok(Vec::new()) };
            entries.unwrap_or_else(|error| {
                is_whole = false;
                *damage.borrow_mut() = Some(error);
                Vec::new()
            })
        })
    }

    /// Reads the entries of [`READ_BLOCKS`] blocks, or of those that are left.
    fn part(&self, first: usize) -> Result<Vec<(ChunkId, Place)>, Damaged> {
        let blocks = READ_BLOCKS.min(self.fences.len() - first);
        let mut bytes = vec![0; blocks * BLOCK_BYTES];
        if self.file.read_exact_at(&mut bytes, (first * BLOCK_BYTES) as u64).is_err() {
            return Err(self.damaged());
        }
        let mut entries = Vec::with_capacity(blocks * BLOCK_ENTRIES);
        for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
            let (content, found) = bytes.split_at(BLOCK_BYTES - CHECK_BYTES);
            if found != check(content) {
                return Err(self.damaged());
            }
            for entry in content.as_chunks::<ENTRY_BYTES>().0.iter().take(self.entries_of(block)) {
                let id = ChunkId::from_bytes(*entry.first_chunk().expect("an entry has 48 bytes"));
                entries.push((id, Place::decode(&entry[32..]).ok_or_else(|| self.damaged())?));
            }
        }
        Ok(entries)
    }

    fn entries_of(&self, block: usize) -> usize {
        let before = (block * BLOCK_ENTRIES) as u64;
        usize::try_from(self.entries - before).map_or(BLOCK_ENTRIES, |left| left.min(BLOCK_ENTRIES))
    }

    fn block(&self, block: usize) -> Result<[u8; BLOCK_BYTES], Damaged> {
        let mut bytes = [0; BLOCK_BYTES];
        let read = self.file.read_exact_at(&mut bytes, (block * BLOCK_BYTES) as u64);
        let (content, found) = bytes.split_at(BLOCK_BYTES - CHECK_BYTES);
        if read.is_ok() && found == check(content) {
            return Ok(bytes);
        }
        Err(self.damaged())
    }

    fn damaged(&self) -> Damaged {
        if let Err(error) = files::remove(&self.path) {
            tracing::error!(%error, "a damaged part of the index could not be removed");
        }
        Damaged { path: self.path.clone() }
    }
}

/// The first 8 bytes of an id, or of the beginning of one, as a number of the same order.
fn fence(begin: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = begin.len().min(8);
    bytes[..length].copy_from_slice(&begin[..length]);
    u64::from_be_bytes(bytes)
}

fn check(content: &[u8]) -> [u8; CHECK_BYTES] {
    *blake3::hash(content).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn trailer_hash(above: &[u8], entries: u64, filter_blocks: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(above).update(&entries.to_le_bytes()).update(&filter_blocks.to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pack: u32) -> Place {
        Place { pack, frame_offset: 32, plain_offset: 7, bytes: 9 }
    }

    /// Makes a run of this many chunks, each in a pack of its own; returns it with their ids in order.
    fn run(folder: &Path, count: u32) -> (Run, Vec<ChunkId>) {
        let mut ids: Vec<ChunkId> = (0..count).map(|n| ChunkId::of(&n.to_le_bytes())).collect();
        ids.sort_unstable();
        let entries = ids.iter().copied().zip((0..).map(place));
        (Run::create(&folder.join("run"), entries, count.into(), Durability::Synced).expect("written"), ids)
    }

    #[test]
    fn every_chunk_is_found_and_no_other() {
        for count in [0, 1, 84, 85, 86, 1000] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (written, ids) = run(folder.path(), count);
            let opened = Run::open(&folder.path().join("run")).expect("whole");
            assert_eq!(written.hash(), opened.hash());
            let damage = RefCell::default();
            let all: Vec<_> = opened.read_all(&damage).collect();
            assert_eq!(all, ids.iter().copied().zip((0..).map(place)).collect::<Vec<_>>());
            assert!(damage.borrow().is_none());
            for (number, id) in (0..).zip(&ids) {
                let found = opened.find(id.as_bytes(), |_| true).expect("whole");
                assert_eq!(found, Some((*id, place(number))), "{number} of {count}");
                assert_eq!(opened.find(&id.as_bytes()[..8], |_| true).expect("whole"), found);
                assert_eq!(opened.find(id.as_bytes(), |pack| pack != number).expect("whole"), None);
            }
            for other in 0..200_u32 {
                let other = ChunkId::of(&(other + 5000).to_le_bytes());
                assert_eq!(opened.find(other.as_bytes(), |_| true).expect("whole"), None);
            }
        }
    }

    #[test]
    fn chunks_that_begin_alike_are_told_apart_over_several_blocks() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let id = |number: u32| {
            let mut bytes = [9; 32];
            bytes[28..].copy_from_slice(&number.to_be_bytes());
            ChunkId::from_bytes(bytes)
        };
        let entries = (0..400).map(|number| (id(number), place(number)));
        let run = Run::create(&folder.path().join("run"), entries, 400, Durability::Synced).expect("written");
        for number in 0..400 {
            assert_eq!(
                run.find(id(number).as_bytes(), |_| true).expect("whole"),
                Some((id(number), place(number)))
            );
        }
        assert_eq!(run.find(&[9; 8], |pack| pack >= 300).expect("whole"), Some((id(300), place(300))));
        assert_eq!(run.find(&[8; 8], |_| true).expect("whole"), None);
        assert_eq!(run.find(&[10; 8], |_| true).expect("whole"), None);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (_, ids) = run(folder.path(), 100);
        let path = folder.path().join("run");
        let good = std::fs::read(&path).expect("a run");
        let is_noticed = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).expect("written");
            let wrong = match Run::open(&path) {
                Err(_) => true,
                Ok(run) => {
                    let noticed = ids.iter().any(|id| run.find(id.as_bytes(), |_| true).is_err());
                    assert!(!noticed || !path.exists(), "a damaged run stays");
                    noticed
                }
            };
            assert!(wrong, "{what}");
        };
        for at in (0..good.len()).step_by(7).chain(good.len() - 200..good.len()) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            // Zeros of the trailer that mean nothing yet.
            if !(good.len() - 16..good.len() - 8).contains(&at) {
                is_noticed(&bytes, &format!("byte {at}"));
            }
        }
        for length in (0..good.len()).step_by(61) {
            is_noticed(&good[..length], &format!("cut to {length} B"));
        }
    }
}
