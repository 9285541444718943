//! The records of a space's releases: one small immutable file for each push (FORMAT 4).
//!
//! `releases/APP/0000000001.record`: a version byte, the record in MessagePack, and the first 16 bytes
//! of the BLAKE3 of both. Memory holds the often needed facts ([`Pushed`]) and each application's latest record: some 250 B
//! for each push. No push, and no question about one release, reads all records from disk.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::history::{self, Pushed};
use super::known::{App, Known};
use super::{Error, Result};
use disk::files::{self, OnPath};
use format::record::{AppSummary, Record};
use ground::ids::{AppName, ReleaseId, Selector};
use ground::poison::Unpoisoned as _;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 16;
/// A record with all labels it may have is far smaller.
pub(super) const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// How often the last use of a release is noted.
const TOUCH_EVERY: Duration = Duration::from_secs(3600);

/// What a lookup of a release found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The application's latest release is this one.
    Latest(Record),
    /// Some release of the space is this one.
    Elsewhere(Record),
}

impl Found {
    /// The record itself.
    pub fn record(self) -> Record {
        match self {
            Self::Latest(record) | Self::Elsewhere(record) => record,
        }
    }
}

/// All records of a space.
#[derive(Debug)]
pub struct Records {
    pub(super) folder: PathBuf,
    /// Damaged records that were not given up yet.
    pub(super) unreadable: Mutex<Vec<PathBuf>>,
    held: RwLock<Known>,
}

