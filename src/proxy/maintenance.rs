//! Maintenance of a proxy: retention, collecting garbage, verifying, healing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::improvements::Improvements;
use super::{Error, Granted, Shared, lost_manifests};
use crate::delivery::destination::{self, Destination, KeptCopy};
use crate::restore::{self, ChunkSource, OutsideLinks};
use crate::store;
use crate::store::retention::{Eviction, Rules, expire};
use crate::store::{Holder, Pass, Store};
use disk::files::OnPath;
use format::maintenance::{Collected, Incomplete, Removal, Verified};
use format::manifest::{EntryPath, Item};
use format::recipe::Recipe;
use format::record::Record;
use ground::faults::{Fault, Faulty};
use ground::ids::{AppName, ChunkId, ReleaseId, Selector, SpaceName};
use protocol::token::Action;
use protocol::wire::{Answer, Operation, Refusal};

/// Chunks read from copies that are stored with one sync: 4 MiB at most.
const HEALED_TOGETHER: usize = 64;

/// Retention, and how often maintenance runs.
#[derive(Debug, Clone)]
pub struct MaintenanceOptions {
    /// The retention rules.
    pub rules: Rules,
    /// The time between two runs of retention and collection; none for never.
    pub collect_every: Option<Duration>,
    /// The time between two verifications of all packs; none for never.
    pub verify_every: Option<Duration>,
    /// The reading rate of background verification.
    pub verify_bytes_per_second: u64,
    /// The idle time after which a space is closed; none for never.
    pub idle_after: Option<Duration>,
    /// The idle time of all spaces after which archives that crossed as they are are unpacked; none for never.
    pub improve_after: Option<Duration>,
    /// The time between two looks for reported damage and idle spaces, at most `improve_after`; 5 s.
    pub look_every: Duration,
    /// The time that a stopping proxy may spend on verifying and repairing the spaces it used that are not known to be
    /// whole; none for no time. It serves proxies that stop too soon for regular maintenance.
    pub mend_at_end: Option<Duration>,
}

impl Default for MaintenanceOptions {
    /// Nothing expires and nothing runs by itself: for a proxy inside a command.
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            collect_every: None,
            verify_every: None,
            verify_bytes_per_second: 16 * 1024 * 1024,
            idle_after: None,
            improve_after: None,
            look_every: Duration::from_secs(5),
            mend_at_end: None,
        }
    }
}

/// Checks and repairs the spaces that were used and are not known to be whole, each for `duration_max` at most.
///
/// A crash mostly cuts off nothing that a release needs: a look at the releases then shows it.
/// Otherwise the packs are verified and repaired, from where the last pass stopped.
pub fn repair_opened(shared: &Shared, duration_max: Duration) {
    for store in shared.spaces.opened() {
        if store.is_whole() {
            continue;
        }
        let pass = Pass { repair: true, duration_max: Some(duration_max), bytes_per_second: None };
        let mended = store::verify_releases(&store).and_then(|lacking| {
            if lacking.is_empty() { Ok(()) } else { verify(shared, &store, pass).map(drop) }
        });
        if let Err(error) = mended {
            tracing::warn!(%error, "the store could not be repaired; `whit verify --repair` tries again");
        }
    }
}

/// The thread that does maintenance by itself.
#[derive(Debug)]
pub struct Maintenance(Option<(Sender<()>, JoinHandle<()>)>);

