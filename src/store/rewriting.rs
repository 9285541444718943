//! Frees packs: removes those without live chunks, and copies the live chunks of others into the open pack.
//!
//! Copies never take more room than the frames they came from: a frame that is alive as a whole is copied as it is, and
//! parts of others are compressed together only where that is smaller.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::alive::Alive;
use super::packs::Pack;
use super::{Error, FaultInjection, Result, Store};
use delta::compression::{Compressor, Decompressor, LEVEL_DEFAULT};
use disk::crash_points;
use disk::files;
use format::maintenance::Collected;
use format::pack::{Frame, FrameKind, FrameView, frame_bytes};
use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;
use ground::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET};

/// 4 MiB: the room that rewriting leaves free, for footers and the index. With less, a dead pack's file is removed before
/// its index entries, as the index may need that room to remove them; a crash between the two costs a new index.
const ROOM_LEFT: u64 = 4 * 1024 * 1024;
/// 64 MiB: with less free, packs are rewritten only where that frees ...
const ROOM_TIGHT: u64 = 64 * 1024 * 1024;
/// ... 1 MiB each, so that what the index grows by is always less ...
const GAIN_TIGHT: u64 = 1024 * 1024;
/// ... and else this part of a full pack, 16 KiB, so that file systems' blocks and folders do not take it again.
const GAIN_PART: u64 = 4096;

/// A pack whose live chunks were appended.
struct Emptied {
    number: u32,
    pack: Arc<Pack>,
    bytes: u64,
}

/// Brings packs' live chunks into the open pack, and removes the packs once that is durable and indexed.
pub struct Rewriting<'a> {
    store: &'a Store,
    dry_run: bool,
    compressor: Compressor,
    zstd: Decompressor,
    emptied: Vec<Emptied>,
    /// Bytes appended since packs were last removed.
    appended_bytes: u64,
    /// All bytes appended, and the bytes of all packs that they replace.
    taken: u64,
    given: u64,
    /// In a dry run, the bytes that would be free now.
    dry_run_free: u64,
    /// True if the index could not be changed on the full disk.
    index_lost: bool,
}

impl<'a> Rewriting<'a> {
    /// Starts, with the disk's present room.
    ///
    /// # Errors
    /// The disk cannot be examined.
    pub fn new(store: &'a Store, dry_run: bool) -> Result<Self> {
        let dry_run_free = files::free_bytes(&store.shared.folder)?;
        Ok(Self {
            store,
            dry_run,
            compressor: Compressor::new(LEVEL_DEFAULT),
            zstd: Decompressor::new(),
            emptied: Vec::new(),
            appended_bytes: 0,
            taken: 0,
            given: 0,
            dry_run_free,
            index_lost: false,
        })
    }

    /// Removes a pack with nothing alive.
    pub fn remove(
        &mut self,
        number: u32,
        pack: &Pack,
        alive: &Alive,
        collected: &mut Collected,
    ) -> Result<()> {
        self.dry_run_free += alive.bytes;
        if !self.dry_run {
            // A push may have just brought the copies elsewhere: make them durable first.
            if alive.has_copies && !self.store.injects(FaultInjection::EmptiedUnsynced) {
                self.store.sync()?;
            }
            if self.index_lost || self.is_cramped()? {
                self.store.shared.packs.remove(number);
                self.store.shared.blobs.remove(pack.id)?;
                self.forget(number)?;
            } else {
                take_out(self.store, number, pack)?;
            }
        }
        self.given += alive.bytes;
        collected.packs_removed += 1;
        collected.removed_chunks += alive.dead_chunks;
        Ok(())
    }

    /// Takes a removed pack out of the index. If the disk has no room even for that, the next start rebuilds the index from
    /// the packs.
    fn forget(&mut self, number: u32) -> Result<()> {
        if self.index_lost {
            return Ok(());
        }
        match self.store.shared.take_out(&[number]) {
            Err(error) if error.fault() == Fault::Full => {
                tracing::warn!(%error, "the index cannot be changed on the full disk; the next start rebuilds it");
                self.index_lost = true;
                Ok(())
            }
            forgotten => forgotten,
        }
    }

