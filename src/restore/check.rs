//! Compares a folder with a release, cheaply: names, kinds, sizes, modes and links, no content.

use rustix::fs::{AtFlags, FileType, Stat, Timespec};

use super::{ChunkSource, Error, Items, Mapping};
use disk::files::Folder;
use format::manifest::{Item, Root};

/// Returns whether every entry of `root` lies below `folder` with its kind, size, mode, owner and target, as `mapping`
/// says. Where `until` is given, returns false as well if anything was changed after that time, also by an entry that was
/// added; but in the folder itself.
///
/// Other files there do not count, as applications add files. Contents are not
/// read. Costs one `lstat` for each entry.
///
/// # Errors
/// The manifest cannot be read; a folder that cannot be examined is only not complete.
pub fn looks_complete(
    root: &Root,
    source: &dyn ChunkSource,
    folder: &Folder,
    mapping: &Mapping<'_>,
    until: Option<Timespec>,
) -> Result<bool, Error> {
    let is_old = |found: &Stat| {
        let changed = (found.st_ctime, i64::try_from(found.st_ctime_nsec).unwrap_or(i64::MAX));
        until.is_none_or(|until| changed <= (until.tv_sec, until.tv_nsec))
    };
    let stat = |path: &[u8]| rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).ok().filter(&is_old);
    let leads_to = |path: &[u8], target: &[u8]| {
        let found = rustix::fs::readlinkat(folder, path, Vec::new());
        found.is_ok_and(|found| found.as_bytes() == target) && (until.is_none() || stat(path).is_some())
    };
    for linked in mapping.linked {
        let path = linked.path.as_bytes();
        let mut above =
            path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| &path[..slash]);
        if !leads_to(path, &linked.target) || !above.all(|above| stat(above).is_some()) {
            return Ok(false);
        }
    }
    for item in Items::new(root, &mut *source.reader()) {
        let item = item?;
        if item.path().is_some_and(|path| mapping.leaves_out(path)) {
            continue;
        }
        let there = match item {
            Item::Chunk(_) | Item::Linked => true,
            Item::Directory { path, mode } => stat(path.as_bytes()).is_some_and(|found| {
                mapping.is(&found, FileType::Directory, mapping.mode_of_directory(mode))
            }),
            Item::File { path, mode, size, .. } => stat(path.as_bytes()).is_some_and(|found| {
                mapping.is(&found, FileType::RegularFile, mapping.mode_of_file(mode))
                    && u64::try_from(found.st_size) == Ok(size)
            }),
            // Where the file system refused the link, a copy is in its place.
            Item::HardLink { path, target } => {
                stat(path.as_bytes()).zip(stat(target.as_bytes())).is_some_and(|(found, first)| {
                    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
                        && (found.st_mode, found.st_size) == (first.st_mode, first.st_size)
                })
            }
            Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
                leads_to(path.as_bytes(), &target)
            }
        };
        if !there {
            return Ok(false);
        }
    }
    Ok(true)
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
        let complete = || {
            Folder::open(&copy).is_ok_and(|held| {
                looks_complete(&root, &source, &held, &Mapping::default(), None).expect("an honest manifest")
            })
        };
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
