//! Streams of Rust's `flate2` as it is by default: wheels of `maturin` until 2025, archives of the `zip` crate.
//!
//! The encoder is a library's: `miniz_oxide`, pinned to the release whose output `tests/it/deflate.golden` holds. Its
//! output depends on no pieces.

use miniz_oxide::deflate::core::CompressorOxide;
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

use super::method::Method;
use super::other_encoder::OtherEncoder;

/// 32 KiB: the output of one step, as in `flate2`.
const OUTPUT_BYTES: usize = 32 * 1024;

/// Memory: 350 KiB.
pub(super) struct MinizEncoder {
    compressor: Box<CompressorOxide>,
    output: Vec<u8>,
}

impl MinizEncoder {
    pub(super) fn new() -> Self {
        Self { compressor: Box::default(), output: vec![0; OUTPUT_BYTES] }
    }

    /// Returns the bytes read, and whether there is more to write. An error leaves a stream too short, which no proof accepts.
    fn step(&mut self, plain: &[u8], flush: MZFlush, out: &mut Vec<u8>) -> (usize, bool) {
        let done = deflate(&mut self.compressor, plain, &mut self.output, flush);
        out.extend_from_slice(&self.output[..done.bytes_written]);
        (done.bytes_consumed, done.status == Ok(MZStatus::Ok))
    }
}

impl OtherEncoder for MinizEncoder {
    fn reset(&mut self, method: &Method) {
        self.compressor.reset();
        self.compressor.set_format_and_level(DataFormat::Raw, method.level);
    }

    fn write(&mut self, mut plain: &[u8], out: &mut Vec<u8>) {
        while !plain.is_empty() {
            let (read, goes_on) = self.step(plain, MZFlush::None, out);
            plain = if goes_on { &plain[read..] } else { &[] };
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        while self.step(&[], MZFlush::Finish, out).1 {}
    }
}
