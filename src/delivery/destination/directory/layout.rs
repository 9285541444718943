//! The folders of a directory destination, and every change to them.
//!
//! ```text
//! PATH/current -> releases/ID    what readers follow; replaced by a rename
//! PATH/releases/ID/              complete copies; ID.1, ID.2 … where ID is taken
//! PATH/.whit/lock                held by the delivery under way
//! PATH/.whit/staging-ID/         a copy being written
//! PATH/.whit/current-next        the link before it gets its name
//! PATH/.whit/removed-ID/         an old copy being removed, or what is left of it where something is mounted in it
//! ```
//!
//! A name below `releases` appears only for a complete copy on stable storage and is taken away before
//! anything below it is, so whatever is there is whole. What a killed delivery left in `.whit` is
//! removed by the next.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::delivery::destination::Error;
use disk::crash_points;
use disk::files::{self, Lock, OnPath};
use ground::ids::ReleaseId;

/// The beginning of the names of old copies that are being removed.
const REMOVED: &str = "removed-";
/// The beginnings of the names that killed deliveries, or copies that could not be removed, leave in `.whit`.
const LEFTOVERS: [&str; 3] = ["staging-", REMOVED, "current-"];

/// The name of a complete copy: its release, and a number if the plain name was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) release: ReleaseId,
    number: u32,
}

impl Slot {
    fn name(&self) -> String {
        match self.number {
            0 => self.release.to_string(),
            number => format!("{}.{number}", self.release),
        }
    }

    /// Parses a name; none if it is not ours.
    fn parse(name: &str) -> Option<Self> {
        let (release, number) = name.split_once('.').unwrap_or((name, "0"));
        let slot = Self { release: ReleaseId::from_str(release).ok()?, number: number.parse().ok()? };
        (slot.name() == name).then_some(slot)
    }
}

/// A destination's folders: checked, created, and locked against other deliveries.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    path: &'a Path,
    _lock: Lock,
}

impl<'a> Layout<'a> {
    /// Checks what is at `path`, creates what is missing, takes the lock, removes leftovers.
    ///
    /// # Errors
    /// Something is in the way, or another delivery holds the lock.
    pub(super) fn open(path: &'a Path) -> Result<Self, Error> {
        check_link(path)?;
        if path.exists() && !path.is_dir() {
            return Err(Error::NotAFolder(path.to_owned()));
        }
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o755).create(path).on("create", path)?;
            files::sync_folder(path.parent().unwrap_or(path))?;
        }
        let private = path.join(".whit");
        create_own(&private, 0o700)?;
        create_own(&path.join("releases"), 0o755)?;
        let lock = Lock::take(&private.join("lock"), Duration::ZERO)?;
        let lock = lock.ok_or_else(|| Error::Busy(path.to_owned()))?;
        let layout = Self { path, _lock: lock };
        for name in names(&private)? {
            let is_leftover = LEFTOVERS.iter().any(|leftover| name.starts_with(leftover));
            let leftover = private.join(&name);
            // The log has named what cannot be removed; the next delivery tries again.
            if is_leftover && files::remove(&leftover).is_err() && !name.starts_with(REMOVED) {
                files::rename(&leftover, &layout.removed(&name))?;
            }
        }
        Ok(layout)
    }

    /// Returns the folder of a copy.
    pub(super) fn folder(&self, slot: Slot) -> PathBuf {
        self.path.join("releases").join(slot.name())
    }

    /// Returns the folder in which a copy is written.
    pub(super) fn staging(&self, release: ReleaseId) -> PathBuf {
        self.path.join(".whit").join(format!("staging-{release}"))
    }

    /// Moves a complete copy to its place among the others; readers do not see it yet.
    ///
    /// # Errors
    /// The rename or a sync failed.
    pub(super) fn publish(&self, staging: &Path, release: ReleaseId) -> Result<Slot, Error> {
        let mut slot = Slot { release, number: 0 };
        while fs::symlink_metadata(self.folder(slot)).is_ok() {
            slot.number += 1;
        }
        files::rename(staging, &self.folder(slot))?;
        crash_points::point("copy.renamed");
        Ok(slot)
    }

    /// Shows `slot` to readers, atomically and durably.
    ///
    /// # Errors
    /// Readers see what they saw before; or, where only the last sync failed, `slot`.
    pub(super) fn switch(&self, slot: Slot) -> Result<(), Error> {
        let next = self.path.join(".whit/current-next");
        symlink(Path::new("releases").join(slot.name()), &next).on("create", &next)?;
        crash_points::point("link.made");
        Ok(files::rename(&next, &self.path.join("current"))?)
    }

    /// Returns all complete copies, the newest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn slots(&self) -> Result<Vec<Slot>, Error> {
        slots(self.path)
    }

    /// Returns a free name in `.whit` for a copy that is being removed.
    fn removed(&self, name: &str) -> PathBuf {
        let mut number = 0;
        loop {
            let end = if number == 0 { String::new() } else { format!(".{number}") };
            let aside = self.path.join(".whit").join(format!("{REMOVED}{name}{end}"));
            if fs::symlink_metadata(&aside).is_err() {
                return aside;
            }
            number += 1;
        }
    }

    /// Removes a copy; first its name, so that no half of it is ever seen.
    ///
    /// # Errors
    /// Each later delivery tries again to remove what is left.
    pub(super) fn remove(&self, slot: Slot) -> Result<(), Error> {
        let aside = self.removed(&slot.name());
        files::rename(&self.folder(slot), &aside)?;
        crash_points::point("copy.removing");
        files::remove(&aside)?;
        crash_points::point("copy.removed");
        Ok(())
    }
}

