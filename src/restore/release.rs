//! The files of a release, one by one, each with what rebuilds it.

use std::cmp::Ordering;

use super::walk::read_chunk;
use super::{Archive, ChunkReader, ChunkSource, Error, Items, write_archive};
use format::manifest::{EntryPath, Item, Root};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use recode::codec::Permits;

/// 256 KiB: the least that is passed on at once, but for a file's end.
const PIECE_BYTES: usize = 256 * 1024;

/// A file of a release, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFile {
    /// The path.
    pub path: EntryPath,
    /// Permission bits.
    pub mode: u16,
    /// The complete file's bytes.
    pub size: u64,
    recipe: Recipe,
    chunks: Vec<ChunkRef>,
}

impl ReleaseFile {
    /// Returns a name of the content: equal names are of equal contents, and equal contents have equal names, but for archives
    /// that an earlier version pushed.
    pub fn content_name(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.size.to_le_bytes());
        match self.recipe {
            // Its chunks may be those of its stream.
            Recipe::Container(Container { content: Some(content), .. }) => hasher.update(content.as_bytes()),
            Recipe::Packed => hasher.update(ContentHasher::of(&self.chunks).as_bytes()),
            // Of an earlier version.
            Recipe::Container(container) => hasher.update(container.artifact.as_bytes()),
            Recipe::Chunks => {
                self.chunks.iter().fold(&mut hasher, |hasher, chunk| hasher.update(chunk.id.as_bytes()))
            }
        };
        *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// Hands the file's bytes to `out`, in pieces of up to some 320 KiB, each chunk verified. Memory: a piece, for an archive
    /// 5 MB.
    ///
    /// # Errors
    /// A chunk cannot be read, or `out` fails: what it was given is then not the whole file.
    pub fn read<E: From<Error>>(
        &self,
        reader: &mut dyn ChunkReader,
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = Vec::with_capacity(PIECE_BYTES);
        if let Some(container) = self.recipe.container() {
            let Self { path, size, chunks, .. } = self;
            let archive = Archive { path, size: *size, container, chunks };
            let mut failure = None;
            let written = write_archive(archive, reader, &Permits::default(), &mut |bytes| {
                let given = out(bytes);
                given.map_err(|error| {
                    failure = Some(error);
                    Error::Cancelled
                })
            });
            return match failure {
                Some(error) => Err(error),
                None => Ok(written?),
            };
        }
        for chunk in &self.chunks {
            read_chunk(reader, chunk, &mut buffer)?;
            if buffer.len() >= PIECE_BYTES {
                out(&buffer)?;
                buffer.clear();
            }
        }
        if buffer.is_empty() { Ok(()) } else { out(&buffer) }
    }
}

/// An entry of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReleaseEntry {
    /// A directory.
    Directory(EntryPath),
    /// A file.
    File(ReleaseFile),
    /// Another name of a file that came before, or comes.
    HardLink {
        /// The path.
        path: EntryPath,
        /// The first of the file's names.
        target: EntryPath,
    },
    /// A symbolic link.
    Symlink {
        /// The path.
        path: EntryPath,
        /// The link's target.
        target: Vec<u8>,
    },
}

impl ReleaseEntry {
    /// Returns the path.
    pub fn path(&self) -> &EntryPath {
        match self {
            Self::Directory(path)
            | Self::File(ReleaseFile { path, .. })
            | Self::HardLink { path, .. }
            | Self::Symlink { path, .. } => path,
        }
    }

    /// Returns whether both are alike but for their paths: of files the content and the mode, which is taken as `mode_of` maps it.
    pub fn is_like(&self, other: &Self, mode_of: impl Fn(u16) -> u16) -> bool {
        match (self, other) {
            (Self::Directory(_), Self::Directory(_)) => true,
            (Self::File(one), Self::File(other)) => {
                mode_of(one.mode) == mode_of(other.mode) && one.content_name() == other.content_name()
            }
            (Self::HardLink { target, .. }, Self::HardLink { target: other, .. }) => target == other,
            (Self::Symlink { target, .. }, Self::Symlink { target: other, .. }) => target == other,
            _ => false,
        }
    }
}

