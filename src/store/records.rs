//! The records of a space's releases: one small value in the ledger for each push, never changed (FORMAT 4).
//!
//! Memory holds the often needed facts ([`Pushed`]) and each application's latest record: some 250 B for each push. No
//! push, and no question about one release, reads all records.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(any(test, feature = "testing"))]
use super::current_entry::CurrentAfter;
use super::current_entry::{Entry, Intent};
use super::history::{self, Pushed};
use super::known::{App, Known};
use super::push_check::check_push;
use super::{Error, Result};
use crate::ledger::{self, Change, Key, Ledger, Table};
use format::record::{AppSummary, Record};
use ground::ids::{AppName, Label, ReleaseId, SpaceName};
use ground::poison::Unpoisoned as _;

/// The interval at which the last use of a release is noted.
const TOUCH_EVERY: Duration = Duration::from_secs(3600);

/// The result of a lookup of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The application's latest release is this one.
    Latest(Record),
    /// Some release of the space is this one.
    Elsewhere(Record),
}

/// All records of a space.
#[derive(Debug)]
pub struct Records {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) space: SpaceName,
    /// The folder of the applications' histories, this process's cache of the ledger.
    histories: PathBuf,
    /// Damaged records that no admin has given up yet.
    pub(super) unreadable: Mutex<Vec<Key>>,
    memory: RwLock<Known>,
    /// See [`Records::turn`].
    turn: Mutex<()>,
    /// Held while the manifests of a release are read and changed.
    manifests: Mutex<()>,
}

impl Records {
    /// Reads the facts of all records of a space, from the histories below `histories` where these have them. Leaves out
    /// damaged records that it reads, and logs them.
    ///
    /// # Errors
    /// The ledger cannot be read, or a record is of a newer whit.
    pub fn open(ledger: Arc<dyn Ledger>, space: SpaceName, histories: PathBuf) -> Result<Self> {
        let (unreadable, memory) = (Mutex::default(), RwLock::default());
        let (turn, manifests) = (Mutex::default(), Mutex::default());
        let records = Self { ledger, space, histories, unreadable, memory, turn, manifests };
        records.ledger.recover(&Table::Manifests { space: records.space.clone() })?;
        let mut memory = Known::default();
        let apps = records.ledger.apps(&records.space)?;
        for app in &apps {
            let (pushed, last_number) = records.read_app(app)?;
            let number = memory.app(app).number;
            for pushed in &pushed {
                memory.count(number, pushed);
            }
            let known = memory.app(app);
            (known.pushed, known.last_number) = (pushed, last_number);
            records.open_log(&mut memory, app)?;
            records.open_labels(&mut memory, app)?;
        }
        for app in &apps {
            records.find_latest(&mut memory, app)?;
        }
        *records.write() = memory;
        Ok(records)
    }

    /// Returns the space.
    pub fn space(&self) -> &SpaceName {
        &self.space
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.memory.read().unpoisoned()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.memory.write().unpoisoned()
    }

    /// Reads an application's latest record, and forgets those that are damaged.
    pub(super) fn find_latest(&self, memory: &mut Known, app: &AppName) -> Result<()> {
        while let Some(last) = memory.apps.get(app).and_then(|app| app.pushed.last()).cloned() {
            let key = self.key(app, last.sequence);
            let latest = match self.read_value(&key)? {
                Some(record) => Some(record),
                None => self.mend(app, &last)?,
            };
            let is_there = latest.is_some();
            if let Some(known) = memory.apps.get_mut(app) {
                known.latest = latest;
            }
            if is_there {
                return Ok(());
            }
            self.set_aside(&key)?;
            memory.forget(app, |pushed| pushed.sequence == last.sequence);
        }
        if let Some(known) = memory.apps.get_mut(app) {
            known.latest = None;
        }
        Ok(())
    }

