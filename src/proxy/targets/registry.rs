//! What the proxy knows of its targets: in memory, and in the ledger.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, broadcast, watch};

use super::dirty::{Dirty, Place};
use super::entry::{Entry, Live, News};
use super::resolved::Resolved;
use crate::ledger::{self, Change, Key, Ledger, Table};
use crate::proxy::Owner;
use format::target::{Assignment, StoredTarget};
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, ReleaseId, SpaceName, TargetName};
use ground::limits::{TARGETS_PER_APP_MAX, WATCHERS_MAX};
use ground::poison::Unpoisoned as _;
use ground::shares::Shares;
use protocol::wire::{TargetStatus, Watching};

/// Changes that wait for one who follows them; who falls behind asks for everything again.
const CHANGES_AHEAD: usize = 1024;
/// Values in one transaction.
pub(super) const WRITTEN_TOGETHER: usize = 64;

/// A target's new state, and its space.
pub type TargetChange = Arc<(SpaceName, TargetStatus)>;
/// Returns what a target without an assignment is to have, if a group has it: a new member gets the group's release.
pub type Unassigned = Box<dyn Fn(&SpaceName, &AppName, &TargetName) -> Option<Assignment> + Send + Sync>;

/// Why a target may not watch, or be forgotten.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// Another directory watches under its name.
    #[error("target `{0}` is watched from another directory or machine")]
    Taken(TargetName),
    /// Its application has too many.
    #[error("`{0}` has {TARGETS_PER_APP_MAX} targets, the limit")]
    TooMany(AppName),
}

faulty! {
    Error passes on Ledger;
    Self::Taken(_) => Fault::Retry, "stop the other one, or give each a token with a name of its own \
        (`whit token create --target NAME`)";
    Self::TooMany(_) => Fault::Full, "forget those that are gone with `whit targets forget NAME`";
}

/// All targets of a proxy.
pub struct Targets {
    ledger: Arc<dyn Ledger>,
    apps: Mutex<HashMap<Place, App>>,
    /// Held while values are written: a later value of a target is never replaced by an earlier one.
    writing: Mutex<()>,
    dirty: Dirty,
    changes: broadcast::Sender<TargetChange>,
    unassigned: Unassigned,
    /// Those that watch.
    pub(super) watchers: Arc<Shares<Owner>>,
    /// Their pulls, beside other requests: each waits for its share.
    pub(super) pulls: Arc<Shares<Owner>>,
    /// True once the proxy stops.
    stopping: watch::Sender<bool>,
}

/// The targets of an application.
struct App {
    targets: BTreeMap<TargetName, Entry>,
    /// Counts what may have changed what targets want.
    moves: watch::Sender<u64>,
    /// The records that they want.
    resolved: Arc<tokio::sync::Mutex<Resolved>>,
}

/// What a stream hears by.
pub(super) struct Opened {
    /// Says that a newer stream took its place.
    pub replaced: Arc<Notify>,
    /// Changes when what its target wants may have changed.
    pub moves: watch::Receiver<u64>,
    /// The records that the application's targets want.
    pub resolved: Arc<tokio::sync::Mutex<Resolved>>,
}

impl Default for App {
    fn default() -> Self {
        Self { targets: BTreeMap::new(), moves: watch::Sender::new(0), resolved: Arc::default() }
    }
}

impl Targets {
    /// Starts with what the ledger has; reads each application's targets when they are first asked for. At most `pulls_max` pulls of
    /// targets go on at a time.
    pub fn new(ledger: Arc<dyn Ledger>, unassigned: Unassigned, pulls_max: u64) -> Self {
        Self {
            ledger,
            apps: Mutex::default(),
            writing: Mutex::default(),
            dirty: Dirty::default(),
            changes: broadcast::channel(CHANGES_AHEAD).0,
            unassigned,
            watchers: Shares::new(WATCHERS_MAX),
            pulls: Shares::new(pulls_max.max(1)),
            stopping: watch::Sender::new(false),
        }
    }

