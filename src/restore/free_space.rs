//! Checks that a release fits on a file system before anything is written to it.
//!
//! Counts the blocks of every file, and a block for each directory and each long link. Files of an earlier copy that are linked,
//! or share its blocks, count for nothing. A reserve stays free for others who use the disk.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::StatVfs;

use super::hole::is_hole;
use super::{ChunkSource, Error, Items};
use disk::files::OnPath;
use format::manifest::{EntryPath, Item, Root, Totals};
use format::recipe::Recipe;
use ground::limits::{ROOM_RESERVE_BYTES, ROOM_RESERVE_PART};

/// Most file systems keep shorter targets of links in the entry itself.
const TARGET_INLINE: usize = 60;

/// Fails if a release of these totals cannot fit on the file system that holds `place`.
///
/// # Errors
/// [`Error::NoRoom`], or the place cannot be examined.
pub fn check_fits(place: &Path, totals: Totals) -> Result<(), Error> {
    let free = FreeSpace::at(place)?;
    free.check_entries(totals)?;
    free.check_bytes(totals.bytes)
}

/// Returns whether the file of that number and path, of this size and mode, takes no space, as an earlier copy has it.
type Shares<'a> = dyn Fn(u64, &EntryPath, (u64, u16)) -> bool + 'a;

/// The free space of a file system.
#[derive(Debug)]
pub struct FreeSpace<'a> {
    place: &'a Path,
    /// Bytes that may be written, the reserve not counted.
    bytes: u64,
    block: u64,
    /// Entries that may be made; none where the file system does not limit them.
    entries: Option<u64>,
}

impl<'a> FreeSpace<'a> {
    /// Examines the file system that holds `place`.
    pub fn at(place: &'a Path) -> Result<Self, Error> {
        let found: StatVfs = rustix::fs::statvfs(place).on("examine", place)?;
        let all = found.f_blocks.saturating_mul(found.f_frsize);
        let bytes = found.f_bavail.saturating_mul(found.f_frsize);
        let bytes = bytes.saturating_sub(ROOM_RESERVE_BYTES.min(all / ROOM_RESERVE_PART));
        let entries = (found.f_files > 0).then_some(found.f_favail);
        Ok(Self { place, bytes, block: found.f_frsize.max(1), entries })
    }

    /// Fails if the tree of `root` does not fit, the files that `shares` names aside.
    pub fn check_tree(
        &self,
        root: &Root,
        source: &dyn ChunkSource,
        shares: &Shares<'_>,
    ) -> Result<(), Error> {
        self.check_entries(root.totals)?;
        let Totals { files, directories, symlinks, bytes, .. } = root.totals;
        let entries = files.saturating_add(directories).saturating_add(symlinks);
        if entries.saturating_mul(self.block).saturating_add(bytes) <= self.bytes {
            return Ok(());
        }
        // Near the bound, count file by file.
        let (mut needed, mut number, mut has_holes) = (directories.saturating_mul(self.block), 0, false);
        for item in Items::new(root, &mut *source.reader()) {
            let (path, mode, size, recipe) = match item? {
                Item::File { path, mode, size, recipe } => (path, mode, size, recipe),
                Item::Chunk(chunk) if has_holes && is_hole(&chunk) => {
                    needed = needed.saturating_sub(chunk.bytes.into());
                    continue;
                }
                Item::Symlink { target, .. } | Item::OutsideLink { target, .. }
                    if target.len() >= TARGET_INLINE =>
                {
                    needed = needed.saturating_add(self.block);
                    continue;
                }
                _ => continue,
            };
            let counts = !shares(number, &path, (size, mode));
            // The chunks of an archive are of what it holds, whose zeros leave no hole in the archive.
            has_holes = counts && recipe == Recipe::Chunks;
            if counts {
                let blocks = size.div_ceil(self.block).saturating_mul(self.block);
                needed = needed.saturating_add(blocks);
            }
            number += 1;
        }
        self.check_bytes(needed)
    }

    /// Fails if another file of `needed` bytes does not fit.
    pub fn check_bytes(&self, needed: u64) -> Result<(), Error> {
        let (place, free) = (self.place.to_owned(), self.bytes);
        if needed <= free { Ok(()) } else { Err(Error::NoRoom { place, needed, free, unit: "B" }) }
    }

    fn check_entries(&self, totals: Totals) -> Result<(), Error> {
        let needed = totals.files.saturating_add(totals.directories).saturating_add(totals.symlinks);
        match self.entries {
            Some(free) if free < needed => {
                Err(Error::NoRoom { place: self.place.to_owned(), needed, free, unit: "entries" })
            }
            _ => Ok(()),
        }
    }
}

/// Returns whether files in `folder` can share blocks.
pub fn can_reflink(folder: &Path) -> bool {
    let shared = || -> std::io::Result<()> {
        let (mut one, other) = (tempfile::tempfile_in(folder)?, tempfile::tempfile_in(folder)?);
        one.write_all(&[1; 4096])?;
        Ok(rustix::fs::ioctl_ficlone::<&File, &File>(&other, &one)?)
    };
    shared().is_ok()
}

