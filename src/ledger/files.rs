//! The ledger of one machine: each value is a small file in the data folder (FORMAT 7).
//!
//! One process at a time changes records, pins and deliveries: the proxy's lock sees to it. Any number may create and
//! revoke tokens, as these have random names. A value is written aside, synced and renamed to its name, one change after the
//! other: a crash leaves the first of a transaction's changes.

use std::array;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use super::{Change, Error, InProcess, Key, Leases, Ledger, Result, Retired, Table, VALUE_BYTES_MAX};
use disk::crash_points;
use disk::files::{self, OnPath as _};
use ground::ids::{AppName, SpaceName};
use ground::poison::Unpoisoned as _;

/// Locks that all keys share: transactions of different keys seldom wait for one another.
const LOCKS: usize = 64;
/// Values are for the owner's eyes only.
const MODE: u32 = 0o600;

/// The ledger in files.
#[derive(Debug)]
pub struct FileLedger {
    spaces: Spaces,
    deliveries: PathBuf,
    notices: PathBuf,
    rollouts: PathBuf,
    identity: PathBuf,
    /// Held for a key while what a change expects is looked at and the change is made.
    locks: [Mutex<()>; LOCKS],
    leases: Mutex<HashMap<SpaceName, Arc<InProcess>>>,
    now: fn() -> Instant,
}

/// Where spaces lie.
#[derive(Debug)]
enum Spaces {
    /// Each in a folder of its name below this one.
    Below(PathBuf),
    /// There is one space, in this folder.
    Alone(PathBuf),
}

impl FileLedger {
    /// The ledger of a proxy, in its data folder. Its leases lapse by the clock `now`.
    pub fn of_data(data: &Path, now: fn() -> Instant) -> Self {
        Self::new(Spaces::Below(data.join("spaces")), data, data.join("identity"), now)
    }

    /// The ledger of a store that stands alone: all spaces are this one.
    pub fn of_space(folder: &Path, now: fn() -> Instant) -> Self {
        Self::new(Spaces::Alone(folder.to_owned()), folder, folder.join("identity"), now)
    }

    /// The ledger of the tokens in a proxy's folder `identity`.
    pub fn of_identity(folder: &Path) -> Self {
        let spaces = Spaces::Below(folder.join("spaces"));
        Self::new(spaces, folder, folder.to_owned(), Instant::now)
    }

    fn new(spaces: Spaces, data: &Path, identity: PathBuf, now: fn() -> Instant) -> Self {
        let locks = array::from_fn(|_| Mutex::default());
        let (deliveries, notices) = (data.join("deliveries"), data.join("notices"));
        let rollouts = data.join("rollouts");
        Self { spaces, deliveries, notices, rollouts, identity, locks, leases: Mutex::default(), now }
    }

    fn space(&self, space: &SpaceName) -> PathBuf {
        match &self.spaces {
            Spaces::Below(folder) => folder.join(space.as_str()),
            Spaces::Alone(folder) => folder.clone(),
        }
    }

    fn releases(&self, space: &SpaceName) -> PathBuf {
        self.space(space).join("releases")
    }

    /// The folder of a table.
    fn folder(&self, table: &Table) -> PathBuf {
        match table {
            Table::Records { space, app } | Table::Pins { space, app } | Table::Shown { space, app } => {
                self.releases(space).join(app.as_str())
            }
            // Beside the records, so that neither is slower to list for the other.
            Table::Current { space, app } => self.releases(space).join(app.as_str()).join("current"),
            Table::Labels { space, app } => self.releases(space).join(app.as_str()).join("labels"),
            Table::Cached { space, app } => self.releases(space).join(app.as_str()).join("cached"),
            Table::Targets { space, app } => self.releases(space).join(app.as_str()).join("targets"),
            Table::Manifests { space } => self.space(space).join("manifests"),
            Table::Deliveries => self.deliveries.clone(),
            Table::Ended => self.deliveries.join("ended"),
            Table::Notices => self.notices.clone(),
            Table::Rollouts => self.rollouts.clone(),
            Table::Groups { space, app } => self.releases(space).join(app.as_str()).join("groups"),
            Table::Tokens => self.identity.join("tokens"),
            Table::Revoked => self.identity.join("revoked"),
        }
    }

    /// The file of a value that is not retired.
    fn path(&self, key: &Key) -> PathBuf {
        let table = key.table();
        let mut name = stem(key);
        if let Some(extension) = extension(&table) {
            name.push('.');
            name.push_str(extension);
        }
        self.folder(&table).join(name)
    }

