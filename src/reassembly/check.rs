//! Compares a folder with a release, cheaply: names, kinds, sizes, modes and links, no content.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::{ChunkSource, Error, Items};
use crate::files::OnPath;
use crate::manifest::{Item, Root};

/// Whether every entry of `root` lies below `folder` with its kind, size, mode and target.
///
/// What else lies there does not count: applications leave files beside their own. Contents are not
/// read. Costs one `lstat` for each entry.
///
/// # Errors
/// The manifest cannot be read; a folder that cannot be examined is only not complete.
pub fn looks_complete(root: &Root, source: &dyn ChunkSource, folder: &Path) -> Result<bool, Error> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = match rustix::fs::open(folder, flags, Mode::empty()).on("open", folder) {
        Ok(below) => below,
        Err(_) => return Ok(false),
    };
    let stat = |path: &[u8]| rustix::fs::statat(&below, path, AtFlags::SYMLINK_NOFOLLOW).ok();
    for item in Items::new(root, &mut *source.reader()) {
        let there = match item? {
            Item::Chunk(_) => true,
            Item::Directory { path, mode } => {
                stat(path.as_bytes()).is_some_and(|found| is(&found, FileType::Directory, mode))
            }
            Item::File { path, mode, size, .. } => stat(path.as_bytes()).is_some_and(|found| {
                is(&found, FileType::RegularFile, mode) && u64::try_from(found.st_size) == Ok(size)
            }),
            Item::Symlink { path, target } => rustix::fs::readlinkat(&below, path.as_bytes(), Vec::new())
                .is_ok_and(|found| found.as_bytes() == target),
        };
        if !there {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is(found: &Stat, kind: FileType, mode: u16) -> bool {
    FileType::from_raw_mode(found.st_mode) == kind && found.st_mode & 0o7777 == u32::from(mode)
}
