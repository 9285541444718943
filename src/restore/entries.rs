//! All entries of a release as one stream, for the formats that hold them in a row.

use std::io;

use super::walk::read_chunk;
use super::{Archive, ChunkReader, ChunkSource, Error, Items, OutsideLinks, write_archive};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Recipe};
use recode::codec::Permits;

/// Receives the entries of a release in the manifest's order: parents first, files with their content.
pub(super) trait Entries {
    /// Begins an entry. If it is a file, its content and end follow.
    ///
    /// # Errors
    /// The writer's, or the entry does not fit the format.
    fn begin(&mut self, item: &Item, path: &EntryPath) -> Result<(), Error>;

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// The writer's.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Ends the file, of `size` bytes.
    ///
    /// # Errors
    /// The writer's.
    fn end(&mut self, size: u64) -> io::Result<()>;
}

/// Hands the entries of a release to `entries`. Archives are rebuilt. Memory: a chunk, for an archive 5 MB and 36 B for each
/// of its chunks.
///
/// # Errors
/// A damaged manifest, a chunk that cannot be read, a link that leads outside where none may, or those of `entries`.
pub(super) fn each_entry(
    root: &Root,
    source: &dyn ChunkSource,
    links: OutsideLinks,
    entries: &mut dyn Entries,
) -> Result<(), Error> {
    let mut reader = source.reader();
    let mut open: Option<Open> = None;
    let mut buffer = Vec::new();
    for item in Items::new(root, &mut *source.reader()) {
        let item = item?;
        if let (Item::Chunk(chunk), Some(open)) = (&item, &mut open) {
            open.chunk(*chunk, &mut *reader, &mut buffer, entries)?;
            continue;
        }
        if let Some(open) = open.take() {
            open.end(&mut *reader, entries)?;
        }
        match &item {
            Item::OutsideLink { path, target } if links == OutsideLinks::Refuse => {
                return Err(Error::OutsideLink { path: path.clone(), target: target.clone() });
            }
            Item::Directory { path, .. }
            | Item::Symlink { path, .. }
            | Item::OutsideLink { path, .. }
            | Item::HardLink { path, .. } => entries.begin(&item, path)?,
            Item::File { path, size, recipe, .. } => {
                entries.begin(&item, path)?;
                open = Some(Open { path: path.clone(), size: *size, recipe: *recipe, chunks: Vec::new() });
            }
            Item::Chunk(_) | Item::Linked => {}
        }
    }
    open.map_or(Ok(()), |open| open.end(&mut *reader, entries))
}

/// The file on its way.
struct Open {
    path: EntryPath,
    size: u64,
    recipe: Recipe,
    /// An archive's, until all are there.
    chunks: Vec<ChunkRef>,
}

impl Open {
    fn chunk(
        &mut self,
        chunk: ChunkRef,
        reader: &mut dyn ChunkReader,
        buffer: &mut Vec<u8>,
        entries: &mut dyn Entries,
    ) -> Result<(), Error> {
        if self.recipe.container().is_some() {
            self.chunks.push(chunk);
            return Ok(());
        }
        buffer.clear();
        read_chunk(reader, &chunk, buffer)?;
        entries.content(buffer).map_err(|source| self.output(source))
    }

    fn end(self, reader: &mut dyn ChunkReader, entries: &mut dyn Entries) -> Result<(), Error> {
        if let Some(container) = self.recipe.container() {
            let archive = Archive { path: &self.path, size: self.size, container, chunks: &self.chunks };
            write_archive(archive, reader, &Permits::default(), &mut |bytes| {
                entries.content(bytes).map_err(|source| self.output(source))
            })?;
        }
        entries.end(self.size).map_err(|source| self.output(source))
    }

    fn output(&self, source: io::Error) -> Error {
        Error::Output { path: self.path.clone(), source }
    }
}
