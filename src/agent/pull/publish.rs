//! Makes a directory equal to a release: fetches beside it, rebuilds beside it, exchanges the two.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;

use super::super::pace::Pace;
use super::super::receipt::{self, ReceiptWire};
use super::super::scan::{self, Archives, Selection};
use super::super::{Error, Result, Session, blocking};
use super::fetch::{Fetched, fetch};
use super::held::{Held, Present};
use crate::blocking::start_whole;
use crate::chunking::Profile;
use crate::crash;
use crate::files::{self, Lock, OnPath};
use crate::ids::{AppName, ReleaseId, Selector};
use crate::monitor::Monitor;
use crate::reassembly::{self, TreeOptions};
use crate::store::{self, Store};

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pulled {
    /// The release.
    pub release: ReleaseId,
    /// The application.
    pub app: AppName,
    /// Where it is now.
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
    /// Seconds from beginning to end.
    pub seconds: f64,
    /// The process's largest resident memory, in bytes.
    pub peak_rss: u64,
}

/// How a pull treats what is there.
#[derive(Debug, Clone, Copy)]
pub struct PullOptions {
    /// Replace a directory that no pull has made.
    pub replace: bool,
    /// Workers for hashing.
    pub threads: usize,
    /// What the link carries, in bytes a second, where that is known.
    pub link_rate: Option<f64>,
}

/// The folder beside a pulled directory: a lock, the store of fetched chunks, the tree being written.
struct Staging {
    folder: PathBuf,
    _lock: Lock,
}

/// Says that the directory beside it was made by a pull.
const MARK: &str = "pulled";
/// The directory before, where the file system cannot exchange two: for a moment.
const OLD: &str = "old";

/// `.DIR.whit` beside `DIR`.
fn beside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".whit");
    target.with_file_name(name)
}

impl Staging {
    fn open(target: &Path) -> Result<Self> {
        let folder = beside(target);
        files::create_folder(&folder)?;
        let lock = Lock::take(&folder.join("lock"), std::time::Duration::ZERO)?;
        let lock = lock.ok_or_else(|| Error::Busy(target.to_owned()))?;
        files::remove_unpublished(&folder)?;
        Ok(Self { folder, _lock: lock })
    }

    /// Removes the folder, unless a pull was here before or something was fetched that the next one can use.
    fn leave_if_empty(&self) -> Result<()> {
        let fetched = self.path("store").join("packs");
        let is_empty = fs::read_dir(&fetched).on("list", &fetched)?.next().is_none();
        if is_empty && !self.path(MARK).exists() {
            files::remove(&self.folder)?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
    if target.file_name().is_none() {
        return Err(Error::Target(target));
    }
    let (staging, present, store) = {
        let (target, monitor) = (target.clone(), Arc::clone(monitor));
        blocking(move || prepare(&target, options, monitor.as_ref())).await?
    };
    let (present, store) = (Arc::new(present), Arc::new(store));
    let link = options.link_rate.map(Pace::given);
    let fetched = match fetch(session, selector, &present, &store, link.as_ref(), monitor).await {
        Ok(fetched) => fetched,
        Err(error) => {
            drop(store);
            staging.leave_if_empty()?;
            return Err(error);
        }
    };
    let counters = session.counters();
    let Fetched { record, root, chunks, bytes } = fetched;
    let release = root.release();
    let (staging, store) = {
        let monitor = Arc::clone(monitor);
        blocking(move || {
            crash::point("pull.fetched");
            let held = Held { present: &present, fetched: &store };
            let tree = staging.path("tree");
            reassembly::write_tree(&root, &held, &tree, &TreeOptions::default(), monitor.as_ref())?;
            crash::point("pull.tree");
            Ok::<_, Error>((staging, store))
        })
        .await?
    };
    {
        let target = target.clone();
        let exchanging = move || {
            let tree = staging.path("tree");
            files::publish(&staging.path(MARK), release.to_string().as_bytes(), 0o600)?;
            exchange(&tree, &target)?;
            // The fetched chunks are in the tree now; what remains beside it is a mark and a lock.
            store.close();
            files::remove(&staging.path("store"))?;
            crash::point("pull.after");
            Ok::<(), Error>(())
        };
        // An interrupted pull has either all of this or nothing.
        start_whole(exchanging).await??;
    }
    Ok(Pulled {
        release,
        app: record.app,
        place: target,
        files: record.totals.files,
        bytes: record.totals.bytes,
        fetched_chunks: chunks,
        fetched_bytes: bytes,
        wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
        seconds: begin.elapsed().as_secs_f64(),
        peak_rss: receipt::peak_rss(),
    })
}

/// Looks at the directory as it is and opens what an interrupted pull left.
fn prepare(target: &Path, options: PullOptions, monitor: &dyn Monitor) -> Result<(Staging, Present, Store)> {
    restore(target)?;
    // Before anything is made beside a directory that is not ours.
    let is_there = is_replaceable(target, options)?;
    let staging = Staging::open(target)?;
    files::remove(&staging.path("tree"))?;
    files::remove(&staging.path(OLD))?;
    let present = if is_there {
        let everything = Selection { ignore_files_off: true, ..Selection::default() };
        let archives = Archives::new(staging.folder.clone());
        let reader = scan::Reader {
            selection: &everything,
            profile: Profile::DEFAULT,
            threads: options.threads,
            memory: None,
            archives: Some(&archives),
            ended: None,
            monitor,
        };
        match reader.scan(target) {
            Ok(scan) => Present::of(&scan)?,
            Err(error) => {
                // What cannot be read only costs bytes.
                monitor.note(&format!("{error}; its content is fetched anew"));
                Present::default()
            }
        }
    } else {
        Present::default()
    };
    let store = Store::open(&staging.path("store"), store::Options::PASSING)?;
    Ok((staging, present, store))
}

/// Puts the directory back that a pull moved aside and was ended before it put the new one in its place.
fn restore(target: &Path) -> Result<()> {
    let old = beside(target).join(OLD);
    let is_away = fs::symlink_metadata(target).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_away && old.is_dir() {
        files::rename(&old, target)?;
    }
    Ok(())
}

/// Whether there is a directory to replace; an error where something else is there, or what is not ours.
fn is_replaceable(target: &Path, options: PullOptions) -> Result<bool> {
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).on("examine", target)?,
        Ok(kind) if !kind.is_dir() => return Err(Error::Target(target.to_owned())),
        Ok(_) => {}
    }
    let is_empty = fs::read_dir(target).on("list", target)?.next().is_none();
    if is_empty || options.replace || beside(target).join(MARK).exists() {
        Ok(true)
    } else {
        Err(Error::NotPulled(target.to_owned()))
    }
}

/// Puts the new tree in the old one's place in one step, and removes the old one.
fn exchange(tree: &Path, target: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, tree, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => {
            crash::point("pull.exchanged");
            files::sync_folder(target.parent().unwrap_or(Path::new("/")))?;
            files::remove(tree)?;
            crash::point("pull.removed");
        }
        Err(rustix::io::Errno::NOENT) => files::rename(tree, target)?,
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            // A file system that cannot exchange: the directory is away for a moment, never half there.
            let old = tree.with_file_name(OLD);
            files::rename(target, &old)?;
            files::rename(tree, target)?;
            files::remove(&old)?;
        }
        Err(error) => return Err(error).on("exchange", target)?,
    }
    Ok(())
}
