//! Writes the mark of a pulled directory (FORMAT 9), and writes it again with another beginning.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use serde_bytes::Bytes;

use super::mark::{Beginning, MAGIC, Placed, VERSION, set_read, stat_of};
use crate::agent::Result;
use crate::agent::memory::Stat;
use crate::restore::{Linked, Mapping};
use disk::crash_points;
use disk::files::{self, OnPath};
use format::manifest::{EntryPath, Root, decode_segment};

/// A tree whose mark is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    /// Its folder.
    pub tree: &'a Path,
    /// The mark of the directory whose files may be linked in it.
    pub was: Option<&'a Placed>,
    /// Links at the places of what lies elsewhere: what the release has there was left out, and gets the looks of none.
    pub linked: &'a [Linked],
}

/// Writes the mark of a tree, which holds the release of this root and these segments, durably, as `path`.
///
/// # Errors
/// The disk, or a manifest that cannot be read any more.
pub(super) fn write(
    path: &Path,
    beginning: &Beginning,
    root: &Root,
    Written { tree, was, linked }: Written<'_>,
    segments: impl IntoIterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    publish(path, |writer, aside| {
        // The clock of the file system, whose times are compared with this one.
        let began = beginning.began.min(time_of(writer.file.get_ref()).on("examine", aside)?);
        writer.begin(&Beginning { began, ..*beginning }, root).on("write", aside)?;
        let mapping = Mapping { linked, ..Mapping::default() };
        let mut were = was.map(Placed::entries).transpose()?;
        let folder = files::open_folder(CWD, tree).on("open", tree)?;
        for segment in segments {
            let (segment, mut stats) = (segment?, Vec::new());
            for item in decode_segment(&segment)? {
                let Some(path) = item.path() else { continue };
                if mapping.leaves_out(path) {
                    stats.extend(Stat::default().encode());
                    continue;
                }
                let stat = stat_in(&folder, tree, path)?;
                let was = were.as_mut().map(|were| were.at(path.as_bytes())).transpose()?.flatten();
                // A linked file that was written since has not the content that was put there: it has the looks of none. By its
                // inode the exchange knows that it stays.
                let is_changed =
                    was.is_some_and(|(_, was)| was.inode == stat.inode && was.modified != stat.modified);
                let none = Stat { inode: stat.inode, ..Stat::default() };
                stats.extend(if is_changed { none } else { stat }.encode());
            }
            writer.segment(&segment, &stats).on("write", aside)?;
        }
        Ok(began)
    })
}

/// Writes the mark `placed` again as `path`, durably: as read at `read`, with the beginning that `change` returns for the
/// present time of the file system. One of an earlier version stays as it is.
///
/// # Errors
/// The disk, or a mark that cannot be read any more.
pub(super) fn rewrite(
    path: &Path,
    placed: &Placed,
    read: i64,
    change: impl FnOnce(i64) -> Beginning,
) -> Result<()> {
    let Some(root) = &placed.root else { return Ok(()) };
    publish(path, |writer, aside| {
        let now = time_of(writer.file.get_ref()).on("examine", aside)?;
        writer.begin(&change(now), root).on("write", aside)?;
        for part in placed.parts()? {
            let (segment, stats) = part?;
            writer.segment(&segment, &stats).on("write", aside)?;
        }
        Ok(read)
    })
}

/// Publishes a mark at `path`. `write` writes all but its end, and returns when the directory was last read.
fn publish(path: &Path, write: impl FnOnce(&mut MarkWriter, &Path) -> Result<i64>) -> Result<()> {
    let (aside, file) = files::create_aside(path, 0o600)?;
    let file = BufWriter::with_capacity(256 * 1024, file);
    let mut writer = MarkWriter { file, hasher: blake3::Hasher::new() };
    crash_points::half_on(path, ".half", writer.file.get_ref(), MAGIC);
    let written = write(&mut writer, &aside).and_then(|read| {
        let file = writer.end().on("write", &aside)?;
        set_read(&file, read).and_then(|()| file.sync_all()).on("sync", &aside)?;
        crash_points::on(path, ".written");
        Ok(files::rename(&aside, path)?)
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&aside)))
}

