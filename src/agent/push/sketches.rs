//! Sketches chunks, so that the proxy can find similar content where paths and neighbours give none.

use crate::agent::Result;
use crate::agent::scan::{Body, LastOpened, Located, Spool};
use delta::similar::Sketch;
use ground::limits::{PUSH_CHUNKS_IN_FLIGHT, SKETCHES_MAX};
use protocol::push::Chunks;
use protocol::wire::Sketches;

/// 32 KiB: for less, the round trip is not worth it.
const BYTES_MIN: u64 = 32 * 1024;

/// Sketches the chunks of one push.
#[derive(Debug, Clone, Copy)]
pub struct Sketcher {
    /// How many more sketches the proxy takes in this push.
    left: usize,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self { left: PUSH_CHUNKS_IN_FLIGHT }
    }
}

impl Sketcher {
    /// Sketches the marked chunks for which `is_like` says false, except those of `answered` executables.
    ///
    /// Returns none where these are too few bytes to be worth a round trip. Blocks; reads the chunks.
    ///
    /// # Errors
    /// The segments cannot be read. A chunk that cannot be read is not sketched.
    pub fn sketch(
        &mut self,
        spool: &Spool,
        chunks: &Chunks,
        is_like: &[bool],
        answered: &[Body],
    ) -> Result<Option<Sketches>> {
        let mut marks = chunks.marks.iter();
        let mut missing: Vec<Option<Located>> = Vec::new();
        for segment in &chunks.segments {
            let located = spool.chunks(*segment)?.into_iter().filter(|_| marks.next() == Some(true));
            missing.extend(
                located.map(|located| (!answered.iter().any(|body| located.is_of(body))).then_some(located)),
            );
        }
        for (located, _) in missing.iter_mut().zip(is_like).filter(|(_, is_like)| **is_like) {
            *located = None;
        }
        let bytes: u64 = missing.iter().flatten().map(|located| u64::from(located.chunk.bytes)).sum();
        if bytes < BYTES_MIN {
            return Ok(None);
        }
        let (mut last, mut plain) = (LastOpened::default(), Vec::new());
        let sketch = |located: Option<Located>| {
            plain.clear();
            // A chunk that cannot be read fails the push when it is sent.
            located?.read_verified(&mut last, &mut plain).ok()?;
            Sketch::of(&plain)
        };
        let sketches: Vec<Option<Sketch>> = missing.into_iter().map(sketch).collect();
        let count = sketches.iter().flatten().count();
        if count == 0 || count > self.left.min(SKETCHES_MAX) {
            return Ok(None);
        }
        self.left -= count;
        Ok(Some(Sketches::new(&sketches)))
    }
}