    /// Returns whether the disk has no room for the index's changes.
    ///
    /// # Errors
    /// The disk cannot be examined.
    pub fn is_cramped(&self) -> Result<bool> {
        Ok(self.free()? < ROOM_LEFT)
    }

    /// Returns whether packs can be rewritten at all. If the index cannot be changed, or a pack could not be sealed, copies
    /// would only take room until the next start.
    pub fn can_rewrite(&self) -> bool {
        !self.index_lost && self.store.settle().is_ok()
    }

    /// Copies the live chunks of the pack, if there is room and it frees enough. A pack with a damaged chunk stays.
    pub fn take(
        &mut self,
        number: u32,
        pack: &Arc<Pack>,
        alive: &Alive,
        gather: bool,
        collected: &mut Collected,
    ) -> Result<()> {
        let room = alive.rewritten_bytes_max() + ROOM_LEFT;
        if self.free()? < room {
            // First free the packs rewritten so far, then archives that can be rebuilt.
            self.remove_emptied()?;
            if self.free()? < room {
                self.clear_rebuilt();
            }
        }
        let free = self.free()?;
        if free < room {
            collected.packs_without_room += 1;
            collected.dead_chunks_left += alive.dead_chunks;
            return Ok(());
        }
        let is_tight = free < ROOM_TIGHT;
        let least = if is_tight { GAIN_TIGHT } else { self.store.options.pack_bytes / GAIN_PART };
        let gives_little = alive.bytes.saturating_sub(alive.live_bytes) < least;
        if gives_little && (is_tight || !gather) {
            collected.dead_chunks_left += alive.dead_chunks;
            return Ok(());
        }
        match self.append_live(pack, alive) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if error.fault() == Fault::Full => {
                // Keep the copies that were made, and the pack too; other packs may still fit.
                tracing::warn!(%error, "a pack could not be rewritten");
                collected.packs_without_room += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        crash_points::point("collect.appended");
        self.given += alive.bytes;
        collected.packs_removed += 1;
        collected.removed_chunks += alive.dead_chunks;
        self.emptied.push(Emptied { number, pack: Arc::clone(pack), bytes: alive.bytes });
        if self.appended_bytes >= self.store.options.pack_bytes {
            self.remove_emptied()?;
        }
        Ok(())
    }

    /// Removes the emptied packs and counts the bytes freed in all.
    pub fn finish(mut self, collected: &mut Collected) -> Result<()> {
        self.remove_emptied()?;
        collected.reclaimed_bytes += self.given.saturating_sub(self.taken);
        Ok(())
    }

    /// Bytes of the disk that are free, the reserve included.
    fn free(&self) -> Result<u64> {
        if self.dry_run {
            return Ok(self.dry_run_free);
        }
        Ok(files::free_bytes(&self.store.shared.folder)?)
    }

    fn clear_rebuilt(&mut self) {
        if self.dry_run {
            self.dry_run_free += self.store.rebuilt.bytes();
        } else {
            self.store.rebuilt.clear();
        }
    }

    /// Appends the live chunks of a pack; returns false if one is damaged.
    fn append_live(&mut self, pack: &Pack, alive: &Alive) -> Result<bool> {
        let mut group = Group::default();
        for live in &alive.frames {
            let bytes = pack.frame(live.offset)?;
            let damaged = |source| Error::Pack { path: pack.location(), source };
            let frame = FrameView::parse(&bytes, live.offset).map_err(damaged)?;
            let mut plain = Vec::new();
            let decoded =
                self.zstd.decompress(frame.codec(), frame.payload(), frame.plain_bytes(), &mut plain);
            let mut parts = Vec::new();
            let mut rest = plain.as_slice();
            for (chunk, alive) in frame.chunks().zip(&live.alive) {
                let content = rest.split_off(..chunk.bytes as usize);
                let content = content.filter(|content| !*alive || ChunkId::of(content) == chunk.id);
                let Some(content) = content.filter(|_| decoded.is_ok()) else {
                    self.store.suspect.store(true, Ordering::Relaxed);
                    return Ok(false);
                };
                if *alive {
                    parts.push(content);
                }
            }
            if live.is_whole() {
                self.append_group(&mut group)?;
                self.append(&copy(&frame))?;
                continue;
            }
            if !group.takes(frame.kind(), &parts) {
                self.append_group(&mut group)?;
            }
            group.add(&frame, &parts);
        }
        self.append_group(&mut group)?;
        Ok(true)
    }

    /// Appends the parts of a group as one frame, or the frames that they came from if those are smaller.
    fn append_group(&mut self, group: &mut Group) -> Result<()> {
        let Group { kind, parts, frames, bytes, .. } = std::mem::take(group);
        let Some(kind) = kind else { return Ok(()) };
        let together = Frame::compress(kind, parts.iter().map(Vec::as_slice), &mut self.compressor);
        if frame_bytes(together.chunks.len(), together.payload.len()) as u64 <= bytes {
            return self.append(&together);
        }
        frames.iter().try_for_each(|frame| self.append(frame))
    }

    fn append(&mut self, frame: &Frame) -> Result<()> {
        let bytes = frame_bytes(frame.chunks.len(), frame.payload.len()) as u64;
        if !self.dry_run {
            // The reserve is there for this.
            self.store.append_leaving(frame, 0)?;
        }
        self.dry_run_free = self.dry_run_free.saturating_sub(bytes);
        self.appended_bytes += bytes;
        self.taken += bytes;
        Ok(())
    }

    /// The copies are durable and in the index before the old packs leave either.
    fn remove_emptied(&mut self) -> Result<()> {
        if self.emptied.is_empty() {
            return Ok(());
        }
        if !self.dry_run {
            // Also where nothing was appended: a push may have just brought a chunk's other copy.
            if self.appended_bytes > 0 || !self.store.injects(FaultInjection::EmptiedUnsynced) {
                self.store.writer.seal_now()?;
            }
            crash_points::point("collect.sealed");
        }
        self.appended_bytes = 0;
        for emptied in self.emptied.drain(..) {
            self.dry_run_free += emptied.bytes;
            if !self.dry_run {
                take_out(self.store, emptied.number, &emptied.pack)?;
            }
        }
        Ok(())
    }
}

/// Removes a pack that nothing needs: from the index, then from the disk.
pub(super) fn take_out(store: &Store, number: u32, pack: &Pack) -> Result<()> {
    store.shared.take_out(&[number])?;
    crash_points::point("collect.index");
    store.shared.packs.remove(number);
    store.shared.blobs.remove(pack.id)?;
    crash_points::point("collect.removed");
    Ok(())
}

/// Returns a copy of the frame as it is.
pub(super) fn copy(frame: &FrameView<'_>) -> Frame {
    let chunks = frame.chunks().collect();
    Frame { kind: frame.kind(), codec: frame.codec(), chunks, payload: frame.payload().to_vec() }
}

/// Live parts of neighbouring frames of one kind, to be compressed together.
#[derive(Default)]
struct Group {
    kind: Option<FrameKind>,
    parts: Vec<Vec<u8>>,
    plain_bytes: usize,
    /// The frames that the parts are from, and their bytes.
    frames: Vec<Frame>,
    bytes: u64,
}

impl Group {
    /// Returns whether the parts still fit.
    fn takes(&self, kind: FrameKind, parts: &[&[u8]]) -> bool {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.kind.is_none_or(|own| own == kind)
            && (self.parts.is_empty() || self.plain_bytes + bytes <= FRAME_PLAIN_TARGET)
            && self.parts.len() + parts.len() <= FRAME_CHUNKS_MAX
    }

    fn add(&mut self, frame: &FrameView<'_>, parts: &[&[u8]]) {
        self.kind = Some(frame.kind());
        self.parts.extend(parts.iter().map(|part| part.to_vec()));
        self.plain_bytes += parts.iter().map(|part| part.len()).sum::<usize>();
        self.bytes += frame.bytes().len() as u64;
        self.frames.push(copy(frame));
    }
}
