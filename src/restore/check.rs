//! Compares a folder with a release, cheaply: names, kinds, sizes, modes and links, no content.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::{ChunkSource, Error, Items};
use format::manifest::{Item, Root};

/// Returns whether every entry of `root` lies below `folder` with its kind, size, mode and target.
///
/// Other files there do not count, as applications add files. Contents are not
/// read. Costs one `lstat` for each entry.
///
/// # Errors
/// The manifest cannot be read; a folder that cannot be examined is only not complete.
pub fn looks_complete(root: &Root, source: &dyn ChunkSource, folder: &Path) -> Result<bool, Error> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(below) = rustix::fs::open(folder, flags, Mode::empty()) else { return Ok(false) };
    let stat = |path: &[u8]| rustix::fs::statat(&below, path, AtFlags::SYMLINK_NOFOLLOW).ok();
    for item in Items::new(root, &mut *source.reader()) {
        let there = match item? {
            Item::Chunk(_) | Item::Linked => true,
            Item::Directory { path, mode } => {
                stat(path.as_bytes()).is_some_and(|found| is(&found, FileType::Directory, mode))
            }
            Item::File { path, mode, size, .. } => stat(path.as_bytes()).is_some_and(|found| {
                is(&found, FileType::RegularFile, mode) && u64::try_from(found.st_size) == Ok(size)
            }),
            // Where the file system refused the link, a copy is in its place.
            Item::HardLink { path, target } => {
                stat(path.as_bytes()).zip(stat(target.as_bytes())).is_some_and(|(found, first)| {
                    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
                        && (found.st_mode, found.st_size) == (first.st_mode, first.st_size)
                })
            }
            Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
                rustix::fs::readlinkat(&below, path.as_bytes(), Vec::new())
                    .is_ok_and(|found| found.as_bytes() == target)
            }
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::super::sample::{MemorySource, one_of_each};
    use super::super::{TreeOptions, write_tree};
    use super::*;
    use disk::files;
    use format::manifest::Shape;
    use ground::monitor::Silent;

    #[test]
    fn a_copy_looks_complete_until_an_entry_differs() {
        let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join("copy");
        let options = TreeOptions { sync: false, ..TreeOptions::default() };
        let complete = || looks_complete(&root, &source, &copy).expect("an honest manifest");
        let changes: [(&str, &dyn Fn()); 5] = [
            ("a removed file", &|| fs::remove_file(copy.join("README")).expect("removed")),
            ("another size", &|| fs::write(copy.join("README"), "read").expect("written")),
            ("another mode", &|| {
                fs::set_permissions(copy.join("bin"), Permissions::from_mode(0o700)).expect("set");
            }),
            ("another target", &|| {
                fs::remove_file(copy.join("bin/run")).expect("removed");
                std::os::unix::fs::symlink("other", copy.join("bin/run")).expect("linked");
            }),
            ("another kind", &|| {
                fs::remove_file(copy.join("nothing")).expect("removed");
                fs::create_dir(copy.join("nothing")).expect("created");
            }),
        ];
        for (name, change) in changes {
            assert!(!complete(), "{name}");
            write_tree(&root, &source, &copy, &options, &Silent).expect("written");
            fs::write(copy.join("added by the application"), "log").expect("written");
            assert!(complete(), "{name}");
            change();
            assert!(!complete(), "{name}");
            files::remove(&copy).expect("removed");
        }
    }
}
