//! A segment on its way: its items, with short ids in place of chunk references (PROTOCOL 2).
//!
//! Who receives it has most of the chunks, and will have the rest: their full ids and lengths come from the
//! chunks themselves. A chunk reference takes 7 bytes instead of 38.

use super::builder::{SEGMENT_BYTES_MAX, SEGMENT_VERSION, SEGMENT_VERSION_LINKS};
use super::item::ItemError;
use super::reader::decode_segment;
use super::{Error, Item};
use crate::recipe::ChunkRef;
use ground::ids::{ChunkId, ShortId};

/// First byte of a thin segment.
const THIN_VERSION: u8 = 0x14;
/// The mark before a short id; no MessagePack value begins with it.
const SHORT_MARK: u8 = 0xc1;
/// The overhead of an allocation, in bytes.
const ALLOCATION: usize = 32;
/// References of one segment, at most: the shortest takes 36 bytes.
const REFERENCES_MAX: usize = SEGMENT_BYTES_MAX / 36;

/// One item of a thin segment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Whole(Item),
    Short(ShortId),
}

/// A reference to a chunk in a thin segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// By the beginning of its id.
    Short(ShortId),
    /// In full.
    Full(ChunkRef),
}

impl Reference {
    /// Returns the beginning of the chunk's id.
    pub fn short(&self) -> ShortId {
        match self {
            Self::Short(short) => *short,
            Self::Full(chunk) => chunk.id.into(),
        }
    }
}

impl Reference {
    /// Returns the chunk, where it is named in full.
    pub fn full(&self) -> Option<ChunkRef> {
        match self {
            Self::Short(_) => None,
            Self::Full(chunk) => Some(*chunk),
        }
    }
}

/// A segment with some short chunk references; [`Thin::fill`] completes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thin {
    parts: Vec<Part>,
}

/// Shortens the chunk references of a segment.
///
/// # Errors
/// Bytes that are no segment.
pub fn shorten(segment: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![THIN_VERSION];
    for item in decode_segment(segment)? {
        match item {
            Item::Chunk(chunk) => {
                out.push(SHORT_MARK);
                out.extend_from_slice(ShortId::from(chunk.id).as_bytes());
            }
            item => item.encode(&mut out),
        }
    }
    Ok(out)
}

