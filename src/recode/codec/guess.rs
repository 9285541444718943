//! Finds out how an xz stream or a zstd frame was made, by making it again.
//!
//! Its headers say which settings there may be. Each encodes the first plain bytes until the first difference; the one that
//! has none makes the whole stream again, and only if all of it is the same that is the answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decoder::Decoder;
use super::encoder::Encoder;
use super::format::Format;
use super::frame::{self, Frame};
use super::xz::{self, Xz};
use super::{Method, lzma};
use crate::deflate::{self, Broken, Known, Progress};

/// 4 MiB of plain bytes: twice the most of an LZMA2 chunk, which is enough for a comparison.
const TRIAL_PLAIN_BYTES: u64 = 4 * 1024 * 1024;
/// 64 KiB, a full LZMA2 chunk: presets that agree so far hardly ever differ.
const TRIAL_PACKED_BYTES: usize = 64 * 1024;
/// 2: presets that agree at first and are tried on the whole stream.
const PRESETS_MAX: usize = 2;
/// 2: levels of zstd whose first block agrees and that are tried on the whole stream, with jobs and without.
const LEVELS_MAX: u32 = 2;

/// A reproducible stream: its extent and its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Bytes of the stream.
    pub packed: u64,
    /// Bytes that it decodes to.
    pub plain: u64,
    /// The method that reproduces it.
    pub method: Option<Method>,
}

impl From<deflate::Stream> for Stream {
    fn from(deflate::Stream { packed, plain, method }: deflate::Stream) -> Self {
        Self { packed, plain, method: method.map(Method::Deflate) }
    }
}

/// Finds the methods of streams. Memory: that of an [`Encoder`] while it tries one.
#[derive(Default)]
pub struct Guesser {
    encoder: Encoder,
    encoded: Vec<u8>,
    stopping: Arc<AtomicBool>,
}

/// Ends decoding early.
struct Stop;

impl Guesser {
    /// Ends its work soon once `stopping` is set: what it returns is then worth nothing.
    #[must_use]
    pub fn stopped_by(self, stopping: Arc<AtomicBool>) -> Self {
        Self { stopping, ..self }
    }

    /// Measures the stream of `format` at the start of `bytes` and finds its method.
    ///
    /// `None` if it is damaged, cut short, or decodes to more than `plain_max`. Time: that
    /// of encoding it once, at most twice for xz and four times for zstd, and of encoding up to 4 MiB for each setting. What is
    /// `known` of the stream is believed: nothing is encoded then, nor decoded where the plain bytes are known.
    pub fn stream(
        &mut self,
        format: Format,
        bytes: &[u8],
        plain_max: u64,
        known: Option<Known<Method>>,
    ) -> Option<Stream> {
        if let Some(Known { packed, plain: Some(plain), method }) = known {
            let is_bounded = plain <= plain_max && packed <= bytes.len() as u64;
            return is_bounded.then_some(Stream { packed, plain, method: Some(method) });
        }
        let (packed, plain) = measure(format, bytes, plain_max, &self.stopping)?;
        let known = known.filter(|known| known.packed == packed as u64);
        let stream = &bytes[..packed];
        let method = match format {
            _ if known.is_some() => known.map(|known| known.method),
            Format::Xz => self.xz(stream, plain),
            Format::Zstd => self.frame(stream),
            Format::Deflate => None,
        };
        // An encoder that was given up still holds its memory.
        self.encoder = Encoder::default();
        Some(Stream { packed: packed as u64, plain, method })
    }

    fn xz(&mut self, stream: &[u8], plain: u64) -> Option<Method> {
        let header = xz::Header::read(stream)?;
        let first = header.first_block(plain);
        let mut made = 0;
        for xz in header.likely(plain) {
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            if made < PRESETS_MAX && self.begins_so(&xz, stream, header.data_at, first).unwrap_or(false) {
                let method = Method::Xz(xz);
                if self.prove(&method, stream).0 {
                    return Some(method);
                }
                made += 1;
            }
        }
        None
    }

