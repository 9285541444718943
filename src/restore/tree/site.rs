//! The folder being written, the earlier copy beside it, and how the work ends: shared by all threads.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::jobs::{Earlier, LocalBytes, Whole};
use super::{OutsideLinks, Reuse, TreeOptions, Written};
use crate::restore::free_space::FreeSpace;
use crate::restore::{Error, Linked, Mapping};
use disk::files::{self, Folder, open_beneath};
use format::manifest::{EntryPath, MODE_MASK};
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use recode::codec::Permits;

/// The state shared by all threads of one [`super::write_tree`].
pub(super) struct Site<'a> {
    pub(super) folder: &'a Folder,
    pub(super) earlier: Option<&'a Folder>,
    pub(super) mapping: Mapping<'a>,
    /// The time of what is new.
    time: Option<Timespec>,
    pub(super) reuse: Reuse,
    pub(super) outside_links: OutsideLinks,
    /// False once the file system has refused a reflink.
    reflinks: AtomicBool,
    /// True once the file system has refused to link a file of the earlier copy.
    refuses_links: AtomicBool,
    pub(super) monitor: &'a dyn Monitor,
    cancelled: Option<&'a AtomicBool>,
    stopped: AtomicBool,
    failed: Mutex<Option<Error>>,
    reused_files: AtomicU64,
    reused_bytes: AtomicU64,
    /// Permits for archives that contain xz or zstd.
    pub(super) turns: Permits,
}

impl<'a> Site<'a> {
    /// Starts with the new folder, which is empty.
    pub(super) fn new(folder: &'a Folder, options: &TreeOptions<'a>, monitor: &'a dyn Monitor) -> Self {
        let time = options.time.map(|time| i64::try_from(time).unwrap_or(i64::MAX));
        Self {
            folder,
            earlier: options.previous.map(|earlier| earlier.folder),
            mapping: options.mapping,
            time: time.map(|tv_sec| Timespec { tv_sec, tv_nsec: 0 }),
            reuse: options.reuse,
            outside_links: options.outside_links,
            reflinks: AtomicBool::new(true),
            refuses_links: AtomicBool::new(false),
            monitor,
            cancelled: options.cancelled,
            stopped: AtomicBool::new(false),
            failed: Mutex::new(None),
            reused_files: AtomicU64::new(0),
            reused_bytes: AtomicU64::new(0),
            turns: Permits::default(),
        }
    }

