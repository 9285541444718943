//! Encodes and decodes zstd frames; the library is libzstd, pinned to one version.

use std::io;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective as End;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

use super::frame::{Frame, WINDOW_LOG_MAX};
use crate::deflate::{Broken, Progress};

/// 128 KiB: the output of one step.
const BUFFER_BYTES: usize = 128 * 1024;

/// Encodes one frame. Memory: at level 19 90 MiB, with jobs 128 MiB more.
pub(super) struct Encoder {
    context: CCtx<'static>,
    buffer: Vec<u8>,
    /// Remaining plain bytes, where they are known; the frame ends with the last, as in programs.
    left: Option<u64>,
    ended: bool,
}

impl Encoder {
    /// Begins `frame`, which must have passed its check.
    ///
    /// # Errors
    /// No memory.
    pub fn new(frame: &Frame) -> io::Result<Self> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        for parameter in [
            CParameter::CompressionLevel(i32::from(frame.level)),
            CParameter::ChecksumFlag(frame.checked),
            // The number of threads changes nothing but the memory.
            CParameter::NbWorkers(u32::from(frame.jobs)),
        ] {
            context.set_parameter(parameter).map_err(|_| io::ErrorKind::Unsupported)?;
        }
        context.set_pledged_src_size(frame.plain_bytes).map_err(|_| io::ErrorKind::Unsupported)?;
        Ok(Self { context, buffer: vec![0; BUFFER_BYTES], left: frame.plain_bytes, ended: false })
    }

    /// Encodes `plain`; appends the output.
    ///
    /// # Errors
    /// No memory, or more bytes than the frame's header holds.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        let short = || io::Error::from(io::ErrorKind::InvalidData);
        let mut end = End::ZSTD_e_continue;
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(plain.len() as u64).ok_or_else(short)?;
            if *left == 0 {
                end = End::ZSTD_e_end;
            }
        }
        self.encode(plain, end, out)
    }

    /// Ends the frame; appends the rest of it.
    ///
    /// # Errors
    /// No memory, or fewer bytes than the frame's header holds.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.ended { Ok(()) } else { self.encode(&[], End::ZSTD_e_end, out) }
    }

    fn encode(&mut self, plain: &[u8], end: End, out: &mut Vec<u8>) -> io::Result<()> {
        let mut input = InBuffer::around(plain);
        loop {
            let mut output = OutBuffer::around(&mut self.buffer[..]);
            let left = self.context.compress_stream2(&mut output, &mut input, end);
            let left = left.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let made = output.pos();
            out.extend_from_slice(&self.buffer[..made]);
            if matches!(end, End::ZSTD_e_end) {
                if left == 0 {
                    self.ended = true;
                    return Ok(());
                }
            } else if input.pos == plain.len() {
                return Ok(());
            }
        }
    }
}

/// Decodes one frame, and checks it. Memory: at most 9 MiB.
pub(super) struct Decoder {
    context: Option<DCtx<'static>>,
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        let bounded = |mut context: DCtx<'static>| {
            context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).ok().map(|_| context)
        };
        Self { context: DCtx::try_create().and_then(bounded), buffer: vec![0; BUFFER_BYTES] }
    }

    /// Decodes the next piece and passes the plain bytes to `take`, at most 128 KiB at once.
    ///
    /// # Errors
    /// A damaged frame, or one of too large a window; the first error of `take`.
    pub fn push<E>(
        &mut self,
        packed: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, Broken<E>> {
        let context = self.context.as_mut().ok_or(Broken::Stream)?;
        let mut input = InBuffer::around(packed);
        loop {
            let mut output = OutBuffer::around(&mut self.buffer[..]);
            let left = context.decompress_stream(&mut output, &mut input).map_err(|_| Broken::Stream)?;
            let made = output.pos();
            if made > 0 {
                take(&self.buffer[..made]).map_err(Broken::Taker)?;
            }
            if left == 0 {
                return Ok(Progress::End(input.pos));
            }
            if input.pos == packed.len() && made < BUFFER_BYTES {
                return Ok(Progress::More);
            }
        }
    }
}