/// Returns all complete copies at `path`, the newest first.
fn slots(path: &Path) -> Result<Vec<Slot>, Error> {
    let releases = path.join("releases");
    let mut found: Vec<(SystemTime, Slot)> = names(&releases)?
        .iter()
        .filter_map(|name| Slot::parse(name))
        .map(|slot| (made(&releases.join(slot.name())), slot))
        .collect();
    found.sort_by_key(|(made, slot)| (*made, slot.number));
    Ok(found.into_iter().rev().map(|(_, slot)| slot).collect())
}

/// Returns the complete copies of a release at `path`: the one that readers see, then the newest. Beside a copy that was
/// found changed lies another, with another number.
pub(super) fn copies(path: &Path, release: &ReleaseId) -> Vec<PathBuf> {
    let mut copies = slots(path).unwrap_or_default();
    copies.retain(|slot| slot.release == *release);
    let seen = current(path).ok().flatten();
    copies.sort_by_key(|slot| Some(*slot) != seen);
    copies.into_iter().map(|slot| path.join("releases").join(slot.name())).collect()
}

/// Returns the copy that readers of `path` see; none before the first, or if the link is not ours.
///
/// # Errors
/// The link cannot be read, or something else is in its place.
pub(super) fn current(path: &Path) -> Result<Option<Slot>, Error> {
    if !check_link(path)? {
        return Ok(None);
    }
    let link = path.join("current");
    let target = fs::read_link(&link).on("read", &link)?;
    Ok(target.strip_prefix("releases").ok().and_then(Path::to_str).and_then(Slot::parse))
}

/// Returns true if there is a link, and fails if something else is in its place.
fn check_link(path: &Path) -> Result<bool, Error> {
    let link = path.join("current");
    match fs::symlink_metadata(&link) {
        Ok(found) if found.is_symlink() => Ok(true),
        Ok(_) => Err(Error::NotALink(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::NotAFolder(path.to_owned())),
        Err(error) => Err(error).on("examine", &link).map_err(Error::from),
    }
}

/// Creates a folder whose content may be removed: it must not be a link, and others must not be able to write to it.
fn create_own(folder: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder).on("examine", folder)?;
            if !found.is_dir() {
                return Err(Error::NotAFolder(folder.to_owned()));
            }
            let is_own = found.uid() == rustix::process::geteuid().as_raw();
            let is_closed = found.mode() & 0o002 == 0 && (mode != 0o700 || found.mode() & 0o020 == 0);
            if is_own && is_closed { Ok(()) } else { Err(Error::NotOwn(folder.to_owned())) }
        }
        result => Ok(result.on("create", folder)?),
    }
}

/// Returns the names in a folder that are UTF-8, as all of ours are.
fn names(folder: &Path) -> Result<Vec<String>, files::Error> {
    let entries = fs::read_dir(folder).on("read", folder)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string()));
    let names: Vec<_> = names.collect::<io::Result<_>>().on("read", folder)?;
    Ok(names.into_iter().flatten().collect())
}

/// Returns the time at which a folder was created, as far as its file system knows; decides only which old copies go first.
fn made(folder: &Path) -> SystemTime {
    let metadata = fs::symlink_metadata(folder).ok();
    let time = metadata.and_then(|metadata| metadata.created().or_else(|_| metadata.modified()).ok());
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_slots() {
        let release = ReleaseId::of(b"release");
        for number in [0, 1, 12] {
            let slot = Slot { release, number };
            assert_eq!(Slot::parse(&slot.name()), Some(slot));
        }
        let id = release.to_string();
        for other in ["", "v1.2.3", "lost+found", &id[1..], &format!("{id}.0"), &format!("{id}.01")] {
            assert_eq!(Slot::parse(other), None, "{other}");
        }
    }
}
