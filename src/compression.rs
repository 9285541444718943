//! Compresses runs of neighbouring chunks with zstd, and takes them apart within a known bound.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a payload is stored. The numbers are part of the format (FORMAT 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Codec {
    /// 0: as it is.
    Raw,
    /// 1: one zstd frame.
    Zstd,
}

impl From<Codec> for u8 {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }
}

impl TryFrom<u8> for Codec {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self, Error> {
        match number {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(Error::Codec(number)),
        }
    }
}

/// Why a payload could not be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A codec of a newer whit.
    #[error("codec {0} is unknown to this version")]
    Codec(u8),
    /// Not what was announced: damaged, or made to take more memory than it said.
    #[error("a payload does not decode to the {0} B it announced")]
    Payload(usize),
}

/// zstd's fastest positive level: for what is kept a short while only.
pub const LEVEL_FAST: i32 = 1;
/// zstd's own default: the best bytes for the time on the corpus (docs/decisions/0004).
pub const LEVEL_DEFAULT: i32 = 3;

/// Compresses payloads; holds zstd's working memory (about 1 MiB) for use again.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// Starts at `level`, in zstd's own numbers.
    pub fn new(level: i32) -> Self {
        Self(zstd::bulk::Compressor::new(level).expect("zstd takes every level"))
    }

    /// Compresses `plain`; keeps it raw unless that saves at least one part in 32.
    pub fn compress(&mut self, plain: &[u8]) -> (Codec, Vec<u8>) {
        match self.0.compress(plain) {
            Ok(small) if small.len() + plain.len() / 32 < plain.len() => (Codec::Zstd, small),
            _ => (Codec::Raw, plain.to_vec()),
        }
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

/// Takes payloads apart; holds zstd's working memory for use again.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// Starts with no memory of earlier payloads.
    pub fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().expect("zstd's working memory can be allocated"))
    }

    /// Decodes `payload` into exactly `plain_bytes` bytes, which replace what `plain` held.
    ///
    /// The caller bounds `plain_bytes`; never more than that is allocated, whatever the payload holds.
    ///
    /// # Errors
    /// [`Error::Payload`] where the payload is anything else.
    pub fn decompress(
        &mut self,
        codec: Codec,
        payload: &[u8],
        plain_bytes: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        plain.clear();
        match codec {
            Codec::Raw => plain.extend_from_slice(payload),
            Codec::Zstd => {
                plain.reserve(plain_bytes);
                self.0.decompress_to_buffer(payload, plain).map_err(|_| Error::Payload(plain_bytes))?;
            }
        }
        if plain.len() == plain_bytes { Ok(()) } else { Err(Error::Payload(plain_bytes)) }
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_never_grows_past_what_it_announced() {
        let bomb = zstd::bulk::compress(&vec![0; 10_000_000], 3).expect("zeros compress");
        let mut plain = Vec::new();
        let result = Decompressor::new().decompress(Codec::Zstd, &bomb, 1000, &mut plain);
        assert_eq!(result, Err(Error::Payload(1000)));
        assert!(plain.capacity() < 100_000);
    }

    #[test]
    fn what_does_not_shrink_stays_raw() {
        let mut compressor = Compressor::new(LEVEL_DEFAULT);
        let noise: Vec<u8> = (0..1000u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(compressor.compress(&noise).0, Codec::Raw);
        let (codec, small) = compressor.compress(&[7; 5000]);
        let mut plain = Vec::new();
        Decompressor::new().decompress(codec, &small, 5000, &mut plain).expect("it was just made");
        assert_eq!((codec, plain), (Codec::Zstd, vec![7; 5000]));
    }
}
