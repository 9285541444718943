//! One complete file as a stream.

use std::io::Write;

use super::entries::Open;
use super::pieces::Pieces;
use super::{ChunkSource, Error, Items};
use format::manifest::{EntryPath, Item, Root, Shape};

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
    let (mut pieces, mut buffer) = (Pieces::new(out), Vec::new());
    let mut open: Option<Open> = None;
    for item in Items::new(root, &mut *source.reader()) {
        match (item?, &mut open) {
            (Item::Chunk(chunk), Some(open)) => {
                open.chunk(chunk, &mut *reader, &mut buffer, &mut |bytes| pieces.add(bytes))?;
            }
            (Item::Chunk(_), None) => {}
            (_, Some(_)) => break,
            (Item::File { path: at, size, recipe, .. }, None) if path.is_none_or(|path| *path == at) => {
                open = Some(Open::new(&at, size, recipe));
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
            open.end(&mut *reader, &mut |bytes| pieces.add(bytes))?;
            pieces.finish().map_err(|source| open.output(source))?;
            Ok(open.size)
        }
        (None, Some(path)) => Err(Error::Missing(path.clone())),
        (None, None) => Err(format::manifest::Error::Totals.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::sample::{MemorySource, one_of_each};
    use super::super::{Entry, noise};
    use super::*;
    use ground::faults::{Fault, Faulty};

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).expect("a plain path")
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
}
