//! Finds what a user has added to or changed in a pulled directory, by comparing it with the last pull's mark.
//!
//! Looks once at each entry. Reads a file only where its stat differs from the mark's, or where it was written so
//! shortly before the mark that its times cannot tell.

use std::cmp::Ordering;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::mark::{Entries, FolderId, Placed, order, stat_of};
use crate::agent::Result;
use crate::agent::memory::Stat;
use crate::restore::{Linked, Mapping};
use disk::files::{self, Mount, OnPath};
use format::manifest::{EntryPath, Item, MODE_MASK};
use ground::ids::ChunkId;
use ground::limits::FOLDER_DEPTH_MAX;

/// The differences between a directory and what a pull put there. Paths are relative.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Entries that no pull put there. A folder of the user's own counts once, without its content.
    pub added: Vec<PathBuf>,
    /// Entries that a pull put there and that have other content now.
    pub edited: Vec<PathBuf>,
    /// The number of entries that are gone.
    pub gone: u64,
    /// The number of entries with only a changed mode.
    pub modes: u64,
    /// The number of files that were read, as their looks do not tell.
    pub read: u64,
    /// The number of those where nothing but the time of change differed, as after a second name of a file went.
    pub read_by_change: u64,
    /// Mount points.
    pub mounts: Vec<PathBuf>,
    /// True if a pull put archives there that are stored unpacked.
    pub has_unpacked: bool,
}

impl Differences {
    /// Returns whether there are none.
    pub fn is_none(&self) -> bool {
        let Self { added, edited, gone, modes, mounts, .. } = self;
        added.is_empty() && edited.is_empty() && *gone == 0 && *modes == 0 && mounts.is_empty()
    }
}

/// What else than the mark is known of a directory. By default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// The mark of the next directory: a file that is also there, at the same path, counts as it was put, as it stays.
    pub next: Option<&'a Placed>,
    /// Links at the places of what lies elsewhere: what the release has there was left out.
    pub linked: &'a [Linked],
    /// True if every file is read, however it looks.
    pub reads_all: bool,
}

/// Compares the directory at `place` with the mark `placed`. Without a mark, everything in it counts as added.
///
/// # Errors
/// The directory or a mark cannot be read.
pub(super) fn compare(place: &Path, placed: Option<&Placed>, known: Known<'_>) -> Result<Differences> {
    let Known { next, linked, reads_all } = known;
    let folder = files::open_folder(CWD, place).on("open", place)?;
    let mount = Mount::of_open(&folder).on("examine", place)?;
    let recorded = placed.map(|placed| Ok::<_, crate::agent::Error>((placed.entries()?, placed)));
    let (recorded, next) = (recorded.transpose()?, next.map(Placed::entries).transpose()?);
    let mapping = Mapping { linked, ..Mapping::default() };
    let found = Differences::default();
    let mut comparison =
        Comparison { place, mount, recorded, next, mapping, reads_all, linked_met: 0, found };
    comparison.walk(folder)?;
    comparison.found.gone += (linked.len() - comparison.linked_met) as u64;
    Ok(comparison.found)
}

/// Identifies the directory at `place`.
///
/// # Errors
/// It does not exist, or cannot be examined.
pub(super) fn folder_id(place: &Path) -> Result<FolderId> {
    let found = files::examine(CWD, place, AtFlags::empty()).on("examine", place)?;
    Ok(FolderId::of(&found))
}

struct Comparison<'a> {
    place: &'a Path,
    mount: Mount,
    /// What the last pull put there, and the mark that says so.
    recorded: Option<(Entries, &'a Placed)>,
    /// What is in the next directory.
    next: Option<Entries>,
    /// The links at the places of what lies elsewhere.
    mapping: Mapping<'a>,
    reads_all: bool,
    /// How many of those links were met, or something in their places.
    linked_met: usize,
    found: Differences,
}

/// A folder that is being looked through.
struct Level {
    folder: OwnedFd,
    /// The entries that are still to be looked at, in order.
    names: std::vec::IntoIter<CString>,
    path: Vec<u8>,
    added: bool,
}

