//! The folders of a directory destination, and every change to them.
//!
//! ```text
//! PATH/current -> releases/ID    what readers follow; replaced by a rename
//! PATH/releases/ID/              complete copies; ID.1, ID.2 … are older ones of ID that were found changed
//! PATH/shared/                   what lives beside the releases and is linked into them; never removed
//! PATH/.whit/lock                held by the delivery under way
//! PATH/.whit/staging-ID/         a copy being written
//! PATH/.whit/whole-ID            when the copy ID was last changed before it got its name
//! PATH/.whit/ID.pulled          the mark of the copy ID, which a pull made
//! PATH/.whit/HASH.base          what such marks differ from
//! PATH/.whit/current-next        the link before it gets its name
//! PATH/.whit/removed-ID/         an old copy being removed, or what is left of it where something is mounted in it
//! ```
//!
//! A name below `releases` appears only for a complete copy on stable storage and is taken away before
//! anything below it is, so whatever is there is whole. What a killed delivery left in `.whit` is
//! removed by the next.
//!
//! Others may be able to write to PATH or to a copy, as an application does, and may put links and other folders there at
//! any moment. So PATH is opened once, through no other user's link. `.whit` and `releases` are opened in it, are no links
//! and belong to the process's user, and `.whit` is closed to all others. Every later step is relative to one of these open
//! folders and names one component. What is written, and what gets an owner, a mode or a time, is made in `.whit`, where
//! nobody else can put anything; only `shared` has its own rules.

use std::path::Path;
use std::time::Duration;

use super::copies::{Copies, Slot, check_link, not_a_folder};
use super::shared::SEED;
use super::trial::TRIAL;
use super::untouched::{self, WHOLE};
use crate::delivery::destination::Error;
use disk::crash_points;
use disk::files::{Folder, Lock};
use ground::ids::ReleaseId;

/// The beginning of the names of old copies that are being removed.
const REMOVED: &str = "removed-";
/// The beginnings of the names that killed deliveries, or copies that could not be removed, leave in `.whit`.
const LEFTOVERS: [&str; 5] = ["staging-", REMOVED, "current-", SEED, TRIAL];
/// A process that is being started may hold the lock of a delivery that has ended, until it runs its own program.
const LOCK_TIME_MAX: Duration = Duration::from_secs(1);
/// The end of the names of marks of pulls.
const MARK: &str = ".pulled";
/// The end of the names of what marks differ from.
const BASE: &str = ".base";
/// The link before it gets its name.
const NEXT: &str = "current-next";

/// A destination's folders: checked, created, and locked against other deliveries.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) copies: Copies,
    pub(super) private: Folder,
    _lock: Lock,
}

/// A copy that was given its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) slot: Slot,
    /// The name that the copy which had this name has now.
    pub(super) set_aside: Option<Slot>,
}

