//! A folder held open: every step is made in that folder, whatever its path leads to by then.
//!
//! A path that is checked and then used may lead elsewhere in between, where somebody else may rename folders or put links
//! on the way. Names below a [`Folder`] are single components; longer paths go through [`open_beneath`], which follows
//! no link at all.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::removal::{open_folder, remove_in};
use super::{Lock, OnPath, Result};
use crate::crash_points;

/// Links that are followed on the way to a folder, as many as Linux follows.
const LINKS_MAX: usize = 40;

/// A folder held open.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens the folder at `path`. Links on the way are followed only if the superuser or this process's own user made
    /// them: any other user's link may lead anywhere.
    ///
    /// # Errors
    /// It is not there, is no folder, or a link of another user is on the way.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { fd: Way::new(path, None).walk()?, path: path.to_owned() })
    }

    /// Opens the folder at `path` as [`Folder::open`] does; what is missing of the path is created with `mode`, which is
    /// subject to the process's mask, and durable.
    ///
    /// # Errors
    /// As of [`Folder::open`], or a folder cannot be created.
    pub fn create(path: &Path, mode: u32) -> Result<Self> {
        Ok(Self { fd: Way::new(path, Some(mode)).walk()?, path: path.to_owned() })
    }

    /// Opens whatever folder `path` leads to: for places that the user of this process has chosen.
    ///
    /// # Errors
    /// It is not there, or no folder.
    pub fn led_to(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).on("open", path)?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Returns the path it was opened at, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a name in it, for messages.
    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Opens the folder `name` in it, which must not be a link.
    ///
    /// # Errors
    /// It is not there, or no folder.
    pub fn below(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let path = self.at(&name);
        Ok(Self { fd: open_folder(&self.fd, name.as_ref().as_bytes()).on("open", &path)?, path })
    }

    /// Creates the folder `name` in it; returns false if that name is taken.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn make(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<bool> {
        match rustix::fs::mkdirat(&self.fd, name.as_ref().as_bytes(), Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => Ok(false),
            made => made.on("create", &self.at(name)).map(|()| true),
        }
    }

    /// Creates the file `name` in it, open for writing.
    ///
    /// # Errors
    /// The name is taken, or it cannot be created.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = rustix::fs::openat(&self.fd, name.as_ref().as_bytes(), flags, mode);
        file.on("create", &self.at(name)).map(File::from)
    }

    /// Returns the attributes of a name in it, of the link itself where it is one; none if there is none.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn examine(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name.as_ref().as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => found.on("examine", &self.at(name)).map(Some),
        }
    }

    /// Returns the attributes of the folder itself.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn examine_self(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.fd).on("examine", &self.path)
    }

    /// Returns the names in it that are UTF-8, in no order.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = Dir::read_from(&self.fd).on("list", &self.path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned)));
        let names: Vec<_> = names.collect::<rustix::io::Result<_>>().on("list", &self.path)?;
        Ok(names.into_iter().flatten().filter(|name| name != "." && name != "..").collect())
    }

    /// Gives the entry `name` the name `to_name` in the folder `to`, in place of what has it, durably.
    ///
    /// # Errors
    /// The rename or a sync failed.
    pub fn rename(&self, name: &str, to: &Self, to_name: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, to_name).on("rename", &self.at(name))?;
        crash_points::on(&to.at(to_name), ".renamed");
        to.sync()?;
        if std::ptr::eq(self, to) { Ok(()) } else { self.sync() }
    }

    /// Exchanges two names in it in one step, durably; returns false where the file system cannot.
    ///
    /// # Errors
    /// Any other failure.
    pub fn exchange(&self, one: &str, other: &str) -> Result<bool> {
        match rustix::fs::renameat_with(&self.fd, one, &self.fd, other, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(false),
            exchanged => exchanged.on("exchange", &self.at(one))?,
        }
        self.sync().map(|()| true)
    }

    /// Gives the file `name` the name `to_name` in the folder `to` as well, durably; returns false if that name is taken.
    ///
    /// # Errors
    /// Any other failure.
    pub fn link(&self, name: &str, to: &Self, to_name: impl AsRef<OsStr>) -> Result<bool> {
        let new = to_name.as_ref().as_bytes();
        match rustix::fs::linkat(&self.fd, name, &to.fd, new, AtFlags::empty()) {
            Err(Errno::EXIST) => return Ok(false),
            linked => linked.on("create", &to.at(to_name))?,
        }
        to.sync().map(|()| true)
    }

    /// Creates the symbolic link `name` in it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn link_to(&self, target: &Path, name: &str) -> Result<()> {
        rustix::fs::symlinkat(target, &self.fd, name).on("create", &self.at(name))
    }

    /// Returns the target of the symbolic link `name`.
    ///
    /// # Errors
    /// It is no link, or cannot be read.
    pub fn target_of(&self, name: &str) -> Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new()).on("read", &self.at(name))?;
        Ok(OsStr::from_bytes(target.as_bytes()).into())
    }

    /// Removes a file, a link or a whole folder in it, if it exists, as [`super::remove`] does.
    ///
    /// # Errors
    /// The first entry that could not be removed.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<()> {
        remove_in(&self.fd, name.as_ref(), &self.at(&name))
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// It cannot be synced.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).on("sync", &self.path)
    }

    /// Syncs the whole file system that holds it: one call for many files.
    ///
    /// # Errors
    /// The sync failed.
    pub fn sync_file_system(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).on("sync", &self.path)
    }

    /// Takes the lock `name` in it as [`Lock::take`] does.
    ///
    /// # Errors
    /// The lock file cannot be created.
    pub fn lock(&self, name: &str, patience: Duration) -> Result<Option<Lock>> {
        Lock::take_in(&self.fd, name, self.at(name), patience)
    }

    /// Opens the file at a path below it for reading: through no link, without waiting for a pipe's writer, and nothing
    /// but a file.
    ///
    /// # Errors
    /// The system's error.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let file = open_beneath(&self.fd, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let found = rustix::fs::fstat(&file)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        if is_file { Ok(file.into()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

