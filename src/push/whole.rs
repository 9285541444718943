//! A whole file of a release, found from one of its chunks.

use crate::limits::{EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNKS_MAX};
use crate::manifest::{self, Item};
use crate::recipe::{ChunkRef, Recipe};
use crate::wire::Span;

/// A file of a release: where it is listed, and all its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its path.
    pub path: Vec<u8>,
    /// Where its chunks are listed.
    pub span: Span,
    /// Its chunks in order.
    pub chunks: Vec<ChunkRef>,
}

impl Whole {
    /// The file that the chunk is of which is the reference `number` of `segment`; `read` gives segments by place.
    ///
    /// None where it is no file that can be told as an executable: too large, or not listed whole. Reads the
    /// segments that list the file, and no others.
    ///
    /// # Errors
    /// What `read` gives, and segments that do not decode.
    pub fn around<E: From<manifest::Error>>(
        segment: u32,
        number: u32,
        mut read: impl FnMut(u32) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Self>, E> {
        let mut items = |place: u32| -> Result<Option<Vec<Item>>, E> {
            Ok(read(place)?.map(|bytes| manifest::decode_segment(&bytes)).transpose()?)
        };
        let (mut place, mut before) = (segment, number as usize);
        let mut passed = 0;
        let (path, bytes, first) = loop {
            let Some(items) = items(place)? else { return Ok(None) };
            if let Some(begin) = last_file(&items, before) {
                break begin;
            }
            passed += items.len();
            if place == 0 || passed > EXECUTABLE_CHUNKS_MAX {
                return Ok(None);
            }
            (place, before) = (place - 1, usize::MAX);
        };
        if bytes > EXECUTABLE_BYTES_MAX as u64 {
            return Ok(None);
        }
        let (mut left, mut chunks, mut next, mut skipped) = (bytes, Vec::new(), place, first);
        while left > 0 {
            let Some(items) = items(next)? else { return Ok(None) };
            let listed = items.into_iter().filter_map(|item| match item {
                Item::Chunk(chunk) => Some(chunk),
                _ => None,
            });
            let found = chunks.len();
            for chunk in listed.skip(skipped) {
                let Some(rest) = left.checked_sub(u64::from(chunk.bytes)) else { return Ok(None) };
                left = rest;
                chunks.push(chunk);
                if left == 0 {
                    break;
                }
            }
            if chunks.len() > EXECUTABLE_CHUNKS_MAX || (next > place && chunks.len() == found) {
                return Ok(None);
            }
            (next, skipped) = (next + 1, 0);
        }
        let count = u32::try_from(chunks.len()).expect("chunks of an executable are bounded");
        let first = u32::try_from(first).expect("segments' references are bounded");
        Ok(Some(Self { path, span: Span { segment: place, first, count }, chunks }))
    }
}

/// The last file that begins before the chunk with the number `before`: its path, its bytes, and how many chunks
/// there are before it.
fn last_file(items: &[Item], before: usize) -> Option<(Vec<u8>, u64, usize)> {
    let (mut chunks, mut file) = (0, None);
    for item in items {
        match item {
            Item::File { path, size, recipe: Recipe::Chunks, .. } => {
                file = Some((path.as_bytes().to_vec(), *size, chunks));
            }
            Item::File { .. } => file = None,
            Item::Chunk(_) if chunks == before => break,
            Item::Chunk(_) => chunks += 1,
            Item::Directory { .. } | Item::Symlink { .. } => {}
        }
    }
    file
}
