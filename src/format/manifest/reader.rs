//! Reads a manifest's items and refuses what no honest builder makes.

use super::builder::{SEGMENT_BYTES_MAX, SEGMENT_VERSION, SEGMENT_VERSION_LINKS};
use super::content::Content;
use super::item::ItemError;
use super::links::Links;
use super::{EntryPath, Error, Item, Root, Shape, Totals};
use crate::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::STREAM_CHUNKS_MAX;

/// Reads segments in order. Memory: one path, and 16 B for each link and each file that has hard links, some 50 MB at most.
///
/// Returned items are safe to act on: every path is new, in order, and below directories
/// that came before it. The next entry checks that sizes add up, [`Reader::finish`] that nothing is missing.
#[derive(Debug, Default)]
pub struct Reader {
    last: Option<EntryPath>,
    /// The directory that `last` is or lies in.
    directory: Vec<u8>,
    file: Option<OpenFile>,
    links: Links,
    totals: Totals,
    content: Content,
}

#[derive(Debug)]
struct OpenFile {
    path: EntryPath,
    /// The bytes that its chunks must add up to.
    expected: u64,
    found: u64,
    /// The number of further chunks that it may have.
    chunks_left: u64,
}

impl Reader {
    /// Starts before the first segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the next segment and returns its items.
    ///
    /// # Errors
    /// Any of [`Error`]; the reader must not be used afterwards.
    pub fn segment(&mut self, bytes: &[u8]) -> Result<Vec<Item>, Error> {
        let (items, ends) = decode(bytes)?;
        let mut begin = 1;
        for (item, end) in items.iter().zip(ends) {
            self.check(item)?;
            self.content.push(item, &bytes[begin..end]);
            begin = end;
        }
        Ok(items)
    }

    /// Ends the manifest.
    ///
    /// # Errors
    /// A last file that is not complete; other totals, another shape or another release than in `root`.
    pub fn finish(mut self, root: &Root) -> Result<(), Error> {
        self.end_file()?;
        self.links.finish()?;
        let others = self.totals.directories + self.totals.symlinks;
        let file_alone = self.totals.files == 1 && others == 0 && self.links.is_empty();
        let counted = Totals { folder_mode: root.totals.folder_mode, ..self.totals };
        let is_plain = root.totals.is_folder_mode_plain(root.shape);
        if counted != root.totals || !is_plain || (root.shape == Shape::File && !file_alone) {
            return Err(Error::Totals);
        }
        if self.content.finish(root) == root.named { Ok(()) } else { Err(Error::OtherContent) }
    }

    fn check(&mut self, item: &Item) -> Result<(), Error> {
        match item {
            Item::Chunk(chunk) => {
                let file = self.file.as_mut().ok_or(Error::Totals)?;
                file.found += u64::from(chunk.bytes);
                self.totals.chunks += 1;
                if file.found > file.expected {
                    return Err(file.mismatch());
                }
                file.chunks_left =
                    file.chunks_left.checked_sub(1).ok_or_else(|| Error::Stream(file.path.clone()))?;
            }
            Item::Directory { path, .. } => {
                self.entry(path)?;
                self.directory = path.as_bytes().to_vec();
                self.totals.directories += 1;
            }
            Item::Symlink { path, target } => {
                self.entry(path)?;
                self.links.inside(path, target)?;
                self.totals.symlinks += 1;
            }
            Item::OutsideLink { path, target } => {
                self.entry(path)?;
                self.links.outside(path, target)?;
                self.totals.symlinks += 1;
            }
            Item::Linked => {
                let file = self.file.take().ok_or(Error::Totals)?;
                if file.found != file.expected {
                    return Err(file.mismatch());
                }
                self.links.linked(&file.path)?;
            }
            Item::HardLink { path, target } => {
                self.entry(path)?;
                self.links.hard(path, target)?;
            }
            Item::File { path, size, recipe, .. } => {
                self.entry(path)?;
                let chunks_left = match recipe.container() {
                    None => u64::MAX,
                    Some(container) if container.is_bounded(*size) => STREAM_CHUNKS_MAX,
                    Some(_) => return Err(Error::Stream(path.clone())),
                };
                let expected = recipe.chunk_bytes(*size);
                self.file = Some(OpenFile { path: path.clone(), expected, found: 0, chunks_left });
                self.totals.files += 1;
                self.totals.bytes = self.totals.bytes.checked_add(*size).ok_or(Error::Totals)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &EntryPath) -> Result<(), Error> {
        self.end_file()?;
        let in_order = self.last.as_ref().is_none_or(|last| last < path);
        // Entries come in the order of a walk, so a parent is the directory of the last entry or one above it.
        let parent_is_open = path.parent().is_none_or(|parent| {
            let open = self.directory.as_slice();
            open == parent || (open.starts_with(parent) && open.get(parent.len()) == Some(&b'/'))
        });
        if !in_order || !parent_is_open {
            return Err(Error::Order(path.clone()));
        }
        self.directory.truncate(path.parent().map_or(0, <[u8]>::len));
        self.last = Some(path.clone());
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        match self.file.take() {
            Some(file) if file.found != file.expected => Err(file.mismatch()),
            _ => Ok(()),
        }
    }
}

/// Reads one segment's items without those before it: checks the form of each, but not their order.
///
/// # Errors
/// Bytes that are no segment, or a version or recipe of a newer whit.
pub fn decode_segment(bytes: &[u8]) -> Result<Vec<Item>, Error> {
    decode(bytes).map(|(items, _)| items)
}

/// Returns also where each item ends.
fn decode(bytes: &[u8]) -> Result<(Vec<Item>, Vec<usize>), Error> {
    let malformed = |offset| Error::Malformed { part: "segment", id: ChunkId::of(bytes), offset };
    let is_second = match bytes.first() {
        None => return Err(malformed(0)),
        Some(version @ (&SEGMENT_VERSION | &SEGMENT_VERSION_LINKS)) => *version == SEGMENT_VERSION_LINKS,
        Some(version) => return Err(Error::Version(*version)),
    };
    if bytes.len() > SEGMENT_BYTES_MAX || bytes.len() == 1 {
        return Err(malformed(bytes.len()));
    }
    let (mut items, mut ends) = (Vec::new(), Vec::new());
    let mut offset = 1;
    while offset < bytes.len() {
        let (item, used) = Item::decode(&bytes[offset..]).map_err(|error| match error {
            ItemError::Malformed => malformed(offset),
            ItemError::Refused(error) => error,
        })?;
        items.push(item);
        offset += used;
        ends.push(offset);
    }
    // Equal content has one form: the version follows from the items.
    let is_form = is_second == items.iter().any(Item::is_of_second_version);
    if is_form { Ok((items, ends)) } else { Err(malformed(0)) }
}

/// Returns the chunk references among one segment's items, in order.
///
/// # Errors
/// As [`decode_segment`].
pub fn segment_chunks(bytes: &[u8]) -> Result<Vec<ChunkRef>, Error> {
    let items = decode_segment(bytes)?;
    Ok(items
        .into_iter()
        .filter_map(|item| if let Item::Chunk(chunk) = item { Some(chunk) } else { None })
        .collect())
}

impl OpenFile {
    fn mismatch(&self) -> Error {
        Error::Size { path: self.path.clone(), expected: self.expected, found: self.found }
    }
}
