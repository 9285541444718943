//! Durable file operations: every change on disk that must survive goes through here.
//!
//! A file is written aside, synced, renamed to its name, and its folder synced, so that a crash leaves
//! the old content or the new, never half. Every error names the path and what was done to it.

mod folder;
mod removal;

pub use folder::{Folder, open_beneath};
pub use removal::{Mount, examine, open_folder, remove, too_deep};

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::path::Arg;

use crate::crash_points;
use ground::faults::{Fault, faulty, io_hint};
use ground::threads;

/// An operating system's error, with the action and the path.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}: {source}", .path.display())]
pub struct Error {
    /// A verb: `open`, `write`, `sync` …
    pub action: &'static str,
    /// The path.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

faulty! {
    Error;
    Self { source, path, .. } => Fault::of_io(source), io_hint(source, path);
}

/// The result of an operation on a file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Turns an `io::Result` into one that names the action and the path.
pub trait OnPath<T> {
    /// Adds both to an error; costs nothing where there is none.
    ///
    /// # Errors
    /// The same error, with its path.
    fn on(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> OnPath<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error { action, path: path.to_owned(), source })
    }
}

impl<T> OnPath<T> for rustix::io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(io::Error::from).on(action, path)
    }
}

/// The loss that written files must survive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power loss: what is written is synced before it counts.
    #[default]
    Synced,
    /// The end of the process alone. After a power loss anything may be in the files; who reads them checks it, and does without.
    Unsynced,
}

impl Durability {
    /// Makes a file's content durable.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(self, file: &File) -> io::Result<()> {
        match self {
            Self::Synced => file.sync_all(),
            Self::Unsynced => Ok(()),
        }
    }

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As [`sync_folder`].
    pub fn sync_folder(self, path: &Path) -> Result<()> {
        match self {
            Self::Synced => sync_folder(path),
            Self::Unsynced => Ok(()),
        }
    }

    /// Creates a folder and those above it, for the owner alone.
    ///
    /// # Errors
    /// As [`create_folder`].
    pub fn create_folder(self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent(path);
        if !parent.as_os_str().is_empty() {
            self.create_folder(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result.on("create", path),
        }?;
        self.sync_folder(parent)
    }

    /// Renames within one file system.
    ///
    /// # Errors
    /// The rename, or a sync.
    pub fn rename(self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).on("rename", from)?;
        crash_points::on(to, ".renamed");
        self.sync_folder(parent(to))?;
        if parent(from) == parent(to) { Ok(()) } else { self.sync_folder(parent(from)) }
    }

    /// Writes a whole small file; its name shows either the old content or all of the new.
    ///
    /// # Errors
    /// As [`publish`].
    pub fn publish(self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let (aside, mut file) = create_aside(path, mode)?;
        crash_points::on(path, ".created");
        crash_points::half_on(path, ".half", &file, content);
        let written = file.write_all(content).and_then(|()| self.sync(&file)).on("write", &aside);
        crash_points::on(path, ".written");
        written.and_then(|()| self.rename(&aside, path)).inspect_err(|_| drop(fs::remove_file(&aside)))
    }
}

/// Creates a folder and those above it, for the owner alone, and syncs the folders that contain them.
///
/// # Errors
/// The first folder that cannot be created.
pub fn create_folder(path: &Path) -> Result<()> {
    Durability::Synced.create_folder(path)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> Result<()> {
    threads::holds_up();
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).on("sync", path)
}

/// Writes a whole small file durably; its name shows either the old content or all of the new.
///
/// `mode` is the file's permission bits.
///
/// # Errors
/// The step that failed; the old content is then still there.
pub fn publish(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    Durability::Synced.publish(path, content, mode)
}

/// Creates a new file aside, to be renamed to `path`.
///
/// `mode` is subject to the process's mask.
///
/// # Errors
/// It cannot be created.
pub fn create_aside(path: &Path, mode: u32) -> Result<(PathBuf, File)> {
    threads::holds_up();
    loop {
        let aside = aside(path);
        // Never follows a link or writes to an existing file: the next number may be free.
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.on("create", &aside).map(|file| (aside, file)),
        }
    }
}

/// Renames within one file system and makes the new name durable.
///
/// # Errors
/// The rename or the sync of the new name's folder.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    Durability::Synced.rename(from, to)
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
/// It cannot be read, or is larger, and then takes no memory.
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>> {
    threads::holds_up();
    let file = File::open(path).on("open", path)?;
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content).on("read", path)?;
    if content.len() as u64 > max {
        let error = io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {max} B"));
        return Err(error).on("read", path);
    }
    Ok(content)
}

