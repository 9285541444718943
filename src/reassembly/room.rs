//! Checks that a file system has room for a release before anything is written to it.
//!
//! Counts all files at once, each with the blocks that it takes. Files of an earlier copy count for nothing where they are
//! linked or share its blocks. A reserve stays free, as others use the disk too.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::StatVfs;

use super::tree::is_hole;
use super::{ChunkSource, Error, Items};
use crate::files::OnPath;
use crate::limits::{ROOM_RESERVE_BYTES, ROOM_RESERVE_PART};
use crate::manifest::{Item, Root, Totals};

/// Fails where a release of these totals cannot fit on the file system that holds `place`.
///
/// # Errors
/// [`Error::Room`]; or the place cannot be examined.
pub fn check(place: &Path, totals: Totals) -> Result<(), Error> {
    let room = Room::at(place)?;
    room.entries(totals)?;
    room.bytes(totals.bytes)
}

/// The free room at a place.
#[derive(Debug)]
pub(super) struct Room<'a> {
    place: &'a Path,
    /// Bytes that may be written.
    free: u64,
    block: u64,
    /// Entries that may be made; none where the file system does not limit them.
    entries: Option<u64>,
}

impl<'a> Room<'a> {
    /// Examines the file system that holds `place`.
    pub fn at(place: &'a Path) -> Result<Self, Error> {
        let found: StatVfs = rustix::fs::statvfs(place).on("examine", place)?;
        let all = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let free = free.saturating_sub(ROOM_RESERVE_BYTES.min(all / ROOM_RESERVE_PART));
        let entries = (found.f_files > 0).then_some(found.f_favail);
        Ok(Self { place, free, block: found.f_frsize.max(1), entries })
    }

    /// Fails where the tree of `root` does not fit. `is_same` returns whether an earlier copy has the file of that number;
    /// such files have `same_bytes` in all. `shares` returns whether they take no room.
    pub fn tree(
        &self,
        root: &Root,
        source: &dyn ChunkSource,
        same_bytes: u64,
        is_same: &dyn Fn(u64) -> bool,
        shares: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.entries(root.totals)?;
        let most = root.totals.files.saturating_mul(self.block).saturating_add(root.totals.bytes);
        if most <= self.free {
            return Ok(());
        }
        // Near the bound, count file by file.
        let shares = same_bytes > 0 && shares();
        let (mut needed, mut number, mut counts) = (0u64, 0, false);
        for item in Items::new(root, &mut *source.reader()) {
            let size = match item? {
                Item::File { size, .. } => size,
                Item::Chunk(chunk) if counts && is_hole(&chunk) => {
                    needed = needed.saturating_sub(chunk.bytes.into());
                    continue;
                }
                _ => continue,
            };
            counts = !(shares && is_same(number));
            if counts {
                let blocks = size.div_ceil(self.block).saturating_mul(self.block);
                needed = needed.saturating_add(blocks);
            }
            number += 1;
        }
        self.bytes(needed)
    }

    fn bytes(&self, needed: u64) -> Result<(), Error> {
        let (place, free) = (self.place.to_owned(), self.free);
        if needed <= free { Ok(()) } else { Err(Error::Room { place, needed, free, unit: "B" }) }
    }

    fn entries(&self, totals: Totals) -> Result<(), Error> {
        let needed = totals.files.saturating_add(totals.directories).saturating_add(totals.symlinks);
        match self.entries {
            Some(free) if free < needed => {
                Err(Error::Room { place: self.place.to_owned(), needed, free, unit: "entries" })
            }
            _ => Ok(()),
        }
    }
}

/// Whether files in `folder` may share blocks.
pub(super) fn can_reflink(folder: &Path) -> bool {
    let shared = || -> std::io::Result<()> {
        let (mut one, other) = (tempfile::tempfile_in(folder)?, tempfile::tempfile_in(folder)?);
        one.write_all(&[1; 4096])?;
        Ok(rustix::fs::ioctl_ficlone::<&File, &File>(&other, &one)?)
    };
    shared().is_ok()
}
