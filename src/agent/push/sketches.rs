//! Sketches chunks that the proxy knows nothing like by their places and names.

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
    /// How many more the proxy takes.
    left: usize,
}

impl Default for Sketcher {
    fn default() -> Self {
        Self { left: PUSH_CHUNKS_IN_FLIGHT }
    }
}

impl Sketcher {
    /// Sketches those of the chunks that nothing `is_like`, counted among all of them, and that are not of
    /// executables that are `told` otherwise.
    ///
    /// None where that is too little to be worth a round trip. Blocks; reads them once more than they are sent.
    ///
    /// # Errors
    /// The segments cannot be read; a chunk that cannot is not sketched.
    pub fn sketch(
        &mut self,
        spool: &Spool,
        chunks: &Chunks,
        is_like: &[bool],
        told: &[Body],
    ) -> Result<Option<Sketches>> {
        let mut marks = chunks.marks.iter();
        let mut missing: Vec<Option<Located>> = Vec::new();
        for segment in &chunks.segments {
            let located = spool.chunks(*segment)?.into_iter().filter(|_| marks.next() == Some(true));
            missing.extend(
                located.map(|located| (!told.iter().any(|body| located.is_of(body))).then_some(located)),
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
            // Whatever is wrong with it is said when it is sent.
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
