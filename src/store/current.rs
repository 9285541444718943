//! The current release of each application, and the log of what moved it (FORMAT 4.1).
//!
//! The log is append-only. An entry that comes with a record is written before it, and counts only if the record is there:
//! so a crash leaves both or neither, whatever the ledger. All moves of an application are made under the lock of the
//! records, so that none is lost.

use super::current_entry::{CurrentAfter, Entry, Intent, Together};
use super::head::{Head, Mover};
use super::known::{App, Known};
use super::push_check::check_push;
use super::records::Records;
use super::{Error, Result};
use crate::ledger::{self, Change, Key, Table};
use format::current::{CurrentEntry, ENTRIES_MAX, MovedBy, Standing};
use format::record::Record;
use format::value::NoValue;
use ground::ids::{AppName, Label, ReleaseId};

/// Entries that are removed from an application's log at a time.
const PRUNED_TOGETHER: u64 = 100;

impl Records {
    /// Returns where the releases of an application stand.
    pub fn standing(&self, app: &AppName) -> Standing {
        let memory = self.read();
        let Some(known) = memory.apps.get(app) else { return Standing::default() };
        let bad = known.head.as_ref().map(|head| head.bad.clone()).unwrap_or_default();
        Standing { current: known.current(), previous: known.previous(), bad }
    }

    /// Returns the entries of an application's log before the number `before`, newest first, at most `most`. Reads each
    /// from the ledger.
    ///
    /// # Errors
    /// The ledger's.
    pub fn log(&self, app: &AppName, before: u64, most: usize) -> Result<Vec<(u64, CurrentEntry)>> {
        let mut entries = Vec::new();
        for key in self.ledger.list(&self.log_table(app))?.into_iter().rev() {
            let Key::Current { number, .. } = key else { continue };
            if entries.len() == most {
                break;
            }
            if number >= before {
                continue;
            }
            let entry = self.read_entry(&key)?;
            let memory = self.read();
            let counts = |entry: &CurrentEntry| memory.apps.get(app).is_some_and(|app| counts(entry, app));
            entries.extend(entry.filter(counts).map(|entry| (number, entry)));
        }
        Ok(entries)
    }

    /// Checks that a push of the release may make it current, and may give it the labels.
    ///
    /// # Errors
    /// [`Error::RolledBack`], [`Error::LabelTaken`].
    pub fn check_push(
        &self,
        app: &AppName,
        release: &ReleaseId,
        labels: &[Label],
        intent: Intent<'_>,
    ) -> Result<()> {
        check_push(&self.read(), app, release, labels, intent)
    }

    /// Returns the entry that a push comes with; none where the current release stays.
    pub(super) fn moved_by_push(&self, memory: &Known, record: &Record, intent: Intent<'_>) -> Option<Entry> {
        let known = memory.apps.get(&record.app);
        let current = known.and_then(App::current);
        let entry = match (known, current) {
            (Some(known), Some(current)) if intent.current != CurrentAfter::Pushed => {
                // Without a log the latest release would be current, which is about to be this one.
                let latest = known.latest.as_ref().filter(|_| known.head.is_none())?;
                let mover = Mover { user: &latest.user, token: "", time: latest.created, because: None };
                let head = Head { release: None, ..known.head().into_owned() };
                head.moved(Some(current), MovedBy::Push, None, &mover)
            }
            // A push that leaves the current release does not say that there is one.
            (Some(known), None) if intent.current != CurrentAfter::Pushed && known.awaits_current() => {
                return None;
            }
            (_, current) => {
                let head = known.map(head_of).unwrap_or_default();
                if current == Some(record.release) && !head.is_bad(&record.release) {
                    return None;
                }
                let mover =
                    Mover { user: &record.user, token: intent.token, time: record.created, because: None };
                let release = Some(record.release).filter(|_| intent.current != CurrentAfter::Awaited);
                head.moved(release, MovedBy::Push, Some(record.sequence), &mover)
            }
        };
        Some(Entry { key: self.next_entry(known, &record.app), entry })
    }

    /// Makes a stored release current. In the same transaction, after the entry, come the changes that `more` returns; where
    /// one of their keys exists already, `more` is asked for others. Returns the entry and its number; none where the release
    /// is current already.
    ///
    /// # Errors
    /// [`Error::NoReleaseOf`]; the ledger's.
    pub fn promote(
        &self,
        app: &AppName,
        release: &ReleaseId,
        mover: &Mover<'_>,
        mut more: impl FnMut() -> Vec<Change>,
    ) -> Result<Option<(u64, CurrentEntry)>> {
        self.move_to(app, release, MovedBy::Promote, mover, |_| Together {
            before: Vec::new(),
            after: more(),
        })
    }

    /// Makes `to` current instead of `from`, which is bad from now on. Otherwise as [`Records::promote`].
    ///
    /// # Errors
    /// [`Error::CurrentMoved`] where another release than `from` is current; as [`Records::promote`].
    pub fn roll_back(
        &self,
        app: &AppName,
        (from, to): (&ReleaseId, &ReleaseId),
        mover: &Mover<'_>,
        mut more: impl FnMut(u64, &CurrentEntry) -> Together,
    ) -> Result<(u64, CurrentEntry)> {
        let moved = || Error::CurrentMoved(app.clone());
        if self.standing(app).current != Some(*from) {
            return Err(moved());
        }
        let together =
            |entry: Option<&Entry>| entry.map(|entry| more(entry.number(), &entry.entry)).unwrap_or_default();
        self.move_to(app, to, MovedBy::Rollback, mover, together)?.ok_or_else(moved)
    }

