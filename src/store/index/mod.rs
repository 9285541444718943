//! The index: chunk id to place, in sorted runs; sled keeps the catalogue. Never the only home of a fact.
//!
//! The chunks of packs are merged into a [`Run`] when there are enough of them, and runs into larger ones (`merge.rs`), while
//! the space is open: memory does not grow with the chunks. A run never changes; a place in it counts while the
//! catalogue has its pack, and newer runs come first.
//!
//! [`super::recovery`] uses the catalogue to notice an index that is empty, cut short or out of date. A wrong place
//! does no harm: the content found there is verified.

mod catalogue;
mod error;
mod filter;
pub mod merge;
mod run;

pub use error::Error;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

use self::catalogue::Catalogue;
use self::merge::Merged;
use self::run::Run;
use super::place::Place;
use disk::crash_points;
use disk::files::{self, Durability, OnPath};
use format::manifest::SegmentName;
use format::pack::PackId;
use ground::ids::{ChunkId, ShortId};
use ground::limits::INDEX_RUNS_MAX;
use ground::poison::Unpoisoned as _;

/// A merge of fewer entries takes a second at most, and is not cut short when the space is closed.
const SMALL_MERGE: u64 = 1_000_000;

/// The open index of one space.
#[derive(Debug)]
pub struct Index {
    folder: PathBuf,
    durability: Durability,
    /// Newest first.
    runs: RwLock<Vec<(u32, Arc<Run>)>>,
    /// The packs in the catalogue, their ids and chunks: runs are never changed, and may know others.
    packs: RwLock<BTreeMap<u32, (PackId, u32)>>,
    /// The first pack number that was never given. Held while runs or packs are added or removed.
    next_number: Mutex<u32>,
    next_run: AtomicU32,
}

/// A durable run that is not part of the index yet.
#[derive(Debug)]
pub struct Unnamed(u32, Run);

