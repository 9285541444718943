//! The files of some segments and their chunks, as the choice of a basis sees them.

use std::collections::HashMap;
use std::ops::Range;

use delta::similar::{Chunk, File};
use format::manifest::{Item, RefAt, SegmentIndex, Thin};
use format::recipe::ChunkRef;
use ground::ids::ShortId;
use ground::limits::CHUNK_BYTES_MAX;

/// 16 KiB: the assumed length of an unknown chunk.
const CHUNK_BYTES_GUESS: u32 = 16 * 1024;

/// Part of a file: its chunks, and where each is listed.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub path: Vec<u8>,
    /// Bytes of the whole file, where its entry is among the segments.
    size: u64,
    pub chunks: Vec<Chunk>,
    pub places: Vec<RefAt>,
    /// The chunks in full, where they are known.
    pub full: Vec<Option<ChunkRef>>,
    /// Which chunks do not follow the one before them, as a member of the archive lies between.
    gaps: Vec<usize>,
}

/// Files of some segments, in order.
#[derive(Debug, Default)]
pub(super) struct Listings {
    pub files: Vec<Listing>,
    /// Which file the next chunk is of.
    current: usize,
    /// The archive that the current member is of, and how many of its members stand for themselves so far.
    archive: Option<usize>,
    members: u32,
}

/// Where, among the references of some segments, something begins or ends.
pub type Edges = HashMap<RefAt, Edge>;

/// What begins or ends at a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// A member of an archive, of this many bytes, which is compared by itself.
    Begin(u64),
    /// The bytes after such a member in the archive.
    End,
    /// An item that belongs to nothing else: no likeness continues here.
    Cut,
}

impl Listing {
    /// Returns whether the first of its chunks is the file's first.
    pub fn has_begin(&self) -> bool {
        self.size > 0
    }
}

impl Listings {
    fn begin_file(&mut self, path: Vec<u8>, size: u64) {
        // What has no chunks resembles nothing, and there may be a great many.
        self.files.pop_if(|last| last.chunks.is_empty());
        (self.current, self.archive, self.members) = (self.files.len(), None, 0);
        self.files.push(Listing { path, size, ..Listing::default() });
    }

    /// Begins a run of neighbouring segments; the run's number identifies what continues from before it.
    pub fn begin_run(&mut self, number: usize) {
        self.begin_file([b"\0".as_slice(), &number.to_be_bytes()].concat(), 0);
    }

    /// A member of an archive goes by the archive's path and its number.
    fn begin_member(&mut self, size: u64) {
        let archive = *self.archive.get_or_insert(self.current);
        let Some(of) = self.files.get_mut(archive) else { return };
        of.size = of.size.saturating_sub(size);
        let path = [of.path.as_slice(), b"\0", &self.members.to_be_bytes()].concat();
        self.members += 1;
        self.current = self.files.len();
        self.files.push(Listing { path, size, ..Listing::default() });
    }

    fn end_member(&mut self) {
        self.current = self.archive.unwrap_or(self.current);
        if let Some(archive) = self.files.get_mut(self.current) {
            archive.gaps.push(archive.chunks.len());
        }
    }

    /// Adds a segment; `known` gives its chunks in full, as far as they are known.
    pub fn add(
        &mut self,
        segment: SegmentIndex,
        thin: &Thin,
        known: impl Iterator<Item = Option<ChunkRef>>,
        edges: &Edges,
    ) {
        let mut references = (0..).zip(thin.references().zip(known));
        for item in thin.items() {
            match item {
                Some(Item::File { path, size, recipe, .. }) => {
                    self.begin_file(path.as_bytes().to_vec(), recipe.chunk_bytes(*size));
                }
                Some(Item::Chunk(_)) | None => {
                    let Some((number, (reference, full))) = references.next() else { continue };
                    let at = RefAt { segment, reference: number };
                    match edges.get(&at) {
                        Some(Edge::Begin(bytes)) => self.begin_member(*bytes),
                        Some(Edge::End) => self.end_member(),
                        Some(Edge::Cut) | None => {}
                    }
                    let Some(file) = self.files.get_mut(self.current) else { continue };
                    let bytes = full.map_or(0, |chunk| chunk.bytes);
                    file.chunks.push(Chunk { id: number_of(reference.short()), bytes });
                    file.places.push(at);
                    file.full.push(full);
                }
                Some(_) => {}
            }
        }
    }

    /// Files in the order that the choice asks for.
    pub fn sorted(mut self) -> Self {
        self.files.retain(|file| !file.chunks.is_empty());
        self.files.iter_mut().for_each(Listing::guess_lengths);
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
        self
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let chunk = size_of::<Chunk>() + size_of::<RefAt>() + size_of::<Option<ChunkRef>>();
        let of_file = |file: &Listing| size_of::<Listing>() + file.path.len() + file.chunks.len() * chunk;
        self.files.iter().map(of_file).sum()
    }

    pub fn views(&self) -> Vec<File<'_>> {
        self.files.iter().map(|file| File { path: &file.path, chunks: &file.chunks }).collect()
    }
}

impl Listing {
    /// Returns the longest part of a range of chunks that follow one another.
    pub fn joined(&self, range: Range<usize>) -> Range<usize> {
        let ends = self.gaps.iter().copied().filter(|gap| range.contains(gap)).chain([range.end]);
        let parts = ends.scan(range.start, |begin, end| Some(std::mem::replace(begin, end)..end));
        parts.max_by_key(ExactSizeIterator::len).unwrap_or(range.clone())
    }

    /// Gives chunks of unknown length their part of what the known ones leave of the file.
    fn guess_lengths(&mut self) {
        let known: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let unknown = self.chunks.iter().filter(|chunk| chunk.bytes == 0).count() as u64;
        let rest = self.size.saturating_sub(known);
        let guess = if rest == 0 { u64::from(CHUNK_BYTES_GUESS) } else { rest.div_ceil(unknown.max(1)) };
        let guess = u32::try_from(guess).unwrap_or(CHUNK_BYTES_MAX).min(CHUNK_BYTES_MAX);
        self.chunks.iter_mut().filter(|chunk| chunk.bytes == 0).for_each(|chunk| chunk.bytes = guess);
    }
}

pub(super) fn number_of(short: ShortId) -> u64 {
    let mut bytes = [0; 8];
    bytes[..ShortId::BYTES].copy_from_slice(short.as_bytes());
    u64::from_le_bytes(bytes)
}
