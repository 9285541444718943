//! Segments that came thin and wait for the chunks that complete them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::Error;
use format::manifest::{NodeRef, RefAt, SegmentIndex, Thin};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ShortId};
use ground::limits::PUSH_CHUNKS_IN_FLIGHT;

/// An awaited chunk: by a prefix of its id, or by the full id in a segment.
type Awaited = (ShortId, Option<ChunkId>);

#[derive(Debug)]
struct Waiting {
    thin: Thin,
    chunks: Vec<Option<ChunkRef>>,
    missing: usize,
    memory_bytes: usize,
}

/// A segment with all its chunks.
#[derive(Debug)]
pub struct Complete {
    /// Its index in the manifest.
    pub index: SegmentIndex,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Memory of a reference beside its segment's: the chunk, and the waiting segments.
const REFERENCE_BYTES: usize = 160;

/// The segments and chunks that a push still waits for. Memory: [`Incomplete::memory_bytes`], and of the references
/// alone no more than is bounded.
#[derive(Debug, Default)]
pub struct Incomplete {
    segments: HashMap<SegmentIndex, Waiting>,
    /// Who waits for each, and the length that a segment gives it, where it is named in full.
    asked: HashMap<Awaited, (u32, Vec<RefAt>)>,
    references: usize,
    memory_bytes: usize,
}

impl Incomplete {
    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Chunks that were asked for and have not come.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Takes a segment with what is known of its references, in order; says which chunks are to be asked
    /// for, and gives the segment back where nothing is missing.
    ///
    /// # Errors
    /// Two lengths for one chunk; more references than may wait at a time; a segment out of bounds.
    pub fn enter(
        &mut self,
        index: SegmentIndex,
        thin: Thin,
        known: Vec<Option<ChunkRef>>,
    ) -> Result<(Vec<bool>, Option<Complete>), Error> {
        let mut marks = Vec::with_capacity(known.len());
        let mut missing = 0;
        for (number, (reference, chunk)) in (0..).zip(thin.references().zip(&known)) {
            if chunk.is_some() {
                marks.push(false);
                continue;
            }
            let full = reference.full();
            let length = full.map_or(0, |chunk| chunk.bytes);
            let awaited = (reference.short(), full.map(|chunk| chunk.id));
            let (expected, waiters) = self.asked.entry(awaited).or_insert((length, Vec::new()));
            if let Some(full) = full.filter(|full| full.bytes != *expected) {
                return Err(Error::Length { id: full.id, expected: *expected, found: full.bytes });
            }
            // Chunks that begin alike, named in full, are asked for each.
            marks.push(waiters.is_empty());
            waiters.push(RefAt { segment: index, reference: number });
            missing += 1;
        }
        if missing == 0 {
            return Ok((marks, Some(Complete { index, bytes: thin.fill(known.into_iter().flatten())? })));
        }
        self.references += known.len();
        if self.references > PUSH_CHUNKS_IN_FLIGHT {
            return Err(Error::Limit { what: "chunks in flight", max: PUSH_CHUNKS_IN_FLIGHT });
        }
        let memory_bytes = thin.memory_bytes() + known.len() * REFERENCE_BYTES;
        self.memory_bytes += memory_bytes;
        self.segments.insert(index, Waiting { thin, chunks: known, missing, memory_bytes });
        Ok((marks, None))
    }

    /// Takes a chunk: `None` if no segment waits for it, else the segments that it completes.
    ///
    /// # Errors
    /// A segment out of bounds.
    pub fn arrive(&mut self, chunk: ChunkRef) -> Result<Option<Vec<Complete>>, Error> {
        let short = ShortId::from(chunk.id);
        let mut answered = Vec::new();
        if let Entry::Occupied(entry) = self.asked.entry((short, Some(chunk.id)))
            && entry.get().0 == chunk.bytes
        {
            answered.extend(entry.remove().1);
        }
        answered.extend(self.asked.remove(&(short, None)).into_iter().flat_map(|(_, waiters)| waiters));
        if answered.is_empty() {
            return Ok(None);
        }
        let mut complete = Vec::new();
        for waiter in answered {
            let Some(segment) = self.segments.get_mut(&waiter.segment) else { continue };
            segment.chunks[waiter.reference as usize] = Some(chunk);
            segment.missing -= 1;
            if segment.missing == 0
                && let Some(segment) = self.segments.remove(&waiter.segment)
            {
                self.references -= segment.chunks.len();
                self.memory_bytes -= segment.memory_bytes;
                let bytes = segment.thin.fill(segment.chunks.into_iter().flatten())?;
                complete.push(Complete { index: waiter.segment, bytes });
            }
        }
        Ok(Some(complete))
    }

