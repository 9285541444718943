//! Complete artifacts as streams: one file, or all of a release as a tar.

use std::io::Write;

use super::tar_header::{BLOCK_BYTES, header, padding};
use super::walk::read_chunk;
use super::{ChunkReader, ChunkSource, Error, Items};
use crate::manifest::{EntryPath, Item, Root, Shape};
use crate::recipe::ChunkRef;

/// 1 MiB: what is handed on at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// Writes the file at `path` and returns its bytes; no path is needed where the release is a single file.
///
/// Reads the manifest up to the file's end. Memory: about 1 MiB.
///
/// # Errors
/// No such file, a damaged manifest, a chunk that cannot be had, or `out` fails. Whoever reads `out`
/// must then throw away what came.
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
    let mut content = Content::new(&mut *reader, out);
    let mut open: Option<(EntryPath, u64)> = None;
    for item in Items::new(root, &mut *source.reader()) {
        match (item?, &open) {
            (Item::Chunk(chunk), Some((at, _))) => content.chunk(&chunk, at)?,
            (Item::Chunk(_), None) => {}
            (_, Some(_)) => break,
            (Item::File { path: at, size, .. }, None) if path.is_none_or(|path| *path == at) => {
                open = Some((at, size));
            }
            (
                Item::File { path: at, .. }
                | Item::Directory { path: at, .. }
                | Item::Symlink { path: at, .. },
                _,
            ) => {
                if path.is_some_and(|path| *path < at) {
                    break;
                }
            }
        }
    }
    match (open, path) {
        (Some((at, size)), _) => {
            content.flush(&at)?;
            out.flush().map_err(|source| Error::Output { path: at, source })?;
            Ok(size)
        }
        (None, Some(path)) => Err(Error::Missing(path.clone())),
        (None, None) => Err(crate::manifest::Error::Totals.into()),
    }
}

/// Writes the whole release as a tar in the GNU format, in the manifest's order.
///
/// The archive is a function of the release: owner 0, time 0, no user names. Names are bytes. Memory:
/// about 1 MiB.
///
/// # Errors
/// A damaged manifest, a chunk that cannot be had, or `out` fails; the archive is then cut short and
/// lacks its end.
pub fn write_tar(root: &Root, source: &dyn ChunkSource, out: &mut dyn Write) -> Result<(), Error> {
    let mut reader = source.reader();
    let mut content = Content::new(&mut *reader, out);
    let mut open: Option<(EntryPath, u64)> = None;
    for item in Items::new(root, &mut *source.reader()) {
        let item = item?;
        if let (Item::Chunk(chunk), Some((path, _))) = (&item, &open) {
            content.chunk(chunk, path)?;
            continue;
        }
        if let Some((path, size)) = open.take() {
            content.bytes(padding(size), &path)?;
        }
        match &item {
            Item::File { path, size, .. } => {
                content.bytes(&header(&item), path)?;
                open = Some((path.clone(), *size));
            }
            Item::Directory { path, .. } | Item::Symlink { path, .. } => {
                content.bytes(&header(&item), path)?
            }
            Item::Chunk(_) => {}
        }
    }
    if let Some((_, size)) = open {
        content.buffer.extend_from_slice(padding(size));
    }
    // Two blocks of zeros end an archive.
    content.buffer.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    content.out.write_all(&content.buffer).and_then(|()| content.out.flush()).map_err(Error::OutputEnd)
}

/// Gathers chunks and hands them on in large pieces.
struct Content<'a> {
    reader: &'a mut dyn ChunkReader,
    out: &'a mut dyn Write,
    buffer: Vec<u8>,
}

impl<'a> Content<'a> {
    fn new(reader: &'a mut dyn ChunkReader, out: &'a mut dyn Write) -> Self {
        Self { reader, out, buffer: Vec::with_capacity(WRITE_BYTES) }
    }

    fn chunk(&mut self, chunk: &ChunkRef, path: &EntryPath) -> Result<(), Error> {
        read_chunk(self.reader, chunk, &mut self.buffer)?;
        if self.buffer.len() < WRITE_BYTES { Ok(()) } else { self.flush(path) }
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
