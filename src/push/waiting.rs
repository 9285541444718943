//! Segments that came thin and wait for the chunks that complete them.

use std::collections::HashMap;

use super::Error;
use crate::ids::ShortId;
use crate::limits::PUSH_CHUNKS_IN_FLIGHT;
use crate::manifest::{NodeRef, Reference, Thin};
use crate::recipe::ChunkRef;

/// A reference that a chunk on its way will resolve.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    place: u32,
    reference: u32,
    /// The chunk, where the segment names it in full.
    full: Option<ChunkRef>,
}

#[derive(Debug)]
struct Waiting {
    thin: Thin,
    chunks: Vec<Option<ChunkRef>>,
    missing: usize,
}

/// A segment all of whose chunks are there.
#[derive(Debug)]
pub(super) struct Complete {
    /// Its place in the manifest.
    pub place: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The segments and chunks that a push still waits for. Memory: some 100 B for each reference, which are bounded.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    segments: HashMap<u32, Waiting>,
    asked: HashMap<ShortId, Vec<Waiter>>,
    references: usize,
}

impl WaitingRoom {
    /// Chunks that were asked for and have not come.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Takes a segment with what is known of its references, in order; says which chunks are to be asked
    /// for, and gives the segment back where nothing is missing.
    pub fn enter(
        &mut self,
        place: u32,
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
            let full = match reference {
                Reference::Full(chunk) => Some(chunk),
                Reference::Short(_) => None,
            };
            let waiters = self.asked.entry(reference.short()).or_default();
            let contradicts = |waiter: &Waiter| {
                waiter
                    .full
                    .zip(full)
                    .is_some_and(|(one, other)| one.id == other.id && one.bytes != other.bytes)
            };
            if let (Some(waiter), Some(other)) = (waiters.iter().find(|waiter| contradicts(waiter)), full) {
                let expected = waiter.full.map_or(0, |chunk| chunk.bytes);
                return Err(Error::Length { id: other.id, expected, found: other.bytes });
            }
            let is_new = |waiter: &Waiter| waiter.full.map(|chunk| chunk.id) != full.map(|chunk| chunk.id);
            // Chunks that begin alike, named in full, are asked for each.
            marks.push(waiters.iter().all(is_new));
            waiters.push(Waiter { place, reference: number, full });
            missing += 1;
        }
        if missing == 0 {
            return Ok((marks, Some(Complete { place, bytes: thin.fill(known.into_iter().flatten())? })));
        }
        self.references += known.len();
        if self.references > PUSH_CHUNKS_IN_FLIGHT {
            return Err(Error::Limit { what: "chunks in flight", max: PUSH_CHUNKS_IN_FLIGHT });
        }
        self.segments.insert(place, Waiting { thin, chunks: known, missing });
        Ok((marks, None))
    }

    /// Whether somebody waits for the chunk; then those that wait for nothing else are complete.
    pub fn arrive(&mut self, chunk: ChunkRef) -> Result<Option<Vec<Complete>>, Error> {
        let short = ShortId::from(chunk.id);
        let Some(waiters) = self.asked.get_mut(&short) else { return Ok(None) };
        let meant = |waiter: &Waiter| waiter.full.is_none_or(|full| full == chunk);
        let answered: Vec<Waiter> = waiters.iter().copied().filter(meant).collect();
        if answered.is_empty() {
            return Ok(None);
        }
        waiters.retain(|waiter| !meant(waiter));
        if waiters.is_empty() {
            self.asked.remove(&short);
        }
        let mut complete = Vec::new();
        for waiter in answered {
            let Some(segment) = self.segments.get_mut(&waiter.place) else { continue };
            segment.chunks[waiter.reference as usize] = Some(chunk);
            segment.missing -= 1;
            if segment.missing == 0
                && let Some(segment) = self.segments.remove(&waiter.place)
            {
                self.references -= segment.chunks.len();
                let bytes = segment.thin.fill(segment.chunks.into_iter().flatten())?;
                complete.push(Complete { place: waiter.place, bytes });
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
    /// The segment's name and length.
    pub fn node(&self) -> NodeRef {
        let bytes = u32::try_from(self.bytes.len()).expect("a segment is some KiB");
        NodeRef { id: crate::ids::ChunkId::of(&self.bytes), bytes }
    }
}
