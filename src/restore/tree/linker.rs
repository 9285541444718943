//! Links unchanged files of an earlier copy that is given up into the new one, without reading them.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, OFlags, Statx};
use rustix::io::Errno;

use super::jobs::{Looks, Whole};
use super::site::{Site, is_owner};
use super::{Linkable, Previous};
use crate::restore::Mapping;
use disk::files::{self, Folder, open_beneath};
use format::manifest::EntryPath;

/// Returns whether [`Linking::link`] would link the earlier copy's file at `path`, where the file system does. Asked for in the
/// manifest's order, before any linker begins.
pub(super) fn would_link(
    previous: &Previous<'_>,
    mapping: &Mapping<'_>,
    path: &EntryPath,
    (size, mode): (u64, u16),
) -> bool {
    let Some(linkable) = previous.linkable else { return false };
    let opened = open_beneath(previous.folder, path.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW);
    let found = opened.and_then(|file| files::examine(&file, c"", AtFlags::EMPTY_PATH));
    found.is_ok_and(|found| {
        has_own_names(linkable, path, &found)
            && is_right(&found, mapping, (size, mapping.mode_of_file(mode)))
            && linkable.may_be_linked(path, &found)
    })
}

/// Returns whether nobody else has given the file a name.
fn has_own_names(linkable: &dyn Linkable, path: &EntryPath, found: &Statx) -> bool {
    found.stx_nlink == 1 || found.stx_nlink <= linkable.names(path, found)
}

fn is_right(found: &Statx, mapping: &Mapping<'_>, (size, mode): (u64, u16)) -> bool {
    FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile
        && found.stx_mode & 0o7777 == mode
        && found.stx_size == size
        && is_owner(mapping, (found.stx_uid, found.stx_gid))
}

/// Finds files that may be linked, in the manifest's order. The folder of the last one stays open for the next.
pub(super) struct Linker<'a> {
    linkable: &'a dyn Linkable,
    earlier: &'a Folder,
    site: &'a Site<'a>,
    within: Option<(Vec<u8>, OwnedFd)>,
    linking: Linking<'a>,
}

impl<'a> Linker<'a> {
    /// Begins before the first file; none where nothing may be linked.
    pub(super) fn new(previous: &Previous<'a>, site: &'a Site<'a>) -> Option<Self> {
        let (linkable, earlier) = (previous.linkable?, previous.folder);
        linkable.begin();
        Some(Self { linkable, earlier, site, within: None, linking: Linking::new(site) })
    }

    /// Returns how the file at `path` of the earlier copy looks, if it has these properties and no name that is not whit's own, its mode
    /// and owner are right, and it may be linked.
    pub(super) fn looks(&mut self, path: &EntryPath, size: u64, mode: u16) -> Option<Looks> {
        if self.site.refuses_links() {
            return None;
        }
        let (above, name) = split(path);
        if self.within.as_ref().is_none_or(|(at, _)| at != above) {
            self.within = open(self.earlier, above).map(|folder| (above.to_owned(), folder));
        }
        let (_, folder) = self.within.as_ref()?;
        let found = files::examine(folder, name, AtFlags::empty()).ok()?;
        let may = is_right(&found, &self.site.mapping, (size, mode))
            && has_own_names(self.linkable, path, &found)
            && self.linkable.may_be_linked(path, &found);
        may.then(|| looks_of(&found))
    }

    /// Links a file at once, as [`Linking::link`].
    pub(super) fn link(&mut self, file: &Whole) -> bool {
        self.linking.link(file)
    }
}

/// Links files of the earlier copy into the new one. Both folders of the last one stay open for the next. One for each thread, as the
/// system links files of different folders at a time.
pub(super) struct Linking<'a> {
    site: &'a Site<'a>,
    /// The folder of the last file, in the earlier copy and in the new one.
    within: Option<(Vec<u8>, OwnedFd, OwnedFd)>,
}

impl<'a> Linking<'a> {
    /// Begins with no folder.
    pub(super) fn new(site: &'a Site<'a>) -> Self {
        Self { site, within: None }
    }

    /// Links a file if the earlier copy still has it as it looked. Returns false, and leaves nothing, otherwise.
    ///
    /// Who writes into a file of the earlier copy from here on writes into that of the new one.
    pub(super) fn link(&mut self, file: &Whole) -> bool {
        let Some(looks) = file.linkable.filter(|_| !self.site.refuses_links()) else { return false };
        let (above, name) = split(&file.path);
        if self.within.as_ref().is_none_or(|(at, _, _)| at != above) {
            self.within = self.open(above).map(|(old, new)| (above.to_owned(), old, new));
        }
        let Some((_, old, new)) = &self.within else { return false };
        match rustix::fs::linkat(old, name, new, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.site.refuse_links();
                return false;
            }
            Err(_) => return false,
        }
        // Another file may have had the name by then.
        let linked = files::examine(new, name, AtFlags::empty());
        let is_linked = linked.is_ok_and(|linked| {
            is_right(&linked, &self.site.mapping, (file.size, file.mode)) && looks_of(&linked) == looks
        });
        if !is_linked {
            // It may be gone by itself; one that stays is an error where the file is created.
            let _ = rustix::fs::unlinkat(new, name, AtFlags::empty());
        }
        is_linked
    }

    fn open(&self, above: &[u8]) -> Option<(OwnedFd, OwnedFd)> {
        Some((open(self.site.earlier?, above)?, open(self.site.folder, above)?))
    }
}

fn looks_of(found: &Statx) -> Looks {
    (found.stx_ino, found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec)
}

/// Returns the path of the folder that holds an entry, empty for the top, and the entry's name.
fn split(path: &EntryPath) -> (&[u8], &[u8]) {
    let bytes = path.as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/');
    slash.map_or((&bytes[..0], bytes), |slash| (&bytes[..slash], &bytes[slash + 1..]))
}

/// Returns whether two entries are in one folder.
pub(super) fn are_neighbours(one: &EntryPath, other: &EntryPath) -> bool {
    split(one).0 == split(other).0
}

fn open(folder: &Folder, above: &[u8]) -> Option<OwnedFd> {
    let above = if above.is_empty() { b"." } else { above };
    open_beneath(folder, above, OFlags::PATH | OFlags::DIRECTORY).ok()
}
