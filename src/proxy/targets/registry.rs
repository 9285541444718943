//! What the proxy knows of its targets, in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, broadcast, watch};

use super::dirty::{Dirty, SpaceApp};
use super::entry::{Entry, News, OpenStream};
use super::resolved::Resolved;
use crate::ledger::{self, Ledger};
use crate::proxy::Owner;
use crate::proxy::stopping::Stopping;
use format::target::Assignment;
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, ReleaseId, SpaceName, TargetName};
use ground::limits::{TARGETS_PER_APP_MAX, WATCHERS_MAX};
use ground::poison::Unpoisoned as _;
use ground::shares::Shares;
use protocol::wire::{TargetStatus, Watching};

/// Changes that wait for one who follows them; who falls behind asks for everything again.
const CHANGES_AHEAD: usize = 1024;

/// A target's new state, and its space.
pub type TargetChange = Arc<(SpaceName, TargetStatus)>;
/// Returns what a target without an assignment is to have, if a group has it: a new member gets the group's release.
pub type Unassigned =
    Box<dyn Fn(&SpaceName, &AppName, &TargetName) -> ledger::Result<Option<Assignment>> + Send + Sync>;

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
    pub(super) ledger: Arc<dyn Ledger>,
    apps: Mutex<HashMap<SpaceApp, App>>,
    /// Held while values are written: a later value of a target is never replaced by an earlier one.
    pub(super) writing: Mutex<()>,
    /// Those whose values are to be written.
    pub(super) dirty: Dirty,
    changes: broadcast::Sender<TargetChange>,
    pub(super) unassigned: Unassigned,
    /// Those that watch.
    pub(super) watchers: Arc<Shares<Owner>>,
    /// Their pulls, beside other requests: each waits for its share.
    pub(super) pulls: Arc<Shares<Owner>>,
    /// True once the proxy stops.
    stopping: watch::Sender<bool>,
}

/// The targets of an application.
pub(super) struct App {
    pub(super) targets: BTreeMap<TargetName, Entry>,
    /// Counts what may have changed what targets want.
    moves: watch::Sender<u64>,
    /// The records that they want.
    resolved: Arc<tokio::sync::Mutex<Resolved>>,
}

/// What a stream hears by.
pub(super) struct Opened {
    /// Says that a newer stream took its place.
    pub replaced: Arc<Notify>,
    /// Says that its target was assigned something, or nothing any more.
    pub assigned: Arc<Notify>,
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

    /// Wakes the streams of an application's targets: its current release or a label may have moved.
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
        Stopping::of(&self.stopping)
    }

    /// Returns whether an application's targets are in memory.
    pub(super) fn is_loaded(&self, space: &SpaceName, app: &AppName) -> bool {
        self.apps().contains_key(&(space.clone(), app.clone()))
    }

    /// Notes a target's stream, in the place of an earlier one of the same directory. Its application is loaded.
    ///
    /// # Errors
    /// [`Error::Taken`] and [`Error::TooMany`].
    pub(super) fn open_stream(
        &self,
        space: &SpaceName,
        target: &TargetName,
        watching: &Watching,
    ) -> Result<Opened, Error> {
        let Watching { app, at, version, instance, .. } = watching;
        let mut apps = self.apps();
        let of_app = app_mut(&mut apps, space, app);
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
        let (replaced, assigned) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (ends, wakes) = (Arc::clone(&replaced), Arc::clone(&assigned));
        entry.stream = Some(OpenStream { instance: *instance, replaced: ends, assigned: wakes });
        (entry.known.version, entry.known.follows) = (version.clone(), at.clone());
        Ok(Opened { replaced, assigned, moves, resolved })
    }

    /// Changes what is known of a target while its stream is the one known by `replaced`.
    pub(super) fn change(
        &self,
        place: &SpaceApp,
        target: &TargetName,
        replaced: &Arc<Notify>,
        change: impl FnOnce(&mut Entry) -> News,
    ) {
        let ((space, app), mut apps) = (place, self.apps());
        let Some(App { targets, .. }) = apps.get_mut(place) else { return };
        let is_its =
            |entry: &Entry| entry.stream.as_ref().is_some_and(|live| Arc::ptr_eq(&live.replaced, replaced));
        let Some(entry) = targets.get_mut(target).filter(|entry| is_its(entry)) else { return };
        let news = change(entry);
        let (is_kept, is_there) = (entry.is_kept, entry.stream.is_some());
        if news != News::None {
            self.tell(space, entry.status(target, app));
        }
        if news == News::Write && is_kept {
            self.dirty.add(place.clone(), target.clone());
        }
        if !is_kept && !is_there {
            targets.remove(target);
            if targets.is_empty() {
                apps.remove(place);
            }
        }
    }

    /// Returns what its group assigned to a target.
    pub(super) fn assigned(
        &self,
        space: &SpaceName,
        app: &AppName,
        target: &TargetName,
    ) -> Option<Assignment> {
        self.apps().get(&(space.clone(), app.clone()))?.targets.get(target)?.known.assigned.clone()
    }

    /// Tells those who follow of a target's new state.
    pub(super) fn tell(&self, space: &SpaceName, status: TargetStatus) {
        if self.changes.receiver_count() > 0 {
            drop(self.changes.send(Arc::new((space.clone(), status))));
        }
    }

    /// Locks the targets of all applications. Hold nothing that waits for the disk meanwhile.
    pub(super) fn apps(&self) -> MutexGuard<'_, HashMap<SpaceApp, App>> {
        self.apps.lock().unpoisoned()
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

/// Returns the targets of an application; none yet where it is new.
pub(super) fn app_mut<'a>(
    apps: &'a mut HashMap<SpaceApp, App>,
    space: &SpaceName,
    app: &AppName,
) -> &'a mut App {
    apps.entry((space.clone(), app.clone())).or_default()
}
