//! Makes a directory equal to a release: fetches beside it, rebuilds beside it, exchanges the two.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use serde::Serialize;

use super::comparison::{Differences, compare, folder_id};
use super::directory_view::FetchOptions;
use super::fetch::{Fetched, fetch};
use super::local_chunks::{DirectoryChunks, LocalChunks, Present};
use super::mark::{self, Beginning, FolderId, Mark};
use super::place::{Named, PlaceError};
use super::staging::{SetAside, Staging};
use crate::agent::lazy_store::LazyStore;
use crate::agent::memory;
use crate::agent::pace::{Effort, Pace};
use crate::agent::push::receipt::{self, ReceiptWire};
use crate::agent::scan::{self, Archives, Scan, Selection};
use crate::agent::{Error, Result, Session, blocking};
use crate::net::blocking::start_whole;
use crate::net::link_estimate::Link;
use crate::restore::{self, ChunkSource, OutsideLinks, TreeOptions};
use crate::store;
use disk::crash_points;
use disk::files::{self, Mount, OnPath};
use format::chunking::Profile;
use format::manifest::{MODE_MASK, Root, SegmentIndex, Totals};
use format::recipe::ChunkRef;
use ground::escape;
use ground::ids::{AppName, ReleaseId, Selector};
use ground::monitor::Monitor;

/// The result of a pull.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pulled {
    /// The release.
    pub release: ReleaseId,
    /// The application.
    pub app: AppName,
    /// The directory.
    #[serde(serialize_with = "escape::serialize_path")]
    pub place: PathBuf,
    /// Files of the release.
    pub files: u64,
    /// Bytes of the release.
    pub bytes: u64,
    /// Chunks that the directory did not have.
    pub fetched_chunks: u64,
    /// Their plain bytes.
    pub fetched_bytes: u64,
    /// Bytes on the wire.
    pub wire: ReceiptWire,
    /// True if the directory held the release already: nothing was written.
    pub unchanged: bool,
    /// Entries of the last pull that the user had changed.
    pub set_aside: SetAside,
    /// Seconds from beginning to end.
    pub seconds: f64,
    /// The process's largest resident memory, in bytes.
    pub peak_rss: u64,
}

/// How a pull treats what is there.
#[derive(Debug, Clone, Copy)]
pub struct PullOptions {
    /// Remove what no pull has put into the directory, instead of refusing.
    pub delete: bool,
    /// Workers for hashing.
    pub threads: usize,
    /// How to treat links that lead outside the release.
    pub outside_links: OutsideLinks,
    /// The link's speed in bytes a second; none where it is not known.
    pub link_rate: Option<f64>,
}

impl PullOptions {
    /// Returns the pace of a pull over a link whose rate is known.
    fn pace(self, session: &Session) -> Option<Pace> {
        let link = Link::told(self.link_rate?, session.first_trip());
        Some(Pace::new(Effort::Auto, link, self.threads))
    }
}

impl Default for PullOptions {
    /// Refuses what would be removed and links that lead outside; one worker.
    fn default() -> Self {
        Self { delete: false, threads: 1, outside_links: OutsideLinks::default(), link_rate: None }
    }
}

