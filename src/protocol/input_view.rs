//! What the agent's half of a push needs of its input.

use crate::Error;
use crate::wire::{BlockSums, Challenge, Marks, RecordAnswer, RecordQuery, SegmentBatch, Sketches};
use format::manifest::SegmentIndex;

/// An input, as the agent's half of a push sees it. Answering reads files, hashes and compresses.
///
/// An error ends the push. It is the input's own, so that users see which file failed and why.
pub trait InputView {
    /// The errors of the input, and those of the conversation.
    type Error: From<Error>;

    /// Returns queries for the records of executables in these segments, to be sent before the segments; none where they
    /// do not pay.
    ///
    /// # Errors
    /// The input cannot be read.
    fn record_queries(&mut self, _: &[SegmentIndex]) -> Result<Vec<RecordQuery>, Self::Error> {
        Ok(Vec::new())
    }

    /// Encodes segments, and marks the chunks that are sent with them, unasked.
    ///
    /// # Errors
    /// The input cannot be read.
    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Self::Error>;

    /// Returns the [`Possession`](crate::wire::Possession) proof that the marked chunks of these segments are here.
    ///
    /// # Errors
    /// The input cannot be read, or has changed.
    fn prove(&mut self, segments: &[SegmentIndex], challenge: &Challenge) -> Result<[u8; 32], Self::Error>;

    /// Sketches those of these chunks that resemble nothing so far; none where a round trip does not pay.
    ///
    /// # Errors
    /// The input cannot be read.
    fn sketch(&mut self, _: &Chunks) -> Result<Option<Sketches>, Self::Error> {
        Ok(None)
    }

    /// Starts to encode chunks. The driver sends what comes of it, then calls
    /// [`push::Agent::chunks_sent`](crate::push::Agent::chunks_sent).
    ///
    /// # Errors
    /// The input cannot be read.
    fn encode(&mut self, chunks: Chunks) -> Result<(), Self::Error>;
}

/// Segments to send, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Which.
    pub segments: Vec<SegmentIndex>,
    /// In full instead of thin.
    pub full: bool,
    /// The base's segments to compress them against; none without a base.
    pub against: Option<Vec<SegmentIndex>>,
    /// True if the chunks that the base lacks are marked, and sent unasked.
    pub eager: bool,
}

/// Chunks to send: the marked ones of all chunk references of some segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    /// The segments.
    pub segments: Vec<SegmentIndex>,
    /// Marks over their chunk references, in order.
    pub marks: Marks,
    /// Block sums of the proxy's content that some of them resemble.
    pub block_sums: Vec<BlockSums>,
    /// The records that the proxy has of executables that were queried.
    pub answers: Vec<RecordAnswer>,
    /// True if the proxy has the base too.
    pub is_based: bool,
    /// True if the segment after these is sent too, and its chunks with another of these.
    pub goes_on: bool,
}
