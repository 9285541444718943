//! Finds the file that a chunk is of, and walks its chunks.

use crate::wire::Span;
use format::manifest::{self, Item, RefAt, SegmentIndex};
use format::recipe::{ChunkRef, Recipe};
use ground::limits::{EXECUTABLE_BYTES_MAX, STREAM_CHUNKS_MAX};
use recode::archive::{PREFIX_BYTES, Parts, decode_head, head_bytes};

/// A release whose segments and chunks can be read.
pub trait Release {
    /// Why not.
    type Error: From<manifest::Error>;

    /// Returns the segment of that index, where there is one.
    ///
    /// # Errors
    /// It cannot be read.
    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Appends a chunk's bytes; false where that is not there, or would be too much.
    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool;
}

/// The file that some chunk is of.
pub(super) struct Entry {
    pub path: Vec<u8>,
    /// The sum of its chunks' bytes.
    pub bytes: u64,
    pub is_archive: bool,
    /// The segment that lists it, and how many chunks there are before it.
    pub segment: SegmentIndex,
    pub first: usize,
}

impl Entry {
    /// Returns the last file that begins before the first chunk of `span`.
    pub fn before<R: Release>(span: &Span, release: &mut R) -> Result<Option<Self>, R::Error> {
        let (mut segment, mut before) = (span.segment, span.first as usize);
        let mut passed = 0;
        loop {
            let Some(bytes) = release.segment(segment)? else { return Ok(None) };
            let items = manifest::decode_segment(&bytes)?;
            if let Some(entry) = Self::last(&items, before, segment) {
                let fits = entry.is_archive || entry.bytes <= EXECUTABLE_BYTES_MAX as u64;
                return Ok(fits.then_some(entry));
            }
            passed += items.len() as u64;
            let previous = segment.previous().filter(|_| passed <= STREAM_CHUNKS_MAX);
            let Some(previous) = previous else { return Ok(None) };
            (segment, before) = (previous, usize::MAX);
        }
    }

    /// Returns the last file that begins before the chunk with the number `before`.
    pub fn last(items: &[Item], before: usize, segment: SegmentIndex) -> Option<Self> {
        let (mut chunks, mut entry) = (0, None);
        for item in items {
            match item {
                Item::File { path, size, recipe, .. } => {
                    let is_archive = matches!(recipe, Recipe::Container(_));
                    let (path, bytes) = (path.as_bytes().to_vec(), recipe.chunk_bytes(*size));
                    entry = Some(Self { path, bytes, is_archive, segment, first: chunks });
                }
                Item::Chunk(_) if chunks == before => break,
                Item::Chunk(_) => chunks += 1,
                _ => {}
            }
        }
        entry
    }
}

/// Chunks one after another, from one of a segment's on.
pub(super) struct Walk<'a, R> {
    pub release: &'a mut R,
    segment: SegmentIndex,
    /// Which of the segment's chunks is next.
    next: usize,
    listed: Vec<ChunkRef>,
    begun: bool,
    span: Span,
    /// How many chunks of the span were passed.
    pub touched: u32,
}

/// A chunk, and where it is listed.
pub(super) struct Listed {
    pub at: RefAt,
    pub chunk: ChunkRef,
}

impl<'a, R: Release> Walk<'a, R> {
    pub fn new(release: &'a mut R, entry: &Entry, span: Span) -> Self {
        let (segment, next) = (entry.segment, entry.first);
        Self { release, segment, next, listed: Vec::new(), begun: false, span, touched: 0 }
    }

    /// Returns the next chunk; none where a segment is missing or lists none.
    pub fn next(&mut self) -> Result<Option<Listed>, R::Error> {
        if !self.begun || self.next == self.listed.len() {
            if self.begun {
                (self.segment, self.next) = (self.segment.next(), 0);
            }
            self.begun = true;
            let Some(bytes) = self.release.segment(self.segment)? else { return Ok(None) };
            self.listed = manifest::segment_chunks(&bytes)?;
        }
        let Some(chunk) = self.listed.get(self.next).copied() else { return Ok(None) };
        self.next += 1;
        let reference = u32::try_from(self.next - 1).expect("segments' references are bounded");
        let at = RefAt { segment: self.segment, reference };
        if at >= self.span.begin() && !self.is_past() {
            self.touched += 1;
        }
        Ok(Some(Listed { at, chunk }))
    }

    /// Returns whether all of the span was passed.
    fn is_past(&self) -> bool {
        self.touched == self.span.count
    }
}

/// Returns the parts of an archive whose stream begins with the next chunk; reads those of its plan.
pub(super) fn parts<R: Release>(walk: &mut Walk<'_, R>) -> Result<Option<Parts>, R::Error> {
    let mut head = Vec::new();
    loop {
        let Some(Listed { chunk, .. }) = walk.next()? else { return Ok(None) };
        if !walk.release.chunk(&chunk, &mut head) {
            return Ok(None);
        }
        let length = head.first_chunk::<PREFIX_BYTES>().map(|prefix| head_bytes(*prefix));
        match length {
            Some(Ok(length)) if length == head.len() => break,
            Some(Ok(length)) if length < head.len() => return Ok(None),
            Some(Err(_)) => return Ok(None),
            Some(Ok(_)) | None => {}
        }
    }
    Ok(decode_head(&head).ok().map(|(plan, ..)| Parts::of(&plan, head.len() as u64)))
}