    /// Returns the targets of an application, by name. Blocks for the ledger at the application's first use.
    ///
    /// # Errors
    /// The ledger's.
    pub fn known(&self, space: &SpaceName, app: &AppName) -> ledger::Result<Vec<TargetStatus>> {
        self.load(space, app)?;
        let (mut apps, place) = (self.apps(), (space.clone(), app.clone()));
        let Some(of_app) = apps.get(&place) else { return Ok(Vec::new()) };
        let known = of_app.targets.iter().map(|(target, entry)| entry.status(target, app)).collect();
        if of_app.targets.is_empty() {
            // Anybody may ask for any name.
            apps.remove(&place);
        }
        Ok(known)
    }

    /// Returns a target that needs a release of an application, or of which that cannot be known until it reports. Blocks for the
    /// ledger at the application's first use.
    ///
    /// # Errors
    /// The ledger's.
    pub fn holder(
        &self,
        space: &SpaceName,
        app: &AppName,
        release: &ReleaseId,
    ) -> ledger::Result<Option<TargetName>> {
        self.load(space, app)?;
        let apps = self.apps();
        let Some(of_app) = apps.get(&(space.clone(), app.clone())) else { return Ok(None) };
        let needs =
            |entry: &Entry| entry.is_unread || entry.known.releases().any(|needed| needed == *release);
        Ok(of_app.targets.iter().find(|(_, entry)| needs(entry)).map(|(target, _)| target.clone()))
    }

    /// Returns whether a release must stay for a target, or that cannot be known. Blocks as [`Targets::holder`].
    pub fn needs(&self, space: &SpaceName, app: &AppName, release: &ReleaseId) -> bool {
        let holder = self.holder(space, app, release);
        holder.map_or_else(
            |error| {
                tracing::error!(%space, %app, %error, "releases stay: it cannot be known what targets have");
                true
            },
            |holder| holder.is_some(),
        )
    }

    /// Returns the applications of a space that may have targets. Blocks.
    ///
    /// # Errors
    /// The ledger's.
    pub fn apps_of(&self, space: &SpaceName) -> ledger::Result<Vec<AppName>> {
        let mut names = self.ledger.apps(space)?;
        names.extend(self.apps().keys().filter(|(of, _)| of == space).map(|(_, app)| app.clone()));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Returns what receives each further change of any target's state, assignment or stream.
    pub fn changes(&self) -> broadcast::Receiver<TargetChange> {
        self.changes.subscribe()
    }

    /// Tells targets what they want from now on, durably, known ones or not; wakes their streams. Blocks.
    ///
    /// # Errors
    /// The ledger's: the first of the assignments may have been made, and making them again changes nothing.
    pub fn assign(
        &self,
        space: &SpaceName,
        app: &AppName,
        assignments: &[(TargetName, Assignment)],
    ) -> ledger::Result<()> {
        self.load(space, app)?;
        let assigned = assignments.chunks(WRITTEN_TOGETHER).try_for_each(|some| {
            let _writing = self.writing.lock().unpoisoned();
            self.put(space, app, some)
        });
        // Those of which it is written hear of it, even if it could not be written of others.
        self.moved(space, app);
        assigned
    }

    /// Writes down some assignments. `writing` is held.
    fn put(&self, space: &SpaceName, app: &AppName, some: &[(TargetName, Assignment)]) -> ledger::Result<()> {
        let change = |(target, assignment): &(TargetName, Assignment)| {
            let known = of(&mut self.apps(), space, app).targets.get(target).map(|entry| entry.known.clone());
            let known = StoredTarget { assigned: Some(assignment.clone()), ..known.unwrap_or_default() };
            Change::Put { key: key(space, app, target), value: known.encode() }
        };
        self.ledger.apply(&some.iter().map(change).collect::<Vec<_>>())?;
        let mut apps = self.apps();
        for (target, assignment) in some {
            let entry = of(&mut apps, space, app).targets.entry(target.clone()).or_default();
            (entry.known.assigned, entry.is_kept) = (Some(assignment.clone()), true);
            self.tell(space, entry.status(target, app));
        }
        Ok(())
    }

    /// Wakes the streams of an application's targets: its current release, a label or an assignment may have moved.
    pub fn moved(&self, space: &SpaceName, app: &AppName) {
        if let Some(app) = self.apps().get(&(space.clone(), app.clone())) {
            app.moves.send_modify(|moves| *moves += 1);
        }
    }

    /// Ends all streams, and further ones at once.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns what waits for the proxy's stop.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.stopping.subscribe())
    }

