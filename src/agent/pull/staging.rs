//! The folder beside a pulled directory, and how the new tree takes the old one's place.
//!
//! ```text
//! .DIR.whit/lock                held by the pull under way
//! .DIR.whit/pulled              the mark: what the last pull put into DIR
//! .DIR.whit/pulled-next         the mark of the tree that is being put there
//! .DIR.whit/store               fetched chunks
//! .DIR.whit/tree                the tree being written
//! .DIR.whit/ready               the whole new tree; after the exchange, the directory that was there
//! .DIR.whit/old                 that directory, where a file system cannot exchange two
//! .DIR.whit/edited/TIME/        entries that the user had changed in it
//! .DIR.whit/left/N/             directories that could not be removed
//! ```
//!
//! `tree` is whit's own. `ready` and `old` may hold the user's files, unless `pulled-next` names the directory: it is
//! compared with its mark before it is removed, also after a pull that was killed.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;

use super::comparison::{compare, folder_id};
use super::mark::{Beginning, Mark, Placed};
use super::mark_writer;
use super::place::{Named, PlaceError};
use crate::agent::{Error, Result};
use disk::crash_points;
use disk::files::{self, Lock, OnPath};
use ground::monitor::Monitor;

const MARK: &str = "pulled";
const NEXT: &str = "pulled-next";
const TREE: &str = "tree";
const READY: &str = "ready";
const OLD: &str = "old";
const EDITED: &str = "edited";
const LEFT: &str = "left";

/// The entries that the user had changed, and where they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// How many entries.
    pub count: u64,
    /// The folder that holds them, each below it at its old path.
    pub place: Option<String>,
    /// The first of them.
    pub some: Vec<String>,
}

/// The folder, locked against other pulls.
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    _lock: Lock,
}

/// `.DIR.whit` beside `DIR`.
fn beside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".whit");
    target.with_file_name(name)
}

/// Returns whether anything has that path, a link that leads nowhere included.
fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found.on("examine", path).map(|_| true)?),
    }
}

impl Staging {
    /// Takes the folder that is beside `target`, or none.
    ///
    /// # Errors
    /// It is not the puller's own, or another pull holds it.
    pub fn find(target: &Path) -> Result<Option<Self>> {
        if is_there(&beside(target))? { Self::open(target).map(Some) } else { Ok(None) }
    }

    /// Takes the folder, and creates it if missing.
    ///
    /// # Errors
    /// It is not the puller's own, cannot be made, or another pull holds it.
    pub fn open(target: &Path) -> Result<Self> {
        let folder = beside(target);
        if !is_there(&folder)? {
            files::create_folder(&folder).map_err(|error| match error.source.kind() {
                io::ErrorKind::PermissionDenied => {
                    PlaceError::Closed { folder: folder.clone(), place: target.to_owned() }.into()
                }
                _ => Error::from(error),
            })?;
        }
        check_own(&folder)?;
        let lock = Lock::take(&folder.join("lock"), Duration::ZERO)?;
        let lock = lock.ok_or_else(|| Error::Busy(target.to_owned()))?;
        files::remove_unpublished(&folder)?;
        Ok(Self { target: target.to_owned(), folder, _lock: lock })
    }

    /// Returns the folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns where fetched chunks are kept.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// Returns where the new tree is written.
    pub fn tree(&self) -> PathBuf {
        self.folder.join(TREE)
    }

    /// Returns where the mark of the present directory is.
    pub fn mark_path(&self) -> PathBuf {
        self.folder.join(MARK)
    }

    /// Returns where the mark of the new tree is written.
    pub fn next_mark_path(&self) -> PathBuf {
        self.folder.join(NEXT)
    }

