//! Neighbouring chunks or segments on their way, compressed together.

use serde::{Deserialize, Serialize};

use crate::compression::{self, Codec, Decompressor};
use crate::faults::{Fault, Faulty};
use crate::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX};

/// Why a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too many, too large, or empty.
    #[error("a batch of {count} parts and {bytes} B is out of bounds")]
    Bounds {
        /// Its parts.
        count: usize,
        /// What they say they add up to.
        bytes: usize,
    },
    /// A payload that is not what it announced.
    #[error(transparent)]
    Payload(#[from] compression::Error),
    /// Names that are no list of 8-byte numbers.
    #[error("a list of names of {0} B is malformed")]
    Names(usize),
}

impl Faulty for BatchError {
    fn fault(&self) -> Fault {
        Fault::Corrupt
    }
}

/// Parts that follow one another, under one codec. Their ids do not travel: who receives them, hashes them.
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

impl Batch {
    /// Decodes the parts into `plain`, which they replace, and gives out where each lies.
    ///
    /// # Errors
    /// Anything out of the bounds of a frame, or a payload that is not what it announced.
    pub fn open(
        &self,
        zstd: &mut Decompressor,
        plain: &mut Vec<u8>,
    ) -> Result<Vec<std::ops::Range<usize>>, BatchError> {
        let count = self.lengths.len();
        let mut bytes = 0;
        let mut parts = Vec::with_capacity(count.min(FRAME_CHUNKS_MAX));
        let out_of_bounds = |bytes| BatchError::Bounds { count, bytes };
        if !(1..=FRAME_CHUNKS_MAX).contains(&count) {
            return Err(out_of_bounds(0));
        }
        for length in &self.lengths {
            if !(1..=CHUNK_BYTES_MAX).contains(length) {
                return Err(out_of_bounds(*length as usize));
            }
            parts.push(bytes..bytes + *length as usize);
            bytes += *length as usize;
        }
        if bytes > FRAME_PLAIN_MAX || self.payload.len() > FRAME_PLAIN_MAX || self.payload.is_empty() {
            return Err(out_of_bounds(bytes));
        }
        zstd.decompress(self.codec, &self.payload, bytes, plain)?;
        Ok(parts)
    }
}

/// Names as they travel: 8 bytes each, little-endian.
pub fn pack_names(names: impl Iterator<Item = u64>) -> Vec<u8> {
    names.flat_map(u64::to_le_bytes).collect()
}

/// Reads names.
///
/// # Errors
/// A length that is no multiple of 8.
pub fn unpack_names(bytes: &[u8]) -> Result<Vec<u64>, BatchError> {
    let (names, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() {
        Ok(names.iter().map(|name| u64::from_le_bytes(*name)).collect())
    } else {
        Err(BatchError::Names(bytes.len()))
    }
}
