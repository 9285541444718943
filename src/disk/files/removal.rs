//! Removes folders, and only what is in them: never through a link, never across a mount.
//!
//! Every step is relative to a folder that is held open, so that nobody can divert it by putting a link in a folder's
//! place. What cannot be removed stays, with the folders above it; all else is removed.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::{Error, OnPath, Result};
use ground::limits::FOLDER_DEPTH_MAX;
use ground::poison::Unpoisoned as _;
use ground::threads;

/// Identifies a mount: a bind mount of the same file system is another one.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// The kernel's number of the mount; none before Linux 5.8, where only the file system is compared.
    number: Option<u64>,
    /// The file system; none for a file on a numbered mount, as the layers of an overlay have their own.
    device: Option<(u32, u32)>,
}

impl Mount {
    /// Takes the mount from a file's attributes.
    pub fn of(found: &Statx) -> Self {
        let is_numbered = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        let number = is_numbered.then_some(found.stx_mnt_id);
        let is_folder = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory;
        let device = (found.stx_dev_major, found.stx_dev_minor);
        Self { number, device: (is_folder || !is_numbered).then_some(device) }
    }

    /// Returns the mount that an open folder is on.
    ///
    /// # Errors
    /// The system's error.
    pub fn of_open(folder: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&examine(folder, c"", AtFlags::EMPTY_PATH)?))
    }

    /// Returns whether both are the same mount of the same file system.
    pub fn is(&self, other: &Self) -> bool {
        let may_differ = self.device.is_none() || other.device.is_none();
        self.number == other.number && (may_differ || self.device == other.device)
    }
}

/// Reads what identifies a file and its mount, without following a link at the end.
///
/// # Errors
/// The system's error.
pub fn examine(folder: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> rustix::io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    rustix::fs::statx(folder, name, flags | AtFlags::SYMLINK_NOFOLLOW, wanted)
}

/// Opens a folder itself; refuses a link or anything else.
///
/// # Errors
/// The system's error.
pub fn open_folder(below: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(below, name, flags, Mode::empty())
}

/// Removes a file, a link or a whole folder, if it exists.
///
/// The folder may contain folders without write permission, as a copy of a release does. Links are removed, not
/// followed; mounts below are left alone.
///
/// # Errors
/// The first entry that could not be removed. All others are removed all the same, except the folders above it.
pub fn remove(path: &Path) -> Result<()> {
    threads::holds_up();
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => (parent, name),
        (_, Some(name)) => (Path::new("."), name),
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)).on("remove", path),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        above => remove_in(above.on("open", parent)?, name, path),
    }
}

/// Removes `name` of `above` as [`remove`] does; `path` is for messages.
pub(super) fn remove_in(above: impl AsFd, name: &OsStr, path: &Path) -> Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL).on("remove", path)?;
    let kind = match rustix::fs::statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        found => FileType::from_raw_mode(found.on("examine", path)?.st_mode),
    };
    if kind != FileType::Directory {
        return rustix::fs::unlinkat(&above, &name, AtFlags::empty()).on("remove", path);
    }
    let mount = Mount::of_open(&above).on("examine", path)?;
    let mut removal = Removal { top: path, mount, depth: 0, failed: None };
    removal.folder(above.as_fd(), &name, path);
    removal.failed.map_or(Ok(()), Err)
}

struct Removal<'a> {
    top: &'a Path,
    mount: Mount,
    /// Open folders, one below the other.
    depth: usize,
    failed: Option<Error>,
}