/// Returns whether files in `folder` can have several names.
pub fn can_link(folder: &Path) -> bool {
    let linked = || -> std::io::Result<()> {
        let folder = tempfile::tempdir_in(folder)?;
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        File::create(&one)?;
        std::fs::hard_link(one, other)
    };
    linked().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::restore::sample::MemorySource;
    use crate::restore::{TreeOptions, write_tree};
    use format::manifest::Shape;
    use format::recipe::{ChunkRef, Container};
    use ground::faults::{Fault, Faulty};
    use ground::ids::ArtifactId;
    use ground::limits::CHUNK_BYTES_MAX;
    use ground::monitor::Silent;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).expect("a plain path")
    }

    fn zeros(source: &mut MemorySource, count: u64) -> Vec<Item> {
        let chunk = source.add(vec![0; CHUNK_BYTES_MAX as usize]);
        let hole = Item::Chunk(ChunkRef { id: chunk.id, bytes: chunk.bytes });
        (0..count).map(|_| hole.clone()).collect()
    }

    #[test]
    fn zeros_that_an_archive_holds_leave_no_space_to_others() {
        const MIB: u64 = 1024 * 1024;
        let mut source = MemorySource::default();
        let zeros = zeros(&mut source, 160);
        let space = FreeSpace { place: Path::new("/"), bytes: 2 * MIB, block: 4096, entries: None };
        let mut fits = |size: u64, recipe: Recipe| {
            let file = Item::File { path: path("a"), mode: 0o644, size, recipe };
            let items: Vec<Item> = std::iter::once(file).chain(zeros.iter().cloned()).collect();
            let root = source.manifest(Shape::Tree, &items);
            space.check_tree(&root, &source, &|_, _, _| false).map_err(|error| error.fault())
        };
        let stream_bytes = 10 * MIB;
        assert_eq!(fits(stream_bytes, Recipe::Chunks), Ok(()), "nothing but holes");
        let archive = Recipe::Container(Container {
            stream_bytes,
            artifact: ArtifactId::of(b"an archive"),
            content: None,
        });
        assert_eq!(fits(MIB, archive), Ok(()));
        assert_eq!(fits(3 * MIB, archive), Err(Fault::Full));
    }

    #[test]
    fn directories_and_long_links_take_room() {
        let mut source = MemorySource::default();
        let space = FreeSpace { place: Path::new("/"), bytes: 100 * 4096, block: 4096, entries: None };
        let folder = |number: u32| Item::Directory { path: path(&format!("{number:03}")), mode: 0o755 };
        let link = |number: u32, bytes: usize| Item::Symlink {
            path: path(&format!("{number:03}")),
            target: vec![b'x'; bytes],
        };
        let mut fits = |items: &[Item]| {
            let root = source.manifest(Shape::Tree, items);
            space.check_tree(&root, &source, &|_, _, _| false).map_err(|error| error.fault())
        };
        assert_eq!(fits(&(0..100).map(folder).collect::<Vec<_>>()), Ok(()));
        assert_eq!(fits(&(0..101).map(folder).collect::<Vec<_>>()), Err(Fault::Full));
        assert_eq!(fits(&(0..200).map(|number| link(number, 20)).collect::<Vec<_>>()), Ok(()));
        assert_eq!(fits(&(0..101).map(|number| link(number, 90)).collect::<Vec<_>>()), Err(Fault::Full));
    }

    #[test]
    fn more_names_than_a_file_may_have_fill_no_disk() {
        // A file system on which a file has 65,000 names at most.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
        fs::create_dir(&disk).expect("created");
        let made = fs::File::create(&image).and_then(|file| file.set_len(24 << 20));
        made.expect("an empty image");
        let is_done = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
        if !is_done(Command::new("mkfs.ext4").arg("-q").arg(&image))
            || !is_done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk))
        {
            eprintln!("skipped: mounting a small file system is not possible here");
            return;
        }
        let mut source = MemorySource::default();
        // 40 MiB of zeros: they need no room as holes, and more than there is as a copy.
        let holes = zeros(&mut source, 640);
        let size = holes.len() as u64 * u64::from(CHUNK_BYTES_MAX);
        let mut items = vec![Item::File { path: path("a"), mode: 0o644, size, recipe: Recipe::Chunks }];
        items.extend(holes);
        items.push(Item::Linked);
        let name = |number: u32| Item::HardLink { path: path(&format!("b{number:05}")), target: path("a") };
        let results = [64_000, 65_001].map(|names| {
            let all: Vec<Item> = items.iter().cloned().chain((0..names).map(name)).collect();
            let root = source.manifest(Shape::Tree, &all);
            let options = TreeOptions { sync: false, ..TreeOptions::default() };
            let written = write_tree(&root, &source, &disk.join("copy"), &options, &Silent);
            disk::files::remove(&disk.join("copy")).expect("removed");
            written.map(drop).map_err(|error| matches!(error, Error::NoRoom { .. }))
        });
        assert!(is_done(Command::new("umount").arg(&disk)));
        assert_eq!(results, [Ok(()), Err(true)]);
    }
}