    /// Reads the mark of the last pull.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        Mark::open(&self.mark_path())
    }

    /// Removes the folder, unless it keeps something of an earlier pull, or fetched chunks that the next pull can use.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn leave_if_empty(&self) -> Result<()> {
        let fetched = self.store().join("packs");
        let has_fetched = fs::read_dir(&fetched).is_ok_and(|mut entries| entries.next().is_some());
        let keeps = [MARK, EDITED, LEFT].iter().any(|name| self.folder.join(name).exists());
        if !has_fetched && !keeps {
            files::remove(&self.folder)?;
        }
        Ok(())
    }

    /// Finishes what a killed pull had begun: puts back a directory that was moved away, sets aside what the user had
    /// changed in one that was exchanged, and removes the rest.
    ///
    /// # Errors
    /// The folder cannot be read or changed.
    pub fn recover(&self, monitor: &dyn Monitor) -> Result<()> {
        self.remove_left();
        self.dispose(&self.tree(), monitor)?;
        let whole = self.next_mark()?;
        let next = whole.as_ref().map(|next| next.beginning);
        for name in [READY, OLD] {
            let place = self.folder.join(name);
            if !is_there(&place)? {
                continue;
            }
            let id = folder_id(&place)?;
            let is_new = next.is_some_and(|next| next.folder.is(&id));
            if !is_new && !is_there(&self.target)? {
                files::rename(&place, &self.target)?;
                continue;
            }
            if !is_new {
                let deletes = next.is_some_and(|next| next.deletes);
                let aside = self.sweep(&place, deletes, monitor)?;
                tell(&aside, monitor);
            }
            self.dispose(&place, monitor)?;
        }
        match next {
            Some(next) if is_there(&self.target)? && next.folder.is(&folder_id(&self.target)?) => {
                self.take_next_mark()?;
            }
            _ => files::remove(&self.next_mark_path())?,
        }
        Ok(())
    }

    /// Puts the written tree, whose mark was written, into the directory's place in one step.
    ///
    /// # Errors
    /// Before the exchange, the directory is as it was. After it, the next pull finishes the rest.
    pub fn exchange(&self, deletes: bool, monitor: &dyn Monitor) -> Result<SetAside> {
        let ready = self.folder.join(READY);
        files::rename(&self.tree(), &ready)?;
        let target = &self.target;
        let was = match rustix::fs::renameat_with(CWD, &ready, CWD, target, RenameFlags::EXCHANGE) {
            Ok(()) => {
                crash_points::point("pull.exchanged");
                files::sync_folder(target.parent().unwrap_or(Path::new("/")))?;
                ready
            }
            Err(rustix::io::Errno::NOENT) => {
                files::rename(&ready, target)?;
                return self.put(&ready, SetAside::default(), monitor);
            }
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // A file system that cannot exchange: the directory is away for a moment, never half there.
                let old = self.folder.join(OLD);
                files::rename(target, &old)?;
                files::rename(&ready, target)?;
                old
            }
            Err(error) => {
                // The tree will be written again: it may take long until the exchange is allowed.
                drop(files::remove(&self.next_mark_path()));
                drop(files::remove(&ready));
                return Err(error).on("exchange", target)?;
            }
        };
        let aside = self.sweep(&was, deletes, monitor)?;
        self.put(&was, aside, monitor)
    }

    /// Removes what was there before and makes the new tree's mark the directory's.
    ///
    /// In this order: as long as something of the old tree is there, its own mark is, by which a later pull knows what the
    /// user had changed in it.
    fn put(&self, was: &Path, aside: SetAside, monitor: &dyn Monitor) -> Result<SetAside> {
        self.dispose(was, monitor)?;
        crash_points::point("pull.removed");
        self.take_next_mark()?;
        Ok(aside)
    }

    /// Reads the mark of the new tree, if there is a whole one.
    fn next_mark(&self) -> Result<Option<Placed>> {
        Ok(match Mark::open(&self.next_mark_path())? {
            Mark::Whole(next) => Some(*next),
            _ => None,
        })
    }

    /// Makes the new tree's mark the directory's. The old tree is gone, and with it names of files that the new one has as well.
    fn take_next_mark(&self) -> Result<()> {
        let next = self.next_mark()?.filter(|next| next.beginning.relinked_until.is_some());
        if let Some(next) = next {
            let change = |now| Beginning { relinked_until: Some(now), ..next.beginning };
            mark_writer::rewrite(&self.next_mark_path(), &next, next.read, change)?;
        }
        Ok(files::rename(&self.next_mark_path(), &self.mark_path())?)
    }

    /// Sets aside the entries of the old directory that differ from its mark, as the user changed them before the pull or
    /// while it was under way. Entries that no pull put there stay in it if they may be removed.
    fn sweep(&self, was: &Path, deletes: bool, monitor: &dyn Monitor) -> Result<SetAside> {
        let mark = self.mark()?;
        let placed: Option<&Placed> =
            if let Mark::Whole(placed) = &mark { Some(placed.as_ref()) } else { None };
        let found = compare(was, placed, self.next_mark()?.as_ref())?;
        if found.modes > 0 {
            let these = if found.modes == 1 {
                "entry with a different mode gets"
            } else {
                "entries with different modes get"
            };
            monitor.note(&format!("{} {these} the release's again", found.modes));
        }
        let added = found.added.iter().filter(|_| !deletes);
        let paths: Vec<&PathBuf> = found.edited.iter().chain(added).collect();
        if paths.is_empty() {
            return Ok(SetAside::default());
        }
        let into = self.new_folder(EDITED, &time_name())?;
        for path in &paths {
            if let Err(error) = set_aside(was, &into, path) {
                // Then all of it stays.
                let whole = into.join(".all");
                files::rename(was, &whole)?;
                monitor.note(&format!("{error}: the old directory stays at {}", whole.display()));
                break;
            }
        }
        files::sync_folder(&into)?;
        let Named { count, some } = Named::of(paths);
        Ok(SetAside { count, some, place: Some(into.display().to_string()) })
    }

    /// Removes a directory that is no longer needed; what cannot be removed is named once, and later pulls try again.
    fn dispose(&self, folder: &Path, monitor: &dyn Monitor) -> Result<()> {
        if !is_there(folder)? || files::remove(folder).is_ok() {
            return Ok(());
        }
        let left = self.new_folder(LEFT, "1")?;
        files::rename(folder, &left)?;
        if let Err(error) = files::remove(&left) {
            monitor.note(&format!("{error}; the next pull tries again"));
        }
        Ok(())
    }

    /// Tries again to remove what could not be removed.
    fn remove_left(&self) {
        let left = self.folder.join(LEFT);
        let Ok(entries) = fs::read_dir(&left) else { return };
        for entry in entries.flatten() {
            // A note named it when it was set aside.
            drop(files::remove(&entry.path()));
        }
        // Not while something is in it.
        drop(fs::remove_dir(&left));
    }

    /// Makes a folder of a new name in one of the folder's own.
    fn new_folder(&self, name: &str, first: &str) -> Result<PathBuf> {
        let above = self.folder.join(name);
        files::create_folder(&above)?;
        let mut number = 1;
        loop {
            let name = if number == 1 { first.to_owned() } else { format!("{first}.{number}") };
            match fs::create_dir(above.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                result => return Ok(result.on("create", &above.join(&name)).map(|()| above.join(name))?),
            }
        }
    }
}

