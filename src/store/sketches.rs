//! Which stored chunk a sketch is like: a table on disk, of bounded size, of hints.
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

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::basis::Sketch;
use crate::files;
use crate::ids::ShortId;

const MAGIC: [u8; 8] = *b"whitskt1";
const HEAD_BYTES: u64 = MAGIC.len() as u64 + 8;
const SLOT_BYTES: usize = 4 + ShortId::BYTES;
const SLOTS: usize = 8;
const BUCKET_BYTES: usize = SLOT_BYTES * SLOTS;
/// 80 KB: for some 2,000 chunks.
const BUCKETS_FIRST: u64 = 1024;
/// 168 MB: for some 4 million chunks, 64 GB; of more, the latest are found.
const BUCKETS_MAX: u64 = 2 * 1024 * 1024;
/// How much larger the next table is.
const GROWTH: u64 = 4;

/// The sketches of one space.
#[derive(Debug)]
pub struct Sketches {
    path: PathBuf,
    /// What the disk must keep free for what cannot be made again.
    reserve_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing was noted yet.
    Absent,
    There(Table),
    /// The file cannot be used; whoever met that has said so.
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
    /// Opens the table at `path`; what is none is written over by the first that is noted.
    pub fn open(path: PathBuf, reserve_bytes: u64) -> Self {
        let state = Table::open(&path).map_or(State::Absent, State::There);
        Self { path, reserve_bytes, state: Mutex::new(state) }
    }

    /// Whether anything can be found.
    pub fn is_empty(&self) -> bool {
        !matches!(*self.held(), State::There(_))
    }

    /// Notes what some chunks are like.
    pub fn insert(&self, chunks: impl Iterator<Item = (ShortId, Sketch)>) {
        let mut chunks = chunks.peekable();
        if chunks.peek().is_none() {
            return;
        }
        let mut state = self.held();
        if matches!(*state, State::Absent) {
            self.turn(&mut state, Table::create(&self.path, BUCKETS_FIRST).map(State::There));
        }
        let State::There(table) = &mut *state else { return };
        let noted = self.note(table, chunks);
        if let Err(error) = noted {
            self.turn(&mut state, Err(error));
        }
    }

    fn note(&self, table: &mut Table, chunks: impl Iterator<Item = (ShortId, Sketch)>) -> io::Result<()> {
        for (id, sketch) in chunks {
            table.insert(id, &sketch)?;
        }
        let has_room =
            |bytes| files::free_bytes(&self.path).is_ok_and(|free| free > self.reserve_bytes + bytes);
        if table.is_crowded() && has_room(table.bytes_grown()) {
            table.grow(&self.path)?;
        }
        Ok(())
    }

    /// The chunk that shares most super-features with `sketch`, and how many, of three.
    pub fn most_similar(&self, sketch: &Sketch) -> Option<(ShortId, usize)> {
        let mut state = self.held();
        let State::There(table) = &*state else { return None };
        match table.most_similar(sketch) {
            Ok(found) => found,
            Err(error) => {
                self.turn(&mut state, Err(error));
                None
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the table up where the disk does not give or take its bytes.
    fn turn(&self, state: &mut State, next: io::Result<State>) {
        *state = next.unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "sketches are not kept until the space is opened again");
            State::Failed
        });
    }
}

fn file_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
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
            && file.metadata()?.len() == HEAD_BYTES + buckets * BUCKET_BYTES as u64;
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
        file.set_len(HEAD_BYTES + buckets * BUCKET_BYTES as u64)?;
        Ok(Self { file, buckets, displaced: 0 })
    }

    fn bucket_of(&self, feature: u32) -> u64 {
        HEAD_BYTES + (u64::from(feature) & (self.buckets - 1)) * BUCKET_BYTES as u64
    }

    fn bucket(&self, at: u64) -> io::Result<[[u8; SLOT_BYTES]; SLOTS]> {
        let mut slots = [[0; SLOT_BYTES]; SLOTS];
        self.file.read_exact_at(slots.as_flattened_mut(), at)?;
        Ok(slots)
    }

    fn insert(&mut self, id: ShortId, sketch: &Sketch) -> io::Result<()> {
        sketch.super_features().into_iter().try_for_each(|feature| self.put(feature, id))
    }

    /// Takes the slot of the same super-feature, else an empty one, else one that the id chooses.
    fn put(&mut self, feature: u32, id: ShortId) -> io::Result<()> {
        let at = self.bucket_of(feature);
        let slots = self.bucket(at)?;
        let of = |wanted: &[u8]| slots.iter().position(|slot| slot.starts_with(wanted));
        let place = of(&feature.to_le_bytes()).or_else(|| of(&[0; SLOT_BYTES])).unwrap_or_else(|| {
            self.displaced += 1;
            usize::from(id.as_bytes()[0]) % SLOTS
        });
        let mut slot = [0; SLOT_BYTES];
        slot[..4].copy_from_slice(&feature.to_le_bytes());
        slot[4..].copy_from_slice(id.as_bytes());
        self.file.write_all_at(&slot, at + (place * SLOT_BYTES) as u64)
    }

    fn most_similar(&self, sketch: &Sketch) -> io::Result<Option<(ShortId, usize)>> {
        let mut found: Vec<(ShortId, usize)> = Vec::new();
        for feature in sketch.super_features() {
            let slots = self.bucket(self.bucket_of(feature))?;
            let Some(slot) = slots.iter().find(|slot| slot.starts_with(&feature.to_le_bytes())) else {
                continue;
            };
            let id = ShortId::from_bytes(*slot.last_chunk().expect("a slot ends with an id"));
            match found.iter_mut().find(|(other, _)| *other == id) {
                Some((_, shared)) => *shared += 1,
                None => found.push((id, 1)),
            }
        }
        Ok(found.into_iter().rev().max_by_key(|(_, shared)| *shared))
    }

    /// Whether so many entries were displaced that a larger table would pay.
    fn is_crowded(&self) -> bool {
        self.displaced > self.buckets && self.buckets < BUCKETS_MAX
    }

    fn buckets_grown(&self) -> u64 {
        (self.buckets * GROWTH).min(BUCKETS_MAX)
    }

    fn bytes_grown(&self) -> u64 {
        self.buckets_grown() * BUCKET_BYTES as u64
    }

    /// Puts all entries into a larger table, which takes this one's place.
    fn grow(&mut self, path: &Path) -> io::Result<()> {
        let aside = path.with_extension("part");
        let mut larger = Self::create(&aside, self.buckets_grown())?;
        for bucket in 0..self.buckets {
            for slot in self.bucket(HEAD_BYTES + bucket * BUCKET_BYTES as u64)? {
                if slot != [0; SLOT_BYTES] {
                    let (feature, id) = slot.split_first_chunk().expect("a slot begins with a super-feature");
                    let id = id.try_into().expect("the rest is an id");
                    larger.put(u32::from_le_bytes(*feature), ShortId::from_bytes(id))?;
                }
            }
        }
        std::fs::rename(&aside, path)?;
        larger.displaced = 0;
        *self = larger;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(n: u32) -> Sketch {
        let mut bytes = [0; crate::basis::SKETCH_BYTES];
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
        assert_eq!(sketches.most_similar(&of([1, 2, 3])), Some((id(1), 2)));
        assert_eq!(sketches.most_similar(&of([1, 7, 8])), Some((id(2), 1)));
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
        assert_eq!(nowhere.most_similar(&sketch(1)), None);
    }
}