/// Hands each path of two releases to `visit`, in order, with its entry in `before` and in `after`. Without an earlier release
/// all of `after` is new. Memory: as of two [`ReleaseEntries`].
///
/// # Errors
/// A manifest cannot be read.
pub fn each_path(
    before: Option<&Root>,
    after: &Root,
    source: &dyn ChunkSource,
    visit: &mut dyn FnMut(Option<ReleaseEntry>, Option<ReleaseEntry>),
) -> Result<(), Error> {
    let (mut old_reader, mut new_reader) = (source.reader(), source.reader());
    let mut olds = before.map(|before| ReleaseEntries::new(before, &mut *old_reader)).into_iter().flatten();
    let mut news = ReleaseEntries::new(after, &mut *new_reader);
    let (mut old, mut new) = (olds.next().transpose()?, news.next().transpose()?);
    loop {
        let order = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path().cmp(new.path()),
        };
        let gone = if order.is_le() { std::mem::replace(&mut old, olds.next().transpose()?) } else { None };
        let come = if order.is_ge() { std::mem::replace(&mut new, news.next().transpose()?) } else { None };
        visit(gone, come);
    }
}

/// The entries of a release in the manifest's order.
///
/// The manifest is complete only if the iterator ends without an error. Memory: 36 B for each chunk of one file.
pub struct ReleaseEntries<'a> {
    items: Items<'a>,
    /// The entry before the next item, whose chunks may still come.
    open: Option<ReleaseEntry>,
}

impl<'a> ReleaseEntries<'a> {
    /// Starts before the first entry of `root`; `reader` returns its parts.
    pub fn new(root: &'a Root, reader: &'a mut dyn ChunkReader) -> Self {
        Self { items: Items::new(root, reader), open: None }
    }
}

impl Iterator for ReleaseEntries<'_> {
    type Item = Result<ReleaseEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let item = match self.items.next() {
                None => return self.open.take().map(Ok),
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(item)) => item,
            };
            let next = match item {
                Item::Chunk(chunk) => {
                    if let Some(ReleaseEntry::File(file)) = &mut self.open {
                        file.chunks.push(chunk);
                    }
                    continue;
                }
                Item::Linked => continue,
                Item::File { path, mode, size, recipe } => {
                    ReleaseEntry::File(ReleaseFile { path, mode, size, recipe, chunks: Vec::new() })
                }
                Item::Directory { path, .. } => ReleaseEntry::Directory(path),
                Item::HardLink { path, target } => ReleaseEntry::HardLink { path, target },
                Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
                    ReleaseEntry::Symlink { path, target }
                }
            };
            if let Some(ended) = self.open.replace(next) {
                return Some(Ok(ended));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{MemorySource, one_of_each};
    use super::super::{ChunkSource, Entry, noise};
    use super::*;
    use format::manifest::Shape;

    #[test]
    fn each_entry_comes_once_and_each_file_with_its_bytes() {
        let mut entries = one_of_each();
        entries.push(Entry::file("z", 0o600, noise(9, 700_000)));
        let (root, source) = MemorySource::of(Shape::Tree, &entries);
        let found: Vec<_> =
            ReleaseEntries::new(&root, &mut *source.reader()).map(|entry| entry.expect("honest")).collect();
        assert_eq!(found.len(), entries.len());
        let last = found.last();
        let Some(ReleaseEntry::File(file)) = last else { panic!("{last:?}") };
        let mut bytes = Vec::new();
        let mut take = |piece: &[u8]| -> Result<(), Error> {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        file.read(&mut *source.reader(), &mut take).expect("it is there");
        assert!(bytes == noise(9, 700_000));
        let names: std::collections::BTreeSet<_> = found
            .iter()
            .filter_map(
                |entry| if let ReleaseEntry::File(file) = entry { Some(file.content_name()) } else { None },
            )
            .collect();
        assert!(names.len() > 3, "contents differ");
    }
}
