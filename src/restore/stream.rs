//! Complete artifacts as streams: one file, or all of a release as a tar.

use std::io::Write;

use super::tar_header::{BLOCK_BYTES, header, padding};
use super::walk::read_chunk;
use super::{Archive, ChunkReader, ChunkSource, Error, Items, OutsideLinks, write_archive};
use format::manifest::{EntryPath, Item, Root, Shape};
use format::recipe::{ChunkRef, Recipe};
use recode::codec::Permits;

/// 1 MiB: the most that is passed on at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// Writes the file at `path` and returns its bytes; no path is needed where the release is a single file.
///
/// Reads the manifest up to the file's end. Memory: about 1 MiB, for an archive 5 MB and 36 B
/// for each of its chunks.
///
/// # Errors
/// No such file, a damaged manifest, a chunk that cannot be read, or `out` fails. The caller must then discard what was
/// written to `out`.
pub fn write_file(
    root: &Root,
    source: &dyn ChunkSource,
    path: Option<&EntryPath>,
    out: &mut dyn Write,
) -> Result<u64, Error> {
    if path.is_none() && root.shape == Shape::Tree {
        return Err(Error::Unnamed(root.totals.files));
    }
    let mut reader = source.reader();
    let mut content = ChunkBuffer::new(&mut *reader, out);
    let mut open: Option<OpenEntry> = None;
    for item in Items::new(root, &mut *source.reader()) {
        match (item?, &mut open) {
            (Item::Chunk(chunk), Some(open)) => content.chunk(chunk, open)?,
            (Item::Chunk(_), None) => {}
            (_, Some(_)) => break,
            (Item::File { path: at, size, recipe, .. }, None) if path.is_none_or(|path| *path == at) => {
                open = Some(OpenEntry::new(at, size, recipe));
            }
            (Item::HardLink { path: at, target }, None) if path == Some(&at) => {
                return write_file(root, source, Some(&target), out);
            }
            (item, None) => {
                if item.path().is_some_and(|at| path.is_some_and(|path| path < at)) {
                    break;
                }
            }
        }
    }
    match (open, path) {
        (Some(open), _) => {
            content.end(&open)?;
            content.flush(&open.path)?;
            out.flush().map_err(|source| Error::Output { path: open.path, source })?;
            Ok(open.size)
        }
        (None, Some(path)) => Err(Error::Missing(path.clone())),
        (None, None) => Err(format::manifest::Error::Totals.into()),
    }
}

/// Writes the whole release as a tar in the GNU format, in the manifest's order.
///
/// The archive is a function of the release: owner 0, time 0, no user names. Names are bytes. Memory:
/// about 1 MiB.
///
/// # Errors
/// A damaged manifest, a chunk that cannot be read, or `out` fails; the archive is then cut short and lacks its end.
pub fn write_tar(
    root: &Root,
    source: &dyn ChunkSource,
    links: OutsideLinks,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut reader = source.reader();
    let mut content = ChunkBuffer::new(&mut *reader, out);
    let mut open: Option<OpenEntry> = None;
    for item in Items::new(root, &mut *source.reader()) {
        let item = item?;
        if let (Item::Chunk(chunk), Some(open)) = (&item, &mut open) {
            content.chunk(*chunk, open)?;
            continue;
        }
        if let Some(open) = open.take() {
            content.end(&open)?;
            content.bytes(padding(open.size), &open.path)?;
        }
        match &item {
            Item::File { path, size, recipe, .. } => {
                content.bytes(&header(&item), path)?;
                open = Some(OpenEntry::new(path.clone(), *size, *recipe));
            }
            Item::OutsideLink { path, target } if links == OutsideLinks::Refuse => {
                return Err(Error::OutsideLink { path: path.clone(), target: target.clone() });
            }
            Item::Directory { path, .. }
            | Item::Symlink { path, .. }
            | Item::OutsideLink { path, .. }
            | Item::HardLink { path, .. } => content.bytes(&header(&item), path)?,
            Item::Chunk(_) | Item::Linked => {}
        }
    }
    if let Some(open) = open {
        content.end(&open)?;
        content.buffer.extend_from_slice(padding(open.size));
    }
    // Two blocks of zeros end an archive.
    content.buffer.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    content.out.write_all(&content.buffer).and_then(|()| content.out.flush()).map_err(Error::OutputEnd)
}

/// The file on its way.
struct OpenEntry {
    path: EntryPath,
    size: u64,
    recipe: Recipe,
    /// An archive's, until all are there.
    chunks: Vec<ChunkRef>,
}

impl OpenEntry {
    fn new(path: EntryPath, size: u64, recipe: Recipe) -> Self {
        Self { path, size, recipe, chunks: Vec::new() }
    }
}