    /// Returns the file of a key, and why it is retired if it is; none where there is no such key.
    fn find(&self, key: &Key) -> Result<Option<(PathBuf, Option<Retired>)>> {
        let path = self.path(key);
        if is_there(&path)? {
            return Ok(Some((path, None)));
        }
        for reason in Retired::ALL {
            let retired = path.with_extension(reason.extension());
            if is_there(&retired)? {
                return Ok(Some((retired, Some(reason))));
            }
        }
        Ok(None)
    }

    /// Takes the locks of all keys that change, always in the same order.
    fn lock(&self, changes: &[Change]) -> Vec<MutexGuard<'_, ()>> {
        let number = |change: &Change| {
            let mut hasher = DefaultHasher::new();
            change.key().hash(&mut hasher);
            usize::try_from(hasher.finish() % LOCKS as u64).expect("it is small")
        };
        let numbers: BTreeSet<usize> = changes.iter().map(number).collect();
        numbers.into_iter().map(|number| self.locks[number].lock().unpoisoned()).collect()
    }

    /// Checks what a change expects.
    fn check(&self, change: &Change) -> Result<()> {
        if let Some(value) = change.value().filter(|value| value.len() as u64 > VALUE_BYTES_MAX) {
            return Err(Error::TooLarge { key: change.key().clone(), bytes: value.len() });
        }
        let exists = match change {
            Change::Create { key, .. } => self.find(key)?.is_some(),
            Change::Put { key, .. } => matches!(self.find(key)?, Some((_, Some(_)))),
            Change::Retire { .. } | Change::Remove { .. } => false,
        };
        if exists { Err(Error::Exists(change.key().clone())) } else { Ok(()) }
    }

    fn change(&self, change: &Change) -> Result<()> {
        match change {
            Change::Create { key, value } | Change::Put { key, value } => {
                files::create_folder(&self.folder(&key.table()))?;
                files::publish(&self.path(key), value, MODE)?;
            }
            Change::Retire { key, reason } => {
                if let Some((path, _)) = self.find(key)? {
                    files::rename(&path, &path.with_extension(reason.extension()))?;
                }
            }
            Change::Remove { key } => files::remove(&self.path(key))?,
        }
        match change {
            Change::Create { key: Key::Current { .. }, .. } => crash_points::point("commit.current"),
            Change::Create { key: Key::Record { .. }, .. } => crash_points::point("commit.recorded"),
            _ => {}
        }
        Ok(())
    }
}

impl Ledger for FileLedger {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        Ok(files::read_if_there(&self.path(key), VALUE_BYTES_MAX)?)
    }

    fn has(&self, key: &Key) -> Result<bool> {
        is_there(&self.path(key))
    }

    fn scan(&self, table: &Table) -> Result<Vec<(Key, Option<Retired>)>> {
        let mut found = Vec::new();
        for name in names(&self.folder(table))? {
            found.extend(name.to_str().and_then(|name| parse(table, name)));
        }
        // A value that somebody restored from a backup beside its retired file counts alone, as in `find`.
        found.sort_unstable_by(|(one, retired), (other, aside)| one.cmp(other).then(retired.cmp(aside)));
        found.dedup_by(|(one, _), (first, _)| one == first);
        Ok(found)
    }

    fn apps(&self, space: &SpaceName) -> Result<Vec<AppName>> {
        let names = names(&self.releases(space))?;
        Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        if changes.iter().all(|change| change.value().is_none()) {
            // Nothing is expected. There may be thousands, each with a sync: others do not wait for them all.
            return changes.iter().try_for_each(|change| {
                let _lock = self.lock(std::slice::from_ref(change));
                self.change(change)
            });
        }
        let _locks = self.lock(changes);
        changes.iter().try_for_each(|change| self.check(change))?;
        changes.iter().try_for_each(|change| self.change(change))
    }

    fn touch(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let file = fs::File::options().append(true).open(&path).on("open", &path)?;
        Ok(file.set_modified(SystemTime::now()).on("touch", &path)?)
    }

    fn touched(&self, key: &Key) -> Result<Option<SystemTime>> {
        let path = self.path(key);
        match fs::metadata(&path).and_then(|file| file.modified()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            modified => Ok(Some(modified.on("examine", &path)?)),
        }
    }

    fn describe(&self, key: &Key) -> String {
        let found = self.find(key).ok().flatten().map(|(path, _)| path);
        found.unwrap_or_else(|| self.path(key)).display().to_string()
    }

    fn recover(&self, table: &Table) -> Result<()> {
        let folder = self.folder(table);
        if is_there(&folder)? { Ok(files::remove_unpublished(&folder)?) } else { Ok(()) }
    }

    fn leases(&self, space: &SpaceName) -> Arc<dyn Leases> {
        let mut leases = self.leases.lock().unpoisoned();
        let new = || Arc::new(InProcess::new(self.now));
        Arc::clone(leases.entry(space.clone()).or_insert_with(new)) as Arc<dyn Leases>
    }
}

