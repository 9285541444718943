//! A folder that shows one release at a time.
//!
//! `PATH/current` is a relative link to a complete copy. Whoever opens files through it sees the old
//! release or the new one, and whoever has resolved it once keeps a whole copy, as the one just left is
//! never removed. Copies are never changed after they are complete: a damaged one is replaced by another.

mod layout;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use self::layout::{Layout, Slot};
use super::mistake::Mistake;
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Preview, Template};
use crate::restore::{OutsideLinks, Previous, Reuse, TreeOptions, looks_complete, write_tree};
use disk::files;
use format::manifest::EntryPath;
use ground::ids::{AppName, ReleaseId};
use ground::monitor::Monitor;

/// Copies kept by default: the current one and two to go back to.
const KEEP_DEFAULT: usize = 3;

/// A directory destination, and the keys that define one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The folder; created with its first release.
    pub path: Template,
    /// Copies kept, the current one included; 3 by default. The one just left is kept in any case.
    #[serde(default = "keep_default")]
    pub keep: usize,
    /// How to reuse unchanged files of the current copy; `copy` by default.
    #[serde(default)]
    pub reuse: Reuse,
    /// How to treat links that lead outside a release; refused by default. A definition says `true` to keep them.
    #[serde(default, deserialize_with = "outside_links")]
    pub outside_links: OutsideLinks,
}

fn keep_default() -> usize {
    KEEP_DEFAULT
}

fn outside_links<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OutsideLinks, D::Error> {
    let keeps = bool::deserialize(deserializer)?;
    Ok(if keeps { OutsideLinks::Keep } else { OutsideLinks::Refuse })
}

impl Directory {
    /// Creates a destination at `path` with the defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (reuse, outside_links) = (Reuse::default(), OutsideLinks::default());
        Self { path: Template::new(path), keep: KEEP_DEFAULT, reuse, outside_links }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        if !self.path.as_path().is_absolute() {
            return Err(("path", Mistake::Relative(self.path.as_path().to_owned())));
        }
        if let Some(text) = self.path.unknown_placeholder() {
            return Err(("path", Mistake::Placeholder(text)));
        }
        if self.keep == 0 { Err(("keep", Mistake::Nothing)) } else { Ok(()) }
    }

    /// Removes all but the newest copies; the next delivery tries a failed removal again.
    fn remove_old(&self, layout: &Layout<'_>, current: Slot, left: Option<Slot>, monitor: &dyn Monitor) {
        let protected = |slot: &Slot| *slot == current || Some(*slot) == left;
        let note = |error| monitor.note(&format!("an old copy was not removed: {error}"));
        let slots = layout.slots().map_err(note).unwrap_or_default();
        let room = self.keep.saturating_sub(slots.iter().filter(|slot| protected(slot)).count());
        for slot in slots.into_iter().filter(|slot| !protected(slot)).skip(room) {
            // A copy that cannot be removed does not keep the others.
            layout.remove(slot).unwrap_or_else(note);
        }
    }
}

impl Destination for Directory {
    /// Does nothing if the release is current and complete by names, sizes and modes. Otherwise writes a new copy, from a
    /// kept copy of the same release or the current one as far as their bytes are right, so that nothing an application
    /// changed in its folder comes back.
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let Job { root, source, monitor, .. } = *job;
        let (path, release) = (self.path.of(job.app), job.release());
        let layout = Layout::open(&path)?;
        let left = layout::current(&path)?;
        if let Some(current) = left.filter(|slot| slot.release == release) {
            let folder = layout.folder(current);
            if looks_complete(root, source, &folder)? {
                // The delivery before may have been killed before its last sync.
                files::sync_folder(&path)?;
                let (files, bytes) = (root.totals.files, root.totals.bytes);
                let place = folder.display().to_string();
                let kept = releases(&layout);
                let shown = Delivered { place, files, bytes, kept, ..Delivered::default() };
                return Ok(Delivered { reused_bytes: bytes, already: true, ..shown });
            }
            monitor.note("the current copy was changed since its delivery; it is replaced");
        }

        let existing = layout.slots()?.into_iter().find(|slot| slot.release == release);
        let basis = existing.map(|slot| (slot, Some(root.clone())));
        let basis = basis.or_else(|| left.map(|slot| (slot, (job.root_of)(&slot.release))));
        let basis = basis.and_then(|(slot, root)| root.map(|root| (layout.folder(slot), root)));
        let previous = basis.as_ref().map(|(folder, root)| Previous { folder, root });
        let (reuse, outside_links, cancelled) = (self.reuse, self.outside_links, Some(job.cancelled));
        let options = TreeOptions { previous, reuse, cancelled, outside_links, ..TreeOptions::default() };

        let staging = layout.staging(release);
        let written = write_tree(root, source, &staging, &options, monitor)?;
        let slot = layout.publish(&staging, release)?;
        layout.switch(slot)?;
        self.remove_old(&layout, slot, left, monitor);
        Ok(Delivered {
            place: layout.folder(slot).display().to_string(),
            files: written.files,
            bytes: written.bytes,
            reused_bytes: written.reused_bytes,
            sent_bytes: written.bytes.saturating_sub(written.reused_bytes),
            kept: releases(&layout),
            ..Delivered::default()
        })
    }

    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        let _ = job;
        Ok(Preview::default())
    }

    fn check(&self) -> Vec<Check> {
        Vec::new()
    }

    fn kind(&self) -> &'static str {
        "dir"
    }

    /// The copy that readers see comes first, then the newest.
    fn read_back(&self, app: &AppName, release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        let copies = layout::copies(&self.path.of(app), release);
        copies.into_iter().map(|folder| Box::new(FolderCopy(folder)) as Box<dyn KeptCopy>).collect()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        let path = app.map_or_else(|| self.path.as_path().to_owned(), |app| self.path.of(app));
        path.display().to_string()
    }

    fn folders(&self) -> &[Template] {
        std::slice::from_ref(&self.path)
    }
}

/// Returns the releases that a destination has copies of, the newest copy first; none if they cannot be listed.
fn releases(layout: &Layout<'_>) -> Vec<ReleaseId> {
    layout.slots().unwrap_or_default().into_iter().map(|slot| slot.release).collect()
}

/// The folder of a complete copy.
struct FolderCopy(PathBuf);

impl KeptCopy for FolderCopy {
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>> {
        // Somebody may have put a link or a FIFO there since: do not follow it or wait for it.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = File::options();
        let file = options.read(true).custom_flags(flags.bits().cast_signed());
        let file = file.open(self.0.join(OsStr::from_bytes(path.as_bytes()))).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut content = vec![0; bytes as usize];
        file.read_exact_at(&mut content, offset).ok()?;
        Some(content)
    }
}

#[cfg(test)]
mod tests;
