//! The chunks that no run of the index has yet: those of the open pack and of the packs sealed last.
//!
//! They stay in memory, some 75 B each, until there are enough for a run; then, and when the space is closed, the sealed
//! packs' footers are merged into one. After a crash, recovery reads them from the packs.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, RwLock};

use super::moves::Moves;
use super::place::Place;
use format::manifest::SegmentName;
use ground::ids::{ChunkId, ShortId};
use ground::poison::Unpoisoned as _;

/// The chunks of packs that the index does not have yet.
#[derive(Debug, Default)]
pub struct Recent {
    chunks: RwLock<BTreeMap<ChunkId, Place>>,
    /// The sealed packs among these, and the number of chunks of each. Locked before the index is changed.
    pub(super) sealed: Mutex<BTreeMap<u32, usize>>,
    /// Lets a lookup, first here and then in the index, notice a chunk that moved meanwhile.
    pub moves: Moves,
}

impl Recent {
    /// Returns the place of the chunk in these packs.
    pub fn find(&self, id: &ChunkId) -> Option<Place> {
        self.chunks.read().unpoisoned().get(id).copied()
    }

    /// Returns the first chunk whose id begins with the 8 bytes of `name`.
    pub fn find_name(&self, name: SegmentName) -> Option<(ChunkId, Place)> {
        let mut low = [0; 32];
        low[..8].copy_from_slice(&name.get().to_le_bytes());
        let chunks = self.chunks.read().unpoisoned();
        let (id, place) = chunks.range(ChunkId::from_bytes(low)..).next()?;
        (id.prefix() == name.get()).then_some((*id, *place))
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
        self.sealed.lock().unpoisoned().insert(pack, chunks);
        self.sealed_chunks()
    }

    /// Returns the number of chunks of sealed packs.
    pub fn sealed_chunks(&self) -> usize {
        self.sealed.lock().unpoisoned().values().sum()
    }

    /// Forgets the chunks of packs.
    pub fn forget_packs(&self, packs: &HashSet<u32>) {
        let mut chunks = self.chunks.write().unpoisoned();
        chunks.retain(|_, place| !packs.contains(&place.pack));
    }
}
