//! The chunks that a pull has asked for.

use std::collections::{HashSet, VecDeque};

use super::listing::Listing;
use super::local_chunks::DirectoryChunks;
use crate::agent::{Error, Result};
use crate::restore::{self, ChunkReader};
use crate::store::{Store, StoreReader};
use format::manifest::{self, NodeRef, Reference, SegmentIndex, Thin};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use protocol::transfer::{Complete, Incomplete};
use protocol::wire::Marks;

/// The chunks that were asked for with one request.
pub(super) struct Window {
    /// In the order in which they come.
    pub expected: VecDeque<Reference>,
}

/// The chunks that were asked for, and the segments that wait for them.
#[derive(Default)]
pub(super) struct Awaited {
    room: Incomplete,
    /// Chunks of segments whose references are full.
    asked: HashSet<ChunkId>,
    /// Segments that became whole and are not stored yet.
    whole: Vec<Vec<u8>>,
}

impl Awaited {
    /// Marks the references of some segments that are to be asked for, and returns the chunks that will come.
    ///
    /// Leaves out chunks that are here, and those that were asked for already.
    pub fn open(
        &mut self,
        segments: impl Iterator<Item = SegmentIndex>,
        listing: &mut Listing,
        present: &DirectoryChunks,
        store: &Store,
    ) -> Result<(Marks, Window)> {
        let mut reader = StoreReader::new(store);
        let (mut marks, mut expected) = (Vec::new(), VecDeque::new());
        for index in segments {
            if let Some(thin) = listing.thin.remove(&index) {
                self.enter(index, thin, listing, present, store, &mut marks, &mut expected)?;
                continue;
            }
            let node = listing.nodes[usize::from(index)]
                .ok_or(Error::OutOfTurn("a segment that the release does not have"))?;
            for chunk in segment_chunks(&node, present, &mut reader)? {
                let is_here = present.has(&chunk.id) || store.find(&chunk.id)?.is_some();
                let missing = !is_here && self.asked.insert(chunk.id);
                if missing {
                    expected.push_back(Reference::Full(chunk));
                }
                marks.push(missing);
            }
        }
        Ok((marks.into_iter().collect(), Window { expected }))
    }

    /// Resolves the references of a thin segment to chunks that are here.
    #[expect(clippy::too_many_arguments, reason = "two places to look, two lists to fill")]
    fn enter(
        &mut self,
        index: SegmentIndex,
        thin: Thin,
        listing: &mut Listing,
        present: &DirectoryChunks,
        store: &Store,
        marks: &mut Vec<bool>,
        expected: &mut VecDeque<Reference>,
    ) -> Result<()> {
        let references: Vec<Reference> = thin.references().collect();
        let mut known = Vec::with_capacity(references.len());
        for reference in &references {
            known.push(match reference {
                Reference::Short(short) => match present.find_short(*short) {
                    Some(chunk) => Some(chunk),
                    None => store.find_short(*short)?,
                },
                Reference::Full(chunk) => {
                    let is_here = present.has(&chunk.id) || store.holds(chunk)?;
                    is_here.then_some(*chunk)
                }
            });
        }
        let (asked, complete) = self.room.enter(index, thin, known)?;
        expected.extend(asked.iter().zip(&references).filter(|(asked, _)| **asked).map(|(_, one)| *one));
        marks.extend(asked);
        if let Some(complete) = complete {
            self.take(complete, listing);
        }
        Ok(())
    }

    /// Takes the next chunk of a window, which must be the one that comes there.
    pub fn arrive(&mut self, bytes: &[u8], window: &mut Window, listing: &mut Listing) -> Result<ChunkRef> {
        let reference = window.expected.pop_front().ok_or(Error::OutOfTurn("Chunks"))?;
        let length = u32::try_from(bytes.len()).map_err(|_| Error::WrongChunk)?;
        let chunk = ChunkRef { id: ChunkId::of(bytes), bytes: length };
        // The manifest may lie about a length: a frame kept with it could not be read back.
        let is_expected = match reference {
            Reference::Full(expected) => expected == chunk,
            Reference::Short(short) => short == chunk.id.into(),
        };
        if !is_expected {
            return Err(Error::WrongChunk);
        }
        self.asked.remove(&chunk.id);
        for complete in self.room.arrive(chunk)?.into_iter().flatten() {
            self.take(complete, listing);
        }
        Ok(chunk)
    }

    fn take(&mut self, complete: Complete, listing: &mut Listing) {
        listing.nodes[usize::from(complete.index)] = Some(complete.node());
        self.whole.push(complete.bytes);
    }

    /// Returns the segments that became whole since the last call, to be stored.
    pub fn whole(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.whole)
    }
}

fn segment_chunks(
    segment: &NodeRef,
    present: &DirectoryChunks,
    reader: &mut StoreReader<&Store>,
) -> Result<Vec<ChunkRef>> {
    if let Some((_, bytes)) = present.segment(segment.name()) {
        return Ok(manifest::segment_chunks(bytes)?);
    }
    let mut bytes = Vec::new();
    let read = reader.read(&(*segment).into(), &mut bytes);
    read.map_err(restore::Error::from)?;
    Ok(manifest::segment_chunks(&bytes)?)
}
