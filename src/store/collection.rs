//! Garbage collection: removes what no release names, beside pushes, in steps that may be cut off anywhere.
//!
//! A run marks what is alive and *condemns* the rest: from then on no push is told that a condemned
//! chunk is known. Pushes that were under way may have been told so before; so a condemned chunk is
//! removed only when every lease that was open at that time has ended or lapsed, and a fresh marking
//! still finds no release that names it. Where no push is under way both happen in one run.
//!
//! Removing: a pack with little left alive is rewritten into the open pack; when that is durable and
//! indexed, the old pack leaves the index, then the disk. A crash between two steps leaves a chunk
//! twice, never not at all. Two-step collection with leases is argued in docs/decisions/0011.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::marking::{Live, mark};
use super::packs::{self, Pack};
use super::{Planted, Result, Store, StoreReader};
use crate::compression::{Compressor, LEVEL_DEFAULT};
use crate::crash;
use crate::files;
use crate::ids::{ChunkId, ReleaseId};
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET};
use crate::pack::{Frame, FrameKind};
use crate::reassembly::ChunkReader;
use crate::recipe::ChunkRef;
use crate::upkeep::Collected;

/// A pack is rewritten when less than this part of its bytes is alive.
const ALIVE_PERCENT_MIN: u64 = 60;
/// Packs below this part of a full one are gathered into larger ones ...
const SMALL_PACK_PART: u64 = 16;
/// ... when there are so many of them.
const SMALL_PACKS_MIN: usize = 16;

/// What was chosen to be removed, and for whom it waits.
#[derive(Debug, Default)]
pub struct Condemned {
    names: RwLock<HashSet<u64>>,
    run: Mutex<Vec<u64>>,
}