    /// Returns the targets whose values are to be written.
    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// Reads an application's targets from the ledger, once. Blocks.
    pub(super) fn load(&self, space: &SpaceName, app: &AppName) -> ledger::Result<()> {
        if self.is_loaded(space, app) {
            return Ok(());
        }
        let (space, app) = (space.clone(), app.clone());
        let table = Table::Targets { space: space.clone(), app: app.clone() };
        // Nobody writes a value that was not read.
        let _writing = self.writing.lock().unpoisoned();
        if self.is_loaded(&space, &app) {
            return Ok(());
        }
        self.ledger.recover(&table)?;
        let mut of_app = App::default();
        for key in self.ledger.list(&table)? {
            let Some(value) = self.ledger.read(&key)? else { continue };
            let known = StoredTarget::decode(&value);
            if known.is_none() {
                let place = self.ledger.describe(&key);
                tracing::error!(
                    place,
                    "what is known of a target is damaged or of a newer version: until it reports, or is \
                    forgotten, no release of its application is removed"
                );
            }
            if let Key::Target { target, .. } = key {
                let (is_unread, known) = (known.is_none(), known.unwrap_or_default());
                let seen_written = known.seen;
                let entry = Entry { known, is_kept: true, is_unread, seen_written, ..Entry::default() };
                of_app.targets.insert(target, entry);
            }
        }
        // One that was forgotten as it had none may have got some meanwhile.
        self.apps().entry((space, app)).or_insert(of_app);
        Ok(())
    }

    /// Returns whether an application's targets are in memory.
    pub(super) fn is_loaded(&self, space: &SpaceName, app: &AppName) -> bool {
        self.apps().contains_key(&(space.clone(), app.clone()))
    }

    /// Notes a target's stream, in the place of an earlier one of the same directory. Its application is loaded.
    ///
    pub(super) fn open_stream(
        &self,
        space: &SpaceName,
        target: &TargetName,
        watching: &Watching,
    ) -> Result<Opened, Error> {
        let Watching { app, at, version, instance, .. } = watching;
        let mut apps = self.apps();
        let of_app = of(&mut apps, space, app);
        if !of_app.targets.contains_key(target) && of_app.targets.len() >= TARGETS_PER_APP_MAX {
            return Err(Error::TooMany(app.clone()));
        }
        let (moves, resolved) = (of_app.moves.subscribe(), Arc::clone(&of_app.resolved));
        let entry = of_app.targets.entry(target.clone()).or_default();
        if let Some(live) = &entry.stream {
            if live.instance != *instance {
                return Err(Error::Taken(target.clone()));
            }
            live.replaced.notify_one();
        }
        let replaced = Arc::new(Notify::new());
        entry.stream = Some(Live { instance: *instance, replaced: Arc::clone(&replaced) });
        (entry.known.version, entry.known.follows) = (version.clone(), at.clone());
        Ok(Opened { replaced, moves, resolved })
    }

    /// Changes what is known of a target while its stream is the one known by `replaced`.
    pub(super) fn change(
        &self,
        (space, app): &Place,
        target: &TargetName,
        replaced: &Arc<Notify>,
        change: impl FnOnce(&mut Entry) -> News,
    ) {
        let mut apps = self.apps();
        let targets = &mut of(&mut apps, space, app).targets;
        let is_its =
            |entry: &Entry| entry.stream.as_ref().is_some_and(|live| Arc::ptr_eq(&live.replaced, replaced));
        let Some(entry) = targets.get_mut(target).filter(|entry| is_its(entry)) else { return };
        let news = change(entry);
        let (is_kept, is_there) = (entry.is_kept, entry.stream.is_some());
        if news != News::None {
            self.tell(space, entry.status(target, app));
        }
        if news == News::Write && is_kept {
            self.dirty.add((space.clone(), app.clone()), target.clone());
        }
        if !is_kept && !is_there {
            targets.remove(target);
            if targets.is_empty() {
                apps.remove(&(space.clone(), app.clone()));
            }
        }
    }

