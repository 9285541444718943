//! Writes a whole release below a new folder.
//!
//! The caller's thread walks the manifest: it makes folders, links and large files, and cuts the rest
//! into jobs. Workers take jobs from a short queue, decode, verify and write. The first error stops all
//! of them, and what was written is removed.
//!
//! Everything is created relative to a folder that did not exist before, is closed to other users until
//! it is complete, and is never reached through a symbolic link: the manifest's reader lets entries
//! appear only below real directories.

mod jobs;
mod planner;
mod same;
mod site;
mod worker;

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use serde::{Deserialize, Serialize};

use self::planner::Planner;
use self::same::SameFiles;
use self::site::Site;
use self::worker::Worker;
use super::free_space::{FreeSpace, can_reflink};
use super::{ChunkSource, Error};
use disk::crash_points;
use disk::files::{self, OnPath};
use format::manifest::Root;
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
}

impl Default for TreeOptions<'_> {
    fn default() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (previous, reuse, cancelled) = (None, Reuse::default(), None);
        let outside_links = OutsideLinks::default();
        Self { threads, previous, reuse, cancelled, sync: true, folder_mode: None, outside_links }
    }
}

/// An earlier complete copy.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    /// The folder of the copy. Its content is verified, never trusted.
    pub folder: &'a Path,
    /// The release it was made from, readable from the same source.
    pub root: &'a Root,
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
        Some(previous) => SameFiles::find(root, previous, source, monitor)?,
        None => SameFiles::default(),
    };
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shares = || options.reuse == Reuse::HardLink || can_reflink(above);
    FreeSpace::at(above)?.check_tree(root, source, same.bytes(), &|file| same.has(file), &shares)?;
    let unfinished = Unfinished::create(folder)?;
    let site = Site::open(folder, options, monitor)?;
    let mut written = write_entries(root, source, &site, &same, options.threads)?;
    site.tally(&mut written);
    let mode = options.folder_mode.unwrap_or(root.totals.folder_mode());
    fs::set_permissions(folder, fs::Permissions::from_mode(mode.into())).on("set the mode of", folder)?;
    crash_points::point("tree.written");
    if options.sync {
        files::sync_file_system(folder)?;
    }
    crash_points::point("tree.synced");
    unfinished.keep();
    Ok(written)
}

fn write_entries(
    root: &Root,
    source: &dyn ChunkSource,
    site: &Site<'_>,
    same: &SameFiles,
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
        let mut planner = Planner::new(root, site, same, sender);
        if let Err(error) = planner.run(&mut *source.reader()) {
            site.fail(error);
        }
        planner.end();
        planner
    });
    site.outcome()?;
    planner.link(&mut *source.reader())?;
    planner.seal_directories(&mut *source.reader())?;
    Ok(planner.written())
}

/// Removes a folder unless it was completed.
struct Unfinished {
    folder: Option<PathBuf>,
}

impl Unfinished {
    fn create(folder: &Path) -> Result<Self, files::Error> {
        fs::DirBuilder::new().mode(0o700).create(folder).on("create", folder)?;
        Ok(Self { folder: Some(folder.to_owned()) })
    }

    fn keep(mut self) {
        self.folder = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // The next cleanup finds the folder; the error that led here matters more.
            drop(files::remove(folder));
        }
    }
}

#[cfg(test)]
mod tests;
