//! Compresses runs of neighbouring chunks with zstd, and decompresses them within a known bound.

use std::fmt;

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound};

use ground::threads;

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

/// The reasons why a payload cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A codec of a newer whit.
    #[error("codec {0} is unknown to this version")]
    Codec(u8),
    /// Not what was announced: damaged, or made to take more memory than it said.
    #[error("a payload does not decode to the announced {0} B")]
    Payload(usize),
}

/// zstd's fastest positive level: for content that is kept only a short while.
pub const LEVEL_FAST: i32 = 1;
/// zstd's own default: the best trade of bytes for time on the corpus (docs/decisions/0004).
pub const LEVEL_DEFAULT: i32 = 3;

/// For at most some 100 KB whose every byte waits for a round trip.
pub const LEVEL_SMALL: i32 = 19;

/// Compresses payloads; keeps zstd's working memory (about 1 MiB) for the next.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    /// Creates a compressor of `level`, in zstd's own numbers.
    pub fn new(level: i32) -> Self {
        Self(zstd::bulk::Compressor::new(level).expect("zstd takes every level"))
    }

    /// Compresses `plain`; keeps it raw unless that saves at least one part in 32.
    pub fn compress(&mut self, plain: &[u8]) -> (Codec, Vec<u8>) {
        threads::holds_up();
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

/// Decompresses payloads; keeps zstd's working memory for the next.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    /// Creates a decompressor.
    pub fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().expect("zstd's working memory can be allocated"))
    }

    /// Decodes `payload` into exactly `plain_bytes` bytes, which replace the content of `plain`.
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
                threads::holds_up();
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

/// zstd's bounds of a window, as powers of two; 32 MiB holds a parcel and its reference.
const WINDOW_LOG: std::ops::RangeInclusive<u32> = 10..=25;

/// Compresses `plain` against `prefix`, similar content that both sides have.
///
/// The window covers both. Memory: some three times both, at low levels.
pub fn compress_against(prefix: &[u8], plain: &[u8], level: i32) -> Vec<u8> {
    threads::holds_up();
    let mut context = CCtx::create();
    let reach = (prefix.len() + plain.len()).max(1).next_power_of_two().trailing_zeros();
    let window = reach.clamp(*WINDOW_LOG.start(), *WINDOW_LOG.end());
    let mut out = Vec::with_capacity(compress_bound(plain.len()));
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        // At high levels it costs bytes, as long as their tables cover the whole window.
        CParameter::EnableLongDistanceMatching(reach > 20 && level < 9),
    ];
    for parameter in parameters {
        context.set_parameter(parameter).expect("zstd knows its own parameters");
    }
    if !prefix.is_empty() {
        context.ref_prefix(prefix).expect("a fresh context takes a prefix");
    }
    context.compress2(&mut out, plain).expect("the output has room for the worst case");
    out
}

/// Decodes a payload of [`compress_against`] into exactly `plain_bytes` bytes, which replace the content of `plain`.
///
/// The caller bounds `plain_bytes`; never more than that is allocated.
///
/// # Errors
/// [`Error::Payload`] where the payload is anything else.
pub fn decompress_against(
    prefix: &[u8],
    payload: &[u8],
    plain_bytes: usize,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    threads::holds_up();
    let mut context = DCtx::create();
    plain.clear();
    plain.reserve_exact(plain_bytes);
    let failed = |_| Error::Payload(plain_bytes);
    context.set_parameter(DParameter::WindowLogMax(*WINDOW_LOG.end())).map_err(failed)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(failed)?;
    }
    context.decompress(plain, payload).map_err(failed)?;
    if plain.len() == plain_bytes { Ok(()) } else { Err(Error::Payload(plain_bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn against_its_own_past_a_text_is_nearly_nothing() {
        let old: Vec<u8> = (0..5000u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        let mut new = old.clone();
        new[70_000] ^= 1;
        let payload = compress_against(&old, &new, LEVEL_DEFAULT);
        assert!(payload.len() < 300, "{} B", payload.len());
        let mut plain = Vec::new();
        decompress_against(&old, &payload, new.len(), &mut plain).expect("just made");
        assert_eq!(plain, new);
        assert!(decompress_against(&old, &payload, new.len() - 1, &mut plain).is_err());
        assert!(decompress_against(&[], &payload, new.len(), &mut plain).is_err());
    }

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
