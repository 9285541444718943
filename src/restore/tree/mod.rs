//! Writes a whole release below a new folder.
//!
//! The caller's thread walks the manifest: it makes folders, links and large files, and cuts the rest
//! into jobs. Workers take jobs from a short queue, decode, verify and write. The first error stops all
//! of them, and what was written is removed.
//!
//! Everything is created relative to a folder that did not exist before, is held open, is closed to other users until
//! it is complete, and is never reached through a symbolic link: the manifest's reader lets entries
//! appear only below real directories. So nobody but the process's own user and the superuser can put a link in the way
//! of a path below it. Times and owners are given to open files and directories, the owner last. The earlier copy is open
//! to others: its files are opened beneath it, through no link, and hashed, or linked where it is given up and something else shows
//! that they are unchanged.

mod jobs;
mod linker;
mod planner;
mod same;
mod site;
mod worker;

use std::cell::LazyCell;
use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustix::fs::Statx;
use serde::{Deserialize, Serialize};

use self::linker::Linker;
use self::planner::Planner;
use self::same::SameFiles;
use self::site::Site;
use self::worker::Worker;
use super::free_space::{FreeSpace, can_link, can_reflink};
use super::{ChunkSource, Error, Mapping};
use disk::crash_points;
use disk::files::{self, Folder, OnPath};
use format::manifest::{EntryPath, Root};
use ground::monitor::{Monitor, Phase};
use ground::threads;

/// The options of [`write_tree`].
#[derive(Debug, Clone, Copy)]
pub struct TreeOptions<'a> {
    /// Workers; one for each processor by default.
    pub threads: NonZeroUsize,
    /// An earlier complete copy, whose unchanged files are reused; none by default.
    pub previous: Option<Previous<'a>>,
    /// The way to reuse unchanged files.
    pub reuse: Reuse,
    /// Stops the work soon after it becomes true.
    pub cancelled: Option<&'a AtomicBool>,
    /// True if all is on stable storage at the end; true by default.
    pub sync: bool,
    /// The permission bits of the new folder itself; those of the release by default.
    pub folder_mode: Option<u16>,
    /// The treatment of links that lead outside the release; refused by default.
    pub outside_links: OutsideLinks,
    /// The folder that the new one is made in, held open; found by its path by default.
    pub above: Option<&'a Folder>,
    /// What the copy has instead of what the release says; nothing by default.
    pub mapping: Mapping<'a>,
    /// The time of modification of all that the earlier copy does not have with the same content, in seconds since
    /// 1970; what it has keeps its own. By default all get the time at which they are written.
    pub time: Option<u64>,
}

impl Default for TreeOptions<'_> {
    fn default() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (previous, reuse, cancelled) = (None, Reuse::default(), None);
        let outside_links = OutsideLinks::default();
        Self {
            threads,
            previous,
            reuse,
            cancelled,
            sync: true,
            folder_mode: None,
            outside_links,
            above: None,
            mapping: Mapping::default(),
            time: None,
        }
    }
}

/// An earlier complete copy.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    /// The folder of the copy. Its content is verified, never trusted.
    pub folder: &'a Folder,
    /// The release it was made from, readable from the same source.
    pub root: &'a Root,
    /// Says which of its files may be linked into the new copy unread; none by default.
    pub linkable: Option<&'a dyn Linkable>,
}

/// Says which files of an earlier copy may be linked into the new one without being read: the earlier copy is given up, and
/// something else than their bytes shows that they are unchanged.
pub trait Linkable: fmt::Debug {
    /// Begins before the first file, once more if need be.
    fn begin(&self);

    /// Returns how many names of the file at `path`, which looks as `found` says, are whit's own: one in each copy that shares it. A file
    /// with more is not linked, as who gave it another wants that one to stay as it is.
    fn names(&self, path: &EntryPath, found: &Statx) -> u32;

    /// Returns whether the file at `path`, which looks as `found` says, has the content that the earlier release says. Paths are
    /// asked for in the manifest's order.
    fn may_be_linked(&self, path: &EntryPath, found: &Statx) -> bool;
}

/// The way to reuse a file of an earlier copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// By a reflink where the file system can, else by a copy: both releases are independent.
    #[default]
    Copy,
    /// By a reflink, else by a hard link, else by a copy. A hard link saves time and room, but an
    /// application that writes into its files in place changes both releases.
    HardLink,
}

/// The treatment of links that lead outside the release.
///
/// Nothing is ever written through a link. But a program at the destination, as a web server, may read through one what
/// lies outside. So the destination's owner decides, not the pushing user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutsideLinks {
    /// Fails at the first of them.
    #[default]
    Refuse,
    /// Writes them as they are.
    Keep,
}

