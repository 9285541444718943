//! Repairs damage that verifying found.

use std::collections::{BTreeMap, HashSet};

use super::super::lost::DamagedCopy;
use super::super::packs::{self, Pack};
use super::super::place::Place;
use super::super::{Result, Store};
use super::check::Check;
use delta::compression::{Compressor, Decompressor, LEVEL_DEFAULT};
use disk::crash_points;
use format::pack::{FooterView, Frame, FrameKind, FrameView};
use ground::ids::ChunkId;

/// Logs the damage and marks lost chunks as missing, so that the next push brings them.
pub fn report(store: &Store, pack: &Pack, check: &Check) {
    for damage in &check.damaged {
        tracing::error!(file = damage.file, offset = damage.offset, what = damage.what, "damage was found");
    }
    let copies = check.wrong.iter().filter_map(|(id, offset)| {
        Some(DamagedCopy { id: *id, pack: pack.id, frame_offset: u32::try_from(*offset).ok()? })
    });
    store.note_damaged(copies);
}

/// Copies a damaged pack's intact chunks into the open pack and sets the pack aside.
pub fn set_aside(store: &Store, number: Option<u32>, pack: &Pack, check: &Check) -> Result<()> {
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let mut zstd = Decompressor::new();
    let mut frames: Vec<u64> = check.intact.iter().map(|(_, _, offset)| *offset).collect();
    frames.dedup();
    let intact: HashSet<ChunkId> = check.intact.iter().map(|(chunk, _, _)| chunk.id).collect();
    for offset in frames {
        let Ok(bytes) = pack.frame(offset) else { continue };
        let Ok(frame) = FrameView::parse(&bytes, offset) else { continue };
        let mut plain = Vec::new();
        if zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain).is_err() {
            continue;
        }
        let mut parts = Vec::new();
        let mut at = 0;
        for chunk in frame.chunks() {
            let end = at + chunk.bytes as usize;
            let here = store.find(&chunk.id)?.is_none_or(|place| Some(place.pack) == number);
            if here && intact.contains(&chunk.id) && ChunkId::of(&plain[at..end]) == chunk.id {
                parts.push(&plain[at..end]);
            }
            at = end;
        }
        if !parts.is_empty() {
            store.append(&Frame::compress(frame.kind(), parts, &mut compressor))?;
        }
    }
    crash_points::point("aside.appended");
    store.writer.seal_now()?;
    crash_points::point("aside.sealed");
    if let Some(number) = number {
        store.shared.take_out(&[number])?;
        store.shared.packs.remove(number);
    }
    crash_points::point("aside.index");
    store.shared.blobs.set_aside(pack.id)?;
    crash_points::point("aside.renamed");
    tracing::warn!(pack = %pack.location().display(), "set aside a damaged pack; its intact chunks were copied");
    Ok(())
}

/// Indexes every chunk of an intact pack at its true place; returns how many chunks the index lacked.
pub fn mend_index(store: &Store, number: Option<u32>, pack: &Pack, repair: bool) -> Result<u64> {
    let footer = packs::check_sealed(pack)?;
    let mut unknown = 0;
    let mut elsewhere: BTreeMap<u32, Vec<(ChunkId, Place)>> = BTreeMap::new();
    for entry in footer.chunks() {
        match store.shared.find(&entry.chunk.id)?.filter(|_| number.is_some()) {
            None => unknown += 1,
            Some(place) if Some(place.pack) == number => {
                unknown += u64::from(!is_place_in(&footer, &entry.chunk.id, place));
            }
            Some(place) => elsewhere.entry(place.pack).or_default().push((entry.chunk.id, place)),
        }
    }
    for (other, places) in elsewhere {
        // Reading the other pack reports its own damage.
        let Some(other) = store.shared.packs.by_number(other).filter(|pack| !pack.is_open()) else {
            unknown += places.len() as u64;
            continue;
        };
        let Ok(footer) = packs::check_sealed(&other) else { continue };
        unknown += places.iter().filter(|(id, place)| !is_place_in(&footer, id, *place)).count() as u64;
    }
    if unknown > 0 && repair {
        let number = match number {
            Some(number) => number,
            None => store.writer.new_number(),
        };
        let sealed = Pack::sealed(pack.id, &store.shared.blobs);
        store.shared.take_in(number, &sealed)?;
        store.shared.packs.insert(number, sealed);
    }
    Ok(unknown)
}

/// Returns whether a pack of that footer has the chunk at `place`.
fn is_place_in(footer: &FooterView<'_>, id: &ChunkId, place: Place) -> bool {
    footer.find_all(id).any(|entry| {
        let found = (entry.frame_offset, entry.plain_offset, entry.chunk.bytes);
        found == (u64::from(place.frame_offset), place.plain_offset, place.bytes)
    })
}

/// Appends chunks that were found elsewhere, each only if its hash is right; returns how many were.
///
/// # Errors
/// The disk's.
pub fn heal(store: &Store, chunks: &[(ChunkId, Vec<u8>)]) -> Result<u64> {
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let mut healed = 0;
    for (id, bytes) in chunks {
        if ChunkId::of(bytes) == *id {
            store.append(&Frame::compress(FrameKind::Content, [bytes.as_slice()], &mut compressor))?;
            healed += 1;
        }
    }
    store.sync()?;
    Ok(healed)
}
