//! Garbage collection: removes what no release names, beside pushes, in steps that may be cut off anywhere.
//!
//! A run marks the live chunks and *condemns* the rest: from then on every push counts them as missing. A push under way may
//! count on one still, so a condemned chunk is removed only when every lease that was open at that time has ended or lapsed,
//! and a fresh marking finds no release that names it. If no push is under way, one run does both.
//!
//! Packs without live chunks are removed first. A pack with few live chunks is rewritten into the open pack, if the disk has
//! room, its reserve included; when the copies are durable and indexed, the old pack leaves the index, then the disk. Many
//! small packs are gathered into one so, also where nothing is dead. Copies never take more bytes than the frames they replace,
//! so that no run takes disk. A crash between two steps leaves a chunk twice, never lost. docs/decisions/0011 argues for two
//! steps with leases, 0026 for collecting on a full disk.
//!
//! A dry run does everything but write and remove, so its figures are those of a run. Both seal an open pack that is mostly
//! dead.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use super::alive::{Alive, Sweep};
use super::marking::{Live, mark};
use super::packs::{self, Pack};
use super::rewriting::Rewriting;
use super::{Error, FaultInjection, Result, Store};
use crate::ledger::LeaseNumber;
use disk::crash_points;
use disk::files;
use format::maintenance::Collected;
use format::pack::Frame;
use ground::ids::{ChunkId, ReleaseId};
use ground::poison::Unpoisoned as _;

/// A pack is rewritten when less than this part of its bytes is alive.
const ALIVE_PERCENT_MIN: u64 = 60;

/// 64, a MiB of chunks of the usual size: an open pack with fewer that nobody needs is not worth sealing.
const OPEN_DEAD_CHUNKS_MIN: usize = 64;
/// The most bytes of a chunk in a footer, and what else sealing takes: a pack that cannot be sealed blocks all later ones.
const SEAL_CHUNK_BYTES: u64 = 64;
const SEAL_BYTES: u64 = 256 * 1024;

/// The chunks chosen for removal, and the leases that the collector waits for.
#[derive(Debug, Default)]
pub struct Condemned {
    names: RwLock<HashSet<u64>>,
    run: Mutex<Vec<LeaseNumber>>,
}

impl Condemned {
    /// Returns whether the chunk is condemned: no push may count on it.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.names.read().unpoisoned().contains(&id.prefix())
    }

    /// Appends a frame by `append`; those of its chunks that were condemned no longer are.
    ///
    /// A push that brings a condemned chunk again counts on the new copy, which could be sealed and swept before that push
    /// ends.
    pub fn take_back(&self, frame: &Frame, append: impl FnOnce() -> Result<u64>) -> Result<u64> {
        if !frame.chunks.iter().any(|chunk| self.has(&chunk.id)) {
            return append();
        }
        // Locked meanwhile, so that no sweep finds the new copy sealed and its chunk still condemned.
        let mut names = self.names.write().unpoisoned();
        let position = append()?;
        for chunk in &frame.chunks {
            names.remove(&chunk.id.prefix());
        }
        Ok(position)
    }

    fn replace(&self, names: HashSet<u64>) {
        *self.names.write().unpoisoned() = names;
    }

    fn is_empty(&self) -> bool {
        self.names.read().unpoisoned().is_empty()
    }

    /// Starts a run, one at a time; returns the leases that the last one waits for. Repairs of packs lock it too.
    pub fn begin(&self) -> MutexGuard<'_, Vec<LeaseNumber>> {
        self.run.lock().unpoisoned()
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
    seal_garbage(store, roots)?;
    if dry_run {
        dry_run_of(store, roots, &waits_for, &mut collected, cancelled)?;
        return Ok(collected);
    }
    let removing = Sweep { dry_run, all: false, cancelled };
    // Removes what an earlier run condemned, if no push that may count on it is left.
    if !store.condemned.is_empty() {
        // Before the marking: a push that ends in between has its record by then.
        let holding = waited_for(store)?;
        let live = live(store, roots);
        if waits_for.iter().any(|lease| holding.contains(lease)) {
            // Not condemned again: that would wait for the pushes of now too, and never end.
            collected.live_chunks = live.len() as u64;
            collected.waits_for_pushes = true;
            return Ok(collected);
        }
        if unreadable(store, &live) == 0 {
            sweep(store, &live, &mut collected, &removing)?;
        }
    }
    // Condemn first, then list the leases: later pushes do not count on these chunks.
    let live_now = live(store, roots);
    collected.unreadable = unreadable(store, &live_now);
    if collected.unreadable > 0 {
        // A damaged manifest may name any chunk: nothing is removed until it is healed or its release is removed.
        let records = store.records().unreadable();
        let records: Vec<String> = records.iter().map(|record| store.records().describe(record)).collect();
        tracing::warn!(releases = ?live_now.unreadable, ?records, "releases cannot be read; nothing is collected");
        store.condemned.replace(HashSet::new());
        waits_for.clear();
        collected.live_chunks = live_now.len() as u64;
        return Ok(collected);
    }
    let names = dead(store, &live_now)?;
    let nothing = names.is_empty();
    store.condemned.replace(names);
    crash_points::point("collect.condemned");
    *waits_for = waited_for(store)?;
    if nothing && !(waits_for.is_empty() && gathers(store)?) {
        collected.packs = collectable(store)?.len() as u64;
        collected.live_chunks = live_now.len() as u64;
    } else if waits_for.is_empty() {
        let live = live(store, roots);
        sweep(store, &live, &mut collected, &removing)?;
        store.condemned.replace(HashSet::new());
    } else {
        collected.waits_for_pushes = true;
        collected.live_chunks = live_now.len() as u64;
    }
    let named: HashSet<ReleaseId> = roots().into_iter().chain(store.records().releases()).collect();
    store.forget_manifests(|release| named.contains(release))?;
    Ok(collected)
}

