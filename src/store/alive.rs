//! The live part of a pack: the chunks that a collection must keep.

use std::sync::atomic::AtomicBool;

use super::marking::Live;
use super::packs::{self, Pack};
use super::{Result, Store};

/// Bytes in a footer for each chunk, with room for its frame.
const FOOTER_CHUNK_BYTES: u64 = 60;

/// The options of a sweep of packs.
pub struct Sweep<'a> {
    /// True to count only.
    pub dry_run: bool,
    /// Count all chunks that are not alive as dead, not only condemned ones: for a dry run.
    pub all: bool,
    /// Stops the sweep between packs.
    pub cancelled: &'a AtomicBool,
}

/// The part of a pack that is alive.
pub struct Alive {
    /// The frames with live chunks, in the pack's order.
    pub frames: Vec<LiveFrame>,
    /// Bytes of the pack for live chunks, estimated by their part of the plain bytes.
    pub live_bytes: u64,
    /// The number of chunks that are not alive, or not needed here.
    pub dead_chunks: u64,
    /// True if some chunks are not needed here, as another pack has them.
    pub has_copies: bool,
    /// The pack's bytes.
    pub bytes: u64,
}

impl Alive {
    /// Examines every chunk of a pack.
    pub fn of(store: &Store, number: u32, pack: &Pack, live: &Live, how: &Sweep<'_>) -> Result<Self> {
        let bytes = pack.bytes()?;
        let mut alive = Self { frames: Vec::new(), live_bytes: 0, dead_chunks: 0, has_copies: false, bytes };
        let (mut plain, mut live_plain) = (0, 0);
        let mut failed = Ok(());
        packs::visit_frames(pack, &mut |frame| {
            let mut frame_alive = Vec::with_capacity(frame.chunks.len());
            for chunk in &frame.chunks {
                plain += u64::from(chunk.bytes);
                let place = match store.find(&chunk.id) {
                    Ok(place) => place,
                    Err(error) => {
                        failed = Err(error);
                        return;
                    }
                };
                // A copy that the index does not point to is not needed, alive or not.
                let elsewhere = place.is_some_and(|place| place.pack != number);
                let may_go = how.all || store.condemned.has(&chunk.id);
                let is_alive = !elsewhere && (!may_go || live.has(&chunk.id));
                frame_alive.push(is_alive);
                if is_alive {
                    live_plain += u64::from(chunk.bytes);
                } else {
                    alive.dead_chunks += 1;
                    alive.has_copies |= elsewhere;
                }
            }
            if frame_alive.contains(&true) {
                let (offset, bytes) = (frame.offset, frame.bytes);
                alive.frames.push(LiveFrame { offset, alive: frame_alive, bytes });
            }
        })?;
        failed?;
        alive.live_bytes = bytes * live_plain / plain.max(1);
        Ok(alive)
    }

    /// Returns whether nothing of the pack is needed.
    pub fn is_dead(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the most bytes that the live chunks take in another pack.
    pub fn rewritten_bytes_max(&self) -> u64 {
        let chunks: usize = self.frames.iter().map(|frame| frame.alive.len()).sum();
        let frames: u64 = self.frames.iter().map(|frame| frame.bytes).sum();
        frames + FOOTER_CHUNK_BYTES * chunks as u64
    }
}

/// A frame with live chunks.
pub struct LiveFrame {
    /// The frame's offset in the pack.
    pub offset: u64,
    /// For each of its chunks, in order, whether it is alive.
    pub alive: Vec<bool>,
    bytes: u64,
}

impl LiveFrame {
    /// Returns whether all of its chunks are alive.
    pub fn is_whole(&self) -> bool {
        self.alive.iter().all(|alive| *alive)
    }
}