impl Index {
    /// Opens the index in `folder`, which is of that durability; an empty one where nothing was ever indexed.
    ///
    /// # Errors
    /// The folder is damaged, locked by another process, or unreadable.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, Error> {
        files::create_folder(folder)?;
        let (packs, names, next_number) = match Catalogue::open_if_there(folder, durability)? {
            Some(catalogue) => (catalogue.packs()?, catalogue.runs()?, catalogue.next_number()?),
            None => Default::default(),
        };
        let packs = packs.into_iter().map(|(number, id, chunks)| (number, (id, chunks)));
        let index = Self {
            folder: folder.to_owned(),
            durability,
            runs: RwLock::default(),
            packs: RwLock::new(packs.collect()),
            next_number: Mutex::new(next_number),
            next_run: AtomicU32::new(names.iter().map(|(number, _)| number + 1).max().unwrap_or(0)),
        };
        let open = |(number, hash): &(u32, [u8; 32])| {
            let run = Run::open(&index.run_path(*number))?;
            if hash == run.hash() { Ok((*number, Arc::new(run))) } else { Err(Error::Entry) }
        };
        let runs = names.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        index.remove_others(&runs)?;
        Ok(Self { runs: RwLock::new(runs), ..index })
    }

    /// Removes the files of runs that are not in the catalogue.
    fn remove_others(&self, runs: &[(u32, Arc<Run>)]) -> Result<(), Error> {
        for entry in fs::read_dir(&self.folder).on("list", &self.folder)? {
            let path = entry.on("list", &self.folder)?.path();
            let is_run = path.extension().is_some_and(|end| end == "run" || end == "part");
            if is_run && !runs.iter().any(|(_, run)| run.path() == path) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    fn run_path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number:08}.run"))
    }

    /// Writes a run of sorted entries, at most `most`, durably; [`Index::add`] makes it part of the index.
    ///
    /// Time O(n), some 2 M chunks a second.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(
        &self,
        entries: impl Iterator<Item = (ChunkId, Place)>,
        most: u64,
    ) -> Result<Unnamed, Error> {
        let number = self.next_run.fetch_add(1, Ordering::Relaxed);
        Ok(Unnamed(number, Run::create(&self.run_path(number), entries, most, self.durability)?))
    }

    /// Adds packs whose chunks are in a new run, durably: their numbers, ids, and numbers of chunks. The catalogue gets
    /// them last.
    ///
    /// # Errors
    /// The index is damaged or the disk full; none of the packs counts as indexed.
    pub fn add(&self, run: Unnamed, packs: &[(u32, PackId, u32)]) -> Result<(), Error> {
        let mut next_number = self.next_number.lock().unpoisoned();
        crash_points::point("take-in.before");
        let Unnamed(number, run) = run;
        let mut runs = self.runs().clone();
        runs.insert(0, (number, Arc::new(run)));
        let next = packs.iter().map(|(number, _, _)| number + 1).max().unwrap_or(0).max(*next_number);
        let catalogue = Catalogue::open(&self.folder, self.durability)?;
        // Burnt first: entries that a crash leaves half taken in must never point into another pack.
        catalogue.name_runs(runs.iter().map(|(number, run)| (*number, run.hash())), next)?;
        crash_points::point("take-in.named");
        catalogue.insert(packs)?;
        crash_points::point("take-in.catalogued");
        catalogue.sync()?;
        *next_number = next;
        *self.runs.write().unpoisoned() = runs;
        let mut live = self.packs.write().unpoisoned();
        live.extend(packs.iter().map(|(number, id, chunks)| (*number, (*id, *chunks))));
        crash_points::point("take-in.after");
        Ok(())
    }

    fn runs(&self) -> RwLockReadGuard<'_, Vec<(u32, Arc<Run>)>> {
        self.runs.read().unpoisoned()
    }

    fn live(&self) -> RwLockReadGuard<'_, BTreeMap<u32, (PackId, u32)>> {
        self.packs.read().unpoisoned()
    }

    /// Returns how many of the newest runs should be merged.
    fn merge_due(&self) -> Option<usize> {
        let runs = self.runs();
        merge::due(&runs.iter().map(|(_, run)| run.entries()).collect::<Vec<_>>(), INDEX_RUNS_MAX)
    }

    /// Returns whether there are more runs than there should be.
    pub fn is_merge_due(&self) -> bool {
        self.merge_due().is_some()
    }

    /// Merges runs until they are few; only one thread may merge at a time. Large merges end early when `cancelled`.
    ///
    /// Drops the entries of packs that are gone.
    ///
    /// # Errors
    /// A run or the catalogue is damaged, or the disk full; all is as before.
    pub fn merge(&self, cancelled: &AtomicBool) -> Result<(), Error> {
        while let Some(count) = self.merge_due() {
            let mut chosen = self.runs().clone();
            chosen.truncate(count);
            let most = chosen.iter().map(|(_, run)| run.entries()).sum();
            let ends = || most > SMALL_MERGE && cancelled.load(Ordering::Relaxed);
            let live: HashSet<u32> = self.live().keys().copied().collect();
            let damage: Vec<_> = chosen.iter().map(|_| RefCell::default()).collect();
            let sources = chosen.iter().zip(&damage).map(|((_, run), damage)| run.read_all(damage));
            let entries = Merged::new(sources).filter(|(_, place)| live.contains(&place.pack));
            let Unnamed(number, run) = self.write(entries.take_while(|_| !ends()), most)?;
            let damage = damage.into_iter().find_map(RefCell::into_inner);
            if damage.is_some() || ends() {
                files::remove(run.path())?;
                return damage.map_or(Ok(()), |damage| Err(damage.into()));
            }
            self.replace(&chosen, number, run)?;
        }
        Ok(())
    }

    /// Replaces runs by the one that they were merged into.
    fn replace(&self, merged: &[(u32, Arc<Run>)], number: u32, run: Run) -> Result<(), Error> {
        let next_number = self.next_number.lock().unpoisoned();
        crash_points::point("merge.written");
        let mut runs = self.runs().clone();
        // Newer ones may have come before them.
        let first = runs.iter().position(|(number, _)| *number == merged[0].0).ok_or(Error::Entry)?;
        runs.splice(first..first + merged.len(), [(number, Arc::new(run))]);
        let names = runs.iter().map(|(number, run)| (*number, run.hash()));
        Catalogue::open(&self.folder, self.durability)?.name_runs(names, *next_number)?;
        crash_points::point("merge.named");
        *self.runs.write().unpoisoned() = runs;
        for (_, run) in merged {
            files::remove(run.path())?;
        }
        crash_points::point("merge.removed");
        Ok(())
    }

    /// Returns the place of a chunk, if an indexed pack has it.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find(&self, id: &ChunkId) -> Result<Option<Place>, Error> {
        Ok(self.find_beginning(id.as_bytes())?.map(|(_, place)| place))
    }

    /// Returns the first chunk whose id begins with the 8 bytes of `name`.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_name(&self, name: SegmentName) -> Result<Option<(ChunkId, Place)>, Error> {
        self.find_beginning(&name.get().to_le_bytes())
    }

    /// Returns the first chunk whose id begins with these bytes.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find_short(&self, short: ShortId) -> Result<Option<(ChunkId, Place)>, Error> {
        self.find_beginning(short.as_bytes())
    }

    fn find_beginning(&self, begin: &[u8]) -> Result<Option<(ChunkId, Place)>, Error> {
        let (runs, live) = (self.runs(), self.live());
        for (_, run) in runs.iter() {
            if let Some(found) = run.find(begin, |pack| live.contains_key(&pack))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the first pack number that was never given.
    pub fn next_number(&self) -> u32 {
        *self.next_number.lock().unpoisoned()
    }

    /// Takes packs out of the catalogue, durably: entries of theirs in runs no longer count.
    ///
    /// # Errors
    /// The index is damaged or the disk full.
    pub fn take_out(&self, numbers: &[u32]) -> Result<(), Error> {
        let _alone = self.next_number.lock().unpoisoned();
        crash_points::point("take-out.before");
        let there: Vec<u32> =
            numbers.iter().copied().filter(|number| self.live().contains_key(number)).collect();
        if there.is_empty() {
            return Ok(());
        }
        let catalogue = Catalogue::open(&self.folder, self.durability)?;
        catalogue.remove(&there)?;
        self.packs.write().unpoisoned().retain(|number, _| !there.contains(number));
        crash_points::point("take-out.catalogue");
        catalogue.sync()
    }

    /// Returns the indexed packs: number, id, chunks.
    pub fn packs(&self) -> Vec<(u32, PackId, u32)> {
        self.live().iter().map(|(number, (id, chunks))| (*number, *id, *chunks)).collect()
    }
}

#[cfg(test)]
mod tests;
