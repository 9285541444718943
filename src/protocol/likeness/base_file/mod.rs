//! A whole file of a release, or a whole member of an archive, found from some of its chunks.

mod edges;
mod walk;

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::wire::Span;
use format::manifest::RefAt;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNKS_MAX};

pub use edges::edges;
pub use walk::Release;

use self::walk::{Entry, Listed, Walk, parts};

/// A new file, or member of an archive, whose older version is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// How many chunks it has, as far as they are known.
    pub chunks: usize,
    /// Those chunks that are not new.
    pub known: HashSet<ChunkId>,
}

/// A file of a release, or a member of an archive: where it is listed, and all its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFile {
    /// The file's path.
    pub path: Vec<u8>,
    /// Where its chunks are listed.
    pub span: Span,
    /// Its chunks in order.
    pub chunks: Vec<ChunkRef>,
}

impl BaseFile {
    /// Returns the file that the first chunk of `span` belongs to; in an archive that was unpacked, the member that
    /// shares most chunks with the new one; of those that share none, one that `span` touches, and of these the nearest
    /// in length.
    ///
    /// Returns `None` if it cannot be encoded as an executable: too large, or not listed whole. Reads the
    /// segments that list the file, and the plan of an archive.
    ///
    /// # Errors
    /// An error of `release`; segments that do not decode.
    pub fn like<R: Release>(span: &Span, new: &Target, release: &mut R) -> Result<Option<Self>, R::Error> {
        let Some(entry) = Entry::before(span, release)? else { return Ok(None) };
        let walk = Walk::new(release, &entry, *span);
        if entry.is_archive { member(&entry.path, walk, new) } else { file(entry, walk) }
    }
}

/// A file that was not unpacked.
fn file<R: Release>(entry: Entry, mut walk: Walk<'_, R>) -> Result<Option<BaseFile>, R::Error> {
    let (mut left, mut chunks) = (entry.bytes, Vec::new());
    while left > 0 {
        let Some(Listed { chunk, .. }) = walk.next()? else { return Ok(None) };
        let Some(rest) = left.checked_sub(u64::from(chunk.bytes)) else { return Ok(None) };
        left = rest;
        chunks.push(chunk);
        if chunks.len() > EXECUTABLE_CHUNKS_MAX {
            return Ok(None);
        }
    }
    let first = u32::try_from(entry.first).expect("segments' references are bounded");
    let span = Span { segment: entry.segment, first, count: count(&chunks) };
    Ok(Some(BaseFile { path: entry.path, span, chunks }))
}

/// A member of an archive, as [`BaseFile::like`] says.
fn member<R: Release>(
    path: &[u8],
    mut walk: Walk<'_, R>,
    new: &Target,
) -> Result<Option<BaseFile>, R::Error> {
    let Some(parts) = parts(&mut walk)? else { return Ok(None) };
    let mut best = None;
    for (length, is_member) in parts.after_plan() {
        let touched = walk.touched;
        let (mut left, mut part, mut begin) = (length, Vec::new(), None);
        while left > 0 {
            let Some(Listed { at, chunk }) = walk.next()? else { return Ok(None) };
            let Some(rest) = left.checked_sub(u64::from(chunk.bytes)) else { return Ok(None) };
            left = rest;
            begin = begin.or(Some(at));
            if part.len() <= EXECUTABLE_CHUNKS_MAX {
                part.push(chunk);
            }
        }
        let is_bounded = part.len() <= EXECUTABLE_CHUNKS_MAX && length <= EXECUTABLE_BYTES_MAX as u64;
        let Some(RefAt { segment, reference: first }) = begin.filter(|_| is_member && is_bounded) else {
            continue;
        };
        let shared = part.iter().filter(|chunk| new.known.contains(&chunk.id)).count();
        let distance = part.len().abs_diff(new.chunks);
        let rank = (shared, walk.touched > touched, Reverse(distance));
        if (shared > 0 || rank.1) && best.as_ref().is_none_or(|(best, _)| rank > *best) {
            let span = Span { segment, first, count: count(&part) };
            best = Some((rank, BaseFile { path: path.to_vec(), span, chunks: part }));
        }
    }
    Ok(best.map(|(_, whole)| whole))
}

fn count(chunks: &[ChunkRef]) -> u32 {
    u32::try_from(chunks.len()).expect("chunks of an executable are bounded")
}

#[cfg(test)]
mod tests;