impl Thin {
    /// Reads a received segment, thin or in full.
    ///
    /// # Errors
    /// Bytes that are neither, or too many references.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |offset| Error::Malformed { part: "segment", id: ChunkId::of(bytes), offset };
        if bytes.first() != Some(&THIN_VERSION) {
            return Ok(Self { parts: decode_segment(bytes)?.into_iter().map(Part::Whole).collect() });
        }
        // The full segment would be even longer.
        if bytes.len() > SEGMENT_BYTES_MAX {
            return Err(malformed(bytes.len()));
        }
        let mut parts = Vec::new();
        let (mut offset, mut references) = (1, 0);
        while let Some(first) = bytes.get(offset) {
            if *first == SHORT_MARK {
                let id = bytes[offset + 1..].first_chunk().ok_or_else(|| malformed(offset))?;
                parts.push(Part::Short(ShortId::from_bytes(*id)));
                offset += 1 + ShortId::BYTES;
                references += 1;
            } else {
                let (item, used) = Item::decode(&bytes[offset..]).map_err(|error| match error {
                    ItemError::Malformed => malformed(offset),
                    ItemError::Refused(error) => error,
                })?;
                parts.push(Part::Whole(item));
                offset += used;
            }
            if references > REFERENCES_MAX {
                return Err(malformed(offset));
            }
        }
        if parts.is_empty() { Err(malformed(1)) } else { Ok(Self { parts }) }
    }

    /// Returns the chunk references, in order.
    pub fn references(&self) -> impl Iterator<Item = Reference> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Short(short) => Some(Reference::Short(*short)),
            Part::Whole(Item::Chunk(chunk)) => Some(Reference::Full(*chunk)),
            Part::Whole(_) => None,
        })
    }

    /// Returns the items, `None` for each short reference.
    pub fn items(&self) -> impl Iterator<Item = Option<&Item>> + '_ {
        self.parts.iter().map(|part| match part {
            Part::Whole(item) => Some(item),
            Part::Short(_) => None,
        })
    }

    /// Returns its approximate size in memory: many times its size on the wire.
    pub fn memory_bytes(&self) -> usize {
        let paths = self.items().flatten().map(|item| match item {
            Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
                path.as_bytes().len() + target.len()
            }
            Item::HardLink { path, target } => path.as_bytes().len() + target.as_bytes().len(),
            item => item.path().map_or(0, |path| path.as_bytes().len()),
        });
        self.parts.capacity() * size_of::<Part>() + paths.map(|bytes| bytes + ALLOCATION).sum::<usize>()
    }

    /// Returns the segment's own bytes, with `chunks` for all references, in order.
    ///
    /// # Errors
    /// More bytes than a segment may have.
    pub fn fill(&self, chunks: impl IntoIterator<Item = ChunkRef>) -> Result<Vec<u8>, Error> {
        let mut chunks = chunks.into_iter();
        let links = |part: &Part| matches!(part, Part::Whole(item) if item.is_of_second_version());
        let is_second = self.parts.iter().any(links);
        let mut bytes = vec![if is_second { SEGMENT_VERSION_LINKS } else { SEGMENT_VERSION }];
        for part in &self.parts {
            let next = match part {
                Part::Short(_) | Part::Whole(Item::Chunk(_)) => chunks.next().map(Item::Chunk),
                Part::Whole(_) => None,
            };
            match (part, next) {
                (_, Some(chunk)) => chunk.encode(&mut bytes),
                (Part::Whole(item), None) => item.encode(&mut bytes),
                (Part::Short(_), None) => {}
            }
        }
        // Checks the reader's own bounds before any use.
        decode_segment(&bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::EntryPath;
    use crate::recipe::Recipe;

    fn segment(chunks: u32) -> (Vec<u8>, Vec<ChunkRef>) {
        let mut bytes = vec![SEGMENT_VERSION];
        let path = EntryPath::new("bin/app").expect("a path");
        Item::File { path, mode: 0o755, size: 9, recipe: Recipe::Chunks }.encode(&mut bytes);
        let chunks: Vec<ChunkRef> =
            (1..=chunks).map(|n| ChunkRef { id: ChunkId::of(&n.to_le_bytes()), bytes: n }).collect();
        for chunk in &chunks {
            Item::Chunk(*chunk).encode(&mut bytes);
        }
        (bytes, chunks)
    }

    #[test]
    fn a_thin_segment_becomes_what_it_was() {
        let (bytes, chunks) = segment(5);
        let thin = shorten(&bytes).expect("a segment");
        assert!(thin.len() + 5 * 29 < bytes.len());
        let read = Thin::decode(&thin).expect("just made");
        let shorts: Vec<ShortId> = read.references().map(|reference| reference.short()).collect();
        assert_eq!(shorts, chunks.iter().map(|chunk| chunk.id.into()).collect::<Vec<ShortId>>());
        assert_eq!(read.fill(chunks.clone()), Ok(bytes.clone()));
        let full = Thin::decode(&bytes).expect("in full");
        assert_eq!(
            full.references().collect::<Vec<_>>(),
            chunks.iter().map(|c| Reference::Full(*c)).collect::<Vec<_>>()
        );
        assert_eq!(full.fill(chunks), Ok(bytes));
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        let thin = shorten(&segment(3).0).expect("a segment");
        for length in 0..thin.len() {
            // A cut between two items leaves a shorter segment.
            if let Ok(read) = Thin::decode(&thin[..length]) {
                assert!(read.references().count() < 3);
            }
        }
        let mut endless = vec![THIN_VERSION];
        endless.extend(std::iter::repeat_n([SHORT_MARK, 0, 0, 0, 0, 0, 0], 1000).flatten());
        assert!(Thin::decode(&endless).is_err());
    }
}