/// Collects chunks and passes them on in large pieces.
struct ChunkBuffer<'a> {
    reader: &'a mut dyn ChunkReader,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl<'a> ChunkBuffer<'a> {
    fn new(reader: &'a mut dyn ChunkReader, out: &'a mut dyn Write) -> Self {
        Self { reader, out, buffer: Vec::with_capacity(WRITE_BYTES) }
    }

    fn chunk(&mut self, chunk: ChunkRef, open: &mut OpenEntry) -> Result<(), Error> {
        if open.recipe.container().is_some() {
            open.chunks.push(chunk);
            return Ok(());
        }
        read_chunk(self.reader, &chunk, &mut self.buffer)?;
        if self.buffer.len() < WRITE_BYTES { Ok(()) } else { self.flush(&open.path) }
    }

    /// Ends a file; an archive is written now.
    fn end(&mut self, open: &OpenEntry) -> Result<(), Error> {
        let Some(container) = open.recipe.container() else { return Ok(()) };
        let Self { reader, out, buffer } = self;
        let archive = Archive { path: &open.path, size: open.size, container, chunks: &open.chunks };
        write_archive(archive, *reader, &Permits::default(), &mut |bytes| {
            buffer.extend_from_slice(bytes);
            if buffer.len() < WRITE_BYTES {
                return Ok(());
            }
            let written = out.write_all(buffer);
            buffer.clear();
            written.map_err(|source| Error::Output { path: open.path.clone(), source })
        })
    }

    fn bytes(&mut self, bytes: &[u8], path: &EntryPath) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < WRITE_BYTES { Ok(()) } else { self.flush(path) }
    }

    fn flush(&mut self, path: &EntryPath) -> Result<(), Error> {
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|source| Error::Output { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::sample::{MemorySource, one_of_each, read_tree, sorted};
    use super::super::{Entry, noise};
    use super::*;
    use ground::faults::{Fault, Faulty};

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).expect("a plain path")
    }

    fn tar_of(root: &Root, source: &MemorySource) -> Vec<u8> {
        let mut archive = Vec::new();
        write_tar(root, source, OutsideLinks::Refuse, &mut archive).expect("an honest release");
        archive
    }

    #[test]
    fn one_file_of_a_tree_is_written() {
        let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
        for (name, expected) in
            [("bin/app", noise(1, 5_000_000)), ("nothing", vec![]), ("README", b"read me".to_vec())]
        {
            let mut out = Vec::new();
            let bytes = write_file(&root, &source, Some(&path(name)), &mut out).expect("it is there");
            assert_eq!((bytes, out == expected), (expected.len() as u64, true), "{name}");
        }
    }

    #[test]
    fn a_release_of_one_file_needs_no_name() {
        let (root, source) = MemorySource::of(Shape::File, &[Entry::file("app", 0o755, noise(4, 3_000_000))]);
        let mut out = Vec::new();
        write_file(&root, &source, None, &mut out).expect("there is only one");
        assert!(out == noise(4, 3_000_000));
    }

    #[test]
    fn a_name_that_is_no_file_is_missing() {
        let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
        for name in ["bin", "bin/run", "absent", "zzz"] {
            let error = write_file(&root, &source, Some(&path(name)), &mut io::sink()).expect_err("no file");
            assert_eq!(error.fault(), Fault::Missing, "{name}");
        }
        let unnamed = write_file(&root, &source, None, &mut io::sink()).expect_err("a tree");
        assert_eq!(unnamed.fault(), Fault::Input);
    }

    #[test]
    fn a_tar_of_the_same_release_has_the_same_bytes_and_holds_everything() {
        let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
        let mut entries = one_of_each();
        entries.push(Entry::directory("d".repeat(200), 0o755));
        entries.push(Entry::file(long, 0o644, "far down"));
        entries.push(Entry::symlink("long link", "t".repeat(150)));
        let name: Vec<u8> = [0xfe; 100].to_vec();
        entries.push(Entry::file(name, 0o644, noise(8, 512)));
        let (root, source) = MemorySource::of(Shape::Tree, &entries);
        let archive = tar_of(&root, &source);
        assert!(archive == tar_of(&root, &source) && archive.len().is_multiple_of(BLOCK_BYTES));

        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut reader = tar::Archive::new(archive.as_slice());
        for entry in reader.entries().expect("an archive") {
            let header = entry.expect("an entry").header().clone();
            let owner = (header.uid().ok(), header.gid().ok(), header.mtime().ok());
            assert_eq!(owner, (Some(0), Some(0), Some(0)));
        }
        let mut child = std::process::Command::new("tar")
            .args(["-x", "-p", "--no-same-owner", "-f", "-", "-C"])
            .arg(folder.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("tar is installed wherever this is built");
        child.stdin.take().expect("a pipe").write_all(&archive).expect("taken");
        assert!(child.wait().expect("it ends").success());
        assert_eq!(read_tree(folder.path()), sorted(&entries));
    }

    #[test]
    fn the_bytes_of_an_archive_never_change() {
        // Golden: caches and signatures of an archive's hash rely on this.
        let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
        assert_eq!(blake3::hash(&tar_of(&root, &source)).to_hex().as_str(), GOLDEN);
    }

    const GOLDEN: &str = "a59e0779af366e49d3bd9298a611b3ef846de3ccc4b7b692d18e1daaf899213b";

    #[test]
    fn a_reader_of_the_stream_that_fails_is_named_with_the_entry() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
        let error =
            write_tar(&root, &source, OutsideLinks::Refuse, &mut Broken).expect_err("it takes nothing");
        assert_eq!(error.fault(), Fault::Full);
        assert!(error.to_string().contains("bin/app"), "{error}");
    }

    #[test]
    fn a_missing_chunk_ends_a_stream_with_an_error() {
        let (root, mut source) = MemorySource::of(Shape::Tree, &one_of_each());
        source.lose(&noise(3, 30_000));
        assert!(write_tar(&root, &source, OutsideLinks::Refuse, &mut io::sink()).is_err());
    }
}
