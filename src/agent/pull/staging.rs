//! The folder beside a pulled directory.
//!
//! ```text
//! .DIR.whit/lock                held by the pull under way
//! .DIR.whit/pulled              the mark: what the last pull put into DIR
//! .DIR.whit/pulled-next         the mark of the tree that is being put there
//! .DIR.whit/HASH.base           an earlier mark, which these differ from
//! .DIR.whit/store               fetched chunks
//! .DIR.whit/tree                the tree being written
//! .DIR.whit/ready               the whole new tree; after the exchange, the directory that was there
//! .DIR.whit/old                 that directory, where a file system cannot exchange two
//! .DIR.whit/previous/           there where pulls keep the copy before
//! .DIR.whit/previous/copy       that copy, as DIR was
//! .DIR.whit/previous/pulled     its mark
//! .DIR.whit/back, back-old      as ready and old, while the previous copy comes back
//! .DIR.whit/trial               to try whether DIR can be exchanged
//! .DIR.whit/watched             what a watching target remembers
//! .DIR.whit/watching            held by the process that watches
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

use serde::Serialize;

use super::comparison::{Known, compare, folder_id};
use super::mark::{Mark, Placed};
use super::mark_base::MarkBase;
use super::place::{Named, PlaceError};
use crate::agent::{Error, Result};
use disk::files::{self, Lock, OnPath};
use ground::monitor::Monitor;

const MARK: &str = "pulled";
const NEXT: &str = "pulled-next";
const TREE: &str = "tree";
const PREVIOUS: &str = "previous";
const EDITED: &str = "edited";
const LEFT: &str = "left";
/// What a watching target remembers.
const WATCHED: &str = "watched";

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

/// Returns the marks of the directory at `target` and of the one that is to take its place, without a lock.
///
/// # Errors
/// One cannot be read.
pub(super) fn marks_of(target: &Path) -> Result<Vec<Mark>> {
    let folder = beside(target);
    let marks = [MARK, NEXT].map(|name| Mark::open(&folder.join(name), &folder));
    let marks: Result<Vec<Mark>> = marks.into_iter().collect();
    Ok(marks?.into_iter().filter(|mark| !matches!(mark, Mark::None)).collect())
}

impl SetAside {
    /// Says what was set aside.
    pub(super) fn tell(&self, monitor: &dyn Monitor) {
        if let Some(place) = &self.place {
            monitor.note(&format!("{} changed entries were set aside in {place}", self.count));
        }
    }
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
pub(super) fn is_there(path: &Path) -> Result<bool> {
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

    /// Returns the directory that it is beside.
    pub fn target(&self) -> &Path {
        &self.target
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

    /// Returns where the copy before is kept.
    pub fn previous_copy(&self) -> PathBuf {
        self.folder.join(PREVIOUS).join("copy")
    }

    /// Returns where its mark is.
    pub fn previous_mark_path(&self) -> PathBuf {
        self.folder.join(PREVIOUS).join(MARK)
    }

    /// Returns whether pulls keep the copy before.
    pub fn keeps_previous(&self) -> bool {
        self.folder.join(PREVIOUS).is_dir()
    }

    /// Lets this pull and later ones keep the copy before.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn begin_to_keep(&self) -> Result<()> {
        Ok(files::create_folder(&self.folder.join(PREVIOUS))?)
    }

    /// Reads the mark of the copy before; none where there is no such copy.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub fn previous(&self) -> Result<Option<Placed>> {
        let copy = self.previous_copy();
        match Mark::open(&self.previous_mark_path(), &self.folder)? {
            Mark::Whole(mark) if is_there(&copy)? && mark.beginning.folder.is(&folder_id(&copy)?) => {
                Ok(Some(*mark))
            }
            _ => Ok(None),
        }
    }

    /// Removes the copy before, first its mark.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn drop_previous(&self, monitor: &dyn Monitor) -> Result<()> {
        files::remove(&self.previous_mark_path())?;
        self.dispose(&self.previous_copy(), monitor)
    }

    /// Removes the copy before, and keeps none from now on.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_previous(&self, monitor: &dyn Monitor) -> Result<()> {
        self.drop_previous(monitor)?;
        Ok(files::remove(&self.folder.join(PREVIOUS))?)
    }

    /// Reads the mark of the last pull.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        Mark::open(&self.mark_path(), &self.folder)
    }

    /// Removes the folder, unless it keeps something of an earlier pull, or fetched chunks that the next pull can use. Returns whether it
    /// is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn leave_if_empty(&self) -> Result<bool> {
        let fetched = self.store().join("packs");
        let has_fetched = fs::read_dir(&fetched).is_ok_and(|mut entries| entries.next().is_some());
        let keeps =
            [MARK, EDITED, LEFT, PREVIOUS, WATCHED].iter().any(|name| self.folder.join(name).exists());
        if !has_fetched && !keeps {
            files::remove(&self.folder)?;
        }
        Ok(!has_fetched && !keeps)
    }

    /// Removes the bases that no mark needs any more, as far as the disk lets.
    pub fn remove_unused_bases(&self) {
        let marks = [self.mark_path(), self.next_mark_path(), self.previous_mark_path()];
        MarkBase::remove_unused(&self.folder, &marks);
    }

    /// Reads the mark of the new tree, if there is a whole one.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn next_mark(&self) -> Result<Option<Placed>> {
        Ok(match Mark::open(&self.next_mark_path(), &self.folder)? {
            Mark::Whole(next) => Some(*next),
            _ => None,
        })
    }

    /// Sets aside the entries of the old directory that differ from its mark, as the user changed them before the pull or
    /// while it was under way. Entries that no pull put there stay in it if they may be removed (`deletes`). In a copy that is kept
    /// (`keeps`) what was changed stays as well, and is linked where it is set aside.
    ///
    /// # Errors
    /// The old directory cannot be read, or an entry cannot be set aside.
    pub fn sweep(
        &self,
        was: &Path,
        (deletes, keeps): (bool, bool),
        monitor: &dyn Monitor,
    ) -> Result<SetAside> {
        let mark = self.mark()?;
        let placed: Option<&Placed> =
            if let Mark::Whole(placed) = &mark { Some(placed.as_ref()) } else { None };
        let next = self.next_mark()?;
        let found = compare(was, placed, Known { next: next.as_ref(), ..Known::default() })?;
        if found.modes > 0 {
            let these = if found.modes == 1 {
                "entry with a different mode gets"
            } else {
                "entries with different modes get"
            };
            monitor.note(&format!("{} {these} the release's again", found.modes));
        }
        let added = found.added.iter().filter(|_| !deletes);
        let edited = found.edited.len();
        let paths: Vec<&PathBuf> = found.edited.iter().chain(added).collect();
        if paths.is_empty() {
            return Ok(SetAside::default());
        }
        let into = self.new_folder(EDITED, &time_name())?;
        for (number, path) in paths.iter().enumerate() {
            let is_edited = number < edited;
            if keeps && is_edited && link_aside(was, &into, path).is_ok() {
                continue;
            }
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
    ///
    /// # Errors
    /// It cannot be set aside either.
    pub fn dispose(&self, folder: &Path, monitor: &dyn Monitor) -> Result<()> {
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
    pub fn remove_left(&self) {
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

/// Gives an entry of the old directory, unless it is a folder, a second name below `into`.
fn link_aside(was: &Path, into: &Path, path: &Path) -> files::Result<()> {
    let (from, to) = (was.join(path), into.join(path));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).on("create", parent)?;
    }
    fs::hard_link(&from, &to).on("link", &to)
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
