//! Chunks in transit that the proxy re-frames: compressed over a long window, against older content, or
//! encoded as changes of it.

use serde::{Deserialize, Serialize};

use delta::compression::{self, Codec};
use delta::patch;
use delta::rsync;
use format::manifest::{RefAt, SegmentIndex};
use ground::faults::{Fault, faulty};
use ground::limits::{
    CHUNK_BYTES_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNKS_MAX, EXECUTABLE_PAYLOAD_MAX, PARCEL_CHUNKS_MAX,
    PARCEL_PLAIN_MAX, PARCEL_SPANS_MAX,
};

/// Why a parcel was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParcelError {
    /// Too many, too large, or empty.
    #[error(
        "a parcel of {chunks} chunks, {bytes} B and {spans} runs of older chunks exceeds the limits, or is empty"
    )]
    Bounds {
        /// Its chunks.
        chunks: usize,
        /// The announced sum of their bytes.
        bytes: usize,
        /// Runs of older chunks.
        spans: usize,
    },
    /// A payload that does not decode to what was announced.
    #[error(transparent)]
    Payload(#[from] compression::Error),
    /// A delta of a region without block sums, or one that does not make its chunks.
    #[error("the delta of region {0} was not requested")]
    Region(u32),
    /// A patch that cannot be read.
    #[error(transparent)]
    Patch(#[from] patch::Error),
    /// A delta that cannot be read.
    #[error(transparent)]
    Delta(#[from] rsync::Error),
    /// A piece that does not belong to the parcel under way.
    #[error("a piece of a parcel is longer than announced, or belongs to no parcel")]
    Piece,
}

faulty! {
    ParcelError;
    _ => Fault::Corrupt;
}

/// A run of the base's chunks, in the order of its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The base's segment that lists the first.
    pub segment: SegmentIndex,
    /// Which of that segment's chunk references is the first.
    pub first: u32,
    /// How many chunks; they may go on in the segments that follow.
    pub count: u32,
}

impl Span {
    /// Returns where the first chunk is listed.
    pub fn begin(&self) -> RefAt {
        RefAt { segment: self.segment, reference: self.first }
    }
}

/// The content that a parcel's payload is encoded against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// Nothing: one zstd frame over all chunks.
    None,
    /// Older chunks that both sides have: the prefix of the zstd frame.
    Prefix(Vec<Span>),
    /// The same, as a patch.
    Patch(Vec<Span>),
    /// Regions with block sums from the proxy: the payload is what the deltas insert, and the chunks between them. The
    /// bytes that they copy, in order, are the prefix of the zstd frame.
    #[serde(rename = "Signed")]
    BlockSums(Vec<Section>),
    /// An older executable that both sides have: the payload rebuilds a whole new file
    /// ([`Encoded`](delta::relink::Encoded)), and the chunks are cuts of it.
    Executable(Vec<Span>, Vec<Cut>),
    /// An executable at the proxy that has some of the agent's records: the same by a
    /// [`Payload`](delta::relink::Payload) for the query of that number.
    Records(u32, Vec<Cut>),
}

/// Chunks of a file that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Bytes of the file before these that are not among the chunks.
    pub skipped: u32,
    /// How many chunks.
    pub chunks: u32,
}

/// Chunks encoded as a delta against a region with block sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Chunks before these that are sent whole.
    pub whole: u32,
    /// The region.
    pub region: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Copies and inserts ([`Delta::encode`](delta::rsync::Delta::encode)).
    #[serde(with = "serde_bytes")]
    pub delta: Vec<u8>,
}

/// The block sums of older content that missing chunks resemble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSums {
    /// The region's number, from 0.
    pub region: u32,
    /// The first of the chunks, among those that the `Missing` after this marks.
    pub first: u32,
    /// How many chunks.
    pub chunks: u32,
    /// Why this content: the number of a [`Rule`](delta::similar::Rule).
    pub rule: u8,
    /// The signature of the older content ([`Signature::encode`](delta::rsync::Signature::encode)).
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

/// A part of an agent's query about an executable in the next segments: the names of its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordQuery {
    /// The file's number, from 0.
    pub file: u32,
    /// The segment that lists the first of its chunks among those to come.
    pub segment: SegmentIndex,
    /// Which of that segment's chunk references is the first.
    pub first: u32,
    /// How many chunks, in the segments of one `Segments`.
    pub chunks: u32,
    /// The next bytes of the names of all records ([`RecordNames::encode`](delta::relink::RecordNames::encode)).
    #[serde(with = "serde_bytes")]
    pub names: Vec<u8>,
    /// True if the names are complete.
    pub complete: bool,
}

/// The records of a queried file that the proxy has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAnswer {
    /// The file's number.
    pub file: u32,
    /// The answer ([`Answer::encode`](delta::relink::Answer::encode)).
    #[serde(with = "serde_bytes")]
    pub answer: Vec<u8>,
}

/// The header that precedes the pieces of a parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Plain bytes of each chunk.
    pub lengths: Vec<u32>,
    /// The content that the payload is encoded against.
    pub basis: Basis,
    /// How the payload is compressed.
    pub codec: Codec,
    /// Bytes of the payload, all pieces together.
    pub payload_bytes: u32,
}

impl Parcel {
    /// Checks that all numbers are within bounds; returns the plain bytes of all chunks.
    ///
    /// # Errors
    /// [`ParcelError::Bounds`].
    pub fn plain_bytes(&self) -> Result<usize, ParcelError> {
        let bytes: usize = self.lengths.iter().map(|length| *length as usize).sum();
        let chunks = self.lengths.len();
        let spans = match &self.basis {
            Basis::None => 0,
            Basis::Prefix(spans) | Basis::Patch(spans) => spans.len(),
            Basis::BlockSums(sections) => sections.len(),
            Basis::Executable(spans, cuts) => spans.len().max(cuts.len()),
            Basis::Records(_, cuts) => cuts.len(),
        };
        let (chunks_max, plain_max, payload_max) = match &self.basis {
            Basis::Executable(..) | Basis::Records(..) => {
                (EXECUTABLE_CHUNKS_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_PAYLOAD_MAX)
            }
            _ => (PARCEL_CHUNKS_MAX, PARCEL_PLAIN_MAX, PARCEL_PLAIN_MAX),
        };
        let sized = self.lengths.iter().all(|length| (1..=CHUNK_BYTES_MAX).contains(length));
        let bounded = (1..=chunks_max).contains(&chunks)
            && bytes <= plain_max
            && spans <= PARCEL_SPANS_MAX
            && (1..=payload_max).contains(&(self.payload_bytes as usize));
        if sized && bounded { Ok(bytes) } else { Err(ParcelError::Bounds { chunks, bytes, spans }) }
    }
}