impl Records {
    /// The bytes of a record's file.
    pub fn encode(record: &Record) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, record).expect("a Vec takes every write");
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    /// Reads the bytes of a record's file; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Record`] where they are damaged, [`Error::RecordVersion`] where a newer whit wrote them.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Record> {
        let damaged = || Error::Record { path: path.to_owned() };
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or_else(damaged)?;
        if blake3::hash(body).as_bytes()[..CHECK_BYTES] != check[..] {
            return Err(damaged());
        }
        match body.split_first() {
            Some((&VERSION, record)) => rmp_serde::from_slice(record).map_err(|_| damaged()),
            Some((&version, _)) => Err(Error::RecordVersion { path: path.to_owned(), version }),
            None => Err(damaged()),
        }
    }

    /// Reads the facts of all records below `folder`, from the applications' histories where these have them. Leaves out
    /// damaged records that it reads, and logs them.
    ///
    /// # Errors
    /// The folder cannot be read, or a record is of a newer whit.
    pub fn open(folder: &Path) -> Result<Self> {
        files::create_folder(folder)?;
        let records =
            Self { folder: folder.to_owned(), unreadable: Mutex::default(), held: RwLock::default() };
        let mut held = Known::default();
        for entry in fs::read_dir(folder).on("list", folder)? {
            let entry = entry.on("list", folder)?;
            let Some(app) = entry.file_name().to_str().and_then(|name| name.parse::<AppName>().ok()) else {
                continue;
            };
            let (pushed, last_number) = records.read_folder(&entry.path())?;
            let number = held.number_of(&app);
            for pushed in &pushed {
                held.count(number, pushed);
            }
            held.apps.insert(app, App { number, pushed, latest: None, last_number });
        }
        let apps: Vec<AppName> = held.apps.keys().cloned().collect();
        for app in apps {
            records.find_latest(&mut held, &app)?;
        }
        *records.write() = held;
        Ok(records)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.held.read().unpoisoned()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.held.write().unpoisoned()
    }

    /// Reads an application's latest record, and forgets those that are damaged.
    pub(super) fn find_latest(&self, held: &mut Known, app: &AppName) -> Result<()> {
        while let Some(last) = held.apps.get(app).and_then(|app| app.pushed.last()).cloned() {
            let path = self.record_path(app, last.sequence);
            let latest = match Self::read_file(&path)? {
                Some(record) => Some(record),
                None => self.mend(app, &last)?,
            };
            let is_there = latest.is_some();
            if let Some(known) = held.apps.get_mut(app) {
                known.latest = latest;
            }
            if is_there {
                return Ok(());
            }
            self.set_aside(&path)?;
            held.forget(app, |pushed| pushed.sequence == last.sequence);
        }
        if let Some(known) = held.apps.get_mut(app) {
            known.latest = None;
        }
        Ok(())
    }

    /// Reads a record; one that is damaged and that no history knows is set aside and forgotten.
    fn read_record(&self, app: &AppName, sequence: u64) -> Result<Option<Record>> {
        let path = self.record_path(app, sequence);
        if let Some(record) = Self::read_file(&path)? {
            return Ok(Some(record));
        }
        let mut held = self.write();
        let Some(pushed) = held.pushed(app).iter().find(|pushed| pushed.sequence == sequence).cloned() else {
            // Removed since it was looked for.
            return Ok(None);
        };
        if let Some(mended) = self.mend(app, &pushed)? {
            return Ok(Some(mended));
        }
        self.set_aside(&path)?;
        held.forget(app, |pushed| pushed.sequence == sequence);
        self.find_latest(&mut held, app)?;
        Ok(None)
    }

    /// Writes the record of a push, durably, and gives it the next sequence number.
    ///
    /// # Errors
    /// The disk's.
    pub fn add(&self, mut record: Record) -> Result<Record> {
        let mut held = self.write();
        let folder = self.folder.join(record.app.as_str());
        files::create_folder(&folder)?;
        let number = held.number_of(&record.app);
        let empty = || App { number, pushed: Vec::new(), latest: None, last_number: 0 };
        let app = held.apps.entry(record.app.clone()).or_insert_with(empty);
        record.sequence = app.last_number + 1;
        let path = self.record_path(&record.app, record.sequence);
        files::publish(&path, &Self::encode(&record), 0o600)?;
        let pushed = Pushed::from(&record);
        if let Err(error) = history::append(&folder, &record) {
            tracing::debug!(%error, "a push is missing in its application's history; the next start reads its record");
        }
        app.last_number = record.sequence;
        app.latest = Some(record.clone());
        app.pushed.push(pushed.clone());
        held.count(number, &pushed);
        Ok(record)
    }

    /// Whether the space has the release in an application that may be seen, and whether it is the latest of `app`.
    pub fn recognize(
        &self,
        app: &AppName,
        release: &ReleaseId,
        may_see: impl Fn(&AppName) -> bool,
    ) -> Option<Found> {
        let held = self.read();
        if let Some(latest) = held.latest(app).filter(|last| last.release == *release) {
            return Some(Found::Latest(latest.clone()));
        }
        let (name, sequence) = held.seen(release, may_see)?;
        let name = name.clone();
        drop(held);
        let record = self.read_record(&name, sequence).ok().flatten();
        record.filter(|record| record.release == *release).map(Found::Elsewhere)
    }

    /// Whether some application of the space that may be seen has the release.
    pub fn has(&self, release: &ReleaseId, may_see: impl Fn(&AppName) -> bool) -> bool {
        self.read().seen(release, may_see).is_some()
    }

    /// The application's latest record.
    pub fn latest(&self, app: &AppName) -> Option<Record> {
        self.read().latest(app).cloned()
    }

    /// Returns the application's latest distinct releases, newest first, at most `most`.
    pub fn recent(&self, app: &AppName, most: usize) -> Vec<ReleaseId> {
        let mut releases = Vec::new();
        for pushed in self.read().pushed(app).iter().rev() {
            if !releases.contains(&pushed.release) {
                releases.push(pushed.release);
            }
            if releases.len() == most {
                break;
            }
        }
        releases
    }

    /// Returns the application's pushes, as memory has them, oldest first.
    ///
    /// # Errors
    /// There is no such application.
    pub fn pushed(&self, app: &AppName) -> Result<Vec<Pushed>> {
        let pushed = self.read().pushed(app).to_vec();
        if pushed.is_empty() { Err(Error::NoApp(app.clone())) } else { Ok(pushed) }
    }

    /// All of an application's records, oldest first. Reads each from its file.
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
            let held = self.read();
            let pushed = held.pushed(app);
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

    /// Takes the records of a release of an application away, and says how many there were.
    ///
    /// Their files stay, renamed to `.removed`: who pushed what when is not forgotten.
    ///
    /// # Errors
    /// The disk's; [`Error::Pinned`] where the release is pinned.
    pub fn remove(&self, app: &AppName, release: &ReleaseId) -> Result<usize> {
        if self.is_pinned(app, release) {
            return Err(Error::Pinned { app: app.clone(), release: *release });
        }
        let mut held = self.write();
        if held.pushed(app).is_empty() {
            return Err(Error::NoApp(app.clone()));
        }
        let those = held.pushed(app).iter().filter(|pushed| pushed.release == *release);
        let numbers: Vec<u64> = those.map(|pushed| pushed.sequence).collect();
        for number in &numbers {
            let path = self.record_path(app, *number);
            files::rename(&path, &path.with_extension("removed"))?;
        }
        held.forget(app, |pushed| pushed.release == *release);
        self.find_latest(&mut held, app)?;
        Ok(numbers.len())
    }

    /// Keeps a release from being removed, by anybody, until it is unpinned.
    ///
    /// # Errors
    /// The disk's.
    pub fn pin(&self, app: &AppName, release: &ReleaseId) -> Result<()> {
        Ok(files::publish(&self.pin_path(app, release), b"", 0o600)?)
    }

    /// Ends a pin; that there was none is no error.
    ///
    /// # Errors
    /// The disk's.
    pub fn unpin(&self, app: &AppName, release: &ReleaseId) -> Result<()> {
        Ok(files::remove(&self.pin_path(app, release))?)
    }

    /// Whether the release is pinned.
    pub fn is_pinned(&self, app: &AppName, release: &ReleaseId) -> bool {
        self.pin_path(app, release).exists()
    }

    /// Notes that the release was used now: a record's file tells by its time of change. At most once an hour, as
    /// nothing asks more exactly.
    pub fn touch(&self, app: &AppName, release: &ReleaseId) {
        let sequence = {
            let held = self.read();
            held.pushed(app)
                .iter()
                .rev()
                .find(|pushed| pushed.release == *release)
                .map(|pushed| pushed.sequence)
        };
        let Some(sequence) = sequence else { return };
        let path = self.record_path(app, sequence);
        let now = std::time::SystemTime::now();
        let changed = fs::metadata(&path).and_then(|file| file.modified());
        if changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|since| since < TOUCH_EVERY)) {
            return;
        }
        let touched = fs::File::options().append(true).open(&path);
        if let Err(error) = touched.and_then(|file| file.set_modified(now)) {
            tracing::debug!(%error, "the use of a release was not noted");
        }
    }

    /// When the release of a push was last pushed, pulled or delivered: seconds since 1970.
    pub fn last_used(&self, app: &AppName, pushed: &Pushed) -> u64 {
        let changed = fs::metadata(self.record_path(app, pushed.sequence)).and_then(|file| file.modified());
        let since = changed.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(pushed.created, |since| since.as_secs().max(pushed.created))
    }

    pub(super) fn record_path(&self, app: &AppName, sequence: u64) -> PathBuf {
        self.folder.join(app.as_str()).join(format!("{sequence:010}.record"))
    }

    fn pin_path(&self, app: &AppName, release: &ReleaseId) -> PathBuf {
        self.folder.join(app.as_str()).join(format!("{release}.pin"))
    }

    /// All releases that have a record.
    pub fn releases(&self) -> HashSet<ReleaseId> {
        self.read().releases.keys().copied().collect()
    }

    /// All applications, by name.
    pub fn apps(&self) -> Vec<AppSummary> {
        let summary = |(name, app): (&AppName, &App)| {
            let latest = app.latest.clone()?;
            Some(AppSummary { app: name.clone(), releases: app.pushed.len() as u64, latest })
        };
        self.read().apps.iter().filter_map(summary).collect()
    }

    /// Returns the newest record that a selector means. A release's id or its first digits come before a label that reads
    /// as an id, which an older version of whit may have given.
    ///
    /// # Errors
    /// Nothing fits, or digits that several releases share.
    pub fn select(&self, selector: &Selector) -> Result<Record> {
        let nothing = || Error::NoRelease(selector.clone());
        let held = self.read();
        let pushed = held.pushed(&selector.app);
        if pushed.is_empty() {
            return Err(Error::NoApp(selector.app.clone()));
        }
        let Some(at) = &selector.at else { return held.latest(&selector.app).cloned().ok_or_else(nothing) };
        let newest = |fits: &dyn Fn(&Pushed) -> bool| pushed.iter().rev().find(|pushed| fits(pushed));
        let found = if let Some(release) = selector.release() {
            newest(&|pushed| pushed.release == release)
        } else {
            let digits = selector.digits();
            let begins = |pushed: &Pushed| digits.as_ref().is_some_and(|digits| pushed.begins_with(digits));
            let fits = pushed.iter().filter(|pushed| begins(pushed));
            let candidates: BTreeSet<ReleaseId> = fits.map(|pushed| pushed.release).collect();
            if candidates.len() > 1 {
                let candidates = candidates.into_iter().collect();
                return Err(Error::Ambiguous { selector: selector.clone(), candidates });
            }
            newest(&begins).or_else(|| newest(&|pushed| pushed.labels.contains(at)))
        };
        let found = found.ok_or_else(nothing)?;
        let sequence = found.sequence;
        drop(held);
        self.read_record(&selector.app, sequence)?.ok_or_else(nothing)
    }
}