/// Counts what a run would do.
fn dry_run_of(
    store: &Store,
    roots: &dyn Fn() -> Vec<ReleaseId>,
    waits_for: &[LeaseNumber],
    collected: &mut Collected,
    cancelled: &AtomicBool,
) -> Result<()> {
    let holding = waited_for(store)?;
    let live = live(store, roots);
    collected.live_chunks = live.len() as u64;
    collected.unreadable = unreadable(store, &live);
    if collected.unreadable > 0 {
        return Ok(());
    }
    let is_held = waits_for.iter().any(|lease| holding.contains(lease)) && !store.condemned.is_empty();
    let gathers = holding.is_empty() && gathers(store)?;
    if !is_held && !gathers && dead(store, &live)?.is_empty() {
        collected.packs = collectable(store)?.len() as u64;
        return Ok(());
    }
    // Chunks that are not condemned yet wait for the leases that are open now.
    collected.waits_for_pushes = !holding.is_empty();
    if is_held || (!holding.is_empty() && store.condemned.is_empty()) {
        return Ok(());
    }
    sweep(store, &live, collected, &Sweep { dry_run: true, all: holding.is_empty(), cancelled })
}

/// Returns the leases of the pushes that may count on what is condemned now.
fn waited_for(store: &Store) -> Result<Vec<LeaseNumber>> {
    if store.injects(FaultInjection::NoLeaseWait) { Ok(Vec::new()) } else { Ok(store.leases.holding()?) }
}

/// Counts the releases and the records that cannot be read.
fn unreadable(store: &Store, live: &Live) -> u64 {
    (live.unreadable.len() + store.records().unreadable().len()) as u64
}

fn live(store: &Store, roots: &dyn Fn() -> Vec<ReleaseId>) -> Live {
    // Deliveries first: one that ends meanwhile was made of a release that is named here.
    let mut releases: HashSet<ReleaseId> = roots().into_iter().collect();
    // Before the records: what was cached has its record before its mark goes.
    let cached = store.records().cached_anywhere();
    releases.extend(store.records().releases());
    mark(store, &releases, &cached)
}

/// Returns the sealed packs, except those begun for pushes that are under way.
fn collectable(store: &Store) -> Result<Vec<(u32, Arc<Pack>)>> {
    let mut packs = store.shared.packs.sealed();
    if let Some(first) = store.leases.first_pack()? {
        packs.retain(|(number, _)| *number < first);
    }
    Ok(packs)
}

/// Returns whether so many packs are small that they are gathered even where nothing is dead: an open space has read all
/// footers.
fn gathers(store: &Store) -> Result<bool> {
    Ok(store.has_many_small(collectable(store)?.iter().map(|(_, pack)| &**pack)))
}

