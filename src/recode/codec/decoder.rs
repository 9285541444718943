//! Gives the plain bytes of streams of any format.

use super::format::Format;
use super::{lzma, zstandard};
use crate::deflate::{Broken, Inflater, Progress};

/// Decodes one stream after another. Memory: 75 KiB for deflate, at most 9 MiB else.
pub struct Decoder(Inner);

enum Inner {
    Deflate(Inflater),
    Xz(lzma::Decoder),
    Zstd(zstandard::Decoder),
}

impl Decoder {
    /// Begins a stream.
    pub fn new(format: Format) -> Self {
        Self(match format {
            Format::Deflate => Inner::Deflate(Inflater::default()),
            Format::Xz => Inner::Xz(lzma::Decoder::new()),
            Format::Zstd => Inner::Zstd(zstandard::Decoder::new()),
        })
    }

    /// Forgets the stream and begins another.
    pub fn reset(&mut self, format: Format) {
        match (&mut self.0, format) {
            (Inner::Deflate(inflater), Format::Deflate) => inflater.reset(),
            (_, format) => *self = Self::new(format),
        }
    }

    /// Decodes the next piece and passes the plain bytes to `take`, at most 128 KiB at once.
    ///
    /// # Errors
    /// A damaged stream, or one that takes too much memory; the first error of `take`.
    pub fn push<E>(
        &mut self,
        packed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, Broken<E>> {
        match &mut self.0 {
            Inner::Deflate(inflater) => inflater.push(packed, take),
            Inner::Xz(decoder) => decoder.push(packed, &mut take),
            Inner::Zstd(decoder) => decoder.push(packed, &mut take),
        }
    }
}