/// Says what was set aside.
fn tell(aside: &SetAside, monitor: &dyn Monitor) {
    if let Some(place) = &aside.place {
        monitor.note(&format!("{} changed entries were set aside in {place}", aside.count));
    }
}

/// Moves an entry of the old directory to the same path below `into`.
fn set_aside(was: &Path, into: &Path, path: &Path) -> files::Result<()> {
    let (from, to) = (was.join(path), into.join(path));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).on("create", parent)?;
    }
    let renamed = match fs::rename(&from, &to) {
        // Its owner may not write to this folder, which is removed in any case: so open it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let folders = path.ancestors().skip(1).map(|above| was.join(above));
            for folder in folders.collect::<Vec<_>>().into_iter().rev() {
                drop(fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
            }
            fs::rename(&from, &to)
        }
        renamed => renamed,
    };
    renamed.on("set aside", &from)
}

/// Returns the present time as a name without a colon.
fn time_name() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', ".")
}

/// Fails if the folder beside a directory is a link or another user's, or others may write to it.
fn check_own(folder: &Path) -> Result<()> {
    let found = fs::symlink_metadata(folder).on("examine", folder)?;
    let why = if !found.is_dir() {
        "it is not a folder"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if found.mode() & 0o022 != 0 {
        "other users may write to it"
    } else {
        return Ok(());
    };
    Err(PlaceError::Beside { folder: folder.to_owned(), why }.into())
}
