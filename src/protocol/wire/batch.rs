//! Neighbouring chunks or segments, compressed together to be sent.

use serde::{Deserialize, Serialize};

use super::Marks;
use delta::compression::{self, Codec, Decompressor, LEVEL_DEFAULT, LEVEL_SMALL};
use format::manifest::SegmentName;
use format::pack::Frame;
use ground::faults::{Fault, faulty};
use ground::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX};

/// 64 KiB: segments up to this wait for a round trip, not for the link; all effort goes into their bytes.
const SMALL_BYTES: usize = 64 * 1024;

/// Why a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too many, too large, or empty.
    #[error("a batch of {count} parts and {bytes} B exceeds the limits, or is empty")]
    Bounds {
        /// Its parts.
        count: usize,
        /// The announced sum of their bytes.
        bytes: usize,
    },
    /// A payload that does not decode to what was announced.
    #[error(transparent)]
    Payload(#[from] compression::Error),
    /// Names whose bytes are no whole number of names.
    #[error("a list of names of {0} B is malformed")]
    Names(usize),
}

faulty! {
    BatchError;
    _ => Fault::Corrupt;
}

/// Consecutive parts under one codec. Their ids are not sent: the receiver hashes the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// How the payload is compressed.
    pub codec: Codec,
    /// Plain bytes of each part.
    pub lengths: Vec<u32>,
    /// The parts, one after another, under the codec.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

impl From<Frame> for Batch {
    /// Takes what is sent of a frame: all but the chunks' ids.
    fn from(Frame { codec, chunks, payload, .. }: Frame) -> Self {
        Self { codec, lengths: chunks.iter().map(|chunk| chunk.bytes).collect(), payload }
    }
}

impl Batch {
    /// Decodes the parts into `plain`, replacing its content; returns the range of each.
    ///
    /// # Errors
    /// Anything out of the bounds of a frame, or a payload that is not what it announced.
    pub fn open(
        &self,
        zstd: &mut Decompressor,
        plain: &mut Vec<u8>,
    ) -> Result<Vec<std::ops::Range<usize>>, BatchError> {
        let parts = ranges(&self.lengths)?;
        let bytes = parts.last().map_or(0, |part| part.end);
        if bytes > FRAME_PLAIN_MAX || self.payload.len() > FRAME_PLAIN_MAX || self.payload.is_empty() {
            return Err(BatchError::Bounds { count: parts.len(), bytes });
        }
        zstd.decompress(self.codec, &self.payload, bytes, plain)?;
        Ok(parts)
    }
}

/// Segments to send: thin or in full, some compressed against the base's segments that they replace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentBatch {
    /// Plain bytes of each segment.
    pub lengths: Vec<u32>,
    /// True if the payload is compressed against the base.
    pub against_base: bool,
    /// The segments, one after another: a zstd frame.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// Which of the chunk references, in order, the agent believes to be unseen, and sends unasked; or no marks.
    pub eager: Marks,
}

impl SegmentBatch {
    /// Compresses segments, against `base` where there is one, as small as they get where that takes little time.
    pub fn new(segments: &[Vec<u8>], base: Option<&[u8]>, eager: Marks) -> Self {
        let bytes: usize = segments.iter().map(Vec::len).sum();
        let is_small = base.is_some() || bytes <= SMALL_BYTES;
        let level = if is_small { LEVEL_SMALL } else { LEVEL_DEFAULT };
        Self::at_level(level, segments, base, eager)
    }

    /// Compresses segments at one of zstd's levels.
    pub fn at_level(level: i32, segments: &[Vec<u8>], base: Option<&[u8]>, eager: Marks) -> Self {
        let lengths = segments.iter().map(|bytes| u32::try_from(bytes.len()).expect("segments are some KiB"));
        let plain = segments.concat();
        let payload = compression::compress_against(base.unwrap_or_default(), &plain, level);
        Self { lengths: lengths.collect(), against_base: base.is_some(), payload, eager }
    }

    /// Decodes the segments.
    ///
    /// # Errors
    /// Anything out of the bounds of a batch, or a payload that is not what it announced.
    pub fn open(&self, base: &[u8]) -> Result<Vec<Vec<u8>>, BatchError> {
        let parts = ranges(&self.lengths)?;
        let bytes = parts.last().map_or(0, |part| part.end);
        if bytes > FRAME_PLAIN_MAX || self.payload.len() > FRAME_PLAIN_MAX {
            return Err(BatchError::Bounds { count: parts.len(), bytes });
        }
        let mut plain = Vec::new();
        compression::decompress_against(base, &self.payload, bytes, &mut plain)?;
        Ok(parts.into_iter().map(|part| plain[part].to_vec()).collect())
    }
}

/// Returns the range of each of some consecutive parts.
fn ranges(lengths: &[u32]) -> Result<Vec<std::ops::Range<usize>>, BatchError> {
    let count = lengths.len();
    if !(1..=FRAME_CHUNKS_MAX).contains(&count) {
        return Err(BatchError::Bounds { count, bytes: 0 });
    }
    let mut bytes = 0;
    let mut parts = Vec::with_capacity(count);
    for length in lengths {
        if !(1..=CHUNK_BYTES_MAX).contains(length) {
            return Err(BatchError::Bounds { count, bytes: *length as usize });
        }
        parts.push(bytes..bytes + *length as usize);
        bytes += *length as usize;
    }
    Ok(parts)
}

/// Encodes names: 8 bytes each, little-endian.
pub fn pack_names(names: impl Iterator<Item = SegmentName>) -> Vec<u8> {
    names.flat_map(|name| name.get().to_le_bytes()).collect()
}

/// Names cut to 4 bytes: enough where they are looked for among a few thousand (PROTOCOL 2).
pub fn pack_short_names(names: impl Iterator<Item = SegmentName>) -> Vec<u8> {
    names.flat_map(|name| name.short().to_le_bytes()).collect()
}

/// Reads names.
///
/// # Errors
/// A length that is no multiple of 8.
pub fn unpack_names(bytes: &[u8]) -> Result<Vec<SegmentName>, BatchError> {
    let (names, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() {
        Ok(names.iter().map(|name| SegmentName::new(u64::from_le_bytes(*name))).collect())
    } else {
        Err(BatchError::Names(bytes.len()))
    }
}

/// Reads short names.
///
/// # Errors
/// A length that is no multiple of 4.
pub fn unpack_short_names(bytes: &[u8]) -> Result<Vec<u32>, BatchError> {
    let (names, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(names.iter().map(|name| u32::from_le_bytes(*name)).collect())
    } else {
        Err(BatchError::Names(bytes.len()))
    }
}
