//! A sorted run: the places of the chunks of many packs in one file, written once and then only read.
//!
//! sled takes in some 100,000 entries a second, and memory for each. A store that is opened with millions of
//! chunks and no index merges its packs' sorted footers into a run instead: one pass, no memory that grows
//! with it, and a search reads one block. What comes later goes to sled. As the index is, a run is never the
//! only home of a fact, and every block that is used is checked.
//!
//! | size | what |
//! |---|---|
//! | 4096 b | blocks: 85 entries of id (32) and place (16), sorted by id, the last block filled with zeros; check (16): BLAKE3 |
//! | 8 b | fences: the first 8 bytes of each block's first id |
//! | 64 | entries (8), BLAKE3 of the fences and the entries' number (32), zeros (16), `whitrun1` (8) |

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::place::Place;
use crate::crash;
use crate::files::{self, OnPath};
use crate::ids::ChunkId;
use crate::pack::FooterView;

const MAGIC: [u8; 8] = *b"whitrun1";
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

/// Why a run cannot be used: it is damaged, cut short, or the disk does not give it.
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
    hash: [u8; 32],
}

impl Run {
    /// Writes the entries, which are sorted by id and distinct, durably to `path`.
    ///
    /// Time O(entries); memory 1 MiB and 0.1 B an entry.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(path: &Path, entries: impl Iterator<Item = (ChunkId, Place)>) -> files::Result<Self> {
        let aside = path.with_extension("part");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&aside).on("create", &aside)?;
        let mut fences: Vec<u64> = Vec::new();
        let mut buffer: Vec<u8> = Vec::with_capacity(WRITE_BLOCKS * BLOCK_BYTES);
        let mut count = 0;
        let mut entries = entries.peekable();
        while let Some((first, _)) = entries.peek() {
            fences.push(fence(first.as_bytes()));
            let begin = buffer.len();
            for (id, place) in entries.by_ref().take(BLOCK_ENTRIES) {
                buffer.extend_from_slice(id.as_bytes());
                buffer.extend_from_slice(&place.encode());
                count += 1;
            }
            buffer.resize(begin + BLOCK_BYTES - CHECK_BYTES, 0);
            let check = check(&buffer[begin..]);
            buffer.extend_from_slice(&check);
            if buffer.len() >= WRITE_BLOCKS * BLOCK_BYTES || entries.peek().is_none() {
                crash::half("run.half", &file, &buffer);
                file.write_all(&buffer).on("write", &aside)?;
                buffer.clear();
            }
        }
        buffer.extend(fences.iter().flat_map(|fence| fence.to_le_bytes()));
        let hash = trailer_hash(&buffer, count);
        buffer.extend_from_slice(&count.to_le_bytes());
        buffer.extend_from_slice(&hash);
        buffer.extend_from_slice(&[0; 16]);
        buffer.extend_from_slice(&MAGIC);
        file.write_all(&buffer).on("write", &aside)?;
        file.sync_all().on("sync", &aside)?;
        files::rename(&aside, path)?;
        Ok(Self { file, path: path.to_owned(), entries: count, fences, hash })
    }

    /// Opens a run and checks its fences.
    ///
    /// # Errors
    /// It is not there, or not whole.
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
        if entries > ENTRIES_MAX || trailer[56..] != MAGIC || trailer_at != blocks_bytes + 8 * blocks {
            return None;
        }
        let mut fences = vec![0; usize::try_from(8 * blocks).ok()?];
        file.read_exact_at(&mut fences, blocks_bytes).ok()?;
        let hash = trailer_hash(&fences, entries);
        let fences = fences.as_chunks::<8>().0.iter().map(|fence| u64::from_le_bytes(*fence)).collect();
        let run = Self { file, path: path.to_owned(), entries, fences, hash };
        (trailer[8..40] == hash).then_some(run)
    }

    /// What tells this run from every other.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The first entry whose id begins with `begin` and whose pack's number `is_live` accepts.
    ///
    /// Reads one block, seldom two.
    ///
    /// # Errors
    /// A block is damaged. The run is then taken away, so that the next opening builds it anew.
    pub fn find(
        &self,
        begin: &[u8],
        is_live: impl Fn(u32) -> bool,
    ) -> Result<Option<(ChunkId, Place)>, Damaged> {
        let low = fence(begin);
        // The last block that begins below; entries that begin so may fill others behind it.
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

fn trailer_hash(fences: &[u8], entries: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(fences).update(&entries.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// A pack's next chunk: its id, the pack's number, which footer, which entry.
type Next = (ChunkId, Reverse<u32>, usize, usize);

/// The chunks of many packs in the order of their ids, each once: of the pack with the highest number.
#[derive(Debug)]
pub struct Merged<'a> {
    footers: &'a [(u32, FooterView<'a>)],
    /// The next chunk of each pack.
    next: BinaryHeap<Reverse<Next>>,
    last: Option<ChunkId>,
}

impl<'a> Merged<'a> {
    /// Merges footers of packs of less than 4 GiB, given with their numbers. Time O(n log packs).
    pub fn new(footers: &'a [(u32, FooterView<'a>)]) -> Self {
        let first = |(at, (number, footer)): (usize, &(u32, FooterView<'_>))| {
            (footer.chunk_count() > 0).then(|| Reverse((footer.entry(0).chunk.id, Reverse(*number), at, 0)))
        };
        let next = footers.iter().enumerate().filter_map(first).collect();
        Self { footers, next, last: None }
    }
}

impl Iterator for Merged<'_> {
    type Item = (ChunkId, Place);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut top = self.next.peek_mut()?;
            let Reverse((id, Reverse(number), at, entry)) = *top;
            let footer = &self.footers[at].1;
            if entry + 1 < footer.chunk_count() {
                *top = Reverse((footer.entry(entry + 1).chunk.id, Reverse(number), at, entry + 1));
            } else {
                PeekMut::pop(top);
            }
            if self.last.replace(id) == Some(id) {
                continue;
            }
            let found = footer.entry(entry);
            let place = Place {
                pack: number,
                frame_offset: u32::try_from(found.frame_offset).expect("packs are smaller than 4 GiB"),
                plain_offset: found.plain_offset,
                bytes: found.chunk.bytes,
            };
            return Some((id, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pack: u32) -> Place {
        Place { pack, frame_offset: 32, plain_offset: 7, bytes: 9 }
    }

    /// A run of so many chunks, each in a pack of its own, and their ids in order.
    fn run(folder: &Path, count: u32) -> (Run, Vec<ChunkId>) {
        let mut ids: Vec<ChunkId> = (0..count).map(|n| ChunkId::of(&n.to_le_bytes())).collect();
        ids.sort_unstable();
        let entries = ids.iter().copied().zip((0..).map(place));
        (Run::create(&folder.join("run"), entries).expect("written"), ids)
    }

    #[test]
    fn every_chunk_is_found_and_no_other() {
        for count in [0, 1, 84, 85, 86, 1000] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (written, ids) = run(folder.path(), count);
            let opened = Run::open(&folder.path().join("run")).expect("whole");
            assert_eq!(written.hash(), opened.hash());
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
        let run = Run::create(&folder.path().join("run"), entries).expect("written");
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
            if !(good.len() - 24..good.len() - 8).contains(&at) {
                is_noticed(&bytes, &format!("byte {at}"));
            }
        }
        for length in (0..good.len()).step_by(61) {
            is_noticed(&good[..length], &format!("cut to {length} B"));
        }
    }
}