/// Seals the open pack where much of it is dead, in a dry run too: as long as it is written to it gives nothing back, and a
/// proxy that little is pushed to would keep what was removed until its next start.
///
/// Does nothing during a push, whose chunks no release names yet.
fn seal_garbage(store: &Store, roots: &dyn Fn() -> Vec<ReleaseId>) -> Result<()> {
    if store.leases.first_pack()?.is_some() {
        return Ok(());
    }
    let packs = &store.shared.packs;
    let open: Vec<u32> =
        packs.all().iter().filter(|(_, pack)| pack.is_open()).map(|(number, _)| *number).collect();
    let chunks: Vec<_> = open.iter().flat_map(|number| store.shared.recent.of_pack(*number)).collect();
    if chunks.len() < OPEN_DEAD_CHUNKS_MIN {
        return Ok(());
    }
    let live = live(store, roots);
    let dead = chunks.iter().filter(|(id, _)| !live.has(id)).count();
    let is_much = dead as u64 * 100 > chunks.len() as u64 * (100 - ALIVE_PERCENT_MIN);
    let room = SEAL_BYTES + chunks.len() as u64 * SEAL_CHUNK_BYTES;
    if live.unreadable.is_empty()
        && dead >= OPEN_DEAD_CHUNKS_MIN
        && is_much
        && files::free_bytes(&store.shared.folder)? >= room
    {
        store.writer.seal_now()?;
    }
    Ok(())
}

/// Returns the dead chunks in packs that may be collected.
fn dead(store: &Store, live: &Live) -> Result<HashSet<u64>> {
    let mut names = HashSet::new();
    for (_, pack) in collectable(store)? {
        let Ok(footer) = packs::check_sealed(&pack) else { continue };
        names.extend(
            footer.chunks().map(|entry| entry.chunk.id).filter(|id| !live.has(id)).map(|id| id.prefix()),
        );
        pack.release(0, usize::MAX);
    }
    Ok(names)
}

/// Removes dead chunks pack by pack: first the packs that hold nothing else, which needs no room.
fn sweep(store: &Store, live: &Live, collected: &mut Collected, how: &Sweep<'_>) -> Result<()> {
    collected.live_chunks = live.len() as u64;
    let packs = collectable(store)?;
    let gather_small = store.has_many_small(packs.iter().map(|(_, pack)| &**pack));
    let mut rewriting = Rewriting::new(store, how.dry_run)?;
    let (mut partly_alive, mut dead) = (Vec::new(), Vec::new());
    for (number, pack) in packs {
        if how.cancelled.load(Ordering::Relaxed) {
            return rewriting.finish(collected);
        }
        collected.packs += 1;
        let Some(alive) = alive_of(store, number, &pack, live, how)? else { continue };
        let gather = gather_small && store.is_small(&pack);
        if alive.is_dead() && rewriting.is_cramped()? {
            // Ask the index first: once it was changed on a full disk, it may no longer answer.
            dead.push((number, pack, alive));
        } else if alive.is_dead() {
            rewriting.remove(number, &pack, &alive, collected)?;
        } else if gather || alive.live_bytes * 100 < alive.bytes * ALIVE_PERCENT_MIN {
            partly_alive.push((number, pack, gather));
        } else {
            collected.dead_chunks_left += alive.dead_chunks;
        }
    }
    for (number, pack, alive) in dead {
        rewriting.remove(number, &pack, &alive, collected)?;
    }
    for (number, pack, gather) in partly_alive {
        if !rewriting.can_rewrite() {
            collected.packs_without_room += 1;
            continue;
        }
        if how.cancelled.load(Ordering::Relaxed) {
            break;
        }
        let Some(alive) = alive_of(store, number, &pack, live, how)? else { continue };
        rewriting.take(number, &pack, &alive, gather, collected)?;
    }
    rewriting.finish(collected)
}

/// Returns what is alive in a pack; none where the pack is damaged, which `verify` repairs.
fn alive_of(store: &Store, number: u32, pack: &Pack, live: &Live, how: &Sweep<'_>) -> Result<Option<Alive>> {
    match Alive::of(store, number, pack, live, how) {
        Ok(alive) => Ok(Some(alive)),
        Err(error @ (Error::Pack { .. } | Error::File(_))) => {
            tracing::error!(%error, "a pack is damaged; it is not collected");
            store.suspect.store(true, Ordering::Relaxed);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