/// Opens what is at a path below `folder`; no part of the path may be a link, and none leads out of the folder.
///
/// # Errors
/// The system's error; [`Errno::LOOP`] or [`Errno::NOTDIR`] for a link.
pub fn open_beneath(folder: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&folder, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or where a container's filter refuses the call.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(folder.as_fd(), path, flags),
        opened => opened,
    }
}

fn step_by_step(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let (mut above, mut rest): (Option<OwnedFd>, _) = (None, path);
    loop {
        let at = above.as_ref().map_or(folder, AsFd::as_fd);
        let slash = rest.iter().position(|byte| *byte == b'/');
        let name = &rest[..slash.unwrap_or(rest.len())];
        if name.is_empty() || name == b".." {
            return Err(Errno::XDEV);
        }
        let Some(slash) = slash else { return rustix::fs::openat(at, name, flags, Mode::empty()) };
        above = Some(rustix::fs::openat(at, name, FOLDER, Mode::empty())?);
        rest = &rest[slash + 1..];
    }
}

/// A folder on the way to another: no permission to read it is needed.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The way to a folder.
struct Way<'a> {
    path: &'a Path,
    /// The mode of folders that are missing; none if they are not created.
    mode: Option<u32>,
    parts: VecDeque<OsString>,
    links: usize,
}

impl<'a> Way<'a> {
    fn new(path: &'a Path, mode: Option<u32>) -> Self {
        Self { path, mode, parts: parts(path), links: 0 }
    }

    fn walk(mut self) -> Result<OwnedFd> {
        let mut at = rustix::fs::openat(CWD, ".", FOLDER, Mode::empty()).on("open", self.path)?;
        while let Some(part) = self.parts.pop_front() {
            let next = rustix::fs::openat(&at, &*part, FOLDER, Mode::empty());
            at = match (next, self.mode) {
                (Err(Errno::NOENT), Some(mode)) => {
                    self.make(&at, &part, mode)?;
                    rustix::fs::openat(&at, &*part, FOLDER, Mode::empty()).on("open", self.path)?
                }
                (Err(Errno::NOTDIR | Errno::LOOP), _) => {
                    self.follow(&at, &part)?;
                    at
                }
                (next, _) => next.on("open", self.path)?,
            };
        }
        open_folder(&at, c".").on("open", self.path)
    }

