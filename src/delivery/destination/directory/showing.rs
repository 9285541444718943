//! How a folder comes to show a release: the steps that deliveries and pulls share.

use std::path::PathBuf;

use super::content::Content;
use super::copies::Slot;
use super::folders::Folders;
use super::{Directory, shared, trial};
use crate::delivery::destination::Error;
use crate::restore::{Linked, Mapping, Previous, TreeOptions, write_tree};
use disk::files::Folder;
use ground::monitor::Monitor;

/// A complete copy that is kept.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// The folder of the copy.
    pub folder: &'a Folder,
    /// True if readers see it.
    pub is_current: bool,
    pub(super) private: &'a Folder,
    pub(super) mapping: &'a Mapping<'a>,
}

/// What deliveries and pulls do each in their own way.
pub trait Steps {
    /// Returns whether a kept copy of the release is whole, so that it can be shown as it is.
    ///
    /// # Errors
    /// The manifest cannot be read.
    fn is_whole(&self, kept: &Kept<'_>, content: &Content<'_>) -> Result<bool, Error>;

    /// Returns the copy whose unchanged files the new one takes over; none to write all.
    fn basis(&self) -> Option<Previous<'_>>;

    /// Is called once the new copy is written, before it has its name. `copy` is its folder.
    ///
    /// # Errors
    /// The copy is not shown.
    fn written(&self, copy: &Folder) -> Result<(), Error>;

    /// Is called before readers see the release.
    ///
    /// # Errors
    /// They do not.
    fn before_switch(&self) -> Result<(), Error>;

    /// Is called once old copies are gone, and with them names of files that the new one shares.
    fn old_removed(&self);
}

/// A folder that shows a release.
#[derive(Debug)]
pub struct Showing {
    pub(super) slot: Slot,
    /// The folder of the copy.
    pub copy: PathBuf,
    /// True if readers saw it before.
    pub already: bool,
    /// Bytes that an earlier copy had.
    pub(super) reused_bytes: u64,
    /// Bytes that were written.
    pub(super) written_bytes: u64,
}

impl Directory {
    /// Returns the links of each copy to what lies beside them.
    #[must_use]
    pub fn links(&self) -> Vec<Linked> {
        shared::links(&self.shared)
    }

    /// Shows a release. A kept copy that is whole is shown as it is, else a new one is written.
    ///
    /// # Errors
    /// Readers see what they saw before.
    pub(super) fn show(
        &self,
        folders: &Folders,
        content: &Content<'_>,
        mapping: &Mapping<'_>,
        steps: &dyn Steps,
    ) -> Result<Showing, Error> {
        let Content { root, source, monitor, .. } = *content;
        let (copies, private, release) = (&folders.copies, &folders.private, content.release());
        let missing = shared::missing(&self.shared, Some(&copies.folder), content)?;
        trial::try_owner(private, mapping)?;
        let create = || shared::create(&missing, &copies.folder, private, content, mapping);
        let all = (root.totals.bytes, 0);
        let shown = |slot: Slot, already, (reused_bytes, written_bytes)| Showing {
            slot,
            copy: copies.place(slot),
            already,
            reused_bytes,
            written_bytes,
        };
        let is_whole = |slot: Slot, is_current| match copies.open(slot) {
            Some(folder) => steps.is_whole(&Kept { folder: &folder, is_current, private, mapping }, content),
            None => Ok(false),
        };

        let left = copies.current()?;
        if let Some(current) = left.filter(|slot| slot.release == release) {
            if is_whole(current, true)? {
                create()?;
                // The delivery before may have been killed before its last sync.
                copies.folder.sync()?;
                return Ok(shown(current, true, all));
            }
            monitor.note("the current copy was changed since its delivery; it is replaced");
        }

        let plain = Slot { release, number: 0 };
        if left != Some(plain) && is_whole(plain, false)? {
            create()?;
            steps.before_switch()?;
            folders.switch(plain)?;
            self.remove_old(folders, plain, left, monitor);
            return Ok(shown(plain, false, all));
        }

        let options = TreeOptions {
            previous: steps.basis(),
            reuse: self.reuse,
            cancelled: Some(content.cancelled),
            outside_links: self.outside_links,
            above: Some(private),
            mapping: *mapping,
            time: (content.created > 0).then(|| copies.free_time(&release, content.created)),
            ..TreeOptions::default()
        };
        let staging = private.at(Folders::staging(release));
        let written = write_tree(root, source, &staging, &options, monitor)?;
        if written.left_out > 0 {
            let (count, shared) = (written.left_out, copies.folder.at("shared"));
            monitor.note(&format!(
                "left out of the release, as {} has its place: {count} at shared paths",
                shared.display()
            ));
        }
        create()?;
        steps.written(&private.below(Folders::staging(release))?)?;
        steps.before_switch()?;
        let published = folders.publish(release)?;
        let mut left = left;
        if left == Some(published.slot) {
            // Whoever has the copy open that had this name keeps it.
            left = published.set_aside;
        } else {
            folders.switch(published.slot)?;
        }
        // Only now: if anything before fails, it can still be gone back to the copy before.
        self.remove_old(folders, published.slot, left, monitor);
        steps.old_removed();
        let written_bytes = written.bytes.saturating_sub(written.reused_bytes);
        Ok(shown(published.slot, false, (written.reused_bytes, written_bytes)))
    }

    /// Removes all but the newest copies; the next delivery tries a failed removal again.
    pub(super) fn remove_old(
        &self,
        folders: &Folders,
        current: Slot,
        left: Option<Slot>,
        monitor: &dyn Monitor,
    ) {
        let protected = |slot: &Slot| *slot == current || Some(*slot) == left;
        let note = |error| monitor.note(&format!("an old copy was not removed: {error}"));
        let slots = folders.copies.slots().map_err(note).unwrap_or_default();
        let kept = [Some(current), left.filter(|left| *left != current && slots.contains(left))]
            .into_iter()
            .flatten()
            .count();
        let room = self.keep.saturating_sub(kept);
        for slot in slots.into_iter().filter(|slot| !protected(slot)).skip(room) {
            // A copy that cannot be removed does not keep the others.
            folders.remove(slot).unwrap_or_else(note);
        }
    }
}
