//! What the ledger has of targets: read once for each application, written before anybody hears of an assignment.

use super::dirty::SpaceApp;
use super::entry::Entry;
use super::registry::{App, Targets, app_mut};
use crate::ledger::{self, Change, Key, Table};
use format::target::{Assignment, StoredTarget};
use ground::ids::{AppName, SpaceName, TargetName};
use ground::poison::Unpoisoned as _;

/// Values in one transaction.
pub(super) const WRITTEN_TOGETHER: usize = 64;

impl Targets {
    /// Reads an application's targets, once. Blocks.
    ///
    /// # Errors
    /// The ledger's.
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

    /// Tells targets what they want from now on, or that no group says so any more, durably; wakes their streams, and no others. Blocks.
    ///
    /// # Errors
    /// The ledger's: the first of the assignments may have been made, and making them again changes nothing.
    pub fn assign(
        &self,
        space: &SpaceName,
        app: &AppName,
        assignments: &[(TargetName, Option<Assignment>)],
    ) -> ledger::Result<()> {
        self.load(space, app)?;
        assignments.chunks(WRITTEN_TOGETHER).try_for_each(|some| {
            let _writing = self.writing.lock().unpoisoned();
            self.put(space, app, some)
        })
    }

    /// Writes down some assignments. `writing` is held.
    fn put(
        &self,
        space: &SpaceName,
        app: &AppName,
        some: &[(TargetName, Option<Assignment>)],
    ) -> ledger::Result<()> {
        let change = |(target, assigned): &(TargetName, Option<Assignment>)| {
            let known =
                app_mut(&mut self.apps(), space, app).targets.get(target).map(|entry| entry.known.clone());
            let known = StoredTarget { assigned: assigned.clone(), ..known.unwrap_or_default() };
            Change::Put { key: key(space, app, target), value: known.encode() }
        };
        self.ledger.apply(&some.iter().map(change).collect::<Vec<_>>())?;
        let mut apps = self.apps();
        for (target, assigned) in some {
            let entry = app_mut(&mut apps, space, app).targets.entry(target.clone()).or_default();
            (entry.known.assigned, entry.is_kept) = (assigned.clone(), true);
            if let Some(stream) = &entry.stream {
                stream.assigned.notify_one();
            }
            self.tell(space, entry.status(target, app));
        }
        Ok(())
    }

    /// Gives a target without an assignment what its group has. Reads its application's targets. Blocks.
    ///
    /// # Errors
    /// The ledger's.
    pub(super) fn join(&self, space: &SpaceName, app: &AppName, target: &TargetName) -> ledger::Result<()> {
        self.load(space, app)?;
        let mut given = self.assigned(space, app, target);
        if given.is_some() {
            return Ok(());
        }
        // The group is asked again after each time: a rollout that ended meanwhile may not have seen the target.
        while let Some(of_group) = (self.unassigned)(space, app, target)? {
            let _writing = self.writing.lock().unpoisoned();
            // Nor is what a rollout assigned meanwhile taken back.
            if given.as_ref() == Some(&of_group) || self.assigned(space, app, target) != given {
                break;
            }
            self.put(space, app, &[(target.clone(), Some(of_group.clone()))])?;
            given = Some(of_group);
        }
        Ok(())
    }

    /// Removes a target of an application. Returns false if there is none, or its stream is there. Blocks.
    ///
    /// # Errors
    /// The ledger's: the target may be there or not after the next start.
    pub(super) fn remove(
        &self,
        space: &SpaceName,
        app: &AppName,
        target: &TargetName,
    ) -> ledger::Result<bool> {
        self.load(space, app)?;
        let _writing = self.writing.lock().unpoisoned();
        let is_gone = |entry: &Entry| entry.stream.is_none();
        if !app_mut(&mut self.apps(), space, app).targets.get(target).is_some_and(is_gone) {
            return Ok(false);
        }
        self.ledger.apply(&[Change::Remove { key: key(space, app, target) }])?;
        let mut apps = self.apps();
        let targets = &mut app_mut(&mut apps, space, app).targets;
        // It may have come back meanwhile: then it stays, and is written again.
        let is_back = targets.get(target).is_some_and(|entry| entry.stream.is_some());
        if is_back {
            self.dirty.add((space.clone(), app.clone()), target.clone());
        } else {
            targets.remove(target);
        }
        Ok(!is_back)
    }

    /// Writes what is known of some targets, at most [`WRITTEN_TOGETHER`], in one transaction. Blocks.
    ///
    /// # Errors
    /// The ledger's: none is written.
    pub(super) fn write(&self, some: &[(SpaceApp, TargetName)]) -> ledger::Result<()> {
        let _writing = self.writing.lock().unpoisoned();
        let change = |(place, target): &(SpaceApp, TargetName)| {
            let mut apps = self.apps();
            let entry = apps.get_mut(place)?.targets.get_mut(target).filter(|entry| entry.is_kept)?;
            entry.seen_written = entry.known.seen;
            Some(Change::Put { key: key(&place.0, &place.1, target), value: entry.known.encode() })
        };
        self.ledger.apply(&some.iter().filter_map(change).collect::<Vec<_>>())
    }
}

fn key(space: &SpaceName, app: &AppName, target: &TargetName) -> Key {
    Key::Target { space: space.clone(), app: app.clone(), target: target.clone() }
}
