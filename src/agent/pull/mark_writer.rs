//! Writes the mark of a pulled directory (FORMAT 9), and writes it again with another beginning.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Statx};
use serde::Serialize;
use serde_bytes::{ByteBuf, Bytes};

use super::mark::{Beginning, Placed, VERSION, set_read, stat_of};
use super::mark_base::{Based, Differing, MarkBase};
use super::mark_parts::{Check, PartWriter};
use crate::agent::memory::Stat;
use crate::agent::{Error, Result};
use crate::restore::{Linked, Mapping};
use disk::crash_points;
use disk::files::{self, OnPath};
use format::manifest::{EntryPath, Item, Root, decode_segment};

/// The bits of a folder's mode with which its owner may look into it.
const OPEN_TO_OWNER: u16 = 0o500;

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

/// Writes the mark of a tree, which holds the release of this root and these segments, durably, as `path`: as the difference from a base
/// in the same folder, where the directory's mark has or is one.
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
    let bases = path.parent().unwrap_or(Path::new(""));
    let base = was.map(|was| was.base_of_next(bases)).transpose()?.flatten();
    publish(path, |parts, (now, aside)| {
        // The clock of the file system, whose times are compared with this one.
        let began = beginning.began.min(now);
        let base = base.as_ref().map(|(base, written)| (Arc::as_ref(base), *written));
        let mut writer =
            MarkWriter::begin(parts, &Beginning { began, ..*beginning }, base).on("write", aside)?;
        writer.part(&root.encode()).on("write", aside)?;
        let mapping = Mapping { linked, ..Mapping::default() };
        let mut were = was.map(Placed::entries).transpose()?;
        let folder = files::open_folder(CWD, tree).on("open", tree)?;
        for segment in segments {
            let (segment, mut stats) = (segment?, Vec::new());
            for item in decode_segment(&segment)? {
                let Some(path) = item.path() else { continue };
                let stat = if mapping.leaves_out(path) {
                    Stat::default()
                } else {
                    let found = examine(&folder, tree, path)?;
                    let was = were.as_mut().map(|were| were.at(path.as_bytes())).transpose()?.flatten();
                    looks(&item, &found, was.map(|(_, was)| was))
                };
                stats.extend(stat.encode());
            }
            let part = (Bytes::new(&segment), Bytes::new(&stats));
            let part = rmp_serde::to_vec(&part).expect("a Vec takes every write");
            writer.part(&part).on("write", aside)?;
        }
        writer.end().on("write", aside)?;
        Ok(began)
    })?;
    Ok(())
}

/// Returns the looks to note of an entry that is in the tree, and had the looks `was` in the directory before.
fn looks(item: &Item, found: &Statx, was: Option<Stat>) -> Stat {
    let stat = stat_of(found);
    match item {
        // They are compared by what they lead to.
        Item::Symlink { .. } | Item::OutsideLink { .. } => Stat::default(),
        // One that is open is looked through.
        Item::Directory { .. } if found.stx_mode & OPEN_TO_OWNER == OPEN_TO_OWNER => Stat::default(),
        _ => match was.filter(|was| was.inode == stat.inode) {
            // A linked file has changed by its name alone, which does not count: so that the mark differs little.
            Some(was) if was.modified == stat.modified => was,
            // One that was written since has not the content that was put there: it has the looks of none. By its inode the
            // exchange knows that it stays.
            Some(_) => Stat { inode: stat.inode, ..Stat::default() },
            None => stat,
        },
    }
}

/// Writes the mark `placed` again as `path`, durably: as read at `read`, with the beginning that `change` returns for the
/// present time of the file system. One of an earlier version stays as it is.
///
/// # Errors
/// The disk, or a mark that cannot be read any more.
pub(super) fn rewrite(
    path: &Path,
    placed: &mut Placed,
    read: i64,
    change: impl FnOnce(i64) -> Beginning,
) -> Result<()> {
    if placed.root.is_none() {
        return Ok(());
    }
    let published = publish(path, |parts, (now, aside)| {
        let (mut records, names_base) = placed.records()?;
        parts.part(&encode(&change(now))).on("write", aside)?;
        if !names_base {
            parts.part(&encode(&Based::None)).on("write", aside)?;
        }
        while let Some(record) = records.next().on("read", path)? {
            parts.part(&record).on("write", aside)?;
        }
        Ok(read)
    });
    (placed.check, placed.bytes) = published?;
    Ok(())
}