impl Retired {
    /// How the names of retired files end.
    fn extension(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How the names of a table's files end.
fn extension(table: &Table) -> Option<&'static str> {
    match table {
        Table::Records { .. } => Some("record"),
        Table::Pins { .. } => Some("pin"),
        Table::Deliveries => Some("delivery"),
        Table::Ended => Some("ended"),
        Table::Shown { .. } => Some("shown"),
        Table::Targets { .. } => Some("target"),
        Table::Notices => Some("notice"),
        Table::Rollouts => Some("rollout"),
        Table::Groups { .. } => Some("group"),
        Table::Current { .. } => Some("current"),
        Table::Labels { .. } => Some("label"),
        Table::Cached { .. } => Some("cached"),
        Table::Manifests { .. } => Some("manifests"),
        Table::Tokens | Table::Revoked => None,
    }
}

/// The name of a key's file, but for its end.
fn stem(key: &Key) -> String {
    match key {
        Key::Record { number, .. } | Key::Current { number, .. } => format!("{number:010}"),
        Key::Delivery { number }
        | Key::Ended { number }
        | Key::Notice { number }
        | Key::Rollout { number } => format!("{number:012}"),
        Key::Group { group, .. } => group.to_string(),
        Key::Pin { release, .. } | Key::Manifests { release, .. } => release.to_string(),
        Key::Cached { root, .. } => root.to_string(),
        Key::Shown { destination, .. } => destination.to_string(),
        Key::Target { target, .. } => target.to_string(),
        Key::Token { id } | Key::Revoked { id } => id.to_string(),
        Key::Label { label, .. } => label.to_string(),
    }
}

/// Reads the name of a file in a table's folder; none for what is no value of the table.
fn parse(table: &Table, name: &str) -> Option<(Key, Option<Retired>)> {
    // A name of people may hold dots.
    let (stem_found, end) = name.rsplit_once('.').map_or((name, None), |(stem, end)| (stem, Some(end)));
    let retired = Retired::ALL.into_iter().find(|reason| end == Some(reason.extension()));
    if retired.is_none() && end != extension(table) {
        return None;
    }
    let key = match table.clone() {
        Table::Records { space, app } => Key::Record { space, app, number: stem_found.parse().ok()? },
        Table::Pins { space, app } => Key::Pin { space, app, release: stem_found.parse().ok()? },
        Table::Deliveries => Key::Delivery { number: stem_found.parse().ok()? },
        Table::Ended => Key::Ended { number: stem_found.parse().ok()? },
        Table::Shown { space, app } => Key::Shown { space, app, destination: stem_found.parse().ok()? },
        Table::Targets { space, app } => Key::Target { space, app, target: stem_found.parse().ok()? },
        Table::Notices => Key::Notice { number: stem_found.parse().ok()? },
        Table::Rollouts => Key::Rollout { number: stem_found.parse().ok()? },
        Table::Groups { space, app } => Key::Group { space, app, group: stem_found.parse().ok()? },
        Table::Tokens => Key::Token { id: stem_found.parse().ok()? },
        Table::Revoked => Key::Revoked { id: stem_found.parse().ok()? },
        Table::Current { space, app } => Key::Current { space, app, number: stem_found.parse().ok()? },
        Table::Labels { space, app } => Key::Label { space, app, label: stem_found.parse().ok()? },
        Table::Cached { space, app } => Key::Cached { space, app, root: stem_found.parse().ok()? },
        Table::Manifests { space } => Key::Manifests { space, release: stem_found.parse().ok()? },
    };
    // A number that is written otherwise is of no file that was ever made.
    (stem(&key) == stem_found).then_some((key, retired))
}

/// The names in a folder; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", folder)?,
    };
    entries.map(|entry| Ok(entry.on("list", folder)?.file_name())).collect()
}

/// Returns whether something has this name; not knowing is an error, not a no.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Ok(Err(error).on("examine", path)?),
    }
}