impl Condemned {
    /// Whether the chunk is to be removed: no push may count on it.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.names.read().unwrap_or_else(PoisonError::into_inner).contains(&id.prefix())
    }

    /// Appends a frame by `append`; those of its chunks that were condemned no longer are.
    ///
    /// Whoever brings a condemned chunk again counts on the new copy, which may be sealed, and would be
    /// swept, before its push has ended.
    pub fn take_back(&self, frame: &Frame, append: impl FnOnce() -> Result<u64>) -> Result<u64> {
        if !frame.chunks.iter().any(|chunk| self.has(&chunk.id)) {
            return append();
        }
        // Held meanwhile: no sweep finds the new copy sealed and its chunk still condemned.
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let position = append()?;
        for chunk in &frame.chunks {
            names.remove(&chunk.id.prefix());
        }
        Ok(position)
    }

    fn replace(&self, names: HashSet<u64>) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    fn is_empty(&self) -> bool {
        self.names.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// One run at a time; it holds the leases that the last one waits for. Who mends packs holds it too.
    pub fn begin(&self) -> MutexGuard<'_, Vec<u64>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects once. `roots` gives releases to keep besides those that have records: of deliveries under way.
///
/// Only one run works at a time; others wait for it. Stops between packs when `cancelled`.
///
/// # Errors
/// The disk's or the index's: what was done so far is complete in itself.
pub fn collect(
    store: &Store,
    roots: &dyn Fn() -> Vec<ReleaseId>,
    dry_run: bool,
    cancelled: &AtomicBool,
) -> Result<Collected> {
    let mut waits_for = store.condemned.begin();
    let mut collected = Collected::default();
    if dry_run {
        let live = live(store, roots);
        sweep(store, &live, &mut collected, &Sweep { dry_run, cancelled })?;
        return Ok(collected);
    }
    // What an earlier run condemned, if nobody who was promised it is left.
    if !store.condemned.is_empty() {
        // Before the marking: a push that ends in between has its record by then.
        let holding = waited_for(store);
        let live = live(store, roots);
        if waits_for.iter().any(|lease| holding.contains(lease)) {
            // Not condemned anew: that would wait for the pushes of today too, and never end.
            collected.live_chunks = live.len() as u64;
            collected.waits_for_pushes = true;
            return Ok(collected);
        }
        if live.unreadable.is_empty() {
            sweep(store, &live, &mut collected, &Sweep { dry_run, cancelled })?;
        }
    }
    // Condemn first, then look who is there: whoever comes later is not told of these chunks.
    let live_now = live(store, roots);
    if !live_now.unreadable.is_empty() {
        // What a damaged manifest names is unknown; nothing is removed until it is healed or its release removed.
        tracing::warn!(releases = ?live_now.unreadable, "releases cannot be read; nothing is collected");
        store.condemned.replace(HashSet::new());
        waits_for.clear();
        collected.live_chunks = live_now.len() as u64;
        return Ok(collected);
    }
    let names = dead(store, &live_now);
    let nothing = names.is_empty();
    store.condemned.replace(names);
    crash::point("collect.condemned");
    *waits_for = waited_for(store);
    if nothing {
        collected.live_chunks = live_now.len() as u64;
    } else if waits_for.is_empty() {
        let live = live(store, roots);
        sweep(store, &live, &mut collected, &Sweep { dry_run, cancelled })?;
        store.condemned.replace(HashSet::new());
    } else {
        collected.waits_for_pushes = true;
        collected.live_chunks = live_now.len() as u64;
    }
    Ok(collected)
}

/// The pushes that hold what is condemned now.
fn waited_for(store: &Store) -> Vec<u64> {
    if store.is_planted(Planted::NoLeaseWait) { Vec::new() } else { store.leases.holding() }
}

fn live(store: &Store, roots: &dyn Fn() -> Vec<ReleaseId>) -> Live {
    // Deliveries first: one that ends meanwhile was made of a release that is named here.
    let mut releases: HashSet<ReleaseId> = roots().into_iter().collect();
    releases.extend(store.records().releases());
    mark(store, &releases)
}

/// The names of all chunks in sealed packs that are not alive.
fn dead(store: &Store, live: &Live) -> HashSet<u64> {
    let mut names = HashSet::new();
    for (_, pack) in store.shared.packs.sealed() {
        let Ok(footer) = packs::check_sealed(&pack) else { continue };
        names.extend(
            footer.chunks().map(|entry| entry.chunk.id).filter(|id| !live.has(id)).map(|id| id.prefix()),
        );
        pack.release(0, usize::MAX);
    }
    names
}

struct Sweep<'a> {
    dry_run: bool,
    cancelled: &'a AtomicBool,
}

/// Removes dead chunks pack by pack; only what is condemned counts as dead, except in a dry run.
fn sweep(store: &Store, live: &Live, collected: &mut Collected, how: &Sweep<'_>) -> Result<()> {
    collected.live_chunks = live.len() as u64;
    let packs = store.shared.packs.sealed();
    let is_small =
        |pack: &Pack| pack.bytes().is_ok_and(|bytes| bytes < store.options.pack_bytes / SMALL_PACK_PART);
    let gather_small = packs.iter().filter(|(_, pack)| is_small(pack)).count() >= SMALL_PACKS_MIN;
    let mut rewriting = Rewriting::new(store);
    for (number, pack) in packs {
        if how.cancelled.load(Ordering::Relaxed) {
            break;
        }
        collected.packs += 1;
        let Ok(share) = Share::of(store, number, &pack, live, how) else {
            // A damaged pack is verify's business.
            continue;
        };
        let keeps_much = share.live_bytes * 100 >= share.bytes * ALIVE_PERCENT_MIN;
        if keeps_much && !(gather_small && is_small(&pack)) {
            collected.dead_chunks_left += share.dead_chunks;
            continue;
        }
        if how.dry_run || rewriting.take(number, &pack, &share)? {
            collected.packs_removed += 1;
            collected.removed_chunks += share.dead_chunks;
            collected.reclaimed_bytes += share.bytes.saturating_sub(share.live_bytes);
        }
    }
    rewriting.finish()
}