    /// Returns whether the data of the first block, from `at` on, begin with what `xz` makes of the first of its
    /// `plain` bytes.
    fn begins_so(&mut self, xz: &Xz, stream: &[u8], at: usize, plain: u64) -> io::Result<bool> {
        let mut encoder = lzma::Encoder::block(xz)?;
        let (mut at, mut left, mut same) = (at, plain, true);
        let (left_end, at_end) = (plain.saturating_sub(TRIAL_PLAIN_BYTES), at + TRIAL_PACKED_BYTES);
        let encoded = &mut self.encoded;
        encoded.clear();
        let mut compare = |encoded: &mut Vec<u8>| {
            same &= stream.get(at..).is_some_and(|stream| stream.starts_with(encoded));
            at += encoded.len();
            encoded.clear();
            same && at < at_end
        };
        let ended = Decoder::new(Format::Xz).push(stream, |piece| {
            let piece = &piece[..piece.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            left -= piece.len() as u64;
            encoder.write(piece, encoded).map_err(|_| Stop)?;
            if compare(encoded) && left > left_end { Ok(()) } else { Err(Stop) }
        });
        drop(ended);
        if left == 0 && compare(encoded) {
            // Short blocks come out only at their end.
            encoder.finish(encoded)?;
            compare(encoded);
        }
        Ok(same)
    }

    fn frame(&mut self, stream: &[u8]) -> Option<Method> {
        let header = frame::Header::read(stream)?;
        let mut levels = 0;
        for single in header.likely() {
            if self.stopping.load(Ordering::Relaxed) {
                break;
            }
            let (same, at) = self.prove(&Method::Zstd(single), stream);
            if same {
                return Some(Method::Zstd(single));
            }
            if at < header.first_block_end {
                continue;
            }
            let jobs = Method::Zstd(Frame { jobs: true, ..single });
            if self.prove(&jobs, stream).0 {
                return Some(jobs);
            }
            levels += 1;
            if levels == LEVELS_MAX {
                break;
            }
        }
        None
    }

    /// Returns whether `method` makes `stream`, and the least number of its first bytes that it makes.
    pub fn prove(&mut self, method: &Method, stream: &[u8]) -> (bool, u64) {
        self.try_to_prove(method, stream).unwrap_or((false, 0))
    }

    fn try_to_prove(&mut self, method: &Method, stream: &[u8]) -> io::Result<(bool, u64)> {
        let Self { encoder, encoded, stopping } = self;
        encoder.begin(method)?;
        encoded.clear();
        let mut at = 0;
        let mut compare = |encoded: &mut Vec<u8>| {
            let same = encoded.iter().zip(&stream[at..]).take_while(|(one, other)| one == other).count();
            at += same;
            let all = same == encoded.len();
            encoded.clear();
            if all { Ok(()) } else { Err(Stop) }
        };
        let ended = Decoder::new(method.format()).push(stream, |piece| {
            encoder.write(piece, encoded).map_err(|_| Stop)?;
            if stopping.load(Ordering::Relaxed) {
                return Err(Stop);
            }
            compare(encoded)
        });
        if !matches!(ended, Ok(Progress::End(_))) {
            debug_assert!(!matches!(ended, Err(Broken::Stream)), "the stream was measured");
            return Ok((false, at as u64));
        }
        encoder.finish(encoded)?;
        let all = compare(encoded).is_ok();
        Ok((all && at == stream.len(), at as u64))
    }
}

fn measure(format: Format, bytes: &[u8], plain_max: u64, stopping: &AtomicBool) -> Option<(usize, u64)> {
    let mut plain = 0;
    let ended = Decoder::new(format).push(bytes, |piece| {
        plain += piece.len() as u64;
        if plain > plain_max || stopping.load(Ordering::Relaxed) { Err(Stop) } else { Ok(()) }
    });
    match ended {
        Ok(Progress::End(packed)) => Some((packed, plain)),
        _ => None,
    }
}
