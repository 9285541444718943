//! Proves to the proxy that this machine has certain chunks, so that they need not be sent.

use serde_bytes::ByteArray;

use crate::agent::Result;
use crate::agent::scan::{LastOpened, Spool};
use format::manifest::SegmentIndex;
use protocol::wire::{Challenge, Possession};

/// Answers a challenge about chunks of some segments: reads them again and returns a keyed hash. Blocks.
///
/// Memory: one chunk.
///
/// # Errors
/// A file cannot be read or has changed; the challenge is about other segments.
pub fn prove(spool: &Spool, segments: &[SegmentIndex], challenge: &Challenge) -> Result<ByteArray<32>> {
    let mut marks = challenge.marks.iter();
    let mut possession = Possession::new(&challenge.nonce);
    let (mut last, mut plain, mut references) = (LastOpened::default(), Vec::new(), 0);
    for segment in segments {
        for located in spool.chunks(*segment)? {
            references += 1;
            if marks.next() == Some(true) {
                plain.clear();
                located.read_verified(&mut last, &mut plain)?;
                possession.add(&plain);
            }
        }
    }
    if challenge.marks.fits(references) {
        Ok(possession.proof())
    } else {
        Err(protocol::Error::OutOfTurn("a challenge about other segments").into())
    }
}