impl Maintenance {
    /// Starts the thread, where there is anything for it to do.
    pub fn start(shared: &Arc<Shared>, options: &MaintenanceOptions) -> Result<Self, Error> {
        let idle = options.idle_after.or(options.improve_after);
        if options.collect_every.or(options.verify_every).or(idle).is_none() {
            return Ok(Self(None));
        }
        let (stop, stopped) = channel();
        let (shared, options) = (Arc::downgrade(shared), options.clone());
        let look_every = options.improve_after.unwrap_or(options.look_every).min(options.look_every);
        let thread = std::thread::Builder::new().name("whit-maintenance".to_owned());
        let thread = thread.spawn(move || {
            let begin = Instant::now();
            let (mut collected, mut verified) = (begin, begin);
            let mut is_first = true;
            let mut improvements = Improvements::default();
            loop {
                let due = |every: Option<Duration>, last: Instant| every.map(|every| last + every);
                let next = [due(options.collect_every, collected), due(options.verify_every, verified)];
                let wait = next.into_iter().flatten().min();
                let wait = wait.map_or(look_every, |next| next.saturating_duration_since(Instant::now()));
                match stopped.recv_timeout(wait.min(look_every)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => break,
                }
                let Some(shared) = Weak::upgrade(&shared) else { break };
                look(&shared, options.idle_after);
                if let Some(after) = options.improve_after {
                    improvements.go_on(&shared, after);
                }
                if due(options.collect_every, collected).is_some_and(|due| due <= Instant::now()) {
                    // In a space that nobody has used, nothing new expires or becomes garbage.
                    let used = shared.spaces.take_used();
                    let is_due = |space: &SpaceName| is_first || used.contains(space);
                    each_space(&shared, is_due, |store, space| {
                        let tidied = tidy(&shared, store, space, &options.rules);
                        // Cached content lapses although nobody uses the space.
                        if !matches!(tidied, Ok(true)) || store.records().has_cached() {
                            shared.spaces.note_used(space);
                        }
                        tidied.map(drop)
                    });
                    (collected, is_first) = (Instant::now(), false);
                }
                if due(options.verify_every, verified).is_some_and(|due| due <= Instant::now()) {
                    let rate = Some(options.verify_bytes_per_second);
                    let pass = Pass { repair: true, duration_max: None, bytes_per_second: rate };
                    each_space(&shared, |_| true, |store, _| verify(&shared, store, pass).map(drop));
                    verified = Instant::now();
                }
            }
        });
        let thread = thread.on("start the maintenance of", &PathBuf::from("the proxy"))?;
        Ok(Self(Some((stop, thread))))
    }

    /// Ends the thread after the step it is at.
    pub fn stop(self) {
        if let Some((stop, thread)) = self.0 {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("maintenance panicked; it continues at the next start");
            }
        }
    }
}

/// Sets damaged packs aside as soon as damage was met, not only at the next regular check.
fn verify_suspect(shared: &Shared, store: &Arc<Store>) -> store::Result<()> {
    let is_unsure = store.take_doubt();
    if !store.take_suspicion() {
        // Frames cut off the end of an open pack may never have been acknowledged: only the releases show whether they
        // are needed.
        let lacks = is_unsure && !store::verify_releases(store)?.is_empty();
        if !lacks {
            return Ok(());
        }
    }
    tracing::warn!("found damage: verifying all packs");
    verify(shared, store, Pass { repair: true, duration_max: None, bytes_per_second: None }).map(drop)
}

/// Looks after the open spaces: verifies those that met damage, and closes idle ones.
fn look(shared: &Shared, idle_after: Option<Duration>) {
    for store in shared.spaces.opened() {
        if let Err(error) = verify_suspect(shared, &store) {
            tracing::error!(%error, "a space that was damaged could not be verified; it is tried again");
        }
    }
    if let Some(after) = idle_after {
        shared.spaces.close_idle(after);
    }
}

/// Works on each space that is due, and closes again those that were not open.
fn each_space(
    shared: &Shared,
    is_due: impl Fn(&SpaceName) -> bool,
    work: impl Fn(&Arc<Store>, &SpaceName) -> store::Result<()>,
) {
    let mut names = shared.spaces.names().unwrap_or_default();
    names.retain(is_due);
    for space in names {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = shared.spaces.visit(&space, |store| work(store, &space)) {
            tracing::error!(%space, %error, "maintenance failed; the next run tries again");
        }
    }
}

