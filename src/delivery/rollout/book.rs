//! All rollouts of a proxy, and the releases of its groups: in the ledger, and in memory for those who ask.
//!
//! A value is written before memory has it. One thread changes rollouts that are under way; anybody may begin one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;

use super::{GroupRelease, Machine, Noted, Phase, Rollout};
use crate::ledger::{self, Change, Key, Ledger, Table};
use ground::ids::{AppName, DestinationName, ReleaseId, RolloutId, SpaceName};
use ground::poison::Unpoisoned as _;
use protocol::wire::{RolloutState, RolloutStatus, RolloutWait};

/// Rollouts that ended last, of whatever group; with a thousand members each takes some 50 KB.
const RECENT: usize = 100;
/// The most with those that are only the last of their group.
const ENDED_MAX: usize = 1024;
/// Changes that wait for one watcher; one who falls behind lists everything again.
const CHANGES_AHEAD: usize = 256;

/// A rollout's new state, and its space.
pub type Changed = Arc<(SpaceName, RolloutStatus)>;
/// A group of an application.
type Place = (SpaceName, AppName, DestinationName);

/// The rollouts of a proxy.
#[derive(Debug)]
pub struct Book {
    ledger: Arc<dyn Ledger>,
    proxy: [u8; 4],
    state: Mutex<State>,
    changes: broadcast::Sender<Changed>,
}

#[derive(Debug, Default)]
struct State {
    rollouts: BTreeMap<u64, Arc<Rollout>>,
    next: u64,
    /// The releases of groups, of the spaces that were read.
    groups: HashMap<Place, GroupRelease>,
    read: HashSet<SpaceName>,
    /// What the last looks at rollouts under way saw, where that is anything.
    noted: HashMap<u64, Noted>,
}

impl Book {
    /// Opens the book of the proxy whose fingerprint begins with `proxy`.
    ///
    /// # Errors
    /// The ledger's.
    pub fn open(ledger: Arc<dyn Ledger>, proxy: [u8; 4]) -> ledger::Result<Self> {
        ledger.recover(&Table::Rollouts)?;
        let mut state = State { next: 1, ..State::default() };
        for (key, retired) in ledger.scan(&Table::Rollouts)? {
            let Key::Rollout { number } = key else { continue };
            state.next = state.next.max(number + 1);
            if retired.is_some() {
                continue;
            }
            let value = ledger.read(&key)?.unwrap_or_default();
            match Rollout::decode(&value) {
                Some(rollout) => drop(state.rollouts.insert(number, Arc::new(rollout))),
                None => {
                    tracing::error!(
                        place = ledger.describe(&key),
                        "a rollout is damaged or of a newer version"
                    );
                }
            }
        }
        Ok(Self { ledger, proxy, state: Mutex::new(state), changes: broadcast::channel(CHANGES_AHEAD).0 })
    }

    /// Returns the id that a rollout with this number has.
    pub fn id(&self, number: u64) -> RolloutId {
        RolloutId { proxy: self.proxy, number }
    }