    /// Keeps the first error and stops all threads.
    pub(super) fn fail(&self, error: Error) {
        self.failed.lock().unpoisoned().get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Fails if another thread has failed or the caller cancelled.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        let cancelled = self.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed));
        if cancelled || self.stopped.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Returns the first error, if there was one.
    pub(super) fn outcome(&self) -> Result<(), Error> {
        let failed = self.failed.lock().unpoisoned().take();
        failed.map_or_else(|| self.go_on(), Err)
    }

    /// Counts bytes that the earlier copy gave.
    pub(super) fn reused(&self, bytes: u64) {
        self.reused_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a file that the earlier copy gave whole.
    pub(super) fn reused_whole(&self) {
        self.reused_files.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a file that was linked.
    pub(super) fn linked(&self, bytes: u64) {
        self.reused(bytes);
        self.reused_whole();
        self.monitor.advance(Phase::Rebuild, bytes);
    }

    /// Adds what was reused.
    pub(super) fn tally(&self, written: &mut Written) {
        written.reused_files = self.reused_files.load(Ordering::Relaxed);
        written.reused_bytes = self.reused_bytes.load(Ordering::Relaxed);
    }

    /// Names the action and the path in an error.
    pub(super) fn on<T>(
        &self,
        result: Result<T, impl Into<io::Error>>,
        action: &'static str,
        path: &EntryPath,
    ) -> Result<T, files::Error> {
        result.map_err(|error| files::Error { action, path: self.path(path), source: error.into() })
    }

    /// Creates a file with its mode, readable and writable here whatever the mode says.
    pub(super) fn create_file(&self, path: &EntryPath, mode: u16) -> Result<File, files::Error> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.folder, path.as_bytes(), flags, Mode::RUSR | Mode::WUSR);
        let file = self.on(file, "create", path)?;
        // The mode given at creation is subject to the process's mask; this one is exact.
        self.on(rustix::fs::fchmod(&file, bits(mode)), "set the mode of", path)?;
        Ok(file.into())
    }

    /// Gives a new file its length; nothing is allocated for it.
    pub(super) fn set_length(&self, file: &File, wanted: &Whole) -> Result<(), files::Error> {
        self.on(file.set_len(wanted.size), "set the length of", &wanted.path)
    }

    /// Creates a directory; one that its owner may not write to gets its mode at the end.
    pub(super) fn create_directory(&self, path: &EntryPath, mode: u16) -> Result<(), files::Error> {
        let created = rustix::fs::mkdirat(self.folder, path.as_bytes(), Mode::RWXU);
        self.on(created, "create", path)?;
        if waits_for_its_mode(mode) { Ok(()) } else { self.set_mode(path, mode) }
    }

    /// Sets the mode of a directory that was created here.
    fn set_mode(&self, path: &EntryPath, mode: u16) -> Result<(), files::Error> {
        let set = rustix::fs::chmodat(self.folder, path.as_bytes(), bits(mode), AtFlags::empty());
        self.on(set, "set the mode of", path)
    }

    /// Creates a symbolic link.
    pub(super) fn create_symlink(&self, path: &EntryPath, target: &[u8]) -> Result<(), files::Error> {
        let name = path.as_bytes();
        self.on(rustix::fs::symlinkat(target, self.folder, name), "create", path)?;
        if let Some(time) = self.time {
            let set = rustix::fs::utimensat(self.folder, name, &modified(time), AtFlags::SYMLINK_NOFOLLOW);
            self.on(set, "set the time of", path)?;
        }
        if let Some((owner, group)) = self.owner() {
            let given = rustix::fs::chownat(self.folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW);
            self.on(given, "change the owner of", path)?;
        }
        Ok(())
    }

    /// Creates the links of the mapping, and the directories above them that the release lacks.
    pub(super) fn create_linked(&self) -> Result<(), Error> {
        for Linked { path, target } in self.mapping.linked {
            let slashes = path.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/');
            let mut made = Vec::new();
            for (slash, _) in slashes {
                let above = EntryPath::new(&path.as_bytes()[..slash])?;
                match rustix::fs::mkdirat(self.folder, above.as_bytes(), Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    created => {
                        self.on(created, "create", &above)?;
                        made.push(above);
                        continue;
                    }
                }
                let directory = OFlags::PATH | OFlags::DIRECTORY;
                open_beneath(self.folder, above.as_bytes(), directory)
                    .map_err(|_| Error::NoDirectory(path.clone()))?;
            }
            self.create_symlink(path, target)?;
            for above in made.iter().rev() {
                self.finish_directory_at(above, Some(self.mapping.mode_of_directory(0o755)))?;
            }
        }
        Ok(())
    }

    /// Returns whether anything gets a time or an owner.
    pub(super) fn finishes(&self) -> bool {
        self.time.is_some() || self.owner().is_some()
    }

    /// Gives a complete file its time, the given one or that of what is new, and its owner.
    pub(super) fn finish_file(
        &self,
        file: &File,
        path: &EntryPath,
        time: Option<Timespec>,
    ) -> Result<(), files::Error> {
        self.on(self.finish(file, time), "set the time or owner of", path)
    }

    /// Gives a complete directory its mode, if there is one, time and owner.
    pub(super) fn finish_directory(&self, directory: impl AsFd, mode: Option<u16>) -> rustix::io::Result<()> {
        if let Some(mode) = mode {
            rustix::fs::fchmod(&directory, bits(mode))?;
        }
        self.finish(directory, None)
    }

    /// Does the same for a directory that was created here.
    pub(super) fn finish_directory_at(
        &self,
        path: &EntryPath,
        mode: Option<u16>,
    ) -> Result<(), files::Error> {
        let opened = open_beneath(self.folder, path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY);
        let directory = self.on(opened, "open", path)?;
        self.on(self.finish_directory(directory, mode), "set the mode, time or owner of", path)
    }

    /// Gives an open entry its time and owner, in this order: who is not its owner any more may not set its time.
    fn finish(&self, entry: impl AsFd, time: Option<Timespec>) -> rustix::io::Result<()> {
        if let Some(new) = self.time {
            rustix::fs::futimens(&entry, &modified(time.unwrap_or(new)))?;
        }
        match self.owner() {
            Some((owner, group)) => rustix::fs::fchown(&entry, owner, group),
            None => Ok(()),
        }
    }

    /// Returns the user and group that all belongs to, where there is any.
    fn owner(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        let (owner, group) = (self.mapping.owner.map(Uid::from_raw), self.mapping.group.map(Gid::from_raw));
        (owner.is_some() || group.is_some()).then_some((owner, group))
    }

    /// Opens the earlier copy's file if it is a file of `size` bytes, through no link. Nothing else is known of it.
    pub(super) fn open_earlier(&self, path: &EntryPath, size: u64) -> Option<Earlier> {
        let file = self.earlier?.open_file(path.as_bytes()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).ok()? };
        (u64::try_from(stat.st_size) == Ok(size)).then_some(Earlier { file, modified })
    }

    /// Makes `earlier` the basis of the new `file`: by a reflink where the file system can.
    ///
    /// The reflink is verified after it is made, so that nobody can change it in between.
    pub(super) fn basis(
        &self,
        earlier: Option<Earlier>,
        file: &File,
        wanted: &Whole,
    ) -> Result<LocalBytes, files::Error> {
        let Some(Earlier { file: earlier, .. }) = earlier else { return Ok(LocalBytes::None) };
        if !self.may_reflink() {
            return Ok(LocalBytes::Earlier(earlier));
        }
        if rustix::fs::ioctl_ficlone(file, &earlier).is_err() {
            self.reflinks.store(false, Ordering::Relaxed);
            return Ok(LocalBytes::Earlier(earlier));
        }
        // The earlier file may have grown since it was opened.
        self.set_length(file, wanted)?;
        Ok(LocalBytes::InPlace)
    }

    /// Returns whether the file system has not refused a reflink yet.
    pub(super) fn may_reflink(&self) -> bool {
        self.reflinks.load(Ordering::Relaxed)
    }

    /// Returns whether the file system has refused to link a file of the earlier copy.
    pub(super) fn refuses_links(&self) -> bool {
        self.refuses_links.load(Ordering::Relaxed)
    }

    /// Notes that the file system refuses that.
    pub(super) fn refuse_links(&self) {
        self.refuses_links.store(true, Ordering::Relaxed);
    }

    /// Links the open file `earlier` to the wanted path, if its mode and owner are right; returns false if that fails.
    ///
    /// A mode is a file's, not a name's: to change it would change the earlier copy.
    pub(super) fn hard_link(&self, earlier: &File, wanted: &Whole) -> bool {
        let Ok(stat) = rustix::fs::fstat(earlier) else { return false };
        let equal = stat.st_mode & 0o7777 == u32::from(wanted.mode)
            && is_owner(&self.mapping, (stat.st_uid, stat.st_gid))
            && u64::try_from(stat.st_size) == Ok(wanted.size);
        // The open file itself, not whatever has its name by now.
        let opened = format!("/proc/self/fd/{}", earlier.as_raw_fd());
        let path = wanted.path.as_bytes();
        equal && rustix::fs::linkat(CWD, opened, self.folder, path, AtFlags::SYMLINK_FOLLOW).is_ok()
    }

    /// Gives a file that was created here one more name; returns false if the file system refuses.
    pub(super) fn link_within(&self, file: &EntryPath, path: &EntryPath) -> Result<bool, files::Error> {
        let (file, name) = (file.as_bytes(), path.as_bytes());
        match rustix::fs::linkat(self.folder, file, self.folder, name, AtFlags::empty()) {
            Err(Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            result => self.on(result, "link", path).map(|()| true),
        }
    }

    /// Copies a file that was created here, by a reflink where the file system can. The copy was not counted when the
    /// release was compared with the room, and has no holes: it is compared by itself.
    pub(super) fn copy_within(&self, from: &EntryPath, to: &EntryPath) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.folder, from.as_bytes(), flags, Mode::empty());
        let mut file: File = self.on(file, "open", from)?.into();
        let found = self.on(file.metadata(), "examine", from)?;
        FreeSpace::at(self.folder.path())?.check_bytes(found.len())?;
        let mode = u16::try_from(found.mode() & u32::from(MODE_MASK)).expect("nine bits fit");
        let mut copy = self.create_file(to, mode)?;
        self.on(io::copy(&mut file, &mut copy), "write", to)?;
        let time = Timespec { tv_sec: found.mtime(), tv_nsec: found.mtime_nsec() };
        Ok(self.finish_file(&copy, to, Some(time))?)
    }

    /// Removes a file that was created here.
    pub(super) fn remove_file(&self, path: &EntryPath) -> Result<(), files::Error> {
        self.on(rustix::fs::unlinkat(self.folder, path.as_bytes(), AtFlags::empty()), "remove", path)
    }

    /// Returns the path for messages and for functions that need one.
    pub(super) fn path(&self, path: &EntryPath) -> PathBuf {
        self.folder.at(OsStr::from_bytes(path.as_bytes()))
    }
}

/// Returns whether a file of this user and group is one as it is created with this mapping.
pub(super) fn is_owner(mapping: &Mapping<'_>, (user, group): (u32, u32)) -> bool {
    let owner = mapping.owner.unwrap_or(rustix::process::geteuid().as_raw());
    user == owner && mapping.group.is_none_or(|wanted| group == wanted)
}

/// Returns whether a directory of this mode could not be filled by its owner.
pub(super) fn waits_for_its_mode(mode: u16) -> bool {
    mode & 0o700 != 0o700
}

fn modified(time: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time }
}

fn bits(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode))
}
