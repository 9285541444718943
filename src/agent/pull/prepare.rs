//! Examines the directory before a pull, and refuses to replace what is not whit's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::comparison::{Differences, Known, compare};
use super::fetched_chunks::FetchedChunks;
use super::local_chunks::{DirectoryChunks, Present};
use super::mark::{Beginning, FolderId, Mark, Placed};
use super::mark_writer::{self, Written};
use super::options::PullOptions;
use super::place::{Named, PlaceError};
use super::staging::Staging;
use crate::agent::Result;
use crate::agent::memory;
use crate::agent::scan::{self, Archives, Scan, Selection};
use disk::files::{self, Mount, OnPath};
use format::chunking::Profile;
use format::manifest::{MODE_MASK, Root, SegmentIndex, Totals};
use ground::ids::ReleaseId;
use ground::monitor::Monitor;

/// The state that a pull begins with.
pub(super) struct Prepared {
    pub staging: Arc<Staging>,
    pub present: Present,
    pub store: FetchedChunks,
    /// The directory that the pull replaces, if there is one.
    pub was: Option<Was>,
    /// The release that the directory holds, where it is as the last pull made it.
    pub untouched: Option<ReleaseId>,
}

/// The directory that a pull replaces.
#[derive(Debug)]
pub(super) struct Was {
    owner: (u32, u32),
    /// The mode that the user gave it: what it keeps closed stays closed.
    pub limit: Option<u16>,
    /// What the last pull put into it, where one has made it.
    pub placed: Option<Placed>,
    /// Since when content of it was not read.
    pub believed_since: i64,
}

/// What of a directory is believed without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// That files are what the mark says as long as they look so, for a week.
    Mark,
    /// Nothing.
    Nothing,
}

impl Was {
    /// Returns the mode of the new directory.
    pub fn mode_of(&self, root: &Root) -> u16 {
        let wanted = root.totals.folder_mode();
        self.limit.map_or(wanted, |limit| (wanted & limit) | 0o700 | (limit & !MODE_MASK))
    }

    /// Gives the new directory the old one's owner, as far as the system lets.
    pub fn keep_owner(&self, tree: &Path, mode: u16, monitor: &dyn Monitor) -> files::Result<()> {
        let found = fs::symlink_metadata(tree).on("examine", tree)?;
        if (found.uid(), found.gid()) == self.owner {
            return Ok(());
        }
        let (uid, gid) = self.owner;
        if let Err(error) = std::os::unix::fs::chown(tree, Some(uid), Some(gid)) {
            monitor
                .note(&format!("the directory does not keep its owner, user {uid} and group {gid}: {error}"));
        }
        fs::set_permissions(tree, fs::Permissions::from_mode(mode.into())).on("set the mode of", tree)
    }
}