impl Folders {
    /// Checks what is at `path`, creates what is missing, takes the lock, removes leftovers.
    ///
    /// # Errors
    /// Something is in the way, or another delivery holds the lock.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let folder = Folder::create(path, 0o755).map_err(|error| not_a_folder(error, path))?;
        check_link(&folder)?;
        let private = open_own(&folder, ".whit", 0o700)?;
        let releases = open_own(&folder, "releases", 0o755)?;
        let lock = private.lock("lock", LOCK_TIME_MAX)?.ok_or_else(|| Error::Busy(path.to_owned()))?;
        let folders = Self { copies: Copies { folder, releases }, private, _lock: lock };
        for name in folders.private.names()? {
            let is_leftover = LEFTOVERS.iter().any(|leftover| name.starts_with(leftover));
            // The log has named what cannot be removed; the next delivery tries again.
            if is_leftover && folders.private.remove(&name).is_err() && !name.starts_with(REMOVED) {
                folders.private.rename(&name, &folders.private, &folders.removed(&name)?)?;
            }
        }
        folders.forget_removed()?;
        Ok(folders)
    }

    /// Removes what is known of copies that are not there any more.
    fn forget_removed(&self) -> Result<(), Error> {
        let kept = self.copies.kept();
        let marks: Vec<String> = kept.iter().map(mark_name).collect();
        let kept: Vec<String> = kept.into_iter().map(untouched::name).collect();
        let names = self.private.names()?;
        let has_marks = names.iter().any(|name| marks.contains(name));
        for name in names {
            let is_note = name.starts_with(WHOLE) && !kept.contains(&name);
            let is_mark = name.ends_with(MARK) && !marks.contains(&name);
            if is_note || is_mark || (name.ends_with(BASE) && !has_marks) {
                self.private.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Returns the name in `.whit` of the folder in which a copy is written.
    pub(super) fn staging(release: ReleaseId) -> String {
        format!("staging-{release}")
    }

    /// Moves a complete copy to its place among the others. Readers see it only where they saw one of that name: that one
    /// gets another name in the same step, and whoever has it open keeps it.
    ///
    /// # Errors
    /// The rename or a sync failed.
    pub(super) fn publish(&self, release: ReleaseId) -> Result<Published, Error> {
        let (staging, releases) = (Self::staging(release), &self.copies.releases);
        let plain = Slot { release, number: 0 };
        let mut free = plain;
        while releases.examine(free.name())?.is_some() {
            free.number += 1;
        }
        self.private.rename(&staging, releases, &free.name())?;
        crash_points::point("copy.renamed");
        // Where the file system cannot exchange names, the copy stays where it is.
        if free == plain || !releases.exchange(&free.name(), &plain.name())? {
            return Ok(Published { slot: free, set_aside: None });
        }
        Ok(Published { slot: plain, set_aside: Some(free) })
    }

    /// Shows `slot` to readers, atomically and durably.
    ///
    /// # Errors
    /// Readers see what they saw before; or, where only the last sync failed, `slot`.
    pub(super) fn switch(&self, slot: Slot) -> Result<(), Error> {
        self.private.link_to(&Path::new("releases").join(slot.name()), NEXT)?;
        crash_points::point("link.made");
        Ok(self.private.rename(NEXT, &self.copies.folder, "current")?)
    }

    /// Returns a free name in `.whit` for a copy that is being removed.
    fn removed(&self, name: &str) -> Result<String, Error> {
        let mut number = 0;
        loop {
            let end = if number == 0 { String::new() } else { format!(".{number}") };
            let aside = format!("{REMOVED}{name}{end}");
            if self.private.examine(&aside)?.is_none() {
                return Ok(aside);
            }
            number += 1;
        }
    }

    /// Removes a copy; first its name, so that no half of it is ever seen.
    ///
    /// # Errors
    /// Each later delivery tries again to remove what is left.
    pub(super) fn remove(&self, slot: Slot) -> Result<(), Error> {
        if slot.number == 0 {
            self.private.remove(untouched::name(slot.release))?;
        }
        let aside = self.removed(&slot.name())?;
        self.copies.releases.rename(&slot.name(), &self.private, &aside)?;
        crash_points::point("copy.removing");
        self.private.remove(&aside)?;
        crash_points::point("copy.removed");
        Ok(())
    }
}

/// Returns the name in `.whit` of the mark of a release's copy.
pub(super) fn mark_name(release: &ReleaseId) -> String {
    format!("{release}{MARK}")
}

/// Opens a folder whose content may be removed, and creates it if missing: it must not be a link, and others must not be
/// able to write to it.
///
/// # Errors
/// [`Error::NotAFolder`], [`Error::NotOwn`], or the system's.
pub(super) fn open_own(above: &Folder, name: &str, mode: u32) -> Result<Folder, Error> {
    let made = above.make(name, mode)?;
    let folder = above.below(name).map_err(|error| not_a_folder(error, &above.at(name)))?;
    let found = folder.examine_self()?;
    let is_own = found.st_uid == rustix::process::geteuid().as_raw();
    let is_closed = found.st_mode & 0o002 == 0 && (mode != 0o700 || found.st_mode & 0o020 == 0);
    if !is_own || !is_closed {
        return Err(Error::NotOwn(folder.path().to_owned()));
    }
    if made {
        above.sync()?;
    }
    Ok(folder)
}
