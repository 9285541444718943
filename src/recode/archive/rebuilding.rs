//! Makes an archive of its plan, its framing and its content.

use std::io::{self, Read, Write};

use super::limits::HEAVY_BYTES_MAX;
use super::plan::{Piece, Plan};
use crate::codec::{Encoder, Method};

/// 128 KiB: bytes on their way from a stream to the archive.
const BUFFER_BYTES: usize = 128 * 1024;

/// Writes the archive to `out`, from its framing and its concatenated content streams.
///
/// `plan` must have passed [`Plan::check`]. Memory: 600 KiB to 3 MiB for each level of nesting, and the encoder of one
/// xz or zstd stream at a time, at most 220 MiB. Only its hash shows whether the result is the archive.
///
/// # Errors
/// The first error of a stream or of `out`; `UnexpectedEof` if a stream is shorter than planned; `InvalidData`
/// where more is to be packed with xz or zstd than any planner plans.
pub fn rebuild(
    plan: &Plan,
    framing: &mut dyn Read,
    content: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut streams =
        Streams { framing, content, buffer: vec![0; BUFFER_BYTES], heavy_left: HEAVY_BYTES_MAX };
    write(plan, &mut streams, out, &mut Encoders::default())
}

struct Streams<'a> {
    framing: &'a mut dyn Read,
    content: &'a mut dyn Read,
    buffer: Vec<u8>,
    /// Plain bytes that may still be packed with xz or zstd.
    heavy_left: u64,
}

/// The encoders of the levels below, kept from piece to piece.
#[derive(Default)]
struct Encoders {
    own: (Encoder, Vec<u8>),
    below: Option<Box<Encoders>>,
}

/// A writer that encodes.
struct Packer<'a> {
    encoder: &'a mut Encoder,
    encoded: &'a mut Vec<u8>,
    out: &'a mut dyn Write,
    /// Plain bytes that it may still take.
    left: u64,
}

impl Write for Packer<'_> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(plain.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        self.encoder.write(plain, self.encoded)?;
        self.flush()?;
        Ok(plain.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.encoded)?;
        self.encoded.clear();
        Ok(())
    }
}

fn write(
    plan: &Plan,
    streams: &mut Streams<'_>,
    out: &mut dyn Write,
    encoders: &mut Encoders,
) -> io::Result<()> {
    for piece in plan.pieces() {
        match piece {
            Piece::Framing(bytes) => copy(streams.framing, *bytes, &mut streams.buffer, out)?,
            Piece::Content(bytes) => copy(streams.content, *bytes, &mut streams.buffer, out)?,
            Piece::Packed { method, plain, .. } => pack(method, plain, streams, out, encoders)?,
        }
    }
    Ok(())
}

fn pack(
    method: &Method,
    plain: &Plan,
    streams: &mut Streams<'_>,
    out: &mut dyn Write,
    encoders: &mut Encoders,
) -> io::Result<()> {
    let Encoders { own, below } = encoders;
    let (encoder, encoded) = own;
    encoder.begin(method)?;
    encoded.clear();
    let heavy = method.format().is_heavy();
    let left = if heavy { streams.heavy_left } else { u64::MAX };
    let mut packer = Packer { encoder, encoded, out, left };
    write(plain, streams, &mut packer, below.get_or_insert_default())?;
    packer.encoder.finish(packer.encoded)?;
    packer.flush()?;
    if heavy {
        streams.heavy_left = packer.left;
    }
    Ok(())
}

fn copy(from: &mut dyn Read, mut bytes: u64, buffer: &mut [u8], out: &mut dyn Write) -> io::Result<()> {
    while bytes > 0 {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact(&mut buffer[..length])?;
        out.write_all(&buffer[..length])?;
        bytes -= length as u64;
    }
    Ok(())
}
