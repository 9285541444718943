//! A complete copy of a release that lies beside others, and the mark that says how a pull left it.
//!
//! What an application adds to a copy does not count: it goes with the copy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::comparison::{Differences, Known, compare, folder_id};
use super::local_chunks::{DirectoryChunks, LocalChunks, Present};
use super::mark::{Beginning, Mark, Placed};
use super::mark_base::MarkBase;
use super::mark_writer::{self, Written};
use super::options::PullOptions;
use super::prepare::{Belief, scan_place};
use super::publish::segments;
use super::unchanged::Unchanged;
use crate::agent::Result;
use crate::agent::memory;
use crate::restore::Linked;
use disk::files::{self, Folder, OnPath};
use format::manifest::Root;
use ground::ids::ReleaseId;
use ground::monitor::Monitor;

/// A copy, and what is known of it without the proxy.
#[derive(Debug)]
pub struct MarkedCopy {
    placed: Option<Placed>,
    present: Arc<Present>,
    untouched: Option<ReleaseId>,
    /// Since when content of it was not read.
    believed_since: i64,
}

/// Where a copy and its mark are.
#[derive(Debug, Clone)]
pub struct CopyPlace {
    /// The folder of the copy.
    pub copy: PathBuf,
    /// The file of the mark; it says nothing of another folder.
    pub mark: PathBuf,
}

impl CopyPlace {
    /// Reads the mark, if it is that of the copy.
    fn placed(&self) -> Result<Option<Placed>> {
        let Mark::Whole(mark) = Mark::open(&self.mark, self.mark.parent().unwrap_or(Path::new("")))? else {
            return Ok(None);
        };
        let is_its = mark.root.is_some() && mark.beginning.folder.is(&folder_id(&self.copy)?);
        Ok(is_its.then_some(*mark))
    }

    /// Returns whether the copy is still the release that its mark says. Reads the files of which their looks do not tell.
    ///
    /// # Errors
    /// The copy or its mark cannot be read.
    pub fn is_whole(&self, release: ReleaseId, linked: &[Linked]) -> Result<bool> {
        let Some(placed) = self.placed()?.filter(|placed| placed.beginning.release == release) else {
            return Ok(false);
        };
        let reads_all = !placed.was_read_lately(memory::now());
        Ok(is_release(&compare(&self.copy, Some(&placed), Known { linked, reads_all, next: None })?))
    }
}

/// Returns whether all of the release is there as it was put.
fn is_release(found: &Differences) -> bool {
    found.edited.is_empty() && found.gone == 0 && found.modes == 0
}