/// Makes `target` equal to the release that `selector` means.
///
/// Whoever opens `target` sees the old tree or the new one. Chunks that were fetched before an
/// interruption are not fetched again.
///
/// # Errors
/// Any of [`Error`]; `target` is then as it was.
pub async fn pull_tree(
    session: &Session,
    selector: &Selector,
    target: &Path,
    options: PullOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Pulled> {
    let begin = Instant::now();
    let target = std::path::absolute(target).on("find", target)?;
    // `DIR/.` and `DIR/` are DIR.
    let target: PathBuf = target.components().collect();
    if target.file_name().is_none() {
        return Err(PlaceError::Target(target).into());
    }
    let Prepared { staging, present, store, was, untouched } = {
        let (target, monitor) = (target.clone(), Arc::clone(monitor));
        blocking(move || prepare(&target, options, &monitor)).await?
    };
    let (present, store) = (Arc::new(present), Arc::new(store));
    let (place, pace) = (Some(staging.folder().to_owned()), options.pace(session));
    let how = FetchOptions { place, holds: untouched, pace };
    let fetched = match fetch(session, selector, &present, &store, how, monitor).await {
        Ok(fetched) => fetched,
        Err(error) => {
            blocking(move || {
                drop(store);
                staging.leave_if_empty()
            })
            .await?;
            return Err(error);
        }
    };
    let counters = session.counters();
    let Fetched { record, root, chunks, bytes } = fetched;
    let release = root.release();
    let pulled = Pulled {
        release,
        app: record.app,
        place: target.clone(),
        files: record.totals.files,
        bytes: record.totals.bytes,
        fetched_chunks: chunks,
        fetched_bytes: bytes,
        unchanged: untouched == Some(release),
        set_aside: SetAside::default(),
        wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
        seconds: 0.0,
        peak_rss: 0,
    };
    if pulled.unchanged {
        // The directory, its files and its mark stay as they are.
        blocking(move || {
            store.close();
            files::remove(&staging.store())
        })
        .await?;
        return Ok(pulled.ended(begin));
    }
    let (staging, store) = {
        let monitor = Arc::clone(monitor);
        blocking(move || {
            crash_points::point("pull.fetched");
            let local = LocalChunks { present: present.chunks(), fetched: &store };
            let tree = staging.tree();
            let mode = was.as_ref().map_or(root.totals.folder_mode(), |was| was.mode_of(&root));
            let tree_options = TreeOptions {
                folder_mode: Some(mode),
                outside_links: options.outside_links,
                ..TreeOptions::default()
            };
            restore::write_tree(&root, &local, &tree, &tree_options, monitor.as_ref())?;
            was.map_or(Ok(()), |was| was.keep_owner(&tree, mode, monitor.as_ref()))?;
            let beginning = Beginning {
                release,
                folder_mode: root.totals.folder_mode,
                folder: folder_id(&tree)?,
                mode,
                limit: was.and_then(|was| was.limit),
                began: memory::now(),
                deletes: options.delete,
                root: Some(root.id()),
            };
            let written = segments(&root, &local)
                .and_then(|segments| mark::write(&staging.next_mark_path(), &beginning, &tree, segments));
            // A disk that is full is not left so.
            written.inspect_err(|_| drop(files::remove(&tree)))?;
            crash_points::point("pull.tree");
            Ok::<_, Error>((staging, store))
        })
        .await?
    };
    let stands_inside = is_inside(&target);
    let set_aside = {
        let monitor = Arc::clone(monitor);
        let exchanging = move || {
            let set_aside = staging.exchange(options.delete, monitor.as_ref())?;
            // The fetched chunks are in the tree now; what remains beside it is a mark and a lock.
            store.close();
            files::remove(&staging.store())?;
            crash_points::point("pull.after");
            Ok::<_, Error>(set_aside)
        };
        // An interrupted pull has either all of this or nothing.
        start_whole(exchanging).await??
    };
    if stands_inside {
        monitor.note("this shell is still in the replaced directory: run `cd .` to enter the new one");
    }
    Ok(Pulled { set_aside, ..pulled }.ended(begin))
}

impl Pulled {
    /// Adds what is known at the end.
    fn ended(self, begin: Instant) -> Self {
        Self { seconds: begin.elapsed().as_secs_f64(), peak_rss: receipt::peak_rss(), ..self }
    }
}

/// The state that a pull begins with.
struct Prepared {
    staging: Staging,
    present: Present,
    store: LazyStore,
    /// The directory that the pull replaces, if there is one.
    was: Option<Was>,
    /// The release that the directory holds, where it is as the last pull made it.
    untouched: Option<ReleaseId>,
}

/// The directory that a pull replaces.
#[derive(Debug, Clone, Copy)]
struct Was {
    owner: (u32, u32),
    /// The mode that the user gave it: what it keeps closed stays closed.
    limit: Option<u16>,
}

impl Was {
    /// Returns the mode of the new directory.
    fn mode_of(&self, root: &Root) -> u16 {
        let wanted = root.totals.folder_mode();
        self.limit.map_or(wanted, |limit| (wanted & limit) | 0o700 | (limit & !MODE_MASK))
    }

    /// Gives the new directory the old one's owner, as far as the system lets.
    fn keep_owner(&self, tree: &Path, mode: u16, monitor: &dyn Monitor) -> files::Result<()> {
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

/// Looks at the directory as it is and opens what an interrupted pull left.
fn prepare(target: &Path, options: PullOptions, monitor: &Arc<dyn Monitor>) -> Result<Prepared> {
    let staging = Staging::find(target)?;
    if let Some(staging) = &staging {
        staging.recover(monitor.as_ref())?;
    }
    let Some(found) = examine_place(target)? else {
        let staging = staging.map_or_else(|| Staging::open(target), Ok)?;
        let store = LazyStore::new(staging.store(), store::Options::PASSING);
        let present = DirectoryChunks::default().into();
        return Ok(Prepared { staging, present, store, was: None, untouched: None });
    };
    let folder = FolderId::of(&found);
    let mut mark = staging.as_ref().map_or(Ok(Mark::None), Staging::mark)?;
    let mut scanned = None;
    if let (Mark::Earlier(release), Some(staging)) = (&mark, &staging) {
        let scan = scan_place(target, None, None, options, monitor.as_ref()).ok();
        if let Some(scan) = scan.filter(|scan| scan.root.release() == *release) {
            mark_earlier(staging, target, &scan, &found)?;
            mark = staging.mark()?;
            scanned = Some(scan);
        }
    }
    let placed = if let Mark::Whole(placed) = &mark { Some(placed) } else { None };
    let began = memory::now();
    let beginning = placed.map(|placed| placed.beginning);
    let checked = compare(target, placed).and_then(|differences| {
        let is_ours = beginning.is_some_and(|beginning| beginning.folder.is(&folder));
        check(target, &differences, is_ours, options)?;
        let is_as_pulled = is_ours && differences.is_none();
        let new = placed.filter(|placed| is_as_pulled && placed.is_new(began));
        if let Some(placed) = new.filter(|_| differences.read > 0) {
            placed.note_read(began);
        }
        Ok((is_as_pulled, differences.has_unpacked))
    });
    let (is_as_pulled, has_unpacked) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            if let Some(staging) = &staging {
                staging.leave_if_empty()?;
            }
            return Err(error);
        }
    };

    let staging = staging.map_or_else(|| Staging::open(target), Ok)?;
    let mode = found.stx_mode & 0o7777;
    let limit = match beginning {
        Some(beginning) if beginning.folder.is(&folder) && beginning.mode == mode => beginning.limit,
        _ => Some(mode),
    };
    let was = Some(Was { owner: (found.stx_uid, found.stx_gid), limit });
    let folder_mode = beginning.map_or_else(|| other_than_plain(mode), |beginning| beginning.folder_mode);
    let store = LazyStore::new(staging.store(), store::Options::PASSING);
    let is_as_pulled = is_as_pulled && beginning.is_some_and(|beginning| beginning.mode == mode);
    let held = beginning.filter(|_| is_as_pulled);
    let read = {
        // Only what has the form of the release before has its chunks.
        let scratch = has_unpacked.then(|| staging.folder().to_owned());
        let (target, monitor) = (target.to_owned(), Arc::clone(monitor));
        move || {
            DirectoryChunks::found(
                scan_place(&target, scratch.as_deref(), folder_mode, options, &*monitor),
                &*monitor,
            )
        }
    };
    let is_believed = placed.is_some_and(|placed| placed.was_read_lately(began));
    if let Some(Beginning { release, root: Some(root), .. }) =
        held.filter(|_| scanned.is_none() && is_believed)
    {
        let present = Present::unread(root, read);
        return Ok(Prepared { staging, present, store, was, untouched: Some(release) });
    }
    let chunks = scanned.map_or_else(read, |scan| DirectoryChunks::found(Ok(scan), monitor.as_ref()));
    // What was read says so too.
    let held = held.map(|held| held.release);
    let untouched = held.filter(|held| chunks.release() == Some(*held));
    if let Some(placed) = placed.filter(|_| untouched.is_some()) {
        placed.note_read(began);
    }
    let present = chunks.into();
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
fn scan_place(
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
    };
    let segments = SegmentIndex::enumerate(&scan.segments).map(|(index, _)| Ok(scan.spool.segment(index)?));
    mark::write(&staging.mark_path(), &beginning, target, segments)
}

/// Returns the segments of a release.
fn segments<'a>(
    root: &Root,
    local: &'a LocalChunks<'_>,
) -> Result<impl Iterator<Item = Result<Vec<u8>>> + 'a> {
    let mut reader = local.reader();
    let nodes = restore::leaves(root, &mut *reader)?;
    Ok(nodes.into_iter().map(move |node| {
        let mut segment = Vec::new();
        let chunk = ChunkRef::from(node);
        reader.read(&chunk, &mut segment).map_err(restore::Error::from)?;
        Ok(segment)
    }))
}

/// Returns what a root says of a top directory with this mode.
fn other_than_plain(mode: u16) -> Option<u16> {
    Totals::default().with_folder_mode(mode).folder_mode
}

/// Returns whether the process's working directory, most likely its shell's too, is inside the replaced one.
fn is_inside(target: &Path) -> bool {
    let (here, there) = (std::env::current_dir(), fs::canonicalize(target));
    here.is_ok_and(|here| there.is_ok_and(|there| here.starts_with(there)))
}