/// Reads a whole file as [`read_bounded`] does; `None` if it does not exist.
///
/// # Errors
/// It exists and cannot be read.
pub fn read_if_there(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    match read_bounded(path, max) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Returns the paths in a folder, sorted; none where there is no folder.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    threads::holds_up();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.on("list", folder)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.on("list", folder)?;
    paths.sort();
    Ok(paths)
}

/// Reserves room for a part of a file, so that a later write or a map does not find the disk full.
///
/// # Errors
/// No room. On a file system that cannot reserve, only the writes fail.
pub fn reserve(file: &File, path: &Path, part: Range<u64>) -> Result<()> {
    if part.is_empty() {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), part.start, part.end - part.start) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        result => result.on("reserve room for", path),
    }
}

/// Punches a hole into a file, whose length stays; returns false where the file system cannot.
///
/// # Errors
/// Any other failure.
pub fn punch(file: &File, path: &Path, part: Range<u64>) -> Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, part.start, part.end - part.start) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        result => result.on("make a hole in", path).map(|()| true),
    }
}

/// Returns the bytes that may still be written to the file system that holds `path`.
///
/// # Errors
/// The file system cannot be queried.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).on("examine", path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Syncs the whole file system that holds `path`: one call for many files.
///
/// # Errors
/// The path cannot be opened, or the sync failed.
pub fn sync_file_system(path: &Path) -> Result<()> {
    threads::holds_up();
    let folder = File::open(path).on("open", path)?;
    rustix::fs::syncfs(&folder).on("sync", path)
}

/// A lock that ends with its process, however that ends; nobody ever has to remove it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path`, waiting at most `patience`; returns none where another process still holds it.
    ///
    /// # Errors
    /// The lock file cannot be created.
    pub fn take(path: &Path, patience: Duration) -> Result<Option<Self>> {
        Self::take_in(CWD, path, path.to_owned(), patience)
    }

    /// Takes the lock `name` of `folder`; `path` is for messages.
    fn take_in(folder: impl AsFd, name: impl Arg, path: PathBuf, patience: Duration) -> Result<Option<Self>> {
        threads::holds_up();
        // A link of that name would redirect the write to another file.
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).on("open", &path)?;
        let file = File::from(file);
        let deadline = Instant::now() + patience;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { file, path })),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error).on("lock", &path),
            }
        }
    }

    /// Replaces the lock file's text, which is shown to those who find the lock taken.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn describe(&mut self, text: &str) -> Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.set_len(0).on("write", &self.path)?;
        self.file.write_all_at(text.as_bytes(), 0).on("write", &self.path)
    }
}

/// Counts the files written aside by this process.
static ASIDE: AtomicU64 = AtomicU64::new(0);

/// Removes the files that processes killed within [`publish`] left in a folder.
///
/// Only for folders to which nobody else writes.
///
/// # Errors
/// The folder cannot be read, or a file in it cannot be removed.
pub fn remove_unpublished(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).on("list", folder)? {
        let path = entry.on("list", folder)?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Returns the path of a file before it gets its name.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Two threads may publish one path at a time: the later rename wins, and neither touches the other's file.
    let number = ASIDE.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{number}.part", std::process::id()));
    path.with_file_name(name)
}

/// Returns the folder that contains `path`; empty for a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_is_whole_and_leaves_nothing_aside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        publish(&path, b"old", 0o600).expect("published");
        publish(&path, b"new", 0o600).expect("published");
        assert_eq!(fs::read(&path).expect("it is there"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_a_killed_publish_left_is_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        publish(&path, b"whole", 0o600).expect("published");
        fs::write(folder.path().join("a.4711.part"), "ha").expect("written");
        remove_unpublished(folder.path()).expect("removed");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        assert_eq!(left.iter().map(fs::DirEntry::path).collect::<Vec<_>>(), [path]);
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lock");
        let held = Lock::take(&path, Duration::ZERO).expect("a lock file");
        assert!(held.is_some());
        assert!(Lock::take(&path, Duration::ZERO).expect("a lock file").is_none());
        drop(held);
        assert!(Lock::take(&path, Duration::ZERO).expect("a lock file").is_some());
    }

    #[test]
    fn a_file_beyond_its_bound_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        fs::write(&path, [0; 100]).expect("written");
        assert!(read_bounded(&path, 99).is_err());
        assert_eq!(read_bounded(&path, 100).expect("within its bound").len(), 100);
        assert!(read_if_there(&folder.path().join("b"), 1).expect("absent is no error").is_none());
    }
}