impl Removal<'_> {
    fn fail(&mut self, action: &'static str, path: PathBuf, source: impl Into<io::Error>) {
        self.failed.get_or_insert_with(|| Error { action, path, source: source.into() });
    }

    /// Removes the folder `name` of `above`; `path` is for messages.
    fn folder(&mut self, above: BorrowedFd<'_>, name: &CStr, path: &Path) {
        if self.depth == FOLDER_DEPTH_MAX {
            return self.fail("remove", path.to_owned(), too_deep());
        }
        self.depth += 1;
        self.open_folder(above, name, path);
        self.depth -= 1;
    }

    fn open_folder(&mut self, above: BorrowedFd<'_>, name: &CStr, path: &Path) {
        let opened = match open_folder(above, name) {
            Err(Errno::ACCESS) => let_owner_in(above, name).and_then(|()| Ok(open_folder(above, name)?)),
            opened => opened.map_err(io::Error::from),
        };
        let folder = match opened {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.fail("open", path.to_owned(), error),
        };
        match Mount::of_open(&folder) {
            Ok(mount) if mount.is(&self.mount) => {}
            Ok(_) => return self.fail("remove", path.to_owned(), mounted()),
            Err(error) => return self.fail("examine", path.to_owned(), error),
        }
        let entries = Dir::read_from(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail("list", path.to_owned(), error),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = path.join(OsStr::from_bytes(name.to_bytes()));
            let is_folder = match entry.file_type() {
                FileType::Unknown => examine(&folder, name, AtFlags::empty())
                    .is_ok_and(|found| FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory),
                kind => kind == FileType::Directory,
            };
            if is_folder && self.depth == 1 {
                folders.push((name.to_owned(), below));
            } else if is_folder {
                self.folder(folder.as_fd(), name, &below);
            } else {
                self.unlink(folder.as_fd(), name, AtFlags::empty(), &below);
            }
        }
        self.folders(folder.as_fd(), &folders);
        drop(folder);
        self.unlink(above, name, AtFlags::REMOVEDIR, path);
    }

    /// Removes folders of `above`, several at a time: the system removes files of different folders at a time.
    fn folders(&mut self, above: BorrowedFd<'_>, folders: &[(CString, PathBuf)]) {
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(self.failed.take()));
        let (top, mount, depth) = (self.top, self.mount, self.depth);
        let work = || {
            let mut part = Removal { top, mount, depth, failed: None };
            while let Some((name, path)) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                part.folder(above, name, path);
            }
            if let Some(error) = part.failed {
                failed.lock().unpoisoned().get_or_insert(error);
            }
        };
        thread::scope(|scope| {
            let count = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(folders.len());
            // Where none can be started, this thread does it alone.
            let _ = (count > 1).then(|| threads::start_workers(scope, count - 1, || work));
            work();
        });
        self.failed = failed.into_inner().unpoisoned();
    }

    fn unlink(&mut self, above: BorrowedFd<'_>, name: &CStr, flags: AtFlags, path: &Path) {
        let removed = match rustix::fs::unlinkat(above, name, flags) {
            // A folder inside the removed one, which its owner may have closed.
            Err(Errno::ACCESS) if path != self.top => open_to_owner(above)
                .and_then(|()| rustix::fs::unlinkat(above, name, flags).map_err(io::Error::from)),
            removed => removed.map_err(io::Error::from),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The folder is not empty, and that error is already noted.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && self.failed.is_some() => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.fail("remove", path.to_owned(), mounted());
            }
            Err(error) => self.fail("remove", path.to_owned(), error),
            Ok(()) => {}
        }
    }
}

/// Returns the error of folders that are nested deeper than [`FOLDER_DEPTH_MAX`].
pub fn too_deep() -> io::Error {
    let text = format!("more than {FOLDER_DEPTH_MAX} folders are below one another there: move them away");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn mounted() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted there")
}

/// Gives the owner access to the folder `name` of `above`.
fn let_owner_in(above: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_to_owner(rustix::fs::openat(above, name, flags, Mode::empty())?.as_fd())
}

fn open_to_owner(folder: BorrowedFd<'_>) -> io::Result<()> {
    // The open folder itself, whatever has its name now.
    let open = format!("/proc/self/fd/{}", folder.as_raw_fd());
    fs::set_permissions(open, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_with_closed_folders_is_removed() {
        // Only without the superuser's rights does this need more than one attempt.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("closed/deep")).expect("created");
        fs::write(top.join("closed/deep/file"), "content").expect("written");
        for (name, mode) in [("closed/deep", 0o000), ("closed", 0o555)] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).expect("set");
        }
        remove(&top).expect("removed");
        assert!(!top.exists());
    }

    #[test]
    fn folders_below_one_another_are_removed_as_deep_as_a_release_goes_and_deeper_ones_are_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let top = folder.path().join("top");
        for (depth, goes) in [(FOLDER_DEPTH_MAX - 1, true), (FOLDER_DEPTH_MAX + 50, false)] {
            fs::create_dir(&top).expect("created");
            let mut deepest = open_folder(CWD, &top).expect("opened");
            for _ in 0..depth {
                rustix::fs::mkdirat(&deepest, "d", Mode::RWXU).expect("created");
                deepest = open_folder(&deepest, "d").expect("opened");
            }
            let removed = remove(&top);
            assert_eq!(removed.is_ok(), goes, "{depth} deep");
            assert_eq!(top.exists(), !goes);
        }
    }

    #[test]
    fn a_link_is_removed_and_what_it_leads_to_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (top, other) = (folder.path().join("top"), folder.path().join("other"));
        fs::create_dir_all(top.join("deep")).expect("created");
        fs::create_dir(&other).expect("created");
        fs::write(other.join("file"), "content").expect("written");
        symlink(&other, top.join("deep/link")).expect("linked");
        symlink(other.join("file"), top.join("file")).expect("linked");
        remove(&top).expect("removed");
        assert!(!top.exists() && other.join("file").exists());
        symlink(&other, &top).expect("linked");
        remove(&top).expect("removed");
        assert!(fs::symlink_metadata(&top).is_err() && other.join("file").exists());
        remove(&top).expect("that there is nothing is no error");
    }
}