/// The figures of a written tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files that came whole from the earlier copy.
    pub reused_files: u64,
    /// Bytes that came from the earlier copy.
    pub reused_bytes: u64,
    /// Directories, the top one not counted.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Entries that were left out, as a link to something that is kept elsewhere has their place.
    pub left_out: u64,
}

/// Jobs that wait for each worker: enough to keep it busy, few enough to hold in memory.
const QUEUE_PER_WORKER: usize = 2;

/// Writes the release `root` as the new folder `folder`, whose parent exists.
///
/// Memory: some MiB for each worker, and one bit for each file when there is an earlier copy.
///
/// # Errors
/// The first error of any thread: `folder` exists, the manifest or a chunk is damaged, a path cannot be
/// written. [`ground::faults::Fault::Full`] means no room. Nothing of `folder` is left then.
pub fn write_tree(
    root: &Root,
    source: &dyn ChunkSource,
    folder: &Path,
    options: &TreeOptions<'_>,
    monitor: &dyn Monitor,
) -> Result<Written, Error> {
    monitor.begin(Phase::Rebuild, Some(root.totals.bytes));
    let same = match &options.previous {
        Some(previous) => SameFiles::find(root, previous.root, source, monitor)?,
        None => SameFiles::default(),
    };
    let opened = if options.above.is_none() {
        let path = folder.parent().filter(|above| !above.as_os_str().is_empty());
        Some(Folder::led_to(path.unwrap_or(Path::new(".")))?)
    } else {
        None
    };
    let above = options.above.or(opened.as_ref()).expect("one of them is there");
    // The open folder itself, whatever has its path by now.
    let open = format!("/proc/self/fd/{}", above.as_fd().as_raw_fd());
    let share = LazyCell::new(|| options.reuse == Reuse::HardLink || can_reflink(Path::new(&open)));
    let links = LazyCell::new(|| can_link(Path::new(&open)));
    FreeSpace::at(above.path())?.check_tree(root, source, &|file, path, looks| {
        let would_link = |previous| linker::would_link(previous, &options.mapping, path, looks);
        same.has(file) && (*share || (options.previous.as_ref().is_some_and(would_link) && *links))
    })?;
    let (unfinished, made) = Unfinished::create(above, folder)?;
    let site = Site::new(&made, options, monitor);
    let linker = options.previous.and_then(|previous| Linker::new(&previous, &site));
    let mut written = write_entries(root, source, &site, (&same, linker), options.threads)?;
    site.tally(&mut written);
    let mode = options.folder_mode.unwrap_or(root.totals.folder_mode());
    site.finish_directory(&made, Some(options.mapping.mode_of_directory(mode))).on("finish", folder)?;
    crash_points::point("tree.written");
    if options.sync {
        made.sync_file_system()?;
    }
    crash_points::point("tree.synced");
    unfinished.keep();
    Ok(written)
}

fn write_entries(
    root: &Root,
    source: &dyn ChunkSource,
    site: &Site<'_>,
    (same, linker): (&SameFiles, Option<Linker<'_>>),
    workers: NonZeroUsize,
) -> Result<Written, Error> {
    let (sender, receiver) = mpsc::sync_channel(workers.get() * QUEUE_PER_WORKER);
    let receiver = Arc::new(Mutex::new(receiver));
    let planner = thread::scope(|scope| {
        let started = threads::start_workers(scope, workers.get(), || {
            let receiver = Arc::clone(&receiver);
            move || Worker::new(site, &mut *source.reader(), source.rebuilt()).run(&receiver)
        });
        if let Err(error) = started {
            site.fail(error.into());
        }
        // The workers alone hold the receiving end, so that the planner never waits for none of them.
        drop(receiver);
        let mut planner = Planner::new(root, site, (same, linker), sender);
        if let Err(error) = planner.run(&mut *source.reader()) {
            site.fail(error);
        }
        planner.end();
        planner
    });
    site.outcome()?;
    planner.link(&mut *source.reader())?;
    site.create_linked()?;
    planner.finish_directories(&mut *source.reader())?;
    Ok(planner.written())
}

/// Removes a folder unless it was completed.
struct Unfinished<'a> {
    above: &'a Folder,
    name: Option<&'a OsStr>,
}

impl<'a> Unfinished<'a> {
    fn create(above: &'a Folder, folder: &'a Path) -> Result<(Self, Folder), files::Error> {
        let name = folder.file_name().unwrap_or_default();
        if !above.make(name, 0o700)? {
            return Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists)).on("create", folder);
        }
        let unfinished = Self { above, name: Some(name) };
        let made = above.below(name)?;
        Ok((unfinished, made))
    }

    fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            // The next cleanup finds the folder; the error that led here matters more.
            drop(self.above.remove(name));
        }
    }
}

#[cfg(test)]
mod tests;
