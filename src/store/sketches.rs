//! Finds stored chunks similar to a sketch: a table of hints on disk, of bounded size.
//!
//! ```text
//! offset  bytes  field
//!      0      8  "whitskt1"
//!      8      8  number of buckets, a power of two, little-endian
//!     16   80 n  buckets of eight slots: super-feature (4, little-endian), the chunk's short id (6); zeros where empty
//! ```
//!
//! Nothing here is believed: what is found is looked for in the index, read, verified, and proven by the hash of
//! what is made of it. So the table is never synced, old entries stay until others take their place, and a
//! table that is damaged or gone costs bytes on the link until pushes and `whit verify` have filled it again.
//! The file is beside sled, not in it, as each of a million chunks has three keys, and sled takes some
//! hundred bytes of memory for each.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use delta::similar::Sketch;
use disk::files;
use ground::ids::ShortId;
use ground::poison::Unpoisoned as _;

const MAGIC: [u8; 8] = *b"whitskt1";
const HEAD_BYTES: u64 = MAGIC.len() as u64 + 8;
const SLOT_BYTES: usize = 4 + ShortId::BYTES;
const SLOTS: usize = 8;
const BUCKET_BYTES: usize = SLOT_BYTES * SLOTS;
/// 80 KB: for some 2,000 chunks.
const BUCKETS_FIRST: u64 = 1024;
/// 168 MB: for some 4 million chunks, 64 GB; of more, the latest are found.
const BUCKETS_MAX: u64 = 2 * 1024 * 1024;
/// The factor by which the next table is larger.
const GROWTH: u64 = 4;

/// Entries collected in memory before they are written together: 1 MB, those of some 20,000 chunks.
const PENDING_MAX: usize = 64 * 1024;
/// The most that the file system allocates for one entry.
const PAGE_BYTES: u64 = 4096;
/// Buckets that are read and written at once: 5 KiB.
const RUN_BUCKETS: u64 = 64;

/// The sketches of one space. What was noted last is in memory, and written when enough of it is there, when a push
/// ends, and when the space is closed.
#[derive(Debug)]
pub struct Sketches {
    path: PathBuf,
    /// Bytes that stay free on the disk for data that cannot be rebuilt.
    reserve_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    table: State,
    /// The latest chunk of each super-feature.
    pending: HashMap<u32, ShortId>,
}

#[derive(Debug)]
enum State {
    /// Nothing was written yet.
    Absent,
    There(Table),
    /// The file cannot be read, which is logged.
    Failed,
}

#[derive(Debug)]
struct Table {
    file: File,
    buckets: u64,
    /// Entries that took the place of others since the table last grew.
    displaced: u64,
}

impl Sketches {
    /// Opens the table at `path`; the first sketch overwrites a file that is not a table.
    pub fn open(path: PathBuf, reserve_bytes: u64) -> Self {
        let table = Table::open(&path).map_or(State::Absent, State::There);
        Self { path, reserve_bytes, held: Mutex::new(Held { table, pending: HashMap::new() }) }
    }

    /// Returns whether nothing can be found.
    pub fn is_empty(&self) -> bool {
        let held = self.held();
        held.pending.is_empty() && !matches!(held.table, State::There(_))
    }

    /// Adds the sketches of chunks.
    pub fn insert(&self, chunks: impl Iterator<Item = (ShortId, Sketch)>) {
        let mut held = self.held();
        if matches!(held.table, State::Failed) {
            return;
        }
        for (id, sketch) in chunks {
            held.pending.extend(sketch.super_features().map(|feature| (feature, id)));
            if held.pending.len() >= PENDING_MAX {
                self.write(&mut held);
            }
        }
    }

    /// Writes the pending entries. A failure loses only hints.
    pub fn flush(&self) {
        self.write(&mut self.held());
    }

    /// Returns the chunk that shares most super-features with `sketch`, and how many of three.
    pub fn most_similar(&self, sketch: &Sketch) -> Option<(ShortId, usize)> {
        let mut held = self.held();
        let mut found: Vec<(ShortId, usize)> = Vec::new();
        for feature in sketch.super_features() {
            let id = match (held.pending.get(&feature), &held.table) {
                (Some(id), _) => Ok(Some(*id)),
                (None, State::There(table)) => table.find(feature),
                (None, State::Absent | State::Failed) => Ok(None),
            };
            match id {
                Ok(None) => {}
                Ok(Some(id)) => match found.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, shared)) => *shared += 1,
                    None => found.push((id, 1)),
                },
                Err(error) => {
                    held.table = self.failed(&error);
                    return None;
                }
            }
        }
        found.into_iter().rev().max_by_key(|(_, shared)| *shared)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unpoisoned()
    }

    fn write(&self, held: &mut Held) {
        if held.pending.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut held.pending).into_iter().collect();
        // On a full disk it may succeed another time.
        let lost = |error: &io::Error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "sketches of chunks could not be written");
        };
        if matches!(held.table, State::Absent) {
            match Table::create(&self.path, BUCKETS_FIRST) {
                Ok(table) => held.table = State::There(table),
                Err(error) => return lost(&error),
            }
        }
        if let State::There(table) = &mut held.table
            && let Err(error) = self.write_into(table, entries)
        {
            lost(&error);
        }
    }

    fn write_into(&self, table: &mut Table, entries: Vec<(u32, ShortId)>) -> io::Result<()> {
        let has_room = |bytes| {
            files::free_bytes(&self.path).is_ok_and(|free| free > self.reserve_bytes.saturating_add(bytes))
        };
        while table.is_crowded(entries.len()) && has_room(table.bytes_grown()) {
            table.grow(&self.path)?;
        }
        // The file has holes, which are filled: each entry may take a page.
        if has_room(entries.len() as u64 * PAGE_BYTES) { table.put_all(entries) } else { Ok(()) }
    }

    /// Gives up a table that the disk cannot read.
    fn failed(&self, error: &io::Error) -> State {
        let path = self.path.display();
        tracing::warn!(%path, %error, "sketches are not kept until the space is opened again");
        State::Failed
    }
}