/// Publishes a mark at `path`. `write` writes all but its end, and returns when the directory was last read; it is given the present time
/// of the file system and the path of the file. Returns the mark's hash and its bytes.
fn publish(
    path: &Path,
    write: impl FnOnce(&mut PartWriter, (i64, &Path)) -> Result<i64>,
) -> Result<(Check, u64)> {
    let (aside, file) = files::create_aside(path, 0o600)?;
    let written = time_of(&file).on("examine", &aside).map_err(Error::from).and_then(|now| {
        crash_points::half_on(path, ".half", &file, b"whitpull");
        let mut parts = PartWriter::new(file, VERSION).on("write", &aside)?;
        let read = write(&mut parts, (now, &aside))?;
        let (file, check) = parts.end().on("write", &aside)?;
        set_read(&file, read).and_then(|()| file.sync_all()).on("sync", &aside)?;
        let bytes = file.metadata().on("examine", &aside)?.len();
        crash_points::on(path, ".written");
        files::rename(&aside, path)?;
        Ok((check, bytes))
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&aside)))
}

/// Returns when a file was last written, in nanoseconds since 1970.
fn time_of(file: &File) -> io::Result<i64> {
    file.metadata().map(|metadata| Stat::of(&metadata).modified)
}

/// Examines an entry of a tree that was just put there.
fn examine(folder: &OwnedFd, tree: &Path, path: &EntryPath) -> Result<Statx> {
    let found = files::examine(folder, path.as_bytes(), AtFlags::empty());
    Ok(found.on("examine", &tree.join(OsStr::from_bytes(path.as_bytes())))?)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).expect("a Vec takes every write")
}

/// Writes a mark, whole or as the difference from a base.
struct MarkWriter<'a> {
    parts: &'a mut PartWriter,
    differing: Option<Differing<'a>>,
}

impl<'a> MarkWriter<'a> {
    /// Begins with the base, and the bytes of earlier marks that differ from it.
    fn begin(
        parts: &'a mut PartWriter,
        beginning: &Beginning,
        base: Option<(&'a MarkBase, u64)>,
    ) -> io::Result<Self> {
        parts.part(&encode(beginning))?;
        let based = base.map(|(base, written)| (ByteBuf::from(base.check), written));
        parts.part(&encode::<Based>(&based))?;
        let differing = base.map(|(base, _)| Differing::new(base)).transpose()?;
        Ok(Self { parts, differing })
    }

    fn part(&mut self, part: &[u8]) -> io::Result<()> {
        match &mut self.differing {
            Some(differing) => differing.part(part, |record| self.parts.part(record)),
            None => self.parts.part(part),
        }
    }

    fn end(self) -> io::Result<()> {
        let Some(mut differing) = self.differing else { return Ok(()) };
        differing.end(|record| self.parts.part(record))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::agent::memory;
    use crate::agent::pull::comparison::{Known, compare, folder_id};
    use crate::agent::pull::mark::Mark;
    use crate::restore::{ChunkSource, Entry, MemorySource, TreeOptions, noise, write_tree};
    use format::manifest::Shape;
    use format::recipe::ChunkRef;
    use ground::monitor::Silent;

    /// Marks of trees in one folder.
    struct Marks(tempfile::TempDir);

    impl Marks {
        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Writes a tree of files with the content of these numbers as `tree`; those of `linked` are linked.
        fn tree(&self, name: &str, contents: &[u64], linked: Option<&str>) -> (Root, MemorySource) {
            let entries: Vec<Entry> =
                contents.iter().zip(0..).map(|(content, file)| entry(file, *content)).collect();
            let (root, source) = MemorySource::of(Shape::Tree, &entries);
            write_tree(&root, &source, &self.at(name), &TreeOptions::default(), &Silent).expect("written");
            for file in 0..contents.len() {
                let Some(from) = linked.map(|from| self.at(from).join(name_of(file))) else { continue };
                let to = self.at(name).join(name_of(file));
                if fs::read(&from).expect("a file") == fs::read(&to).expect("a file") {
                    fs::remove_file(&to).and_then(|()| fs::hard_link(&from, &to)).expect("linked");
                }
            }
            (root, source)
        }

        fn mark(&self, name: &str, tree: &str, (root, source): &(Root, MemorySource), was: Option<&Placed>) {
            let tree = self.at(tree);
            let beginning = Beginning {
                release: root.release(),
                folder_mode: None,
                folder: folder_id(&tree).expect("a folder"),
                mode: 0o755,
                limit: None,
                began: memory::now(),
                deletes: false,
                root: Some(root.id()),
                believed_since: None,
                relinked_until: None,
                relinks_until_named: true,
            };
            let mut reader = source.reader();
            let segments = source.segments.iter().map(|node| {
                let mut segment = Vec::new();
                reader.read(&ChunkRef::from(*node), &mut segment).expect("it is there");
                Ok(segment)
            });
            let tree = Written { tree: &tree, was, linked: &[] };
            write(&self.at(name), &beginning, root, tree, segments).expect("written");
        }

        fn open(&self, name: &str) -> Option<Placed> {
            match Mark::open(&self.at(name), self.0.path()).expect("read") {
                Mark::Whole(placed) => Some(*placed),
                _ => None,
            }
        }

        fn is_as_put(&self, tree: &str, mark: &Placed) -> bool {
            compare(&self.at(tree), Some(mark), Known::default()).expect("compared").is_none()
        }

        fn bases(&self) -> Vec<PathBuf> {
            let files = files::list(self.0.path()).expect("listed");
            files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "base")).collect()
        }
    }

