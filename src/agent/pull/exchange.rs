//! How a new tree takes a directory's place, how the one before comes back, and how both go on after a crash.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, RenameFlags};
use rustix::io::Errno;

use super::comparison::folder_id;
use super::mark::{Beginning, Mark};
use super::place::PlaceError;
use super::staging::{SetAside, Staging, is_there};
use crate::agent::Result;
use disk::crash_points;
use disk::files::{self, OnPath};
use ground::monitor::Monitor;

const READY: &str = "ready";
const OLD: &str = "old";
const BACK: &str = "back";
const BACK_OLD: &str = "back-old";
const TRIAL: &str = "trial";

/// Tries whether the directory `target` can be exchanged, and changes nothing: it is renamed to a folder in `folder` that is not empty,
/// which the system refuses last of all.
///
/// # Errors
/// [`PlaceError::Fixed`], or the folder to try it with cannot be made.
pub(super) fn try_exchange(folder: &Path, target: &Path) -> Result<()> {
    let fixed = |source: Errno| PlaceError::Fixed { place: target.to_owned(), source: source.into() };
    if !is_there(target)? {
        let above = target.parent().unwrap_or(Path::new("/"));
        let may = rustix::fs::accessat(CWD, above, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        return Ok(may.map_err(fixed)?);
    }
    let trial = folder.join(TRIAL);
    std::fs::create_dir_all(trial.join("inside")).on("create", &trial)?;
    let renamed = rustix::fs::rename(target, &trial);
    let outcome = match renamed {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(fixed(error).into()),
        // Somebody has emptied it meanwhile.
        Ok(()) => Ok(files::rename(&trial, target)?),
    };
    files::remove(&trial)?;
    outcome
}

impl Staging {
    /// Finishes what a killed pull had begun: puts back a directory that was moved away, sets aside what the user had
    /// changed in one that was exchanged, and removes the rest.
    ///
    /// # Errors
    /// The folder cannot be read or changed.
    pub fn recover(&self, monitor: &dyn Monitor) -> Result<()> {
        self.remove_left();
        self.dispose(&self.tree(), monitor)?;
        files::remove(&self.folder().join(TRIAL))?;
        let next = self.next_mark()?.map(|next| next.beginning);
        for name in [READY, OLD, BACK_OLD, BACK] {
            let place = self.folder().join(name);
            if !is_there(&place)? {
                continue;
            }
            let id = folder_id(&place)?;
            let is_new = next.is_some_and(|next| next.folder.is(&id));
            if !is_new && !is_there(self.target())? {
                files::rename(&place, self.target())?;
                continue;
            }
            if is_new && name == BACK {
                files::rename(&place, &self.previous_copy())?;
                continue;
            }
            let is_kept = [READY, OLD].contains(&name) && self.keeps_previous();
            if !is_new {
                // What was put into a copy that is left by going back stays, whatever its own pull was allowed.
                let deletes = [READY, OLD].contains(&name) && next.is_some_and(|next| next.deletes);
                self.sweep(&place, (deletes, is_kept), monitor)?.tell(monitor);
            }
            if is_kept && !is_new {
                self.keep(&place, monitor)?;
            } else {
                self.dispose(&place, monitor)?;
            }
        }
        let is_at = |beginning: &Beginning, place: &Path| {
            Ok::<_, crate::agent::Error>(is_there(place)? && beginning.folder.is(&folder_id(place)?))
        };
        // A copy that was moved before its mark.
        let copy = self.previous_copy();
        if let Mark::Whole(mark) = self.mark()?
            && is_at(&mark.beginning, &copy)?
        {
            files::rename(&self.mark_path(), &self.previous_mark_path())?;
        }
        match next {
            // It may have been shown for long: which files only lost a name since is not known any more.
            Some(next) if is_at(&next, self.target())? => self.take_next_mark(),
            // It was about to come back.
            Some(next) if is_at(&next, &copy)? => {
                Ok(files::rename(&self.next_mark_path(), &self.previous_mark_path())?)
            }
            _ => Ok(files::remove(&self.next_mark_path())?),
        }
    }

    /// Puts the written tree, whose mark was written, into the directory's place in one step. `keeps` says whether the directory that
    /// was there is kept as the previous copy; none: as the pull before did.
    ///
    /// # Errors
    /// Before the exchange, the directory is as it was. After it, the next pull finishes the rest.
    pub fn exchange(&self, deletes: bool, keeps: Option<bool>, monitor: &dyn Monitor) -> Result<SetAside> {
        if keeps == Some(true) {
            self.begin_to_keep()?;
        }
        let ready = self.folder().join(READY);
        files::rename(&self.tree(), &ready)?;
        let was = match self.swap(&ready, OLD) {
            Ok(was) => was,
            Err(error) => {
                // The tree will be written again: it may take long until the exchange is allowed. Where only the last sync
                // failed, the directory that was there is in its place now.
                if self.is_next(&ready) {
                    drop(files::remove(&self.next_mark_path()));
                    drop(files::remove(&ready));
                }
                return Err(error);
            }
        };
        if keeps == Some(false) {
            self.forget_previous(monitor)?;
        }
        let is_ours = |was: &PathBuf| {
            let id = folder_id(was)?;
            Ok::<_, crate::agent::Error>(
                matches!(self.mark()?, Mark::Whole(mark) if mark.beginning.folder.is(&id)),
            )
        };
        let aside = match was {
            Some(was) if self.keeps_previous() && is_ours(&was)? => {
                let aside = self.sweep(&was, (deletes, true), monitor)?;
                self.keep(&was, monitor)?;
                aside
            }
            Some(was) => {
                let aside = self.sweep(&was, (deletes, false), monitor)?;
                self.dispose(&was, monitor)?;
                aside
            }
            None => SetAside::default(),
        };
        // In this order: as long as something of the old tree is there, its own mark is, by which a later pull knows what the user
        // had changed in it.
        crash_points::point("pull.removed");
        // Up to now files of the new tree lost the names that they had in the old one.
        if let Some(next) = self.next_mark()? {
            next.note_named();
        }
        self.take_next_mark()?;
        Ok(aside)
    }

    /// Puts the previous copy back into the directory's place in one step. The directory that was there is removed, but for what
    /// the user had changed in it or put there.
    ///
    /// # Errors
    /// There is none; or, before the exchange, the directory is as it was. After it, the next pull finishes the rest.
    pub fn go_back(&self, monitor: &dyn Monitor) -> Result<SetAside> {
        // Its mark first: by it a copy that has no place yet is known.
        files::rename(&self.previous_mark_path(), &self.next_mark_path())?;
        crash_points::point("back.begun");
        let back = self.folder().join(BACK);
        files::rename(&self.previous_copy(), &back)?;
        let was = match self.swap(&back, BACK_OLD) {
            Ok(was) => was,
            Err(error) => {
                if self.is_next(&back) {
                    drop(files::rename(&back, &self.previous_copy()));
                    drop(files::rename(&self.next_mark_path(), &self.previous_mark_path()));
                }
                return Err(error);
            }
        };
        let mut aside = SetAside::default();
        if let Some(was) = was {
            aside = self.sweep(&was, (false, false), monitor)?;
            self.dispose(&was, monitor)?;
        }
        crash_points::point("back.removed");
        files::rename(&self.next_mark_path(), &self.mark_path())?;
        Ok(aside)
    }

    /// Exchanges the complete tree at `ready` with the directory; returns where the directory is now, if there was one. A file system
    /// that cannot exchange gets it as `old`.
    fn swap(&self, ready: &Path, old: &str) -> Result<Option<PathBuf>> {
        let target = self.target();
        match rustix::fs::renameat_with(CWD, ready, CWD, target, RenameFlags::EXCHANGE) {
            Ok(()) => {
                crash_points::point("pull.exchanged");
                files::sync_folder(target.parent().unwrap_or(Path::new("/")))?;
                Ok(Some(ready.to_owned()))
            }
            Err(Errno::NOENT) => {
                files::rename(ready, target)?;
                Ok(None)
            }
            Err(Errno::INVAL | Errno::NOSYS) => {
                // The directory is away for a moment, never half there.
                let old = self.folder().join(old);
                files::rename(target, &old)?;
                files::rename(ready, target).inspect_err(|_| drop(files::rename(&old, target)))?;
                Ok(Some(old))
            }
            Err(error) => Err(error).on("exchange", target)?,
        }
    }

    /// Returns whether a directory is certainly the one of the next mark.
    fn is_next(&self, place: &Path) -> bool {
        let next = self.next_mark().ok().flatten();
        next.zip(folder_id(place).ok()).is_some_and(|(next, id)| next.beginning.folder.is(&id))
    }

    /// Keeps the directory that was replaced, and its mark, instead of the copy before.
    fn keep(&self, was: &Path, monitor: &dyn Monitor) -> Result<()> {
        self.drop_previous(monitor)?;
        files::rename(was, &self.previous_copy())?;
        crash_points::point("pull.kept");
        Ok(files::rename(&self.mark_path(), &self.previous_mark_path())?)
    }

    /// Makes the new tree's mark the directory's.
    fn take_next_mark(&self) -> Result<()> {
        files::rename(&self.next_mark_path(), &self.mark_path())?;
        self.remove_unused_bases();
        Ok(())
    }
}