    /// Reads an application's targets, and gives one without an assignment what its group has. Blocks.
    pub(super) fn join(&self, space: &SpaceName, app: &AppName, target: &TargetName) -> ledger::Result<()> {
        self.load(space, app)?;
        let mut given = self.assigned(space, app, target);
        if given.is_some() {
            return Ok(());
        }
        // The group is asked again after each time: a rollout that ended meanwhile may not have seen the target.
        while let Some(of_group) = (self.unassigned)(space, app, target) {
            let _writing = self.writing.lock().unpoisoned();
            // Nor is what a rollout assigned meanwhile taken back.
            if given.as_ref() == Some(&of_group) || self.assigned(space, app, target) != given {
                break;
            }
            self.put(space, app, &[(target.clone(), of_group.clone())])?;
            given = Some(of_group);
        }
        Ok(())
    }

    /// Returns what its group assigned to a target.
    pub(super) fn assigned(
        &self,
        space: &SpaceName,
        app: &AppName,
        target: &TargetName,
    ) -> Option<Assignment> {
        of(&mut self.apps(), space, app).targets.get(target)?.known.assigned.clone()
    }

    /// Removes a target of an application; false if there is none, or its stream is there.
    pub(super) fn remove(
        &self,
        space: &SpaceName,
        app: &AppName,
        target: &TargetName,
    ) -> ledger::Result<bool> {
        self.load(space, app)?;
        let _writing = self.writing.lock().unpoisoned();
        let is_gone = |entry: &Entry| entry.stream.is_none();
        if !of(&mut self.apps(), space, app).targets.get(target).is_some_and(is_gone) {
            return Ok(false);
        }
        self.ledger.apply(&[Change::Remove { key: key(space, app, target) }])?;
        let mut apps = self.apps();
        let targets = &mut of(&mut apps, space, app).targets;
        // It may have come back meanwhile: then it stays, and is written again.
        let is_back = targets.get(target).is_some_and(|entry| entry.stream.is_some());
        if is_back {
            self.dirty.add((space.clone(), app.clone()), target.clone());
        } else {
            targets.remove(target);
        }
        Ok(!is_back)
    }

    /// Writes what is known of some targets, in one transaction. Blocks.
    pub(super) fn write(&self, some: &[(Place, TargetName)]) -> ledger::Result<()> {
        let _writing = self.writing.lock().unpoisoned();
        let change = |(place, target): &(Place, TargetName)| {
            let mut apps = self.apps();
            let entry = apps.get_mut(place)?.targets.get_mut(target).filter(|entry| entry.is_kept)?;
            entry.seen_written = entry.known.seen;
            Some(Change::Put { key: key(&place.0, &place.1, target), value: entry.known.encode() })
        };
        self.ledger.apply(&some.iter().filter_map(change).collect::<Vec<_>>())
    }

    fn tell(&self, space: &SpaceName, status: TargetStatus) {
        if self.changes.receiver_count() > 0 {
            drop(self.changes.send(Arc::new((space.clone(), status))));
        }
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<Place, App>> {
        self.apps.lock().unpoisoned()
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

/// Waits for the proxy's stop.
#[derive(Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns once the proxy stops. May be cancelled.
    pub async fn begun(&mut self) {
        drop(self.0.wait_for(|stops| *stops).await);
    }
}

/// Returns the targets of an application; none yet where it is new.
fn of<'a>(apps: &'a mut HashMap<Place, App>, space: &SpaceName, app: &AppName) -> &'a mut App {
    apps.entry((space.clone(), app.clone())).or_default()
}

fn key(space: &SpaceName, app: &AppName, target: &TargetName) -> Key {
    Key::Target { space: space.clone(), app: app.clone(), target: target.clone() }
}