    /// Forgets all: for a dry run, in which nothing comes.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Complete {
    /// Returns the segment's name and length.
    pub fn node(&self) -> NodeRef {
        let bytes = u32::try_from(self.bytes.len()).expect("a segment is some KiB");
        NodeRef { id: ChunkId::of(&self.bytes), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::manifest::{EntryPath, Item, shorten};
    use format::recipe::Recipe;

    fn chunk(n: u8) -> ChunkRef {
        ChunkRef { id: ChunkId::of(&[n]), bytes: 1 }
    }

    fn segment(chunks: &[ChunkRef]) -> Vec<u8> {
        let path = EntryPath::new("a").expect("a path");
        let size = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        let mut bytes = vec![0x11];
        Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }.encode(&mut bytes);
        for chunk in chunks {
            Item::Chunk(*chunk).encode(&mut bytes);
        }
        bytes
    }

    fn thin(chunks: &[ChunkRef]) -> Thin {
        let short = shorten(&segment(chunks)).expect("a segment");
        Thin::decode(&short).expect("just made")
    }

    #[test]
    fn a_segment_is_complete_with_the_last_of_its_chunks_and_each_is_asked_for_once() {
        let mut room = Incomplete::default();
        let [one, two, three] = [1, 2, 3].map(chunk);
        let (asked, complete) =
            room.enter(SegmentIndex::new(0), thin(&[one, two, one]), vec![None; 3]).expect("in bounds");
        assert_eq!((asked, complete.is_none()), (vec![true, true, false], true));
        let known = vec![Some(three), None];
        let (asked, complete) =
            room.enter(SegmentIndex::new(1), thin(&[three, two]), known).expect("in bounds");
        assert_eq!((asked, complete.is_none(), room.asked()), (vec![false, false], true, 2));
        assert!(room.arrive(three).expect("in bounds").is_none(), "nobody waits for it");
        assert_eq!(room.arrive(one).expect("in bounds").map(|complete| complete.len()), Some(0));
        let mut complete = room.arrive(two).expect("in bounds").expect("two wait for it");
        complete.sort_by_key(|complete| complete.index);
        let bytes: Vec<Vec<u8>> = complete.into_iter().map(|complete| complete.bytes).collect();
        assert_eq!(bytes, [segment(&[one, two, one]), segment(&[three, two])]);
        assert!(room.arrive(two).expect("in bounds").is_none(), "it is there");
        assert_eq!((room.asked(), room.references, room.memory_bytes()), (0, 0, 0));
    }

    #[test]
    fn what_is_named_in_full_is_taken_as_nothing_else() {
        let mut room = Incomplete::default();
        let full = Thin::decode(&segment(&[chunk(1)])).expect("a segment");
        room.enter(SegmentIndex::new(0), full, vec![None]).expect("in bounds");
        let other = ChunkRef { bytes: 2, ..chunk(1) };
        assert!(room.arrive(other).expect("in bounds").is_none(), "another length");
        assert_eq!(room.arrive(chunk(1)).expect("in bounds").map(|complete| complete.len()), Some(1));
    }

    #[test]
    fn a_segment_is_counted_as_it_lies_in_memory() {
        let mut bytes = vec![0x11];
        for number in 0..1000u16 {
            let path = EntryPath::new(format!("{number:04x}")).expect("a path");
            Item::Directory { path, mode: 0o755 }.encode(&mut bytes);
        }
        Item::Chunk(chunk(1)).encode(&mut bytes);
        let mut room = Incomplete::default();
        room.enter(SegmentIndex::new(0), Thin::decode(&bytes).expect("a segment"), vec![None])
            .expect("in bounds");
        let least = 1000 * (size_of::<Item>() + 4);
        assert!(
            room.memory_bytes() >= least.max(8 * bytes.len()),
            "{} of {}",
            room.memory_bytes(),
            bytes.len()
        );
        room.clear();
        assert_eq!(room.memory_bytes(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut room = Incomplete::default();
        let chunks: Vec<ChunkRef> = (0..40).map(chunk).collect();
        let places = u32::try_from(PUSH_CHUNKS_IN_FLIGHT / 40).expect("few");
        for place in 0..places {
            room.enter(SegmentIndex::new(place), thin(&chunks), vec![None; 40]).expect("within the bound");
        }
        let over = room.enter(SegmentIndex::new(places), thin(&chunks), vec![None; 40]);
        assert!(matches!(over, Err(Error::Limit { max: PUSH_CHUNKS_IN_FLIGHT, .. })));
    }
}
