//! The records of a space's releases: one small immutable file for each push (FORMAT 4).
//!
//! `releases/APP/0000000001.record`: a version byte, the record in MessagePack, and the first 16 bytes
//! of the BLAKE3 of both. All are held in memory; some 300 B each.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use super::{Error, Result};
use crate::faults::{Fault, Faulty};
use crate::files::{self, OnPath};
use crate::ids::{AppName, ReleaseId, Selector};
use crate::record::{AppSummary, Record};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 16;
/// A record with all labels it may have is far smaller.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// How the file of a record ends that was found damaged ...
const DAMAGED: &str = "damaged";
/// ... and after an admin was told of it.
const LET_GO: &str = "unreadable";

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
    folder: PathBuf,
    /// Records that were found damaged and that nobody has let go yet.
    unreadable: Mutex<Vec<PathBuf>>,
    apps: RwLock<BTreeMap<AppName, Vec<Record>>>,
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

    /// Reads all records below `folder`. A damaged one is named in the log and left out.
    ///
    /// # Errors
    /// The folder cannot be read, or a record is of a newer whit.
    pub fn open(folder: &Path) -> Result<Self> {
        files::create_folder(folder)?;
        let (mut apps, mut unreadable) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(folder).on("list", folder)? {
            let entry = entry.on("list", folder)?;
            let Some(app) = entry.file_name().to_str().and_then(|name| name.parse::<AppName>().ok()) else {
                continue;
            };
            let records = read_folder(&entry.path(), &mut unreadable)?;
            if !records.is_empty() {
                apps.insert(app, records);
            }
        }
        let unreadable = Mutex::new(unreadable);
        Ok(Self { folder: folder.to_owned(), unreadable, apps: RwLock::new(apps) })
    }

    /// The records that were found damaged when the space was opened, now or earlier: what their pushes need is
    /// unknown.
    pub fn unreadable(&self) -> Vec<PathBuf> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up a record that was found damaged; its bytes stay beside, for people to look at.
    ///
    /// # Errors
    /// The disk's.
    pub fn let_go(&self, path: &Path) -> Result<()> {
        files::rename(path, &path.with_extension(LET_GO))?;
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != path);
        Ok(())
    }

    /// The files that do not say what their records are, which are known; they are written anew where `repair` says
    /// so.
    ///
    /// # Errors
    /// The disk's.
    pub fn damaged_on_disk(&self, repair: bool) -> Result<Vec<PathBuf>> {
        let mut damaged = Vec::new();
        for summary in self.apps() {
            for record in self.of(&summary.app).unwrap_or_default() {
                let path = self.record_path(&record.app, record.sequence);
                // No record is removed or added between the look and the mending.
                let apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
                if !apps.get(&record.app).is_some_and(|records| records.contains(&record)) {
                    continue;
                }
                let is_right = match files::read_bounded(&path, RECORD_BYTES_MAX) {
                    Ok(bytes) => Self::decode(&path, &bytes).is_ok_and(|found| found == record),
                    Err(error) if matches!(error.fault(), Fault::Missing | Fault::Corrupt) => false,
                    Err(error) => return Err(error.into()),
                };
                if !is_right {
                    if repair {
                        files::publish(&path, &Self::encode(&record), 0o600)?;
                    }
                    damaged.push(path);
                }
                drop(apps);
            }
        }
        Ok(damaged)
    }

    /// Writes the record of a push, durably, and gives it the next sequence number.
    ///
    /// # Errors
    /// The disk's.
    pub fn add(&self, mut record: Record) -> Result<Record> {
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        let folder = self.folder.join(record.app.as_str());
        files::create_folder(&folder)?;
        let records = apps.entry(record.app.clone()).or_default();
        record.sequence = records.last().map_or(0, |last| last.sequence).max(last_removed(&folder)?) + 1;
        let path = self.record_path(&record.app, record.sequence);
        files::publish(&path, &Self::encode(&record), 0o600)?;
        records.push(record.clone());
        Ok(record)
    }

    /// Whether the space has the release in an application that may be seen, and whether it is the latest of `app`.
    pub fn recognize(
        &self,
        app: &AppName,
        release: &ReleaseId,
        may_see: impl Fn(&AppName) -> bool,
    ) -> Option<Found> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) =
            apps.get(app).and_then(|records| records.last()).filter(|last| last.release == *release)
        {
            return Some(Found::Latest(latest.clone()));
        }
        let seen = apps.iter().filter(|(app, _)| may_see(app)).flat_map(|(_, records)| records);
        let found = seen.into_iter().find(|record| record.release == *release);
        found.cloned().map(Found::Elsewhere)
    }

    /// Whether some application of the space that may be seen has the release.
    pub fn has(&self, release: &ReleaseId, may_see: impl Fn(&AppName) -> bool) -> bool {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        apps.iter()
            .filter(|(app, _)| may_see(app))
            .flat_map(|(_, records)| records)
            .any(|record| record.release == *release)
    }

    /// The application's latest record.
    pub fn latest(&self, app: &AppName) -> Option<Record> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        apps.get(app).and_then(|records| records.last()).cloned()
    }

    /// All of an application's records, oldest first.
    ///
    /// # Errors
    /// There is no such application.
    pub fn of(&self, app: &AppName) -> Result<Vec<Record>> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        apps.get(app).cloned().ok_or_else(|| Error::NoApp(app.clone()))
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
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        let Some(records) = apps.get_mut(app) else { return Err(Error::NoApp(app.clone())) };
        let mut removed = 0;
        for record in records.iter().filter(|record| record.release == *release) {
            let path = self.record_path(app, record.sequence);
            files::rename(&path, &path.with_extension("removed"))?;
            removed += 1;
        }
        records.retain(|record| record.release != *release);
        if records.is_empty() {
            apps.remove(app);
        }
        Ok(removed)
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

    /// Notes that the release was used now: its records' files tell by their time of change.
    pub fn touch(&self, app: &AppName, release: &ReleaseId) {
        for record in self.of(app).unwrap_or_default().iter().filter(|record| record.release == *release) {
            let path = self.record_path(app, record.sequence);
            let touched = fs::File::options().append(true).open(&path);
            if let Err(error) = touched.and_then(|file| file.set_modified(std::time::SystemTime::now())) {
                tracing::debug!(%error, "the use of a release was not noted");
            }
        }
    }

    /// When the record's release was last pushed, pulled or delivered: seconds since 1970.
    pub fn last_used(&self, record: &Record) -> u64 {
        let changed =
            fs::metadata(self.record_path(&record.app, record.sequence)).and_then(|file| file.modified());
        let since = changed.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(record.created, |since| since.as_secs().max(record.created))
    }

    fn record_path(&self, app: &AppName, sequence: u64) -> PathBuf {
        self.folder.join(app.as_str()).join(format!("{sequence:010}.record"))
    }

    fn pin_path(&self, app: &AppName, release: &ReleaseId) -> PathBuf {
        self.folder.join(app.as_str()).join(format!("{release}.pin"))
    }

    /// All releases that have a record.
    pub fn releases(&self) -> HashSet<ReleaseId> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        apps.values().flatten().map(|record| record.release).collect()
    }

    /// All applications, by name.
    pub fn apps(&self) -> Vec<AppSummary> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        let summary = |(app, records): (&AppName, &Vec<Record>)| {
            let latest = records.last()?.clone();
            Some(AppSummary { app: app.clone(), releases: records.len() as u64, latest })
        };
        apps.iter().filter_map(summary).collect()
    }

    /// The newest record that a selector means. A release's id or its first digits come before a label that reads so, which
    /// a push of an earlier version may have given.
    ///
    /// # Errors
    /// Nothing fits, or digits that several releases share.
    pub fn select(&self, selector: &Selector) -> Result<Record> {
        let records = self.of(&selector.app)?;
        let nothing = || Error::NoRelease(selector.clone());
        let Some(at) = &selector.at else { return records.into_iter().next_back().ok_or_else(nothing) };
        if let Some(release) = selector.release() {
            let found = records.into_iter().rfind(|record| record.release == release);
            return found.ok_or_else(nothing);
        }
        if let Some(digits) = selector.digits() {
            let begins = |record: &&Record| record.release.to_string().starts_with(&digits);
            let fits: Vec<&Record> = records.iter().filter(begins).collect();
            let candidates: BTreeSet<ReleaseId> = fits.iter().map(|record| record.release).collect();
            if candidates.len() > 1 {
                let candidates = candidates.into_iter().collect();
                return Err(Error::Ambiguous { selector: selector.clone(), candidates });
            }
            if let Some(record) = fits.last() {
                return Ok((*record).clone());
            }
        }
        records.into_iter().rfind(|record| record.labels.contains(at)).ok_or_else(nothing)
    }
}

