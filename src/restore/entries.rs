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
            open.chunk(*chunk, &mut *reader, &mut buffer, &mut |bytes| entries.content(bytes))?;
            continue;
        }
        if let Some(open) = open.take() {
            end(&open, &mut *reader, entries)?;
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
                open = Some(Open::new(path, *size, *recipe));
            }
            Item::Chunk(_) | Item::Linked => {}
        }
    }
    open.map_or(Ok(()), |open| end(&open, &mut *reader, entries))
}

fn end(open: &Open, reader: &mut dyn ChunkReader, entries: &mut dyn Entries) -> Result<(), Error> {
    open.end(reader, &mut |bytes| entries.content(bytes))?;
    entries.end(open.size).map_err(|source| open.output(source))
}

/// The file on its way.
pub(super) struct Open {
    pub path: EntryPath,
    pub size: u64,
    recipe: Recipe,
    /// An archive's, until all are there.
    chunks: Vec<ChunkRef>,
}

/// Takes the next bytes of a file.
type Take<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

impl Open {
    /// Begins a file.
    pub fn new(path: &EntryPath, size: u64, recipe: Recipe) -> Self {
        Self { path: path.clone(), size, recipe, chunks: Vec::new() }
    }

    /// Adds the file's next chunk. Its bytes go to `take`, unless the file is an archive, which is rebuilt at its end.
    ///
    /// # Errors
    /// The chunk cannot be read, or those of `take`.
    pub fn chunk(
        &mut self,
        chunk: ChunkRef,
        reader: &mut dyn ChunkReader,
        buffer: &mut Vec<u8>,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        if self.recipe.container().is_some() {
            self.chunks.push(chunk);
            return Ok(());
        }
        buffer.clear();
        read_chunk(reader, &chunk, buffer)?;
        take(buffer).map_err(|source| self.output(source))
    }

    /// Ends the file: an archive's bytes go to `take` now.
    ///
    /// # Errors
    /// A chunk of an archive cannot be read, or those of `take`.
    pub fn end(&self, reader: &mut dyn ChunkReader, take: &mut Take<'_>) -> Result<(), Error> {
        let Some(container) = self.recipe.container() else { return Ok(()) };
        let archive = Archive { path: &self.path, size: self.size, container, chunks: &self.chunks };
        write_archive(archive, reader, &Permits::default(), &mut |bytes| {
            take(bytes).map_err(|source| self.output(source))
        })
    }

    /// Returns the error of a reader that did not take the file's bytes.
    pub fn output(&self, source: io::Error) -> Error {
        Error::Output { path: self.path.clone(), source }
    }
}