impl Comparison<'_> {
    /// Looks at everything below `top`. Holds the folders on the way open, [`FOLDER_DEPTH_MAX`] at most, and calls no function
    /// for each, as people may have nested them as deep as they like.
    fn walk(&mut self, top: OwnedFd) -> Result<()> {
        let mut levels = vec![self.level(top, Vec::new(), false)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let mut path = level.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let found = match files::examine(&level.folder, name.as_c_str(), AtFlags::empty()) {
                Err(Errno::NOENT) => continue,
                found => found.on("examine", &self.at(&path))?,
            };
            let below = self.entry(level.folder.as_fd(), &name, &path, &found, level.added)?;
            let Some((folder, added)) = below else { continue };
            if levels.len() > FOLDER_DEPTH_MAX {
                return Err(files::too_deep()).on("look through", self.place)?;
            }
            levels.push(self.level(folder, path, added)?);
        }
        while self.pass()? {}
        Ok(())
    }

    fn level(&self, folder: OwnedFd, path: Vec<u8>, added: bool) -> Result<Level> {
        let listed = Dir::read_from(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let names = listed.on("list", &self.at(&path))?.into_iter().map(|entry| entry.file_name().to_owned());
        let mut names: Vec<CString> =
            names.filter(|name| ![c".", c".."].contains(&name.as_c_str())).collect();
        names.sort_unstable();
        Ok(Level { folder, names: names.into_iter(), path, added })
    }

    /// Compares an entry; returns what is to be looked through next: a folder, and whether it was added.
    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        found: &Statx,
        added: bool,
    ) -> Result<Option<(OwnedFd, bool)>> {
        let recorded = if added { None } else { self.recorded_at(path)? };
        if !Mount::of(found).is(&self.mount) {
            self.found.mounts.push(relative(path));
            return Ok(None);
        }
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        if let Some(linked) = self.mapping.linked.iter().find(|linked| linked.path.as_bytes() == path) {
            self.linked_met += 1;
            let there = rustix::fs::readlinkat(folder, name, Vec::new());
            if !there.is_ok_and(|there| there.as_bytes() == linked.target) {
                self.found.edited.push(relative(path));
            }
            return Ok(None);
        }
        if kind == FileType::Directory {
            let is_ours = matches!(recorded, Some((Item::Directory { .. }, _)));
            if !is_ours && !added {
                self.found.added.push(relative(path));
            }
            if let Some((Item::Directory { mode, .. }, _)) = &recorded {
                self.found.modes += u64::from(!is_mode(found, *mode));
            }
            return match files::open_folder(folder, name) {
                Ok(below) => Ok(Some((below, !is_ours))),
                Err(Errno::NOENT) => Ok(None),
                // It was put there closed, and nobody has opened it since.
                Err(Errno::ACCESS) if recorded.is_some_and(|(_, put)| self.is_same(&put, found)) => Ok(None),
                Err(Errno::ACCESS) if !is_ours => Ok(None),
                Err(error) => Err(error).on("open", &self.at(path))?,
            };
        }
        let Some((item, stat)) = recorded else {
            if !added {
                self.found.added.push(relative(path));
            }
            return Ok(None);
        };
        let is_as_put = match &item {
            Item::Symlink { target, .. } | Item::OutsideLink { target, .. } if kind == FileType::Symlink => {
                let there = rustix::fs::readlinkat(folder, name, Vec::new());
                there.is_ok_and(|there| there.as_bytes() == target)
            }
            Item::File { mode, .. } if kind == FileType::RegularFile => {
                self.found.has_unpacked |= is_unpacked(&item);
                let same = self.is_file_as_put(folder, name, (&item, &stat), found)?;
                self.found.modes += u64::from(same && !is_mode(found, *mode));
                same
            }
            Item::HardLink { target, .. } if kind == FileType::RegularFile => {
                self.is_link_as_put(folder, name, (target, &stat), found)
            }
            _ => false,
        };
        if !is_as_put {
            self.found.edited.push(relative(path));
        }
        Ok(None)
    }

    /// Advances to `path` in the mark and returns the entry there, if any.
    fn recorded_at(&mut self, path: &[u8]) -> Result<Option<(Item, Stat)>> {
        loop {
            let Some((entries, _)) = &mut self.recorded else { return Ok(None) };
            let ordering = match entries.peek()? {
                None => return Ok(None),
                Some((Item::Chunk(_) | Item::Linked, _)) => Ordering::Less,
                Some((item, _)) => order(path_of(item), path),
            };
            match ordering {
                Ordering::Less => drop(self.pass()?),
                Ordering::Equal => return entries.next(),
                Ordering::Greater => return Ok(None),
            }
        }
    }

    /// Passes an item of the mark that is not met: an entry is gone. Returns false at the end.
    fn pass(&mut self) -> Result<bool> {
        let Some((entries, _)) = &mut self.recorded else { return Ok(false) };
        let Some((item, _)) = entries.next()? else { return Ok(false) };
        self.found.gone += u64::from(item.path().is_some_and(|path| !self.mapping.leaves_out(path)));
        Ok(true)
    }

    /// Returns whether a file still has the content that was put there.
    fn is_file_as_put(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        (item, stat): (&Item, &Stat),
        found: &Statx,
    ) -> Result<bool> {
        let (Item::File { path, size, recipe, .. }, Some((entries, placed))) = (item, &mut self.recorded)
        else {
            return Ok(false);
        };
        if let Some(next) = &mut self.next {
            let there = next.at(path.as_bytes())?;
            if there.is_some_and(|(_, next)| next.inode == found.stx_ino) {
                return Ok(true);
            }
        }
        if found.stx_size != *size {
            return Ok(false);
        }
        if !self.reads_all && placed.is_same(stat, &stat_of(found)) && placed.is_settled(stat) {
            return Ok(true);
        }
        self.found.read += 1;
        let looks = Stat { changed: stat.changed, device: stat.device, ..stat_of(found) };
        self.found.read_by_change += u64::from(looks == *stat);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // One that may not be read may be anything.
        let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return Ok(false) };
        let mut file = File::from(file);
        if let Some(container) = recipe.container() {
            let mut hasher = blake3::Hasher::new();
            let read = hasher.update_reader(&mut file);
            return Ok(read.is_ok() && hasher.finalize().as_bytes() == container.artifact.as_bytes());
        }
        let mut buffer = Vec::new();
        while let Some(chunk) = entries.chunk()? {
            buffer.resize(chunk.bytes as usize, 0);
            if file.read_exact(&mut buffer).is_err() || ChunkId::of(&buffer) != chunk.id {
                return Ok(false);
            }
        }
        // The file may have become longer.
        Ok(file.read(&mut [0]).is_ok_and(|read| read == 0))
    }

    /// Returns whether a hard link is still one, or, where the pull wrote a copy instead, the copy still equals the first name's file.
    ///
    /// A change of the file itself is found at its first name.
    fn is_link_as_put(
        &self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        (target, stat): (&EntryPath, &Stat),
        found: &Statx,
    ) -> bool {
        let is_settled = self.recorded.as_ref().is_some_and(|(_, placed)| placed.is_settled(stat));
        if self.is_same(stat, found) && is_settled {
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let first = rustix::fs::open(self.at(target.as_bytes()), flags, Mode::empty());
        let other = rustix::fs::openat(folder, name, flags, Mode::empty());
        // One that may not be read may be anything.
        let (Ok(first), Ok(other)) = (first, other) else { return false };
        let (mut first, mut other) = (File::from(first), File::from(other));
        let id = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if id(&first) == id(&other) {
            return true;
        }
        let hash = |file: &mut File| {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file).is_ok().then(|| hasher.finalize())
        };
        let first = hash(&mut first);
        first.is_some() && first == hash(&mut other)
    }

    fn is_same(&self, put: &Stat, found: &Statx) -> bool {
        self.recorded.as_ref().is_some_and(|(_, placed)| placed.is_same(put, &stat_of(found)))
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.place.join(OsStr::from_bytes(path))
    }
}

fn is_unpacked(item: &Item) -> bool {
    matches!(item, Item::File { recipe, .. } if recipe.container().is_some())
}

fn path_of(item: &Item) -> &[u8] {
    item.path().map_or(&[], EntryPath::as_bytes)
}

fn relative(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(path).into()
}

fn is_mode(found: &Statx, mode: u16) -> bool {
    found.stx_mode & MODE_MASK == mode
}
