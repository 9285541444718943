//! The complete copies at a destination's path, to look at.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{AtFlags, FileType, StatxTimestamp};
use rustix::io::Errno;

use crate::delivery::destination::Error;
use disk::files::{self, Folder};
use ground::ids::ReleaseId;

/// The name of a complete copy: its release alone, or with a number that of a copy that was set aside for a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) release: ReleaseId,
    pub(super) number: u32,
}

impl Slot {
    /// Returns its name in the folder of releases.
    pub(super) fn name(&self) -> String {
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

/// A destination's folder and its releases, held open.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) folder: Folder,
    pub(super) releases: Folder,
}

impl Copies {
    /// Opens what is at `path`; none before the first delivery.
    ///
    /// # Errors
    /// Something else is there.
    pub(super) fn look(path: &Path) -> Result<Option<Self>, Error> {
        let is_missing = |error: &files::Error| error.source.kind() == std::io::ErrorKind::NotFound;
        let folder = match Folder::open(path) {
            Err(error) if is_missing(&error) => return Ok(None),
            folder => folder.map_err(|error| not_a_folder(error, path))?,
        };
        match folder.below("releases") {
            Err(error) if is_missing(&error) => Ok(None),
            releases => {
                let releases = releases.map_err(|error| not_a_folder(error, &folder.at("releases")))?;
                Ok(Some(Self { folder, releases }))
            }
        }
    }

    /// Returns all complete copies, the newest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn slots(&self) -> Result<Vec<Slot>, Error> {
        let mut found: Vec<((i64, u32), Slot)> = self
            .releases
            .names()?
            .iter()
            .filter_map(|name| Slot::parse(name))
            .map(|slot| (self.made(slot), slot))
            .collect();
        found.sort_by_key(|(made, slot)| (*made, std::cmp::Reverse(slot.number)));
        Ok(found.into_iter().rev().map(|(_, slot)| slot).collect())
    }

    /// Returns the copy that readers see; none before the first, or if the link is not ours.
    ///
    /// # Errors
    /// The link cannot be read, or something else is in its place.
    pub(super) fn current(&self) -> Result<Option<Slot>, Error> {
        if !check_link(&self.folder)? {
            return Ok(None);
        }
        let target = self.folder.target_of("current")?;
        Ok(target.strip_prefix("releases").ok().and_then(Path::to_str).and_then(Slot::parse))
    }

    /// Opens a copy; none if it is no folder.
    pub(super) fn open(&self, slot: Slot) -> Option<Folder> {
        self.releases.below(slot.name()).ok()
    }

    /// Returns the path of a copy, for people.
    pub(super) fn place(&self, slot: Slot) -> PathBuf {
        self.releases.at(slot.name())
    }

    /// Returns the copies of a release: the one that readers see, then the newest.
    pub(super) fn of(&self, release: &ReleaseId) -> Vec<Folder> {
        let mut slots = self.slots().unwrap_or_default();
        slots.retain(|slot| slot.release == *release);
        let seen = self.current().ok().flatten();
        slots.sort_by_key(|slot| Some(*slot) != seen);
        slots.into_iter().filter_map(|slot| self.open(slot)).collect()
    }

    /// Returns the releases that have copies, the newest copy first.
    pub(super) fn kept(&self) -> Vec<ReleaseId> {
        let mut kept = Vec::new();
        for slot in self.slots().unwrap_or_default() {
            if !kept.contains(&slot.release) {
                kept.push(slot.release);
            }
        }
        kept
    }

    /// Returns a time for what is new in a copy of `release`: `wanted`, or soon after it where another release has that
    /// time. A server that knows a file by its time and size would take two of one second for the same.
    pub(super) fn free_time(&self, release: &ReleaseId, wanted: u64) -> u64 {
        let others = self.slots().unwrap_or_default().into_iter().filter(|slot| slot.release != *release);
        let taken: Vec<u64> = others
            .filter_map(|slot| self.releases.examine(slot.name()).ok()?)
            .filter_map(|found| u64::try_from(found.st_mtime).ok())
            .collect();
        (wanted..=wanted.saturating_add(taken.len() as u64))
            .find(|time| !taken.contains(time))
            .unwrap_or(wanted)
    }

    /// Returns the time at which a copy was created, as far as its file system knows; decides only which old copies go
    /// first.
    fn made(&self, slot: Slot) -> (i64, u32) {
        let Ok(found) = files::examine(&self.releases, slot.name(), AtFlags::empty()) else { return (0, 0) };
        let StatxTimestamp { tv_sec, tv_nsec, .. } =
            if found.stx_btime.tv_sec == 0 { found.stx_ctime } else { found.stx_btime };
        (tv_sec, tv_nsec)
    }
}

/// Returns true if there is a link to what readers see, and fails if something else is in its place.
///
/// # Errors
/// [`Error::NotALink`], or it cannot be examined.
pub(super) fn check_link(folder: &Folder) -> Result<bool, Error> {
    let Some(found) = folder.examine("current")? else { return Ok(false) };
    let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    if is_link { Ok(true) } else { Err(Error::NotALink(folder.at("current"))) }
}

/// Returns the error of something that is no folder, or another one as it is.
pub(super) fn not_a_folder(error: files::Error, path: &Path) -> Error {
    let errno = error.source.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::NOTDIR | Errno::LOOP) => Error::NotAFolder(path.to_owned()),
        _ => error.into(),
    }
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