/// Looks at the directory as it is. `staging` is the folder beside it, if there is one: nothing of a killed pull is left in it.
///
/// # Errors
/// The directory may not be replaced, or cannot be read.
pub(super) fn prepare(
    target: &Path,
    staging: Option<Arc<Staging>>,
    belief: Belief,
    options: PullOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Prepared> {
    let open = || Staging::open(target).map(Arc::new);
    let Some(found) = examine_place(target)? else {
        let staging = staging.map_or_else(open, Ok)?;
        let store = FetchedChunks::new(staging.store());
        let present = DirectoryChunks::default().into();
        return Ok(Prepared { staging, present, store, was: None, untouched: None });
    };
    let folder = FolderId::of(&found);
    let mut mark = staging.as_ref().map_or(Ok(Mark::None), |staging| staging.mark())?;
    let mut scanned = None;
    if let (Mark::Earlier(release), Some(staging)) = (&mark, &staging) {
        let scan = scan_place(target, None, None, options, monitor.as_ref()).ok();
        if let Some(scan) = scan.filter(|scan| scan.root.release() == *release) {
            mark_earlier(staging, target, &scan, &found)?;
            mark = staging.mark()?;
            scanned = Some(scan);
        }
    }
    let mut placed = if let Mark::Whole(placed) = mark { Some(*placed) } else { None };
    let began = memory::now();
    let beginning = placed.as_ref().map(|placed| placed.beginning);
    let is_ours = beginning.is_some_and(|beginning| beginning.folder.is(&folder));
    let checked = compare(target, placed.as_ref(), Known::default()).and_then(|differences| {
        check(target, &differences, is_ours, options)?;
        let is_as_pulled = is_ours && differences.is_none();
        let is_new = is_as_pulled && placed.as_ref().is_some_and(|placed| placed.is_new(began));
        match (&mut placed, &staging) {
            (Some(placed), _) if is_new && differences.read > 0 => placed.note_read(began),
            (Some(placed), Some(staging)) if is_as_pulled && !is_new && differences.read_by_change > 0 => {
                // As after a pull that linked them and failed. If this fails, they are read once more.
                placed.beginning.relinked_until = Some(began);
                placed.beginning.relinks_until_named = false;
                let (beginning, read) = (placed.beginning, placed.read);
                drop(mark_writer::rewrite(&staging.mark_path(), placed, read, |_| beginning));
            }
            _ => {}
        }
        Ok((is_as_pulled, differences.has_unpacked, is_new))
    });
    let (is_as_pulled, has_unpacked, is_read) = checked?;

    // Since when it is believed is not changed by reading what its times do not tell.
    let since = placed.as_ref().map(Placed::believed_since);
    let was_read_lately = placed.as_ref().is_some_and(|placed| placed.was_read_lately(began));
    if let Some(placed) = placed.as_mut().filter(|_| is_read) {
        placed.read = began;
    }
    let staging = staging.map_or_else(open, Ok)?;
    let mode = found.stx_mode & 0o7777;
    let limit = match beginning {
        Some(beginning) if beginning.folder.is(&folder) && beginning.mode == mode => beginning.limit,
        _ => Some(mode),
    };
    let folder_mode = beginning.map_or_else(|| other_than_plain(mode), |beginning| beginning.folder_mode);
    let store = FetchedChunks::new(staging.store());
    let is_as_pulled = is_as_pulled && beginning.is_some_and(|beginning| beginning.mode == mode);
    let held = beginning.filter(|_| is_as_pulled);
    let read = {
        // Only what has the form of the release before has its chunks.
        let scratch = has_unpacked.then(|| staging.folder().to_owned());
        let (target, monitor) = (target.to_owned(), Arc::clone(monitor));
        move || {
            let scan = scan_place(&target, scratch.as_deref(), folder_mode, options, &*monitor);
            DirectoryChunks::found(scan, &*monitor)
        }
    };
    let is_believed = belief == Belief::Mark && scanned.is_none() && was_read_lately;
    let (owner, mut placed) = ((found.stx_uid, found.stx_gid), placed.filter(|_| is_ours));
    let was = |placed, believed_since| Some(Was { owner, limit, placed, believed_since });
    if let Some(Beginning { release, root: Some(root), .. }) = held.filter(|_| is_believed)
        && let Some((placed, since)) = placed.clone().zip(since)
    {
        let (target, marked) = (target.to_owned(), placed.clone());
        let read = move || DirectoryChunks::of_mark(&marked, &target).ok().flatten().unwrap_or_else(&read);
        let (present, was) = (Present::unread(root, read), was(Some(placed), since));
        return Ok(Prepared { staging, present, store, was, untouched: Some(release) });
    }
    let chunks = scanned.map_or_else(read, |scan| DirectoryChunks::found(Ok(scan), monitor.as_ref()));
    // What was read says so too.
    let held = held.map(|held| held.release);
    let untouched = held.filter(|held| chunks.release() == Some(*held));
    if let Some(placed) = placed.as_mut().filter(|_| untouched.is_some()) {
        placed.note_read(began);
        let beginning = placed.beginning;
        if beginning.believed_since.is_some() {
            let change = |_| Beginning { believed_since: None, relinks_until_named: false, ..beginning };
            mark_writer::rewrite(&staging.mark_path(), placed, began, change)?;
        }
    }
    let (present, was) = (chunks.into(), was(placed, began));
    Ok(Prepared { staging, present, store, was, untouched })
}

/// Examines the target; returns none where nothing is there.
fn examine_place(target: &Path) -> Result<Option<Statx>> {
    let found = match files::examine(CWD, target, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        found => found.on("examine", target)?,
    };
    match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Directory => {}
        FileType::Symlink => return Err(PlaceError::Link(target.to_owned()).into()),
        _ => return Err(PlaceError::Target(target.to_owned()).into()),
    }
    let above = target.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(above, flags, Mode::empty()).on("open", above)?;
    if Mount::of_open(&opened).on("examine", above)?.is(&Mount::of(&found)) {
        Ok(Some(found))
    } else {
        Err(PlaceError::MountPoint(target.to_owned()).into())
    }
}

/// Refuses a pull that would remove the user's entries, or hide a mount.
fn check(target: &Path, found: &Differences, is_ours: bool, options: PullOptions) -> Result<()> {
    let place = target.to_owned();
    if !found.mounts.is_empty() {
        return Err(PlaceError::Mounted { place, mounts: Named::of(&found.mounts) }.into());
    }
    // In a directory that no pull has made, a file that looks changed is the user's own.
    let edited = found.edited.iter().filter(|_| !is_ours);
    let strangers = Named::of(found.added.iter().chain(edited));
    if options.delete || strangers.count == 0 {
        Ok(())
    } else {
        Err(PlaceError::NotPulled { place, strangers }.into())
    }
}

/// Scans the directory; archives are unpacked in `scratch`, where there is one; `folder_mode` is the mode that its release's root names for the top.
pub(super) fn scan_place(
    target: &Path,
    scratch: Option<&Path>,
    folder_mode: Option<u16>,
    options: PullOptions,
    monitor: &dyn Monitor,
) -> Result<Scan, scan::Error> {
    let everything = Selection::everything();
    let archives = scratch.map(|scratch| Archives::new(scratch.to_owned()));
    let reader = scan::Reader {
        selection: &everything,
        profile: Profile::DEFAULT,
        threads: options.threads,
        memory: None,
        archives: archives.as_ref(),
        on_segment: None,
        monitor,
    };
    let mut scan = reader.scan(target)?;
    scan.root.totals.folder_mode = folder_mode;
    Ok(scan)
}

/// Writes a whole mark for a directory whose mark is an older whit's, if it still holds the release that this one names.
fn mark_earlier(staging: &Staging, target: &Path, scan: &Scan, found: &Statx) -> Result<()> {
    let beginning = Beginning {
        release: scan.root.release(),
        folder_mode: None,
        folder: FolderId::of(found),
        mode: found.stx_mode & 0o7777,
        limit: None,
        began: memory::now(),
        deletes: false,
        root: Some(scan.root.id()),
        believed_since: None,
        relinked_until: None,
        relinks_until_named: false,
    };
    let segments = SegmentIndex::enumerate(&scan.segments).map(|(index, _)| Ok(scan.spool.segment(index)?));
    let tree = Written { tree: target, was: None, linked: &[] };
    mark_writer::write(&staging.mark_path(), &beginning, &scan.root, tree, segments)
}

/// Returns what a root says of a top directory with this mode.
fn other_than_plain(mode: u16) -> Option<u16> {
    Totals::default().with_folder_mode(mode).folder_mode
}
