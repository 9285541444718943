//! Packs that the disk has no room to seal, or to index: they are read as they are.
//!
//! A full disk may have no room for a footer or an index. The store opens all the same, so that it can be collected.

use std::fs::File;
use std::path::Path;

use super::packs::Pack;
use super::place::Place;
use super::shared::Shared;
use super::{Error, Result};
use disk::files::OnPath;
use format::pack::{FooterView, PackId};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// A pack that stays open, and the places of its chunks; it has no number yet.
#[derive(Debug)]
pub struct Unsealed {
    pack: Pack,
    chunks: Vec<(ChunkId, Place)>,
}

impl Unsealed {
    /// Opens the pack at `path`, which could not be sealed for `why`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(id: PackId, path: &Path, chunks: Vec<(ChunkId, Place)>, why: &Error) -> Result<Self> {
        tracing::warn!(path = %path.display(), error = %why, "a pack stays open until a start finds room to seal it");
        let file = File::open(path).on("open", path)?;
        Ok(Self { pack: Pack::open(id, path.to_owned(), file), chunks })
    }

    /// Gives the pack a number, so that its chunks can be found.
    pub fn enter(self, shared: &Shared, number: u32) {
        let chunks = self.chunks.into_iter();
        shared.recent.add(chunks.map(|(id, place)| (id, Place { pack: number, ..place })));
        shared.packs.insert(number, self.pack);
    }
}

/// 1 M chunks, some 100 MB: the most indexed in memory while the disk has no room for the index.
const UNINDEXED_MAX: usize = 1024 * 1024;

/// Returns the places of the chunks of sealed packs, which could not be indexed for `why`: their numbers, ids and footers.
///
/// # Errors
/// There are too many.
pub fn places_of_all(packs: &[(u32, PackId, FooterView<'_>)], why: Error) -> Result<Vec<(ChunkId, Place)>> {
    let chunks: usize = packs.iter().map(|(_, _, footer)| footer.chunk_count()).sum();
    if chunks > UNINDEXED_MAX {
        return Err(why);
    }
    tracing::warn!(error = %why, chunks, "packs stay out of the index until a start finds room for it");
    Ok(places_in(packs))
}

/// Returns the places of the chunks of sealed packs.
pub fn places_in(packs: &[(u32, PackId, FooterView<'_>)]) -> Vec<(ChunkId, Place)> {
    let places = packs.iter().flat_map(|(pack, _, footer)| {
        footer.chunks().filter_map(|entry| {
            let (frame_offset, plain_offset) = (u32::try_from(entry.frame_offset).ok()?, entry.plain_offset);
            let place = Place { pack: *pack, frame_offset, plain_offset, bytes: entry.chunk.bytes };
            Some((entry.chunk.id, place))
        })
    });
    places.collect()
}

/// Returns the places of a frame's chunks, in a pack without a number.
pub fn places(offset: u64, chunks: impl Iterator<Item = ChunkRef>) -> Vec<(ChunkId, Place)> {
    // An indexed pack is below 4 GiB.
    let Ok(frame_offset) = u32::try_from(offset) else { return Vec::new() };
    let mut plain_offset = 0;
    let place = |chunk: ChunkRef| {
        let place = Place { pack: 0, frame_offset, plain_offset, bytes: chunk.bytes };
        plain_offset += chunk.bytes;
        (chunk.id, place)
    };
    chunks.map(place).collect()
}