/// The highest number that a removed record had: numbers are never given twice.
fn last_removed(folder: &Path) -> Result<u64> {
    let mut last = 0;
    for entry in fs::read_dir(folder).on("list", folder)? {
        let path = entry.on("list", folder)?.path();
        let number = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if path.extension().is_some_and(|extension| extension == "removed") {
            last = last.max(number.unwrap_or(0));
        }
    }
    Ok(last)
}

fn read_folder(folder: &Path, unreadable: &mut Vec<PathBuf>) -> Result<Vec<Record>> {
    files::remove_unpublished(folder)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(folder).on("list", folder)? {
        let path = entry.on("list", folder)?.path();
        if path.extension().is_some_and(|extension| extension == DAMAGED) {
            unreadable.push(path);
        } else if path.extension().is_some_and(|extension| extension == "record") {
            match Records::decode(&path, &files::read_bounded(&path, RECORD_BYTES_MAX)?) {
                Ok(record) => records.push(record),
                Err(error @ Error::Record { .. }) => {
                    // Aside, so that its number can be given again and its bytes still be looked at.
                    tracing::error!(%error, "a damaged record is set aside");
                    let aside = path.with_extension(DAMAGED);
                    files::rename(&path, &aside)?;
                    unreadable.push(aside);
                }
                Err(error) => return Err(error),
            }
        }
    }
    records.sort_by_key(|record| record.sequence);
    Ok(records)
}