    fn make(&self, at: &OwnedFd, part: &OsStr, mode: u32) -> Result<()> {
        match rustix::fs::mkdirat(at, part, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => {}
            made => made.on("create", self.path)?,
        }
        let above = open_folder(at, c".").on("open", self.path)?;
        rustix::fs::fsync(&above).on("sync", self.path)
    }

    /// Puts the target of a link before what is left of the way.
    fn follow(&mut self, at: &OwnedFd, part: &OsStr) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = rustix::fs::openat(at, part, flags, Mode::empty()).on("open", self.path)?;
        let found = rustix::fs::fstat(&link).on("examine", self.path)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            return Err(Errno::NOTDIR).on("open", self.path);
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP).on("open", self.path);
        }
        if found.st_uid != 0 && found.st_uid != rustix::process::geteuid().as_raw() {
            let text = format!("the link `{}` on the way belongs to another user", Path::new(part).display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text)).on("open", self.path);
        }
        let target = rustix::fs::readlinkat(&link, c"", Vec::new()).on("read", self.path)?;
        let mut parts = parts(Path::new(OsStr::from_bytes(target.as_bytes())));
        parts.append(&mut self.parts);
        self.parts = parts;
        Ok(())
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn a_path_below_goes_through_no_link_and_not_outside() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("a/b")).expect("created");
        fs::write(folder.path().join("secret"), "secret").expect("written");
        fs::write(top.join("a/b/file"), "content").expect("written");
        symlink("a", top.join("link")).expect("linked");
        symlink("../secret", top.join("out")).expect("linked");
        let held = Folder::open(&top).expect("opened");
        for open in [open_beneath, |folder: &Folder, path: &[u8], flags| {
            step_by_step(folder.as_fd(), path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC)
        }] {
            assert!(open(&held, b"a/b/file", OFlags::RDONLY).is_ok());
            for path in ["link/b/file", "out", "../secret", "a/../../secret", "a/../a/b/../../../secret"] {
                assert!(open(&held, path.as_bytes(), OFlags::RDONLY).is_err(), "{path}");
            }
        }
        assert!(held.open_file(b"a/b").is_err(), "a folder is no file");
    }

    #[test]
    fn a_link_on_the_way_is_followed_only_if_it_is_ones_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).expect("created");
        symlink("real", at("link")).expect("linked");
        symlink("loop", at("loop")).expect("linked");
        let made = Folder::create(&at("link/new/deep"), 0o755).expect("created");
        assert!(made.names().expect("read").is_empty() && at("real/new/deep").is_dir());
        assert!(Folder::open(&at("loop")).is_err() && Folder::open(&at("none")).is_err());
        if rustix::process::geteuid().is_root() {
            lchown(at("link"), Some(12345), None).expect("given away");
            let error = Folder::open(&at("link/new")).expect_err("another user's link");
            assert!(error.to_string().contains("another user"), "{error}");
        }
    }

    #[test]
    fn what_is_held_stays_the_same_whatever_gets_its_path() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("ours")).expect("created");
        fs::create_dir_all(at("other")).expect("created");
        let held = Folder::open(&at("ours")).expect("opened");
        fs::rename(at("ours"), at("away")).expect("renamed");
        symlink("other", at("ours")).expect("linked");
        assert!(held.make("sub", 0o700).expect("made"));
        held.link_to(Path::new("x"), "link").expect("linked");
        held.rename("link", &held, "renamed").expect("renamed");
        assert_eq!(held.target_of("renamed").expect("a link"), Path::new("x"));
        assert!(held.lock("lock", Duration::ZERO).expect("locked").is_some());
        assert_eq!(fs::read_dir(at("other")).expect("a folder").count(), 0);
        held.remove("sub").expect("removed");
        assert_eq!(held.names().expect("read").len(), 2);
    }
}
