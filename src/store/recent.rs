//! The chunks that no run of the index has yet: those of the open pack and of the packs sealed last.
//!
//! They stay in memory, some 75 B each, until there are enough for a run; then, and when the space is closed, the sealed
//! packs' footers are merged into one. After a crash, recovery reads them from the packs.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

use super::index::Index;
use super::merge::{self, Merged};
use super::moves::Moves;
use super::packs::{self, Pack};
use super::place::Place;
use super::writer::Shared;
use super::{Error, Result};
use format::pack::PackId;
use ground::ids::{ChunkId, ShortId};
use ground::poison::Unpoisoned as _;

/// The chunks of packs that the index does not have yet.
#[derive(Debug, Default)]
pub struct Recent {
    chunks: RwLock<BTreeMap<ChunkId, Place>>,
    /// The sealed packs among these, and the number of chunks of each. Locked before the index is changed.
    sealed: Mutex<BTreeMap<u32, usize>>,
    /// How whoever looks a chunk up here and then in the index notices that it moved meanwhile.
    pub moves: Moves,
}

impl Recent {
    /// Returns the place of the chunk in these packs.
    pub fn find(&self, id: &ChunkId) -> Option<Place> {
        self.chunks.read().unpoisoned().get(id).copied()
    }

    /// Returns the first chunk whose id begins with the 8 bytes of `name`.
    pub fn find_name(&self, name: u64) -> Option<(ChunkId, Place)> {
        let mut low = [0; 32];
        low[..8].copy_from_slice(&name.to_le_bytes());
        let chunks = self.chunks.read().unpoisoned();
        let (id, place) = chunks.range(ChunkId::from_bytes(low)..).next()?;
        (id.prefix() == name).then_some((*id, *place))
    }

    /// Returns the first chunk whose id begins so.
    pub fn find_short(&self, short: ShortId) -> Option<(ChunkId, Place)> {
        let chunks = self.chunks.read().unpoisoned();
        let (id, place) = chunks.range(short.lowest()..).next()?;
        (ShortId::from(*id) == short).then_some((*id, *place))
    }

    /// Adds chunks of the open pack.
    pub fn add(&self, chunks: impl Iterator<Item = (ChunkId, Place)>) {
        self.chunks.write().unpoisoned().extend(chunks);
    }

    /// Returns the chunks of a pack, each with the place of its frame.
    pub fn of_pack(&self, pack: u32) -> Vec<(ChunkId, u32)> {
        let chunks = self.chunks.read().unpoisoned();
        let here = chunks.iter().filter(|(_, place)| place.pack == pack);
        here.map(|(id, place)| (*id, place.frame_offset)).collect()
    }

    /// Adds chunks of sealed packs that could not be indexed.
    pub fn add_sealed(&self, chunks: Vec<(ChunkId, Place)>) {
        let mut sealed = self.sealed.lock().unpoisoned();
        for (_, place) in &chunks {
            *sealed.entry(place.pack).or_default() += 1;
        }
        drop(sealed);
        self.add(chunks.into_iter());
    }

    /// Notes that a pack was sealed, and returns the number of chunks of sealed packs.
    pub fn note_sealed(&self, pack: u32, chunks: usize) -> usize {
        let mut sealed = self.sealed.lock().unpoisoned();
        sealed.insert(pack, chunks);
        sealed.values().sum()
    }

    fn forget_packs(&self, packs: &HashSet<u32>) {
        let mut chunks = self.chunks.write().unpoisoned();
        chunks.retain(|_, place| !packs.contains(&place.pack));
    }
}

impl Shared {
    /// Returns the place of the chunk, from memory or the index.
    ///
    /// # Errors
    /// The index is damaged.
    pub fn find(&self, id: &ChunkId) -> Result<Option<Place>> {
        self.recent.moves.look(|| match self.recent.find(id) {
            Some(place) => Ok(Some(place)),
            None => Ok(self.index.find(id)?),
        })
    }

    /// Merges the footers of all sealed packs that the index does not have into a run.
    ///
    /// # Errors
    /// The index is damaged or the disk full; all is as before.
    pub fn make_run(&self) -> Result<()> {
        let numbers: Vec<u32> = {
            let sealed = self.recent.sealed.lock().unpoisoned();
            sealed.keys().copied().collect()
        };
        let found = |number: u32| Some((number, self.packs.by_number(number)?));
        let packs: Vec<(u32, Arc<Pack>)> = numbers.into_iter().filter_map(found).collect();
        self.take_in_all(&packs.iter().map(|(number, pack)| (*number, &**pack)).collect::<Vec<_>>(), true)
    }

