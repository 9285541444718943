//! Passes entries to the collector, and files to the workers.

use std::fs::Metadata;
use std::path::Path;
use std::sync::mpsc::SyncSender;

use super::Listed;
use super::entries::mode_of;
use super::hasher::Pool;
use crate::agent::memory::{Recall, Stat};
use format::manifest::{EntryPath, Item};
use ground::monitor::{Monitor, Phase};

/// Entries handed over together, and chunk references in all but the last of them: a batch is at most 200 KB.
const BATCH_ENTRIES: usize = 64;

/// Hands entries to the collector, and files to the workers.
pub(super) struct Lister<'a> {
    pool: Pool,
    recall: Option<Recall<'a>>,
    /// True if archives are unpacked.
    unpacks: bool,
    listed: SyncSender<Vec<Listed>>,
    batch: Vec<Listed>,
    monitor: &'a dyn Monitor,
}

/// The error that nobody listens any more.
pub(super) struct Unheard;

impl<'a> Lister<'a> {
    pub fn new(
        pool: Pool,
        recall: Option<Recall<'a>>,
        unpacks: bool,
        listed: SyncSender<Vec<Listed>>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self { pool, recall, unpacks, listed, batch: Vec::with_capacity(BATCH_ENTRIES), monitor }
    }

    /// Returns who shows progress.
    pub fn monitor(&self) -> &'a dyn Monitor {
        self.monitor
    }

    pub fn entry(&mut self, item: Item) -> Result<(), Unheard> {
        self.add(Listed::Entry(item))
    }

    pub fn file(&mut self, path: EntryPath, place: &Path, metadata: &Metadata) -> Result<(), Unheard> {
        let (mode, size, stat) = (mode_of(metadata), metadata.len(), Stat::of(metadata));
        if let Some(recall) = &mut self.recall
            && recall.find(&path, size, &stat)
            && let Some(recipe) = recall.recipe()
            && (self.unpacks || recipe.container().is_none())
        {
            self.monitor.advance(Phase::Scan, size);
            return self.remembered(Item::File { path, mode, size, recipe }, stat);
        }
        // A worker waits for the collector, so that the collector must know of the files before this one.
        self.send()?;
        let parts = self.pool.hash(place.to_owned(), size);
        self.add(Listed::File { path, mode, size, stat, parts })
    }

    fn remembered(&mut self, file: Item, stat: Stat) -> Result<(), Unheard> {
        self.add(Listed::Remembered(file, stat))?;
        while let Some(chunks) = self.recall.as_mut().and_then(Recall::chunks) {
            self.add(Listed::Chunks(chunks))?;
        }
        Ok(())
    }

    fn add(&mut self, entry: Listed) -> Result<(), Unheard> {
        let is_large = matches!(&entry, Listed::Chunks(chunks) if chunks.len() > BATCH_ENTRIES);
        self.batch.push(entry);
        if is_large || self.batch.len() >= BATCH_ENTRIES { self.send() } else { Ok(()) }
    }

    pub fn send(&mut self) -> Result<(), Unheard> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ENTRIES));
        self.listed.send(batch).map_err(|_| Unheard)
    }
}
