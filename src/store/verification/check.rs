//! Reads a whole pack and says what of it is right.

use std::collections::HashSet;

use super::super::packs::{self, Pack};
use crate::basis::Sketch;
use crate::compression::Decompressor;
use crate::ids::{ChunkId, ShortId};
use crate::pack::{FrameKind, FrameView, HEADER_BYTES};
use crate::recipe::ChunkRef;
use crate::upkeep::Damage;

/// What a pack's bytes say.
#[derive(Debug, Default)]
pub struct Check {
    /// The pack's bytes.
    pub bytes: u64,
    /// The chunks that are what their names say, and their frames' kinds and offsets.
    pub intact: Vec<(ChunkRef, FrameKind, u64)>,
    /// What those of content are like.
    pub sketches: Vec<(ShortId, Sketch)>,
    /// What is not right.
    pub damaged: Vec<Damage>,
    /// Chunks that the footer or a frame's table names and that cannot be had from this pack.
    pub lost: Vec<ChunkId>,
}

/// Reads a whole pack and hashes every chunk.
pub fn check(pack: &Pack) -> Check {
    let mut check = Check::default();
    let shown = pack.path().display().to_string();
    let damage =
        |offset, what: &str, chunks| Damage { pack: shown.clone(), offset, what: what.to_owned(), chunks };
    check.bytes = match pack.bytes() {
        Ok(bytes) => bytes,
        Err(error) => {
            check.damaged.push(damage(0, &error.to_string(), 0));
            return check;
        }
    };
    // The footer tells where frames begin; without it they are found one after another.
    let footer = packs::check_sealed(pack);
    let (offsets, named): (Vec<u64>, Vec<ChunkId>) = match &footer {
        Ok(footer) => {
            let offsets = (0..footer.frame_count()).map(|frame| footer.frame(frame).0).collect();
            (offsets, footer.chunks().map(|entry| entry.chunk.id).collect())
        }
        Err(error) => {
            check.damaged.push(damage(0, &error.to_string(), 0));
            (Vec::new(), Vec::new())
        }
    };
    let mut zstd = Decompressor::new();
    if footer.is_ok() {
        for offset in offsets {
            check_frame(pack, offset, &mut zstd, &mut check, &damage);
        }
    } else {
        let mut offset = HEADER_BYTES as u64;
        while let Some(bytes) = check_frame(pack, offset, &mut zstd, &mut check, &damage) {
            offset += bytes;
        }
    }
    let intact: HashSet<ChunkId> = check.intact.iter().map(|(chunk, _, _)| chunk.id).collect();
    check.lost.extend(named);
    check.lost.retain(|id| !intact.contains(id));
    check.lost.sort_unstable();
    check.lost.dedup();
    check
}

/// Checks one frame; gives its bytes where its numbers make sense.
fn check_frame(
    pack: &Pack,
    offset: u64,
    zstd: &mut Decompressor,
    check: &mut Check,
    damage: &impl Fn(u64, &str, u64) -> Damage,
) -> Option<u64> {
    let mut is_damaged = |text: &str| {
        check.damaged.push(damage(offset, text, 0));
        None
    };
    let bytes = match pack.frame(offset) {
        Ok(bytes) => bytes,
        Err(error) => return is_damaged(&error.to_string()),
    };
    let frame = match FrameView::parse(&bytes, offset) {
        Ok(frame) => frame,
        Err(error) => return is_damaged(&error.to_string()),
    };
    let length = frame.bytes().len() as u64;
    let mut plain = Vec::new();
    let decoded = zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
    let mut wrong = 0;
    let mut at = 0;
    for chunk in frame.chunks() {
        let end = at + chunk.bytes as usize;
        if decoded.is_ok() && ChunkId::of(&plain[at..end]) == chunk.id {
            check.intact.push((chunk, frame.kind(), offset));
            if frame.kind() == FrameKind::Content {
                check.sketches.extend(Sketch::of(&plain[at..end]).map(|sketch| (chunk.id.into(), sketch)));
            }
        } else {
            wrong += 1;
            check.lost.push(chunk.id);
        }
        at = end;
    }
    if wrong > 0 {
        check.damaged.push(damage(offset, "chunks are not what their names say", wrong));
    } else if !frame.is_whole() {
        check.damaged.push(damage(offset, "the frame's checksum is wrong", 0));
    }
    Some(length)
}
