//! A release as a tar in the GNU format.

use std::io::{self, Write};

use super::entries::{Entries, each_entry};
use super::pieces::Pieces;
use super::tar_header::{BLOCK_BYTES, header, padding};
use super::{ChunkSource, Error, OutsideLinks};
use format::manifest::{EntryPath, Item, Root};

/// The options of a stream of a whole release.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// How to treat links that lead outside the release.
    pub links: OutsideLinks,
    /// A folder that all entries lie in; none by default.
    pub prefix: Option<EntryPath>,
    /// The time of each entry, Unix seconds; 0 by default.
    pub time: u64,
}

/// Writes the whole release as a tar in the GNU format, in the manifest's order.
///
/// The archive is a function of the release and the options: owner 0, one time, no user names. Names are bytes. Memory:
/// about 1 MiB, and that of one archive to rebuild.
///
/// # Errors
/// A damaged manifest, a chunk that cannot be read, or `out` fails; the archive is then cut short and lacks its end.
pub fn write_tar(
    root: &Root,
    source: &dyn ChunkSource,
    options: &StreamOptions,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut tar = Tar { pieces: Pieces::new(out), options };
    if let Some(path) = &options.prefix {
        let top = Item::Directory { path: path.clone(), mode: 0o755 };
        tar.pieces.add(&header(&top, None, options.time)).map_err(Error::OutputEnd)?;
    }
    each_entry(root, source, options.links, &mut tar)?;
    // Two blocks of zeros end an archive.
    tar.pieces.add(&[0; 2 * BLOCK_BYTES]).and_then(|()| tar.pieces.finish()).map_err(Error::OutputEnd)
}

struct Tar<'a> {
    pieces: Pieces<'a>,
    options: &'a StreamOptions,
}

impl Entries for Tar<'_> {
    fn begin(&mut self, item: &Item, path: &EntryPath) -> Result<(), Error> {
        let header = header(item, self.options.prefix.as_ref(), self.options.time);
        self.content(&header).map_err(|source| Error::Output { path: path.clone(), source })
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pieces.add(bytes)
    }

    fn end(&mut self, size: u64) -> io::Result<()> {
        self.content(padding(size))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MemorySource, one_of_each, read_tree, sorted};
    use super::super::{Entry, noise};
    use super::*;
    use format::manifest::Shape;
    use ground::faults::{Fault, Faulty};

    fn tar_of(root: &Root, source: &MemorySource) -> Vec<u8> {
        let mut archive = Vec::new();
        write_tar(root, source, &StreamOptions::default(), &mut archive).expect("an honest release");
        archive
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
            write_tar(&root, &source, &StreamOptions::default(), &mut Broken).expect_err("it takes nothing");
        assert_eq!(error.fault(), Fault::Full);
        assert!(error.to_string().contains("bin/app"), "{error}");
    }

    #[test]
    fn a_missing_chunk_ends_a_stream_with_an_error() {
        let (root, mut source) = MemorySource::of(Shape::Tree, &one_of_each());
        source.lose(&noise(3, 30_000));
        assert!(write_tar(&root, &source, &StreamOptions::default(), &mut io::sink()).is_err());
    }
}