impl MarkedCopy {
    /// Looks at the copy of which new ones take over unchanged files; none where there is none yet. It has the links `linked`. Archives
    /// are unpacked in `scratch`.
    ///
    /// # Errors
    /// It or its mark cannot be read.
    pub fn look(
        place: Option<&CopyPlace>,
        linked: &[Linked],
        belief: Belief,
        (scratch, options): (&Path, PullOptions),
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self> {
        let began = memory::now();
        let nothing = || Arc::new(DirectoryChunks::default().into());
        let Some(place) = place else {
            return Ok(Self { placed: None, present: nothing(), untouched: None, believed_since: began });
        };
        let read = |unpacks: bool, folder_mode| {
            let (copy, monitor) = (place.copy.clone(), Arc::clone(monitor));
            let scratch = unpacks.then(|| scratch.to_owned());
            move || {
                let scan = scan_place(&copy, scratch.as_deref(), folder_mode, options, &*monitor);
                DirectoryChunks::found(scan, &*monitor)
            }
        };
        let Some(mut placed) = place.placed()? else {
            let present = Arc::new(read(false, None)().into());
            return Ok(Self { placed: None, present, untouched: None, believed_since: began });
        };
        let is_late = !placed.was_read_lately(began);
        let found = compare(&place.copy, Some(&placed), Known { linked, reads_all: is_late, next: None })?;
        let is_whole = is_release(&found);
        if is_whole && (is_late || found.read_by_change > 0) {
            // Times of change up to now are those of names that other copies got or lost. If this fails, it is read once more.
            let believed_since = placed.beginning.believed_since.filter(|_| !is_late);
            let relinked_until = Some(began);
            let beginning =
                Beginning { relinked_until, relinks_until_named: false, believed_since, ..placed.beginning };
            placed.read = if is_late || placed.is_new(began) { began } else { placed.read };
            placed.beginning = beginning;
            let read = placed.read;
            drop(mark_writer::rewrite(&place.mark, &mut placed, read, |_| beginning));
        } else if is_whole && found.read > 0 && placed.is_new(began) {
            placed.note_read(began);
            placed.read = began;
        }
        let believed_since = placed.believed_since();
        let read = read(found.has_unpacked, placed.beginning.folder_mode);
        let root = placed.root.as_ref().filter(|_| is_whole && belief == Belief::Mark).map(Root::id);
        let present = match root {
            None => Present::from(read()),
            Some(root) => {
                let (marked, copy) = (placed.clone(), place.copy.clone());
                Present::unread(root, move || {
                    DirectoryChunks::of_mark(&marked, &copy).ok().flatten().unwrap_or_else(&read)
                })
            }
        };
        let untouched = is_whole.then_some(placed.beginning.release);
        Ok(Self { placed: Some(placed), present: Arc::new(present), untouched, believed_since })
    }

    /// Notes that up to now copies were removed which shared files with the one of the mark at `mark`, just written. If that fails, those
    /// files are read once more.
    pub fn note_named(mark: &Path) {
        if let Ok(Mark::Whole(placed)) = Mark::open(mark, mark.parent().unwrap_or(Path::new(""))) {
            placed.note_named();
        }
    }

    /// Removes the bases in `folder` that no mark in it needs any more, as far as the disk lets.
    pub fn remove_unused_bases(folder: &Path) {
        let is_mark = |path: &PathBuf| path.extension().is_some_and(|end| end == "pulled");
        // Where it cannot be read, nothing is removed either.
        let Ok(files) = files::list(folder) else { return };
        let marks: Vec<PathBuf> = files.into_iter().filter(is_mark).collect();
        MarkBase::remove_unused(folder, &marks);
    }

    /// Returns its content, which need not be fetched.
    pub fn present(&self) -> &Arc<Present> {
        &self.present
    }

    /// Returns the release that it is, where it is as a pull left it.
    pub fn untouched(&self) -> Option<ReleaseId> {
        self.untouched
    }

    /// Begins to tell which of its files are unchanged; `others` are further copies that share files with it. None where no mark
    /// tells.
    ///
    /// # Errors
    /// The mark cannot be read any more.
    pub fn unchanged(&self, others: Vec<Folder>) -> Result<Option<Unchanged<'_>>> {
        self.placed.as_ref().map(|placed| Unchanged::new(placed, others)).transpose()
    }

    /// Writes the mark of a new copy in the folder `tree`, which has files of this one by `unchanged`, durably, to `mark`.
    ///
    /// # Errors
    /// The disk.
    pub fn write_mark(
        &self,
        mark: &Path,
        (root, local): (&Root, &LocalChunks<'_>),
        (tree, linked): (&Path, &[Linked]),
        unchanged: Option<&Unchanged<'_>>,
    ) -> Result<()> {
        let has_linked = unchanged.is_some_and(Unchanged::has_any);
        let began = memory::now();
        let metadata = std::fs::symlink_metadata(tree).on("examine", tree)?;
        let beginning = Beginning {
            release: root.release(),
            folder_mode: root.totals.folder_mode,
            folder: folder_id(tree)?,
            mode: mode_of(&metadata),
            limit: None,
            began,
            deletes: false,
            root: Some(root.id()),
            believed_since: has_linked.then_some(self.believed_since),
            relinked_until: has_linked.then_some(began),
            relinks_until_named: has_linked,
        };
        let tree = Written { tree, was: self.placed.as_ref(), linked };
        mark_writer::write(mark, &beginning, root, tree, segments(root, local)?)
    }
}

fn mode_of(metadata: &std::fs::Metadata) -> u16 {
    use std::os::unix::fs::MetadataExt;
    u16::try_from(metadata.mode() & 0o7777).unwrap_or_default()
}