    fn move_to(
        &self,
        app: &AppName,
        release: &ReleaseId,
        by: MovedBy,
        mover: &Mover<'_>,
        mut more: impl FnMut(Option<&Entry>) -> Together,
    ) -> Result<Option<(u64, CurrentEntry)>> {
        let mut memory = self.write();
        loop {
            let known = memory.apps.get(app).filter(|known| known.has(release));
            let known = known.ok_or_else(|| Error::NoReleaseOf { app: app.clone(), release: *release })?;
            let head = head_of(known);
            let moves = head.release != Some(*release) || head.is_bad(release);
            let entry = moves.then(|| Entry {
                key: self.next_entry(Some(known), app),
                entry: head.moved(Some(*release), by, None, mover),
            });
            let Together { before: mut changes, after } = more(entry.as_ref());
            changes.extend(entry.iter().map(Entry::change));
            changes.extend(after);
            match self.ledger.apply(&changes) {
                Ok(()) => {
                    let Some(entry) = entry else { return Ok(None) };
                    let moved = entry.entry.clone();
                    let number = self.enter(&mut memory, app, entry);
                    return Ok(Some((number, moved)));
                }
                // Another proxy moved the current release.
                Err(ledger::Error::Exists(Key::Current { .. })) => self.read_log(&mut memory, app)?,
                Err(ledger::Error::Exists(_)) => {}
                Err(error) => {
                    self.read_log(&mut memory, app)?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Notes an entry that was written, and removes the oldest from time to time. Returns its number.
    pub(super) fn enter(&self, memory: &mut Known, app: &AppName, entry: Entry) -> u64 {
        let Key::Current { number, .. } = entry.key else { return 0 };
        let known = memory.app(app);
        (known.last_entry, known.head) = (number, Some(entry.entry.into()));
        if number > ENTRIES_MAX && number.is_multiple_of(PRUNED_TOGETHER) {
            let last = number - ENTRIES_MAX;
            let old = (last.saturating_sub(PRUNED_TOGETHER) + 1..=last)
                .map(|number| Change::Remove { key: self.entry_key(app, number) });
            if let Err(error) = self.ledger.apply(&old.collect::<Vec<_>>()) {
                tracing::debug!(%error, "old entries of a log were not removed");
            }
        }
        number
    }

    /// Removes an entry whose record was not written; one that stays does not count.
    pub(super) fn take_back(&self, entry: &Entry) {
        if let Err(error) = self.ledger.apply(&[Change::Remove { key: entry.key.clone() }]) {
            tracing::debug!(%error, "an entry of a log stays without its record");
        }
    }

    /// Reads an application's log when its records are opened. Removes entries that a crash left without their records.
    pub(super) fn open_log(&self, memory: &mut Known, app: &AppName) -> Result<()> {
        self.ledger.recover(&self.log_table(app))?;
        for entry in self.read_newest(memory, app)? {
            self.take_back(&entry);
        }
        Ok(())
    }

    /// Reads the newest entry of an application's log that counts.
    pub(super) fn read_log(&self, memory: &mut Known, app: &AppName) -> Result<()> {
        self.read_newest(memory, app).map(drop)
    }

    /// Reads the newest entry of an application's log that counts. Returns newer ones that do not.
    fn read_newest(&self, memory: &mut Known, app: &AppName) -> Result<Vec<Entry>> {
        let keys = self.ledger.list(&self.log_table(app))?;
        let known = memory.app(app);
        let mut void = Vec::new();
        if let Some(Key::Current { number, .. }) = keys.last() {
            known.last_entry = *number;
        }
        for key in keys.into_iter().rev() {
            let Some(entry) = self.read_entry(&key)? else { continue };
            if counts(&entry, known) {
                known.head = Some(entry.into());
                break;
            }
            void.push(Entry { key, entry });
        }
        Ok(void)
    }

    /// Reads an entry; none where it is damaged or gone.
    fn read_entry(&self, key: &Key) -> Result<Option<CurrentEntry>> {
        let Some(bytes) = self.ledger.read(key)? else { return Ok(None) };
        match CurrentEntry::decode(&bytes) {
            Ok(entry) => Ok(Some(entry)),
            Err(NoValue::Damaged) => {
                let place = self.ledger.describe(key);
                tracing::error!(
                    place,
                    "an entry of the log of current releases is damaged; the one before it counts"
                );
                Ok(None)
            }
            Err(NoValue::Version(version)) => {
                Err(Error::RecordVersion { place: self.ledger.describe(key), version })
            }
        }
    }

    fn log_table(&self, app: &AppName) -> Table {
        Table::Current { space: self.space.clone(), app: app.clone() }
    }

    fn entry_key(&self, app: &AppName, number: u64) -> Key {
        Key::Current { space: self.space.clone(), app: app.clone(), number }
    }

    fn next_entry(&self, known: Option<&App>, app: &AppName) -> Key {
        self.entry_key(app, known.map_or(0, |known| known.last_entry) + 1)
    }
}

/// Returns the head, with the release that is current in fact.
fn head_of(known: &App) -> Head {
    Head { release: known.current(), ..known.head().into_owned() }
}

/// Returns whether an entry counts: the record that was to be written with it was written.
fn counts(entry: &CurrentEntry, app: &App) -> bool {
    entry.record.is_none_or(|number| {
        let mut there = app.pushed.iter().rev().filter(|pushed| pushed.sequence == number);
        number <= app.last_number
            && entry.release.is_none_or(|release| there.next().is_none_or(|pushed| pushed.release == release))
    })
}