    /// Indexes all chunks of a sealed pack, whether the index had some of them or none.
    ///
    /// # Errors
    /// The pack or the index is damaged, or the disk full.
    pub fn take_in(&self, number: u32, pack: &Pack) -> Result<()> {
        self.take_in_all(&[(number, pack)], false)
    }

    /// `only_sealed`: leave out those that were taken out meanwhile.
    fn take_in_all(&self, packs: &[(u32, &Pack)], only_sealed: bool) -> Result<()> {
        let mut footers = Vec::with_capacity(packs.len());
        for (number, pack) in packs {
            match packs::check_sealed(pack) {
                Ok(footer) => footers.push((*number, pack.id, footer)),
                Err(error) if only_sealed => {
                    // Memory still knows its chunks, and verifying sees to it.
                    tracing::error!(path = %pack.path().display(), %error, "a sealed pack is damaged");
                    self.recent.sealed.lock().unpoisoned().remove(number);
                }
                Err(error) => return Err(error),
            }
        }
        if footers.is_empty() {
            return Ok(());
        }
        let run = write_run(&self.index, &footers)?;
        let mut taken: Vec<(u32, PackId, u32)> = footers
            .iter()
            .map(|(number, id, footer)| {
                (*number, *id, u32::try_from(footer.chunk_count()).unwrap_or(u32::MAX))
            })
            .collect();
        for (_, pack) in packs {
            pack.release(0, usize::MAX);
        }
        self.recent.moves.change(|| {
            let mut sealed = self.recent.sealed.lock().unpoisoned();
            taken.retain(|(number, _, _)| !only_sealed || sealed.contains_key(number));
            self.index.add(run, &taken)?;
            for (number, _, _) in &taken {
                sealed.remove(number);
            }
            drop(sealed);
            self.recent.forget_packs(&taken.iter().map(|(number, _, _)| *number).collect());
            Ok(())
        })
    }

    /// Forgets packs and their chunks.
    ///
    /// # Errors
    /// The index is damaged or the disk full.
    pub fn take_out(&self, numbers: &[u32]) -> Result<()> {
        self.recent.moves.change(|| {
            let were_recent: HashSet<u32> = {
                let mut sealed = self.recent.sealed.lock().unpoisoned();
                numbers.iter().copied().filter(|number| sealed.remove(number).is_some()).collect()
            };
            self.index.take_out(numbers)?;
            if !were_recent.is_empty() {
                self.recent.forget_packs(&were_recent);
            }
            Ok(())
        })
    }
}

/// Writes a run of the chunks of some packs: their numbers, ids and footers.
///
/// # Errors
/// The disk is full.
pub fn write_run(
    index: &Index,
    packs: &[(u32, PackId, format::pack::FooterView<'_>)],
) -> Result<super::index::Unnamed> {
    let most = packs.iter().map(|(_, _, footer)| footer.chunk_count() as u64).sum();
    let sources = packs.iter().map(|(number, _, footer)| merge::of_footer(*number, *footer));
    Ok(index.write(Merged::new(sources), most)?)
}

/// Indexes new packs, durably: their numbers, ids and footers.
///
/// # Errors
/// The index is damaged or the disk full.
pub fn take_in_new(index: &Index, packs: &[(u32, PackId, format::pack::FooterView<'_>)]) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let count = |chunks: usize| u32::try_from(chunks).map_err(|_| Error::WriteFailed);
    let taken = packs.iter().map(|(number, id, footer)| Ok((*number, *id, count(footer.chunk_count())?)));
    let taken = taken.collect::<Result<Vec<_>>>()?;
    Ok(index.add(write_run(index, packs)?, &taken)?)
}

/// Merges the index's runs on a thread of its own, when they are too many.
#[derive(Debug)]
pub struct Merger {
    index: Arc<Index>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// Nothing is merged yet.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index, cancelled: Arc::default(), thread: None }
    }

    /// Begins a merge where one is due and none is under way.
    pub fn start_if_due(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) || !self.index.is_merge_due() {
            return;
        }
        self.join();
        let (index, cancelled) = (Arc::clone(&self.index), Arc::clone(&self.cancelled));
        let work = move || {
            if let Err(error) = index.merge(&cancelled) {
                tracing::warn!(%error, "runs of the index could not be merged; lookups take longer");
            }
        };
        match std::thread::Builder::new().name("whit-merger".to_owned()).spawn(work) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "runs of the index are merged another time"),
        }
    }

    /// Ends a large merge early, a small one when it is done.
    pub fn finish(mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a merge of the index panicked; it is tried again");
        }
    }
}
