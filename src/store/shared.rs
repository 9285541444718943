//! The packs, the index, and the chunks that move between them: shared by the store, its writer and its sealer.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::blobs::Blobs;
use super::index::merge::{self, Merged};
use super::index::{self, Index};
use super::pack_file::unsynced_mark;
use super::packs::{self, Pack, Packs};
use super::place::Place;
use super::recent::Recent;
use super::{Error, Result};
use disk::files;
use format::pack::{FooterView, PackId};
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;

/// The state that the store and its writer share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The space's `packs` folder, with the packs that are written to.
    pub folder: PathBuf,
    /// The sealed packs.
    pub blobs: Arc<dyn Blobs>,
    /// Chunk id to place.
    pub index: Arc<Index>,
    /// The packs that can be read.
    pub packs: Arc<Packs>,
    /// Chunks that the index does not have yet.
    pub recent: Arc<Recent>,
    /// True if a sync failed: then written data may be lost, and no later success proves otherwise. Held during every sync,
    /// as the system reports a failure to only one of two threads that sync the same file.
    pub failed: Arc<Mutex<bool>>,
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
                    // Memory still knows its chunks, and verifying will repair it.
                    tracing::error!(path = %pack.location().display(), %error, "a sealed pack is damaged");
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

    /// Leaves a mark for the next start that a sync failed, if the disk still takes it.
    pub fn note_failed_sync(&self) {
        if let Err(error) = files::publish(&unsynced_mark(&self.folder), b"", 0o600) {
            tracing::error!(%error, "the failure of a sync could not be recorded");
        }
    }
}

/// Writes a run of the chunks of some packs: their numbers, ids and footers.
///
/// # Errors
/// The disk is full.
pub fn write_run(index: &Index, packs: &[(u32, PackId, FooterView<'_>)]) -> Result<index::Unnamed> {
    let most = packs.iter().map(|(_, _, footer)| footer.chunk_count() as u64).sum();
    let sources = packs.iter().map(|(number, _, footer)| merge::of_footer(*number, footer));
    Ok(index.write(Merged::new(sources), most)?)
}

/// Indexes new packs, durably: their numbers, ids and footers.
///
/// # Errors
/// The index is damaged or the disk full.
pub fn take_in_new(index: &Index, packs: &[(u32, PackId, FooterView<'_>)]) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let count = |chunks: usize| u32::try_from(chunks).map_err(|_| Error::WriteFailed);
    let taken = packs.iter().map(|(number, id, footer)| Ok((*number, *id, count(footer.chunk_count())?)));
    let taken = taken.collect::<Result<Vec<_>>>()?;
    Ok(index.add(write_run(index, packs)?, &taken)?)
}