    fn name_of(file: usize) -> String {
        format!("{file:04}")
    }

    fn entry(file: usize, content: u64) -> Entry {
        Entry::file(name_of(file), 0o644, noise(content, 500))
    }

    #[test]
    fn a_linked_file_that_is_written_before_the_mark_stays_and_counts_as_edited() {
        let marks = Marks(tempfile::tempdir().expect("a temporary folder"));
        let release = marks.tree("old", &[1, 1], None);
        marks.mark("pulled", "old", &release, None);
        let was = marks.open("pulled").expect("a mark");
        let release = marks.tree("new", &[1, 1], Some("old"));
        fs::write(marks.at("old/0000"), "mine").expect("written");
        let file = fs::File::options().write(true).open(marks.at("old/0000")).expect("opened");
        file.set_modified(SystemTime::now() + Duration::from_secs(1)).expect("set");
        marks.mark("pulled-next", "new", &release, Some(&was));
        let next = marks.open("pulled-next").expect("a mark");
        let known = Known { next: Some(&next), ..Known::default() };
        let at_exchange = compare(&marks.at("old"), Some(&was), known).expect("compared");
        assert!(at_exchange.is_none(), "its content is in the new tree: {at_exchange:?}");
        let later = compare(&marks.at("new"), Some(&next), Known::default()).expect("compared");
        assert_eq!(later.edited, [Path::new("0000")]);
    }

    #[test]
    fn a_linked_file_that_changed_before_the_directory_was_made_is_not_the_same() {
        let marks = Marks(tempfile::tempdir().expect("a temporary folder"));
        let release = marks.tree("old", &[1], None);
        marks.mark("pulled", "old", &release, None);
        let was = marks.open("pulled").expect("a mark");
        std::thread::sleep(Duration::from_millis(50));
        let release = marks.tree("new", &[1], Some("old"));
        marks.mark("pulled-next", "new", &release, Some(&was));
        let next = marks.open("pulled-next").expect("a mark");
        let (_, put) = next.entries().expect("read").at(b"0000").expect("read").expect("a file");
        let linked = stat_of(&files::examine(CWD, marks.at("new/0000"), AtFlags::empty()).expect("examined"));
        assert!(linked.changed > put.changed && next.is_same(&put, &linked));
        // As after a clock that was set back.
        let edited = Stat { changed: put.changed + 1, ..linked };
        assert!(!next.is_same(&put, &edited));
    }

