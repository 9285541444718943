//! Reads a whole pack and checks every chunk.

use std::collections::{BTreeMap, HashSet};

use super::super::packs::{self, Pack};
use delta::compression::Decompressor;
use delta::similar::Sketch;
use format::maintenance::Damage;
use format::pack::{FrameKind, FrameView, HEADER_BYTES};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ShortId};

/// The result of reading a pack.
#[derive(Debug, Default)]
pub struct Check {
    /// The pack's bytes.
    pub bytes: u64,
    /// The chunks that match their ids, with their frames' kinds and offsets.
    pub intact: Vec<(ChunkRef, FrameKind, u64)>,
    /// Sketches of the intact chunks of content.
    pub sketches: Vec<(ShortId, Sketch)>,
    /// The damage found.
    pub damaged: Vec<Damage>,
    /// Copies named by the footer or a frame's table that do not match their ids: the chunk, and the offset of its frame.
    pub wrong: Vec<(ChunkId, u64)>,
}

/// Reads a whole sealed pack and hashes every chunk.
pub fn check(pack: &Pack) -> Check {
    let mut checking = Checking::new(pack);
    match pack.bytes() {
        Ok(bytes) => checking.check.bytes = bytes,
        Err(error) => {
            checking.damage(0, &error.to_string(), 0);
            return checking.check;
        }
    }
    // The footer lists the frames; without it they are found one after another.
    match packs::check_sealed(pack) {
        Ok(footer) => {
            let mut named: BTreeMap<u64, Vec<ChunkId>> =
                (0..footer.frame_count()).map(|frame| (footer.frame(frame).0, Vec::new())).collect();
            for entry in footer.chunks() {
                named.entry(entry.frame_offset).or_default().push(entry.chunk.id);
            }
            checking.named(named);
        }
        Err(error) => {
            checking.damage(0, &error.to_string(), 0);
            let mut offset = HEADER_BYTES as u64;
            while let Some(bytes) = checking.frame(offset, &[]) {
                offset += bytes;
            }
        }
    }
    checking.check
}

/// Reads the frames of an open pack that hold `named`, chunks and the places of their frames.
pub fn check_open(pack: &Pack, named: Vec<(ChunkId, u32)>) -> Check {
    let mut checking = Checking::new(pack);
    let mut frames: BTreeMap<u64, Vec<ChunkId>> = BTreeMap::new();
    for (id, offset) in named {
        frames.entry(u64::from(offset)).or_default().push(id);
    }
    checking.named(frames);
    checking.check
}

struct Checking<'a> {
    pack: &'a Pack,
    zstd: Decompressor,
    check: Check,
}

impl<'a> Checking<'a> {
    fn new(pack: &'a Pack) -> Self {
        Self { pack, zstd: Decompressor::new(), check: Check::default() }
    }

    fn damage(&mut self, offset: u64, what: &str, chunks: u64) {
        let file = self.pack.location().display().to_string();
        self.check.damaged.push(Damage { file, offset, what: what.to_owned(), chunks });
    }

    /// Checks frames that are known, with the chunks that each should hold.
    fn named(&mut self, frames: BTreeMap<u64, Vec<ChunkId>>) {
        for (offset, ids) in frames {
            let bytes = self.frame(offset, &ids);
            if self.pack.is_open() {
                self.check.bytes += bytes.unwrap_or_default();
            }
        }
    }

    /// Checks one frame; returns its bytes where its numbers make sense.
    fn frame(&mut self, offset: u64, named: &[ChunkId]) -> Option<u64> {
        let pack = self.pack;
        let unreadable = |checking: &mut Self, text: &str| {
            checking.check.wrong.extend(named.iter().map(|id| (*id, offset)));
            checking.damage(offset, text, named.len() as u64);
            None
        };
        let bytes = match pack.frame(offset) {
            Ok(bytes) => bytes,
            Err(error) => return unreadable(self, &error.to_string()),
        };
        let frame = match FrameView::parse(&bytes, offset) {
            Ok(frame) => frame,
            Err(error) => return unreadable(self, &error.to_string()),
        };
        let length = frame.bytes().len() as u64;
        let mut plain = Vec::new();
        let decoded = self.zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
        let mut intact = HashSet::new();
        let mut wrong: HashSet<ChunkId> = named.iter().copied().collect();
        let mut at = 0;
        for chunk in frame.chunks() {
            let end = at + chunk.bytes as usize;
            if decoded.is_ok() && ChunkId::of(&plain[at..end]) == chunk.id {
                intact.insert(chunk.id);
                self.check.intact.push((chunk, frame.kind(), offset));
                if frame.kind() == FrameKind::Content {
                    let sketch = Sketch::of(&plain[at..end]);
                    self.check.sketches.extend(sketch.map(|sketch| (chunk.id.into(), sketch)));
                }
            } else {
                wrong.insert(chunk.id);
            }
            at = end;
        }
        wrong.retain(|id| !intact.contains(id));
        if !wrong.is_empty() {
            self.damage(offset, "chunks do not match their ids", wrong.len() as u64);
            self.check.wrong.extend(wrong.into_iter().map(|id| (id, offset)));
        } else if !frame.is_whole() {
            self.damage(offset, "the frame's checksum is wrong", 0);
        }
        Some(length)
    }
}
