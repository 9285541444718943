//! A directory destination's folder that a pull has opened.

use std::path::{Path, PathBuf};

use super::content::Content;
use super::copies::{Slot, check_link};
use super::folders::{Folders, mark_name};
use super::showing::{Showing, Steps};
use super::{Directory, shared};
use crate::agent::pull::CopyPlace;
use crate::delivery::destination::Error;
use disk::files::{self, Folder};
use ground::ids::ReleaseId;
use ground::monitor::Monitor;

/// A folder that shows one release at a time: checked, created, and locked against deliveries and other pulls.
#[derive(Debug)]
pub struct OpenDirectory {
    folders: Folders,
}

impl OpenDirectory {
    /// Opens the folder at `path`, an absolute one, and removes what a killed delivery or pull left.
    ///
    /// # Errors
    /// Something is in the way, or another delivery or pull is under way.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folders = Folders::open(path)?;
        files::remove_unpublished(folders.private.path())?;
        Ok(Self { folders })
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        self.folders.copies.folder.path()
    }

    /// Returns the folder that only whit uses.
    pub fn private(&self) -> &Folder {
        &self.folders.private
    }

    /// Returns the release that readers see; none before the first, or if somebody has put another link in the place of whit's.
    ///
    /// # Errors
    /// The link cannot be read, or something else is in its place.
    pub fn current(&self) -> Result<Option<(ReleaseId, CopyPlace)>, Error> {
        Ok(self.folders.copies.current()?.map(|slot| (slot.release, self.place(slot))))
    }

    /// Returns where the link leads that somebody has put in the place of whit's; none if it is whit's, or there is none.
    ///
    /// # Errors
    /// It cannot be read, or something else is in its place.
    pub fn elsewhere(&self) -> Result<Option<PathBuf>, Error> {
        let copies = &self.folders.copies;
        if !check_link(&copies.folder)? || copies.current()?.is_some() {
            return Ok(None);
        }
        Ok(Some(copies.folder.target_of("current")?))
    }

    /// Returns the copy of a release that has its name; none if there is none.
    pub fn copy_of(&self, release: ReleaseId) -> Option<CopyPlace> {
        let slot = Slot { release, number: 0 };
        self.folders.copies.open(slot).map(|_| self.place(slot))
    }

    /// Returns where the mark of a release's copy is.
    pub fn mark_of(&self, release: &ReleaseId) -> PathBuf {
        self.folders.private.at(mark_name(release))
    }

    /// Returns all copies but the one that readers see.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn others(&self) -> Result<Vec<Folder>, Error> {
        let copies = &self.folders.copies;
        let current = copies.current()?;
        let others = copies.slots()?.into_iter().filter(|slot| Some(*slot) != current);
        Ok(others.filter_map(|slot| copies.open(slot)).collect())
    }

    /// Returns the releases that have copies, the newest copy first.
    pub fn kept(&self) -> Vec<ReleaseId> {
        self.folders.copies.kept()
    }

    /// Returns whether all that the rules share is there.
    ///
    /// # Errors
    /// Something is in the way.
    pub fn has_shared(&self, rules: &Directory) -> Result<bool, Error> {
        shared::is_all_there(&rules.shared, &self.folders.copies.folder)
    }

    /// Shows a release by the rules of `directory`, which give copies no other owner or modes.
    ///
    /// # Errors
    /// Readers see what they saw before.
    pub fn show(
        &self,
        directory: &Directory,
        content: &Content<'_>,
        steps: &dyn Steps,
    ) -> Result<Showing, Error> {
        let linked = directory.links();
        directory.show(&self.folders, content, &directory.mapping(&linked)?, steps)
    }

    /// Removes all but the newest copies, the shown one and the one that `before` names for it.
    ///
    /// # Errors
    /// The folder cannot be read. What cannot be removed is noted.
    pub fn remove_old(
        &self,
        directory: &Directory,
        before: impl Fn(&ReleaseId) -> Option<ReleaseId>,
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        let Some(current) = self.folders.copies.current()? else { return Ok(()) };
        let before = before(&current.release).map(|release| Slot { release, number: 0 });
        directory.remove_old(&self.folders, current, before, monitor);
        Ok(())
    }

    /// Shows the copy of a release that has its name, in one step.
    ///
    /// # Errors
    /// Readers see what they saw before.
    pub fn switch(&self, release: ReleaseId) -> Result<(), Error> {
        self.folders.switch(Slot { release, number: 0 })
    }

    fn place(&self, slot: Slot) -> CopyPlace {
        CopyPlace { copy: self.folders.copies.place(slot), mark: self.mark_of(&slot.release) }
    }
}