/// Lets releases expire, collects, and evicts releases while the store is too large; returns false where garbage waits
/// for pushes under way.
fn tidy(shared: &Shared, store: &Arc<Store>, space: &SpaceName, rules: &Rules) -> store::Result<bool> {
    let rolled_out = shared.rollouts.pending(space)?;
    let is_needed = |app: &AppName, release: &ReleaseId| {
        shared.deliveries.is_pending(space, release)
            || rolled_out.contains(release)
            || shared.targets.needs(space, app, release)
    };
    for (app, release) in expire(store, rules, &is_needed)? {
        shared.targets.moved(space, &app);
        tracing::info!(%app, release = ?release, "a release expired");
    }
    let lapsed = store.records().lapse()?;
    if lapsed > 0 {
        tracing::info!(%space, lapsed, "cached content lapsed");
    }
    let collected = collect(shared, store, space, false)?;
    if collected.packs_removed > 0 {
        tracing::info!(%space, bytes = collected.reclaimed_bytes, chunks = collected.removed_chunks, "garbage was collected");
    }
    let Some(size_max) = rules.size_max else { return Ok(!collected.waits_for_pushes) };
    if store.stored_bytes()? <= size_max {
        return Ok(!collected.waits_for_pushes);
    }
    // What makes no release goes first.
    while store.stored_bytes()? > size_max && !shared.stopping.load(Ordering::Relaxed) {
        let Some((app, release)) = store.records().lapse_next()? else { break };
        tracing::info!(%app, release = ?release, "the store exceeded size_max_mib: cached content went");
        if collect(shared, store, space, false)?.waits_for_pushes {
            return Ok(false);
        }
    }
    let mut eviction = Eviction::of(store, size_max, &pending(shared, space)?)?;
    while store.stored_bytes()? > size_max && !shared.stopping.load(Ordering::Relaxed) {
        let Some((app, release)) = eviction.next(store, &is_needed)? else {
            tracing::warn!(%space, "the store exceeds size_max_mib, and nothing more may be evicted: beyond the fair \
                shares are only releases that are current, the ones before, at destinations, latest or pinned");
            break;
        };
        shared.targets.moved(space, &app);
        tracing::info!(%app, release = ?release, "the store exceeded size_max_mib: evicted a release");
        if collect(shared, store, space, false)?.waits_for_pushes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(
    shared: &Shared,
    store: &Arc<Store>,
    space: &SpaceName,
    dry_run: bool,
) -> store::Result<Collected> {
    // A release of a rollout has a record: only what was removed by force could go, and has gone already.
    store::collect(store, &|| shared.deliveries.pending(space), dry_run, &shared.stopping)
}

/// Returns the releases of a space that deliveries, rollouts and groups need.
fn pending(shared: &Shared, space: &SpaceName) -> store::Result<Vec<ReleaseId>> {
    let mut pending = shared.deliveries.pending(space);
    pending.extend(shared.rollouts.pending(space)?);
    Ok(pending)
}

/// Verifies packs, heals from delivered copies, then looks at every release.
fn verify(shared: &Shared, store: &Arc<Store>, pass: Pass) -> store::Result<Verified> {
    let mut verified = store::verify_packs(store, pass, &shared.stopping)?;
    if verified.finished {
        verified.incomplete = store::verify_releases(store)?;
        if pass.repair && !verified.incomplete.is_empty() {
            if lost_manifests::find(store, &verified.incomplete, &shared.heavy_work)? > 0 {
                verified.incomplete = store::verify_releases(store)?;
            }
            for incomplete in &verified.incomplete {
                verified.healed_chunks += heal(shared, store, incomplete)?;
            }
            verified.incomplete = store::verify_releases(store)?;
        }
    }
    Ok(verified)
}

/// Takes a release's missing chunks from delivered copies of it.
fn heal(shared: &Shared, store: &Arc<Store>, incomplete: &Incomplete) -> store::Result<u64> {
    let copies = copies_of(shared, store, incomplete)?;
    let Ok(root) = store.root(&incomplete.release) else { return Ok(0) };
    let mut wanted: Vec<(ChunkId, EntryPath, u64, u32)> = Vec::new();
    let mut seen = HashSet::new();
    let mut at: Option<(EntryPath, u64)> = None;
    let walked = restore::walk::<restore::Error>(&root, store.reader().as_mut(), &mut |item| {
        match item {
            Item::File { path, recipe: Recipe::Chunks | Recipe::Packed, .. } => at = Some((path, 0)),
            Item::Chunk(chunk) => {
                if let Some((path, offset)) = &mut at {
                    if matches!(store.find(&chunk.id), Ok(None)) && seen.insert(chunk.id) {
                        wanted.push((chunk.id, path.clone(), *offset, chunk.bytes));
                    }
                    *offset += u64::from(chunk.bytes);
                }
            }
            // An archive's chunks are of its stream, not of the file.
            _ => at = None,
        }
        Ok(())
    });
    if let Err(error) = walked {
        // Verifying names the release.
        tracing::warn!(release = ?incomplete.release, %error, "a manifest is damaged; no chunks are taken from copies");
        return Ok(0);
    }
    let mut healed = 0;
    for some in wanted.chunks(HEALED_TOGETHER) {
        let found: Vec<(ChunkId, Vec<u8>)> = some
            .iter()
            .filter_map(|(id, path, offset, bytes)| {
                let read = copies.iter().filter_map(|copy| copy.read(path, *offset, *bytes));
                read.into_iter().find(|content| ChunkId::of(content) == *id).map(|content| (*id, content))
            })
            .collect();
        if !found.is_empty() {
            healed += store::heal(store, &found)?;
        }
    }
    Ok(healed)
}

/// Returns the copies of a release: at the configured destinations, and at other folders that the application was
/// delivered to.
fn copies_of(
    shared: &Shared,
    store: &Store,
    incomplete: &Incomplete,
) -> store::Result<Vec<Box<dyn KeptCopy>>> {
    let Incomplete { app, release, .. } = incomplete;
    let mut places: Vec<Arc<dyn Destination>> = shared.destinations.values().map(Arc::clone).collect();
    let is_known = |folder: &PathBuf, places: &[Arc<dyn Destination>]| {
        places.iter().flat_map(|place| place.folders()).any(|known| known.of(app) == *folder)
    };
    for folder in store.copies().of(app)? {
        if !is_known(&folder, &places) {
            places.push(destination::local(folder, OutsideLinks::Refuse));
        }
    }
    Ok(places.iter().flat_map(|place| place.read_back(app, release)).collect())
}

/// Serves one request of an admin.
///
/// # Errors
/// The text for the agent.
pub fn serve(granted: &Granted, request: Operation) -> Result<Vec<Answer>, Refusal> {
    let refusal = |error: store::Error| Refusal::of(&error as &dyn Faulty);
    let shared = &granted.shared;
    match request {
        Operation::Collect { dry_run } => {
            granted.allow_whole_space(Action::Admin)?;
            let store = granted.store()?;
            if !dry_run {
                store.records().lapse().map_err(refusal)?;
            }
            let collected = collect(shared, &store, &granted.grant.space, dry_run).map_err(refusal)?;
            Ok(vec![Answer::Collected(collected)])
        }
        Operation::Verify { repair, seconds_max } => {
            granted.allow_whole_space(Action::Admin)?;
            let store = granted.store()?;
            let duration_max = seconds_max.map(Duration::from_secs);
            let pass = Pass { repair, duration_max, bytes_per_second: None };
            Ok(vec![Answer::Verified(Box::new(verify(shared, &store, pass).map_err(refusal)?))])
        }
        Operation::Remove { release: selector, all_labels, force } => {
            let (store, record) = select(granted, &selector)?;
            let (app, release) = (record.app.clone(), record.release);
            let records = store.records().of(&app).map_err(refusal)?;
            let mut removal = Removal::of(&records, &selector, record.clone());
            if all_labels || !removal.takes_more() {
                let _turn = store.records().turn();
                if force {
                    store.records().remove_held(&app, &release).map_err(refusal)?;
                } else {
                    check_queued(granted, &app, release)?;
                    store.records().remove(&app, &release).map_err(refusal)?;
                }
                granted.moved(&app);
                granted.audit("remove", &app, release);
                removal.removed = true;
            }
            Ok(vec![Answer::Meant(record), Answer::Removed(Box::new(removal))])
        }
        Operation::Pin { release: selector, pinned } => {
            let (store, record) = select(granted, &selector)?;
            let (app, release) = (&record.app, &record.release);
            let records = store.records();
            if pinned { records.pin(app, release) } else { records.unpin(app, release) }.map_err(refusal)?;
            granted.audit(if pinned { "pin" } else { "unpin" }, app, *release);
            Ok(vec![Answer::Meant(record.clone()), Answer::Done(record)])
        }
        _ => unreachable!("only requests of an admin come here"),
    }
}

/// Checks that no target needs a release, and no delivery of it waits.
fn check_queued(granted: &Granted, app: &AppName, release: ReleaseId) -> Result<(), Refusal> {
    let holder = granted.shared.targets.holder(&granted.grant.space, app, &release);
    if let Some(target) = holder.map_err(|error| Refusal::of(&error))? {
        let holder = Holder::Target(target);
        return Err(Refusal::of(&store::Error::Held { app: app.clone(), release, holder }));
    }
    let rolled_out = granted.shared.rollouts.pending(&granted.grant.space);
    if rolled_out.map_err(|error| Refusal::of(&error))?.contains(&release) {
        return Err(Refusal {
            fault: Fault::Input,
            text: format!(
                "release {} of `{app}` may not be removed: a group has it, or a rollout that has not ended",
                release.short()
            ),
            hint: Some("roll another release out, or add --force".to_owned()),
        });
    }
    if !granted.shared.deliveries.is_pending(&granted.grant.space, &release) {
        return Ok(());
    }
    Err(Refusal {
        fault: Fault::Input,
        text: format!(
            "release {} of `{app}` may not be removed: a delivery of it has not ended",
            release.short()
        ),
        hint: Some("wait for the delivery, or add --force".to_owned()),
    })
}

/// Returns the release that an admin means, if the token allows it.
fn select(granted: &Granted, selector: &Selector) -> Result<(Arc<Store>, Record), Refusal> {
    granted.allow(Action::Admin, Some(&selector.app))?;
    let store = granted.store()?;
    let record = store.select(selector).map_err(|error| Refusal::of(&error))?;
    Ok((store, record))
}
