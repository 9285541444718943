//! Links unchanged files of an earlier copy that is given up into the new one, without reading them.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, OFlags, Statx};
use rustix::io::Errno;

use super::site::{Site, is_owner};
use super::{Linkable, Previous};
use crate::restore::Mapping;
use disk::files::{self, Folder, open_beneath};
use format::manifest::EntryPath;

/// Returns whether [`Linker::link`] would link the earlier copy's file at `path`, where the file system does. Asked for in the
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

/// Links files, in the manifest's order. Both folders of the last one stay open for the next.
pub(super) struct Linker<'a> {
    earlier: &'a Folder,
    made: &'a Folder,
    linkable: &'a dyn Linkable,
    site: &'a Site<'a>,
    /// The folder of the last file, in the earlier copy and in the new one.
    within: Option<(Vec<u8>, OwnedFd, OwnedFd)>,
    /// True once the file system has refused.
    refused: bool,
}

impl<'a> Linker<'a> {
    /// Begins before the first file; none where nothing may be linked.
    pub(super) fn new(previous: &Previous<'a>, made: &'a Folder, site: &'a Site<'a>) -> Option<Self> {
        let (linkable, earlier) = (previous.linkable?, previous.folder);
        linkable.begin();
        Some(Self { earlier, made, linkable, site, within: None, refused: false })
    }

    /// Links the file at `path` if the earlier copy has one there of these properties and no name that is not whit's own, whose mode and owner are
    /// right, and that may be linked. Returns false, and leaves nothing, otherwise.
    ///
    /// Who writes into a file of the earlier copy from here on writes into that of the new one.
    pub(super) fn link(&mut self, path: &EntryPath, size: u64, mode: u16) -> bool {
        if self.refused {
            return false;
        }
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|byte| *byte == b'/');
        let (above, name) =
            slash.map_or((&bytes[..0], bytes), |slash| (&bytes[..slash], &bytes[slash + 1..]));
        if self.within.as_ref().is_none_or(|(at, _, _)| at != above) {
            self.within = self.open(above).map(|(old, new)| (above.to_owned(), old, new));
        }
        let Some((_, old, new)) = &self.within else { return false };
        let is_right = |found: &Statx| is_right(found, &self.site.mapping, (size, mode));
        let examine = |folder| files::examine(folder, name, AtFlags::empty()).ok();
        let is_own = |found: &Statx| has_own_names(self.linkable, path, found);
        let Some(found) = examine(old).filter(|found| is_right(found) && is_own(found)) else {
            return false;
        };
        if !self.linkable.may_be_linked(path, &found) {
            return false;
        }
        match rustix::fs::linkat(old, name, new, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.refused = true;
                return false;
            }
            Err(_) => return false,
        }
        // Another file may have had the name by then.
        let is_same = |linked: &Statx| {
            (linked.stx_ino, linked.stx_mtime.tv_sec, linked.stx_mtime.tv_nsec)
                == (found.stx_ino, found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec)
        };
        let is_linked = examine(new).is_some_and(|linked| is_right(&linked) && is_same(&linked));
        if !is_linked {
            // It may be gone by itself; one that stays is an error where the file is created.
            let _ = rustix::fs::unlinkat(new, name, AtFlags::empty());
        }
        is_linked
    }

    fn open(&self, above: &[u8]) -> Option<(OwnedFd, OwnedFd)> {
        let open = |folder| {
            let above = if above.is_empty() { b"." } else { above };
            open_beneath(folder, above, OFlags::PATH | OFlags::DIRECTORY).ok()
        };
        Some((open(self.earlier)?, open(self.made)?))
    }
}