    #[test]
    fn a_mark_of_a_release_that_differs_little_holds_the_difference_and_is_none_without_its_base() {
        let marks = Marks(tempfile::tempdir().expect("a temporary folder"));
        let mut contents: Vec<u64> = (0..1000).collect();
        let release = marks.tree("0", &contents, None);
        marks.mark("0.pulled", "0", &release, None);
        let mut was = marks.open("0.pulled").expect("a mark");
        let whole = was.bytes;
        for turn in 1..4 {
            let (tree, mark) = (turn.to_string(), format!("{turn}.pulled"));
            contents[turn * 200] = 10_000 + turn as u64;
            if turn == 3 {
                // All that follow move by one.
                contents.insert(0, 20_000);
            }
            let before = (turn < 3).then(|| (turn - 1).to_string());
            let release = marks.tree(&tree, &contents, before.as_deref());
            marks.mark(&mark, &tree, &release, Some(&was));
            was = marks.open(&mark).expect("a mark");
            assert!(marks.is_as_put(&tree, &was), "{turn}");
            assert_eq!((&was.root, was.base.is_some()), (&Some(release.0), true));
            assert!(turn == 3 || was.bytes * 20 < whole, "{turn}: {} of {whole}", was.bytes);
            assert_eq!(marks.bases().len(), 1);
        }
        assert_eq!(fs::metadata(&marks.bases()[0]).expect("a base").len(), whole);

        // Read again, with another beginning.
        let beginning = was.beginning;
        let change = |now| Beginning { relinked_until: Some(now), ..beginning };
        let mut rewritten = was.clone();
        rewrite(&marks.at("3.pulled"), &mut rewritten, was.read, change).expect("written");
        let again = marks.open("3.pulled").expect("a mark");
        assert!(again.beginning.relinked_until.is_some() && marks.is_as_put("3", &again));
        assert_eq!((again.check, again.bytes), (rewritten.check, rewritten.bytes));
        assert_ne!(again.check, was.check, "a base of it has its name");
        let count = |mark: &Placed| mark.parts().expect("read").collect::<Result<Vec<_>>>().expect("read");
        assert_eq!(count(&again), count(&was));

        let bytes = fs::read(marks.at("2.pulled")).expect("a mark");
        for at in (0..bytes.len()).step_by(17) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(marks.at("damaged.pulled"), &damaged).expect("written");
            assert!(marks.open("damaged.pulled").is_none(), "{at}");
        }
        let unused = |marks: &Marks, names: &[&str]| {
            let names: Vec<PathBuf> = names.iter().map(|name| marks.at(name)).collect();
            MarkBase::remove_unused(marks.0.path(), &names);
            marks.bases().len()
        };
        assert_eq!(unused(&marks, &["0.pulled", "3.pulled"]), 1, "it is named");
        let base = marks.bases().remove(0);
        let whole = fs::read(&base).expect("a base");
        for part in [&whole[..whole.len() - 1], b"", &[&whole[..500], b"!", &whole[501..]].concat()] {
            // A base and the mark that it was are one file.
            fs::remove_file(&base).and_then(|()| fs::write(&base, part)).expect("written");
            assert!(marks.open("3.pulled").is_none());
        }
        // What is damaged names none.
        fs::write(marks.at("damaged.pulled"), &bytes[..100]).expect("written");
        assert_eq!(unused(&marks, &["0.pulled", "absent", "damaged.pulled"]), 0, "nobody names it");
        assert!(marks.open("3.pulled").is_none() && marks.open("0.pulled").is_some());
        let baseless = Mark::open(&marks.at("3.pulled"), marks.0.path()).expect("read");
        let of = folder_id(&marks.at("3")).expect("a folder");
        assert!(
            matches!(baseless, Mark::Baseless(folder) if folder.is(&of)),
            "it is known which directory's it is"
        );
    }

    #[test]
    fn a_mark_is_written_whole_once_those_that_differ_have_become_as_large() {
        let marks = Marks(tempfile::tempdir().expect("a temporary folder"));
        let mut contents: Vec<u64> = (0..150).collect();
        let release = marks.tree("0", &contents, None);
        marks.mark("0.pulled", "0", &release, None);
        let mut was = marks.open("0.pulled").expect("a mark");
        let mut whole = Vec::new();
        for turn in 1..14_usize {
            let (tree, mark) = (turn.to_string(), format!("{turn}.pulled"));
            contents[turn] += 10_000;
            let release = marks.tree(&tree, &contents, Some(&(turn - 1).to_string()));
            marks.mark(&mark, &tree, &release, Some(&was));
            was = marks.open(&mark).expect("a mark");
            assert!(marks.is_as_put(&tree, &was), "{turn}");
            if was.base.is_none() {
                whole.push(turn);
            }
        }
        // 12 kB of a whole mark, 4 KiB of each that differs.
        assert!((1..=4).contains(&whole.len()), "{whole:?}");
    }
}
