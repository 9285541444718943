//! Inflates a stream piece by piece, in bounded memory; the decoder is `miniz_oxide`, which has no unsafe code.

use miniz_oxide::inflate::TINFLStatus as Status;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// 64 KiB: twice the farthest copy, and a power of two, as the decoder requires.
const BUFFER_BYTES: usize = 64 * 1024;

/// The progress of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All bytes were used and the stream did not end.
    More,
    /// The stream ended; the number of bytes used of this piece.
    End(usize),
}

/// The reasons why inflating stops.
#[derive(Debug, thiserror::Error)]
pub enum Broken<E> {
    /// Not a deflate stream.
    #[error("the deflate stream is damaged")]
    Stream,
    /// The receiver of the plain bytes refused them.
    #[error(transparent)]
    Taker(E),
}

/// Decodes one stream after another. Memory: 75 KiB.
pub struct Inflater {
    decoder: Box<DecompressorOxide>,
    buffer: Vec<u8>,
    at: usize,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { decoder: Box::default(), buffer: vec![0; BUFFER_BYTES], at: 0 }
    }
}

impl Inflater {
    /// Drops the stream and begins another.
    pub fn reset(&mut self) {
        self.decoder.init();
        self.at = 0;
    }

    /// Decodes the next piece and passes the plain bytes to `take`, at most 64 KiB at once.
    ///
    /// # Errors
    /// A damaged stream, or the first error of `take`.
    pub fn push<E>(
        &mut self,
        packed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, Broken<E>> {
        let mut used = 0;
        loop {
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
            let (status, read, written) =
                decompress(&mut self.decoder, &packed[used..], &mut self.buffer, self.at, flags);
            used += read;
            if written > 0 {
                take(&self.buffer[self.at..self.at + written]).map_err(Broken::Taker)?;
                self.at = (self.at + written) % BUFFER_BYTES;
            }
            match status {
                Status::Done => return Ok(Progress::End(used)),
                Status::NeedsMoreInput => return Ok(Progress::More),
                Status::HasMoreOutput => {}
                _ => return Err(Broken::Stream),
            }
        }
    }
}