/// Returns when a file was last written, in nanoseconds since 1970.
fn time_of(file: &File) -> io::Result<i64> {
    file.metadata().map(|metadata| Stat::of(&metadata).modified)
}

/// Returns how an entry of a tree looks that was just put there.
fn stat_in(folder: &OwnedFd, tree: &Path, path: &EntryPath) -> Result<Stat> {
    let found = files::examine(folder, path.as_bytes(), AtFlags::empty());
    Ok(stat_of(&found.on("examine", &tree.join(OsStr::from_bytes(path.as_bytes())))?))
}

struct MarkWriter {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl MarkWriter {
    fn begin(&mut self, beginning: &Beginning, root: &Root) -> io::Result<()> {
        self.add(MAGIC)?;
        self.add(&VERSION.to_le_bytes())?;
        self.part(&rmp_serde::to_vec(beginning).expect("a Vec takes every write"))?;
        self.part(&root.encode())
    }

    fn segment(&mut self, segment: &[u8], stats: &[u8]) -> io::Result<()> {
        let part = (Bytes::new(segment), Bytes::new(stats));
        self.part(&rmp_serde::to_vec(&part).expect("a Vec takes every write"))
    }

    fn end(mut self) -> io::Result<File> {
        self.add(&0u32.to_le_bytes())?;
        self.file.write_all(self.hasher.finalize().as_bytes())?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).expect("a segment and its stats are small");
        self.add(&length.to_le_bytes())?;
        self.add(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::agent::memory;
    use crate::agent::pull::comparison::{Known, compare, folder_id};
    use crate::agent::pull::mark::Mark;
    use crate::restore::{ChunkSource, Entry, MemorySource, TreeOptions, noise, write_tree};
    use format::manifest::Shape;
    use format::recipe::ChunkRef;
    use ground::monitor::Silent;

    #[test]
    fn a_linked_file_that_is_written_before_the_mark_stays_and_counts_as_edited() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let entries = ["a", "b"].map(|name| Entry::file(name, 0o644, noise(1, 5000)));
        let (root, source) = MemorySource::of(Shape::Tree, &entries);
        write_tree(&root, &source, &at("old"), &TreeOptions::default(), &Silent).expect("written");
        let mark = |name: &str, tree: &Path, was: Option<&Placed>| {
            let beginning = Beginning {
                release: root.release(),
                folder_mode: None,
                folder: folder_id(tree).expect("a folder"),
                mode: 0o755,
                limit: None,
                began: memory::now(),
                deletes: false,
                root: Some(root.id()),
                believed_since: None,
                relinked_until: None,
            };
            let mut reader = source.reader();
            let segments = source.segments.iter().map(|node| {
                let mut segment = Vec::new();
                reader.read(&ChunkRef::from(*node), &mut segment).expect("it is there");
                Ok(segment)
            });
            let tree = Written { tree, was, linked: &[] };
            write(&at(name), &beginning, &root, tree, segments).expect("written");
            let Mark::Whole(placed) = Mark::open(&at(name)).expect("read") else { panic!("no mark") };
            *placed
        };
        let was = mark("pulled", &at("old"), None);
        fs::create_dir(at("new")).expect("created");
        for name in ["a", "b"] {
            fs::hard_link(at("old").join(name), at("new").join(name)).expect("linked");
        }
        fs::write(at("old/a"), "mine").expect("written");
        let file = fs::File::options().write(true).open(at("old/a")).expect("opened");
        file.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("set");
        let next = mark("pulled-next", &at("new"), Some(&was));
        let at_exchange = compare(&at("old"), Some(&was), Known { next: Some(&next), ..Known::default() })
            .expect("compared");
        assert!(at_exchange.is_none(), "its content is in the new tree: {at_exchange:?}");
        let later = compare(&at("new"), Some(&next), Known::default()).expect("compared");
        assert_eq!(later.edited, [Path::new("a")]);
    }
}