/// What of a pack is alive.
struct Share {
    /// The chunks to keep, in the pack's order, with their frames' kinds.
    live: Vec<(ChunkRef, FrameKind)>,
    live_bytes: u64,
    /// The chunks that the index knows in this pack and that go with it.
    dead: Vec<ChunkId>,
    dead_chunks: u64,
    bytes: u64,
}

impl Share {
    fn of(store: &Store, number: u32, pack: &Pack, live: &Live, how: &Sweep<'_>) -> Result<Self> {
        let bytes = pack.bytes()?;
        let mut share = Self { live: Vec::new(), live_bytes: 0, dead: Vec::new(), dead_chunks: 0, bytes };
        let (mut plain, mut live_plain) = (0, 0);
        let mut failed = Ok(());
        packs::visit_frames(pack, &mut |frame| {
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
                let may_go = how.dry_run || store.condemned.has(&chunk.id);
                if elsewhere || (may_go && !live.has(&chunk.id)) {
                    share.dead_chunks += 1;
                    if !elsewhere {
                        share.dead.push(chunk.id);
                    }
                } else {
                    live_plain += u64::from(chunk.bytes);
                    share.live.push((*chunk, frame.kind));
                }
            }
        })?;
        failed?;
        share.live_bytes = bytes * live_plain / plain.max(1);
        Ok(share)
    }
}

/// Brings packs' live chunks into the open pack, and removes the packs once that is durable and indexed.
struct Rewriting<'a> {
    store: &'a Store,
    compressor: Compressor,
    /// Packs whose live chunks were appended: number, pack, chunks to take out of the index.
    emptied: Vec<(u32, Arc<Pack>, Vec<ChunkId>)>,
    appended_bytes: u64,
}

impl<'a> Rewriting<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, compressor: Compressor::new(LEVEL_DEFAULT), emptied: Vec::new(), appended_bytes: 0 }
    }

    /// Appends what is alive in the pack; false where a chunk is damaged, so that the pack stays.
    fn take(&mut self, number: u32, pack: &Arc<Pack>, share: &Share) -> Result<bool> {
        let mut reader = StoreReader::new(self.store);
        let mut rest = share.live.as_slice();
        while let Some((_, kind)) = rest.first() {
            let mut plain: Vec<Vec<u8>> = Vec::new();
            let mut bytes = 0;
            for (chunk, _) in rest.iter().take(FRAME_CHUNKS_MAX).take_while(|(_, other)| other == kind) {
                if bytes >= FRAME_PLAIN_TARGET {
                    break;
                }
                let mut content = Vec::new();
                if reader.read(chunk, &mut content).is_err() {
                    return Ok(false);
                }
                bytes += content.len();
                plain.push(content);
            }
            let parts = plain.iter().map(Vec::as_slice);
            self.store.append(&Frame::compress(*kind, parts, &mut self.compressor))?;
            self.appended_bytes += bytes as u64;
            rest = &rest[plain.len()..];
        }
        crash::point("collect.appended");
        self.emptied.push((number, Arc::clone(pack), share.dead.clone()));
        if self.appended_bytes >= self.store.options.pack_bytes {
            self.remove_emptied()?;
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<()> {
        self.remove_emptied()
    }

    /// The copies are durable and in the index before the old packs leave either.
    fn remove_emptied(&mut self) -> Result<()> {
        if self.emptied.is_empty() {
            return Ok(());
        }
        // Also where nothing was appended: a chunk's other copy may be one that a push has just brought.
        if self.appended_bytes > 0 || !self.store.is_planted(Planted::EmptiedUnsynced) {
            self.store.writer.seal_now()?;
            self.appended_bytes = 0;
        }
        crash::point("collect.sealed");
        for (number, pack, dead) in self.emptied.drain(..) {
            self.store.shared.index.take_out(number, &dead)?;
            crash::point("collect.index");
            self.store.shared.packs.remove(number);
            files::remove(pack.path())?;
            crash::point("collect.removed");
        }
        Ok(())
    }
}