    /// Reads a record, with the labels that it shows now; one that is damaged and that no history knows is set aside and forgotten.
    pub(super) fn read_record(&self, app: &AppName, sequence: u64) -> Result<Option<Record>> {
        let key = self.key(app, sequence);
        if let Some(record) = self.read_value(&key)? {
            return Ok(Some(labelled(&self.read(), record)));
        }
        let mut memory = self.write();
        let Some(pushed) = memory.pushed(app).iter().find(|pushed| pushed.sequence == sequence).cloned()
        else {
            // The record was removed since.
            return Ok(None);
        };
        if let Some(mended) = self.mend(app, &pushed)? {
            return Ok(Some(labelled(&memory, mended)));
        }
        self.set_aside(&key)?;
        memory.forget(app, |pushed| pushed.sequence == sequence);
        self.find_latest(&mut memory, app)?;
        Ok(None)
    }

    /// Waits for a turn. Hold it from planning a record's deliveries until they are queued: then deliveries are made in the
    /// order of their records.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unpoisoned()
    }

    /// Waits for a turn to change the manifests of a release.
    pub(super) fn turn_of_manifests(&self) -> MutexGuard<'_, ()> {
        self.manifests.lock().unpoisoned()
    }

    /// Writes the record of a push, durably, and gives it the next number. The release becomes current, and labels move to it.
    ///
    /// # Errors
    /// The ledger's.
    #[cfg(any(test, feature = "testing"))]
    pub fn add(&self, record: Record) -> Result<Record> {
        self.add_with(record, Intent { token: "", current: CurrentAfter::Pushed, moves: true }, Vec::new)
    }

    /// Writes the record of a push and gives it the next number. In the same transaction come the entry that makes the release
    /// current, before the record, and after it the changes that `more` returns; where one of their keys exists already, `more`
    /// is asked for others.
    ///
    /// # Errors
    /// As [`Records::check_push`]; the ledger's.
    pub fn add_with(
        &self,
        mut record: Record,
        intent: Intent<'_>,
        mut more: impl FnMut() -> Vec<Change>,
    ) -> Result<Record> {
        let mut memory = self.write();
        loop {
            check_push(&memory, &record.app, &record.release, &record.labels, intent)?;
            record.sequence = memory.last_number(&record.app) + 1;
            let key = self.key(&record.app, record.sequence);
            let moved = self.moved_by_push(&memory, &record, intent);
            let mut changes: Vec<Change> = moved.iter().map(Entry::change).collect();
            changes.push(Change::Create { key: key.clone(), value: Self::encode(&record) });
            changes.extend(more());
            // Last: until the record is there, the mark keeps its chunks.
            changes.extend(self.uncached(&record.app, &record.release));
            match self.ledger.apply(&changes) {
                Ok(()) => {
                    self.remember(&mut memory, &record);
                    if let Some(moved) = moved {
                        self.enter(&mut memory, &record.app, moved);
                    }
                    return Ok(labelled(&memory, record));
                }
                // Another proxy recorded a push.
                Err(ledger::Error::Exists(taken)) if taken == key => {
                    self.catch_up(&mut memory, &key)?;
                    self.read_log(&mut memory, &record.app)?;
                }
                // Another proxy moved the current release.
                Err(ledger::Error::Exists(Key::Current { .. })) => self.read_log(&mut memory, &record.app)?,
                Err(ledger::Error::Exists(_)) => {}
                Err(error) => {
                    // The record may be there all the same: then its chunks stay, and its number is taken.
                    if self.ledger.has(&key).unwrap_or(false) {
                        self.catch_up(&mut memory, &key)?;
                        self.read_log(&mut memory, &record.app)?;
                    } else if let Some(moved) = moved {
                        self.take_back(&moved);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Takes in a record that is in the ledger and not in memory.
    fn catch_up(&self, memory: &mut Known, key: &Key) -> Result<()> {
        let Key::Record { app, number, .. } = key else { return Ok(()) };
        if let Some(record) = self.read_value(key)? {
            self.remember(memory, &record);
        }
        memory.app(app).last_number = *number;
        Ok(())
    }

    /// Adds an application's latest record to memory and to the history.
    fn remember(&self, memory: &mut Known, record: &Record) {
        if let Err(error) = history::append(&self.history(&record.app), record) {
            tracing::debug!(%error, "a push is missing in its application's history; the next start reads its record");
        }
        let pushed = Pushed::from(record);
        let app = memory.app(&record.app);
        app.last_number = record.sequence;
        app.latest = Some(record.clone());
        app.pushed.push(pushed.clone());
        let number = app.number;
        memory.count(number, &pushed);
    }

    /// Returns a record of the release in an application that may be seen, and whether it is the latest of `app`.
    pub fn recognize(
        &self,
        app: &AppName,
        release: &ReleaseId,
        may_see: impl Fn(&AppName) -> bool,
    ) -> Option<Found> {
        let memory = self.read();
        if let Some(latest) = memory.latest(app).filter(|last| last.release == *release) {
            return Some(Found::Latest(labelled(&memory, latest.clone())));
        }
        let (name, sequence) = memory.seen(release, may_see)?;
        let name = name.clone();
        drop(memory);
        let record = self.read_record(&name, sequence).ok().flatten();
        record.filter(|record| record.release == *release).map(Found::Elsewhere)
    }

    /// Returns whether an application that may be seen has the release.
    pub fn has(&self, release: &ReleaseId, may_see: impl Fn(&AppName) -> bool) -> bool {
        self.read().seen(release, may_see).is_some()
    }

    /// Returns the application's latest record.
    pub fn latest(&self, app: &AppName) -> Option<Record> {
        let memory = self.read();
        memory.latest(app).cloned().map(|latest| labelled(&memory, latest))
    }

    /// Returns the application's latest distinct releases, newest first, at most `most`.
    pub fn recent(&self, app: &AppName, most: usize) -> Vec<ReleaseId> {
        self.read().apps.get(app).map(|app| app.recent(most)).unwrap_or_default()
    }

    /// Returns the application's pushes, oldest first, with the labels that they show now.
    ///
    /// # Errors
    /// There is no such application.
    pub fn pushed(&self, app: &AppName) -> Result<Vec<Pushed>> {
        let memory = self.read();
        let pushed = memory.apps.get(app).map(|app| app.labels.applied(&app.pushed)).unwrap_or_default();
        if pushed.is_empty() { Err(Error::NoApp(app.clone())) } else { Ok(pushed) }
    }

    /// Returns the application's latest push of a release, with the labels that it shows now; none if it has none.
    pub fn pushed_last(&self, app: &AppName, release: &ReleaseId) -> Option<Pushed> {
        let memory = self.read();
        let app = memory.apps.get(app)?;
        let pushed = app.pushed.iter().rev().find(|pushed| pushed.release == *release)?;
        let labels = app.labels.of(&pushed.labels, pushed, &app.pushed).into();
        Some(Pushed { labels, ..pushed.clone() })
    }

    /// Returns when the application's first push of a release was made, of those that are stored; none if it has none.
    pub fn first_created(&self, app: &AppName, release: &ReleaseId) -> Option<u64> {
        let memory = self.read();
        let mut pushed = memory.apps.get(app)?.pushed.iter();
        pushed.find(|pushed| pushed.release == *release).map(|pushed| pushed.created)
    }

    /// Returns the labels that name a release, those of its latest push first.
    pub fn labels(&self, app: &AppName, release: &ReleaseId) -> Vec<Label> {
        let memory = self.read();
        let Some(app) = memory.apps.get(app) else { return Vec::new() };
        let mut labels: Vec<Label> = Vec::new();
        for pushed in app.pushed.iter().rev().filter(|pushed| pushed.release == *release) {
            for label in app.labels.of(&pushed.labels, pushed, &app.pushed) {
                let is_new = !labels.contains(&label);
                if is_new && app.labels.release(&label, &app.pushed) == Some(*release) {
                    labels.push(label);
                }
            }
        }
        labels
    }

    /// Returns all of an application's records, oldest first. Reads each from the ledger.
    ///
    /// # Errors
    /// There is no such application, or a record cannot be read.
    pub fn of(&self, app: &AppName) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for pushed in self.pushed(app)? {
            records.extend(self.read_record(app, pushed.sequence)?);
        }
        Ok(records)
    }

    /// Returns the application's records before the number `before`, newest first, at most `most`.
    ///
    /// # Errors
    /// There is no such application, or a record cannot be read.
    pub fn before(&self, app: &AppName, before: u64, most: usize) -> Result<Vec<Record>> {
        let numbers: Vec<u64> = {
            let memory = self.read();
            let pushed = memory.pushed(app);
            if pushed.is_empty() {
                return Err(Error::NoApp(app.clone()));
            }
            let end = pushed.partition_point(|pushed| pushed.sequence < before);
            pushed[..end].iter().rev().map(|pushed| pushed.sequence).collect()
        };
        let mut records = Vec::new();
        for number in numbers {
            records.extend(self.read_record(app, number)?);
            if records.len() == most {
                break;
            }
        }
        Ok(records)
    }

    /// Keeps a release from being removed, by anybody, until it is unpinned.
    ///
    /// # Errors
    /// The ledger's.
    pub fn pin(&self, app: &AppName, release: &ReleaseId) -> Result<()> {
        Ok(self.ledger.apply(&[Change::Put { key: self.pin_key(app, release), value: Vec::new() }])?)
    }

    /// Ends a pin; that there was none is no error.
    ///
    /// # Errors
    /// The ledger's.
    pub fn unpin(&self, app: &AppName, release: &ReleaseId) -> Result<()> {
        Ok(self.ledger.apply(&[Change::Remove { key: self.pin_key(app, release) }])?)
    }

    /// Returns whether the release is pinned; true where that cannot be known.
    pub fn is_pinned(&self, app: &AppName, release: &ReleaseId) -> bool {
        self.ledger.has(&self.pin_key(app, release)).unwrap_or(true)
    }

    /// Notes that the release was used now, at its latest record. At most once an hour, as nothing needs more
    /// precision.
    pub fn touch(&self, app: &AppName, release: &ReleaseId) {
        let sequence = {
            let memory = self.read();
            let mut latest_first = memory.pushed(app).iter().rev();
            latest_first.find(|pushed| pushed.release == *release).map(|pushed| pushed.sequence)
        };
        let Some(sequence) = sequence else { return };
        let key = self.key(app, sequence);
        let touched = self.ledger.touched(&key).ok().flatten();
        let since = touched.and_then(|touched| SystemTime::now().duration_since(touched).ok());
        if since.is_some_and(|since| since < TOUCH_EVERY) {
            return;
        }
        if let Err(error) = self.ledger.touch(&key) {
            tracing::debug!(%error, "the use of a release was not noted");
        }
    }

    /// Returns when the release of a push was last pushed, pulled or delivered: seconds since 1970.
    pub fn last_used(&self, app: &AppName, pushed: &Pushed) -> u64 {
        let touched = self.ledger.touched(&self.key(app, pushed.sequence)).ok().flatten();
        let since = touched.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(pushed.created, |since| since.as_secs().max(pushed.created))
    }

    pub(super) fn key(&self, app: &AppName, number: u64) -> Key {
        Key::Record { space: self.space.clone(), app: app.clone(), number }
    }

    fn pin_key(&self, app: &AppName, release: &ReleaseId) -> Key {
        Key::Pin { space: self.space.clone(), app: app.clone(), release: *release }
    }

    /// Returns the folder of an application's history.
    pub(super) fn history(&self, app: &AppName) -> PathBuf {
        self.histories.join(app.as_str())
    }

    /// Returns all releases that have a record.
    pub fn releases(&self) -> HashSet<ReleaseId> {
        self.read().releases.keys().copied().collect()
    }

    /// Returns all applications, by name.
    pub fn apps(&self) -> Vec<AppSummary> {
        let memory = self.read();
        let summary = |(name, app): (&AppName, &App)| {
            let latest = labelled(&memory, app.latest.clone()?);
            Some(AppSummary { app: name.clone(), releases: app.pushed.len() as u64, latest })
        };
        memory.apps.iter().filter_map(summary).collect()
    }
}

/// Returns a record with the labels that it shows now.
fn labelled(memory: &Known, record: Record) -> Record {
    match memory.apps.get(&record.app) {
        Some(app) if !app.labels.is_empty() => {
            let labels = app.labels.of(&record.labels, &Pushed::from(&record), &app.pushed);
            Record { labels, ..record }
        }
        _ => record,
    }
}
