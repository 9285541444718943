//! Encodes and decodes xz streams; the library is liblzma, pinned to one version.

use std::io;

use liblzma::stream::{Action, Check, Error, Filters, LzmaOptions, MtStreamBuilder, Status, Stream};

use super::xz::{self, DICTIONARY_BYTES_MAX, EXTREME, Xz};
use crate::deflate::{Broken, Progress};

/// 64 KiB: the output of one step.
const BUFFER_BYTES: usize = 64 * 1024;
/// 1 MiB more than the dictionary: the memory of a decoder.
const DECODER_BYTES_MAX: u64 = DICTIONARY_BYTES_MAX as u64 + 1024 * 1024;

/// Encodes one stream. Memory: 94 MiB for a dictionary of 8 MiB; with blocks, at most 48 MiB more.
pub(super) struct Encoder {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Encoder {
    /// Begins a stream with the settings `xz`, which must have passed their check.
    ///
    /// # Errors
    /// No memory.
    pub fn new(xz: &Xz) -> io::Result<Self> {
        let filters = filters(xz)?;
        let stream = if xz.block_bytes == 0 {
            Stream::new_stream_encoder(&filters, check(xz))?
        } else {
            // The number of threads changes nothing but the memory.
            let mut builder = MtStreamBuilder::new();
            builder.threads(1).block_size(u64::from(xz.block_bytes)).filters(filters).check(check(xz));
            builder.encoder()?
        };
        Ok(Self::of(stream))
    }

    /// Begins the bare LZMA2 data of a block of that stream; each step yields what it makes.
    ///
    /// # Errors
    /// No memory.
    pub fn block(xz: &Xz) -> io::Result<Self> {
        Ok(Self::of(Stream::new_raw_encoder(&filters(xz)?)?))
    }

    fn of(stream: Stream) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Encodes `plain`; appends the output.
    ///
    /// # Errors
    /// No memory.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = plain;
        while !rest.is_empty() {
            let (used, _) = self.step(rest, Action::Run, out)?;
            rest = &rest[used..];
        }
        Ok(())
    }

    /// Ends the stream; appends the rest of it.
    ///
    /// # Errors
    /// No memory.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while !self.step(&[], Action::Finish, out)?.1 {}
        Ok(())
    }

    /// Returns the bytes of `plain` that were used, and whether the stream ended.
    fn step(&mut self, plain: &[u8], action: Action, out: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let before = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.process(plain, &mut self.buffer, action)?;
        let (used, made) = since(before, &self.stream);
        out.extend_from_slice(&self.buffer[..made]);
        match status {
            Status::StreamEnd => Ok((used, true)),
            // No progress twice: it would never end.
            Status::MemNeeded => Err(io::ErrorKind::Other.into()),
            Status::Ok | Status::GetCheck => Ok((used, false)),
        }
    }
}

/// Decodes one stream, and checks it. Memory: at most 9 MiB.
pub(super) struct Decoder {
    stream: Option<Stream>,
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        Self { stream: Stream::new_stream_decoder(DECODER_BYTES_MAX, 0).ok(), buffer: vec![0; BUFFER_BYTES] }
    }

    /// Decodes the next piece and passes the plain bytes to `take`, at most 64 KiB at once.
    ///
    /// # Errors
    /// A damaged stream, or one of too large a dictionary; the first error of `take`.
    pub fn push<E>(
        &mut self,
        packed: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Progress, Broken<E>> {
        let stream = self.stream.as_mut().ok_or(Broken::Stream)?;
        let mut at = 0;
        loop {
            let before = (stream.total_in(), stream.total_out());
            let status = stream.process(&packed[at..], &mut self.buffer, Action::Run);
            let status = status.map_err(|_| Broken::Stream)?;
            let (used, made) = since(before, stream);
            at += used;
            if made > 0 {
                take(&self.buffer[..made]).map_err(Broken::Taker)?;
            }
            match status {
                Status::StreamEnd => return Ok(Progress::End(at)),
                _ if at == packed.len() && made < BUFFER_BYTES => return Ok(Progress::More),
                Status::MemNeeded => return Err(Broken::Stream),
                Status::Ok | Status::GetCheck => {}
            }
        }
    }
}

fn since((read, written): (u64, u64), stream: &Stream) -> (usize, usize) {
    let length = |bytes: u64| usize::try_from(bytes).expect("no more than was given");
    (length(stream.total_in() - read), length(stream.total_out() - written))
}

fn filters(xz: &Xz) -> Result<Filters, Error> {
    let mut preset = u32::from(xz.preset & !EXTREME);
    if xz.preset & EXTREME != 0 {
        preset |= liblzma::stream::PRESET_EXTREME;
    }
    let mut options = LzmaOptions::new_preset(preset)?;
    let (lc, lp) = xz.literal_bits();
    options.dict_size(xz.dictionary_bytes().ok_or(Error::Options)?);
    options.literal_context_bits(lc).literal_position_bits(lp).position_bits(xz.position_bits());
    let mut filters = Filters::new();
    filters.lzma2(&options);
    Ok(filters)
}

fn check(xz: &Xz) -> Check {
    match xz.check {
        xz::Check::None => Check::None,
        xz::Check::Crc32 => Check::Crc32,
        xz::Check::Crc64 => Check::Crc64,
        xz::Check::Sha256 => Check::Sha256,
    }
}