impl Drop for Sketches {
    fn drop(&mut self) {
        self.flush();
    }
}

type Slot = [u8; SLOT_BYTES];
type Bucket = [Slot; SLOTS];

fn file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn place_of(bucket: u64) -> u64 {
    HEAD_BYTES + bucket * BUCKET_BYTES as u64
}

impl Table {
    fn open(path: &Path) -> io::Result<Self> {
        let file = file_options().open(path)?;
        let (mut magic, mut buckets) = ([0; 8], [0; 8]);
        file.read_exact_at(&mut magic, 0)?;
        file.read_exact_at(&mut buckets, magic.len() as u64)?;
        let buckets = u64::from_le_bytes(buckets);
        let is_sound = magic == MAGIC
            && buckets.is_power_of_two()
            && (BUCKETS_FIRST..=BUCKETS_MAX).contains(&buckets)
            && file.metadata()?.len() == place_of(buckets);
        if is_sound {
            Ok(Self { file, buckets, displaced: 0 })
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn create(path: &Path, buckets: u64) -> io::Result<Self> {
        let file = file_options().create(true).truncate(true).open(path)?;
        file.write_all_at(&MAGIC, 0)?;
        file.write_all_at(&buckets.to_le_bytes(), MAGIC.len() as u64)?;
        file.set_len(place_of(buckets))?;
        Ok(Self { file, buckets, displaced: 0 })
    }

    fn bucket_of(&self, feature: u32) -> u64 {
        u64::from(feature) & (self.buckets - 1)
    }

    fn find(&self, feature: u32) -> io::Result<Option<ShortId>> {
        let mut bucket: Bucket = [[0; SLOT_BYTES]; SLOTS];
        self.file.read_exact_at(bucket.as_flattened_mut(), place_of(self.bucket_of(feature)))?;
        let slot = bucket.iter().find(|slot| slot.starts_with(&feature.to_le_bytes()));
        Ok(slot.map(|slot| ShortId::from_bytes(*slot.last_chunk().expect("a slot ends with an id"))))
    }

    /// Puts entries into their buckets, neighbouring buckets at once.
    fn put_all(&mut self, mut entries: Vec<(u32, ShortId)>) -> io::Result<()> {
        entries.sort_unstable_by_key(|(feature, _)| self.bucket_of(*feature));
        let mut buckets: Vec<Bucket> = Vec::new();
        let runs = entries.chunk_by(|(one, _), (other, _)| {
            self.bucket_of(*one) / RUN_BUCKETS == self.bucket_of(*other) / RUN_BUCKETS
        });
        let mut displaced = 0;
        for run in runs {
            let Some((first, _)) = run.first() else { continue };
            let begin = self.bucket_of(*first) / RUN_BUCKETS * RUN_BUCKETS;
            self.read(begin, RUN_BUCKETS, &mut buckets)?;
            let mut is_changed = false;
            for (feature, id) in run {
                let at = usize::try_from(self.bucket_of(*feature) - begin).expect("one of a run");
                let put = put(&mut buckets[at], *feature, *id);
                is_changed |= put != Put::There;
                displaced += u64::from(put == Put::Displacing);
            }
            // A verified chunk's entries are mostly there already.
            if is_changed {
                self.file.write_all_at(buckets.as_flattened().as_flattened(), place_of(begin))?;
            }
        }
        self.displaced += displaced;
        Ok(())
    }

    /// Reads neighbouring buckets.
    fn read(&self, begin: u64, count: u64, buckets: &mut Vec<Bucket>) -> io::Result<()> {
        buckets.resize(usize::try_from(count).expect("a run is short"), [[0; SLOT_BYTES]; SLOTS]);
        self.file.read_exact_at(buckets.as_flattened_mut().as_flattened_mut(), place_of(begin))
    }

    /// Returns whether a larger table would pay: one in 32 slots lost its entry, or the sketches to come would fill a
    /// quarter of them.
    fn is_crowded(&self, more: usize) -> bool {
        let is_full = self.displaced > self.buckets / 4 || more as u64 > self.buckets * 2;
        is_full && self.buckets < BUCKETS_MAX
    }

    fn buckets_grown(&self) -> u64 {
        (self.buckets * GROWTH).min(BUCKETS_MAX)
    }

    fn bytes_grown(&self) -> u64 {
        place_of(self.buckets_grown())
    }

    /// Puts a larger table with all entries in this one's place.
    fn grow(&mut self, path: &Path) -> io::Result<()> {
        let aside = path.with_extension("part");
        let larger = self.larger(&aside).and_then(|larger| std::fs::rename(&aside, path).map(|()| larger));
        if larger.is_err() {
            // It may not even be there.
            drop(std::fs::remove_file(&aside));
        }
        *self = larger?;
        Ok(())
    }

    /// A larger table with all entries, at `aside`.
    fn larger(&self, aside: &Path) -> io::Result<Self> {
        let mut larger = Self::create(aside, self.buckets_grown())?;
        let (mut buckets, mut entries) = (Vec::new(), Vec::new());
        for begin in (0..self.buckets).step_by(usize::try_from(RUN_BUCKETS).expect("a run is short")) {
            self.read(begin, RUN_BUCKETS, &mut buckets)?;
            let there = buckets.as_flattened().iter().filter(|slot| **slot != [0; SLOT_BYTES]);
            entries.extend(there.map(|slot| {
                let (feature, id) = slot.split_first_chunk().expect("a slot begins with a super-feature");
                let id = id.try_into().expect("the rest is an id");
                (u32::from_le_bytes(*feature), ShortId::from_bytes(id))
            }));
            if entries.len() >= PENDING_MAX {
                larger.put_all(std::mem::take(&mut entries))?;
            }
        }
        larger.put_all(entries)?;
        larger.displaced = 0;
        Ok(larger)
    }
}

/// The result of adding an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    There,
    Written,
    /// Another entry was replaced.
    Displacing,
}

/// Takes the slot of the same super-feature, else an empty one, else one that the id chooses.
fn put(bucket: &mut Bucket, feature: u32, id: ShortId) -> Put {
    let of = |wanted: &[u8]| bucket.iter().position(|slot| slot.starts_with(wanted));
    let free = of(&feature.to_le_bytes()).or_else(|| of(&[0; SLOT_BYTES]));
    let slot = &mut bucket[free.unwrap_or(usize::from(id.as_bytes()[0]) % SLOTS)];
    let before = *slot;
    slot[..4].copy_from_slice(&feature.to_le_bytes());
    slot[4..].copy_from_slice(id.as_bytes());
    match free {
        None => Put::Displacing,
        Some(_) if *slot == before => Put::There,
        Some(_) => Put::Written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(n: u32) -> Sketch {
        let mut bytes = [0; delta::similar::SKETCH_BYTES];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        Sketch::from_bytes(bytes)
    }

    fn id(n: u32) -> ShortId {
        let mut bytes = [1; ShortId::BYTES];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        ShortId::from_bytes(bytes)
    }

    #[test]
    fn what_was_noted_is_found_in_a_table_that_grew_and_was_opened_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("sketches");
        let count = 20_000;
        let sketches = Sketches::open(path.clone(), 0);
        for n in 0..count {
            sketches.insert(std::iter::once((id(n), sketch(n))));
            if n % 500 == 0 {
                sketches.flush();
            }
        }
        drop(sketches);
        let sketches = Sketches::open(path, 0);
        let found =
            (0..count).filter(|n| sketches.most_similar(&sketch(*n)).is_some_and(|(of, _)| of == id(*n)));
        assert!(found.count() > 19_000);
        assert_eq!(sketches.most_similar(&sketch(count)), None);
    }

    #[test]
    fn the_latest_of_equals_is_found_and_most_shared_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sketches = Sketches::open(folder.path().join("sketches"), 0);
        let of = |features: [u32; 3]| {
            let mut bytes = [0; 12];
            bytes.as_chunks_mut().0.copy_from_slice(&features.map(u32::to_le_bytes));
            Sketch::from_bytes(bytes)
        };
        sketches.insert([(id(1), of([1, 2, 3])), (id(2), of([1, 5, 6]))].into_iter());
        for _ in 0..2 {
            assert_eq!(sketches.most_similar(&of([1, 2, 3])), Some((id(1), 2)));
            assert_eq!(sketches.most_similar(&of([1, 7, 8])), Some((id(2), 1)));
            sketches.flush();
        }
    }

    #[test]
    fn a_table_that_is_damaged_is_begun_anew_and_one_that_cannot_be_made_is_done_without() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("sketches");
        std::fs::write(&path, b"whitskt1 and then not").expect("written");
        let sketches = Sketches::open(path, 0);
        sketches.insert(std::iter::once((id(1), sketch(1))));
        assert_eq!(sketches.most_similar(&sketch(1)), Some((id(1), 3)));
        let nowhere = Sketches::open(folder.path().join("no/folder/here"), 0);
        nowhere.insert(std::iter::once((id(1), sketch(1))));
        nowhere.flush();
        assert_eq!(nowhere.most_similar(&sketch(1)), None);
    }
}