    /// Returns a number that was never given, and the change that writes a rollout down under it.
    pub fn change(&self, rollout: &Rollout) -> (u64, Change) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        (number, Change::Create { key: Key::Rollout { number }, value: rollout.encode() })
    }

    /// Returns whether a rollout was written down under a number, although the transaction failed.
    pub fn has(&self, number: u64, rollout: &Rollout) -> bool {
        let value = self.ledger.read(&Key::Rollout { number });
        value.is_ok_and(|value| value == Some(rollout.encode()))
    }

    /// Applies changes that write rollouts down by themselves.
    ///
    /// # Errors
    /// The ledger's.
    pub fn apply(&self, changes: &[Change]) -> ledger::Result<()> {
        self.ledger.apply(changes)
    }

    /// Adds a rollout that was written down.
    pub fn enter(&self, number: u64, rollout: Rollout) {
        self.set(number, rollout);
    }

    /// Notes the age of a rollout, which nobody needs to hear of.
    pub fn note_age(&self, number: u64, rollout: Rollout) {
        self.state().rollouts.insert(number, Arc::new(rollout));
    }

    /// Writes down how far a rollout is and, before that and in the same transaction, the release that its group has from now on, if
    /// that changes, and `more`.
    ///
    /// # Errors
    /// The ledger's; memory is then as before.
    pub fn write(
        &self,
        number: u64,
        rollout: Rollout,
        release: Option<GroupRelease>,
        more: Vec<Change>,
    ) -> ledger::Result<()> {
        let Rollout { space, app, group, .. } = &rollout;
        let place = (space.clone(), app.clone(), group.clone());
        let group = release.map(|release| {
            let (space, app, group) = place.clone();
            Change::Put { key: Key::Group { space, app, group }, value: release.encode() }
        });
        let own = Change::Put { key: Key::Rollout { number }, value: rollout.encode() };
        self.ledger.apply(&more.into_iter().chain(group).chain([own]).collect::<Vec<_>>())?;
        if let Some(release) = release {
            self.state().groups.insert(place, release);
        }
        let has_ended = rollout.ended.is_some();
        self.set(number, rollout);
        if has_ended {
            self.forget();
        }
        Ok(())
    }

    /// Notes what a look at a rollout saw, in memory only.
    pub fn note(&self, number: u64, noted: Noted) {
        let mut state = self.state();
        let before = state.noted.remove(&number).unwrap_or_default();
        let is_new = noted != before;
        if noted != Noted::default() {
            state.noted.insert(number, noted);
        }
        if !is_new {
            return;
        }
        let rollout = state.rollouts.get(&number);
        let status = rollout.map(|rollout| (rollout.space.clone(), self.status(&state, number, rollout)));
        if let Some(status) = status {
            // Nobody may watch.
            drop(self.changes.send(Arc::new(status)));
        }
    }

    /// Notes why a look at a rollout failed, in memory only.
    pub fn note_trouble(&self, number: u64, reason: String) {
        let noted = self.state().noted.get(&number).cloned().unwrap_or_default();
        self.note(number, Noted { waits: Some(RolloutWait::Trouble { reason }), ..noted });
    }

    /// Returns the rollouts that have not ended, in the order in which they were asked for.
    pub fn under_way(&self) -> Vec<(u64, Arc<Rollout>)> {
        let state = self.state();
        let under_way = state.rollouts.iter().filter(|(_, rollout)| rollout.ended.is_none());
        under_way.map(|(number, rollout)| (*number, Arc::clone(rollout))).collect()
    }

    /// Returns a rollout that is known.
    pub fn get(&self, number: u64) -> Option<Arc<Rollout>> {
        self.state().rollouts.get(&number).map(Arc::clone)
    }

    /// Returns the last rollout of a group of an application that began and has ended.
    pub fn last_ended(
        &self,
        space: &SpaceName,
        app: &AppName,
        group: &DestinationName,
    ) -> Option<Arc<Rollout>> {
        let state = self.state();
        let is_it = |rollout: &&Arc<Rollout>| {
            rollout.ended.is_some()
                && rollout.machine.is_some()
                && (&rollout.space, &rollout.app, &rollout.group) == (space, app, group)
        };
        state.rollouts.values().rev().find(is_it).map(Arc::clone)
    }

    /// Returns the releases that a group had, newest first: those of its rollouts that succeeded, and the one before the oldest of them.
    pub fn succeeded(&self, space: &SpaceName, app: &AppName, group: &DestinationName) -> Vec<ReleaseId> {
        let state = self.state();
        let is_it = |it: &&Arc<Rollout>| {
            (&it.space, &it.app, &it.group) == (space, app, group)
                && matches!(it.ended, Some((RolloutState::Succeeded, _)))
        };
        let releases = |it: &Arc<Rollout>| [Some(it.release), it.previous];
        state.rollouts.values().rev().filter(is_it).flat_map(releases).flatten().collect()
    }

    /// Returns whether an earlier rollout of the application than the one with this number made a release current, at a time in
    /// seconds since 1970.
    pub fn came_before(&self, number: u64, like: &Rollout, release: ReleaseId, at: u64) -> bool {
        let state = self.state();
        state.rollouts.range(..number).any(|(_, it)| {
            // It ends once it has moved it.
            let moved = match (&it.ended, it.machine.as_ref().map(Machine::phase)) {
                (Some((state, ended)), _) => *state == RolloutState::Succeeded && *ended >= at,
                (None, phase) => matches!(phase, Some(Phase::Over(RolloutState::Succeeded))),
            };
            moved
                && it.moves_current
                && it.release == release
                && (&it.space, &it.app) == (&like.space, &like.app)
        })
    }

    /// Returns, of the rollouts of a space after a number, the first `most` that are wanted, in rising order.
    pub fn page(
        &self,
        space: &SpaceName,
        after: u64,
        most: usize,
        is_wanted: impl Fn(&Rollout) -> bool,
    ) -> Vec<RolloutStatus> {
        let state = self.state();
        let later = state.rollouts.range(after.saturating_add(1)..);
        let wanted = later.filter(|(_, rollout)| rollout.space == *space && is_wanted(rollout));
        wanted.take(most).map(|(number, rollout)| self.status(&state, *number, rollout)).collect()
    }

    /// Returns what receives each further change of any rollout.
    pub fn watch(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Returns the release of a group of an application. Blocks for the ledger at a space's first use.
    ///
    /// # Errors
    /// The ledger's.
    pub fn release(
        &self,
        space: &SpaceName,
        app: &AppName,
        group: &DestinationName,
    ) -> ledger::Result<Option<GroupRelease>> {
        self.read_groups(space)?;
        Ok(self.state().groups.get(&(space.clone(), app.clone(), group.clone())).copied())
    }

    /// Returns the releases of a space that rollouts under way and the groups that are configured need. Blocks as
    /// [`Book::release`].
    ///
    /// # Errors
    /// The ledger's.
    pub fn releases(
        &self,
        space: &SpaceName,
        is_configured: impl Fn(&DestinationName) -> bool,
    ) -> ledger::Result<HashSet<ReleaseId>> {
        self.read_groups(space)?;
        let state = self.state();
        let ours = state.groups.iter().filter(|((of, _, group), _)| of == space && is_configured(group));
        let mut releases: HashSet<ReleaseId> = ours.map(|(_, group)| group.release).collect();
        for rollout in state.rollouts.values() {
            if rollout.ended.is_none() && rollout.space == *space {
                releases.extend(rollout.needed());
            }
        }
        Ok(releases)
    }

    /// Reads the releases of all groups of a space, once.
    fn read_groups(&self, space: &SpaceName) -> ledger::Result<()> {
        if self.state().read.contains(space) {
            return Ok(());
        }
        let mut found = Vec::new();
        for app in self.ledger.apps(space)? {
            let table = Table::Groups { space: space.clone(), app };
            for key in self.ledger.list(&table)? {
                let value = self.ledger.read(&key)?.unwrap_or_default();
                let place = self.ledger.describe(&key);
                let Key::Group { space, app, group } = key else { continue };
                let Some(release) = GroupRelease::decode(&value) else {
                    tracing::error!(place, "the release of a group is damaged or of a newer version");
                    continue;
                };
                found.push(((space, app, group), release));
            }
        }
        let mut state = self.state();
        for (place, release) in found {
            // What was written meanwhile is newer.
            state.groups.entry(place).or_insert(release);
        }
        state.read.insert(space.clone());
        Ok(())
    }

    fn set(&self, number: u64, rollout: Rollout) {
        let rollout = Arc::new(rollout);
        let mut state = self.state();
        state.rollouts.insert(number, Arc::clone(&rollout));
        if rollout.ended.is_some() {
            state.noted.remove(&number);
        }
        let status = self.status(&state, number, &rollout);
        // Nobody may watch.
        drop(self.changes.send(Arc::new((rollout.space.clone(), status))));
    }

    fn status(&self, state: &State, number: u64, rollout: &Rollout) -> RolloutStatus {
        let is_before = |other: &Rollout| {
            other.ended.is_none() && other.machine.is_some() && other.is_of_same_group(rollout)
        };
        let waits = rollout.ended.is_none() && rollout.machine.is_none();
        let of_group = || state.rollouts.range(..number).find(|(_, other)| is_before(other));
        let noted = state.noted.get(&number).cloned().unwrap_or_default();
        let behind = || of_group().map(|(number, _)| *number).or(noted.behind);
        let behind = if waits { behind().map(|number| self.id(number)) } else { None };
        rollout.status(self.id(number), behind, &noted)
    }

    /// Forgets rollouts that ended long ago. The highest number stays, so that the next start gives it to no other.
    fn forget(&self) {
        let mut state = self.state();
        let mut last = HashSet::new();
        let ended = state.rollouts.iter().rev().filter(|(_, rollout)| rollout.ended.is_some()).enumerate();
        let gone: Vec<u64> = ended
            .filter(|(rank, (_, rollout))| {
                let place = (rollout.space.clone(), rollout.app.clone(), rollout.group.clone());
                let is_last = last.insert(place);
                *rank >= RECENT && !(is_last && *rank < ENDED_MAX)
            })
            .map(|(_, (number, _))| *number)
            .collect();
        for number in &gone {
            state.rollouts.remove(number);
        }
        drop(state);
        let changes: Vec<Change> =
            gone.iter().map(|number| Change::Remove { key: Key::Rollout { number: *number } }).collect();
        if let Err(error) = self.ledger.apply(&changes) {
            tracing::warn!(%error, "rollouts that ended long ago could not be removed");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unpoisoned()
    }
}
