//! Makes an archive of its plan, its framing and its content.

use std::io::{self, Read, Write};

use super::copying::{PackedStreams, Skip};
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
    rebuild_copying(plan, &mut Whole(framing), &mut Whole(content), &mut Nothing, out)
}

/// Does the same, but copies the pieces that `packed` has: what is in them is skipped.
///
/// # Errors
/// Those of [`rebuild`]; the first of `packed`.
pub fn rebuild_copying(
    plan: &Plan,
    framing: &mut dyn Skip,
    content: &mut dyn Skip,
    packed: &mut dyn PackedStreams,
    out: &mut dyn Write,
) -> io::Result<()> {
    let buffer = vec![0; BUFFER_BYTES];
    let mut streams = Streams { framing, content, packed, number: 0, buffer, heavy_left: HEAVY_BYTES_MAX };
    write(plan, &mut streams, out, &mut Encoders::default())
}

/// A stream of which nothing is skipped.
struct Whole<'a>(&'a mut dyn Read);

impl Read for Whole<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Skip for Whole<'_> {
    fn skip(&mut self, _: u64) {
        unreachable!("nothing is copied");
    }
}

/// No packed streams.
struct Nothing;

impl PackedStreams for Nothing {
    fn write(&mut self, _: u32, _: &mut dyn Write) -> io::Result<bool> {
        Ok(false)
    }
}

struct Streams<'a> {
    framing: &'a mut dyn Skip,
    content: &'a mut dyn Skip,
    packed: &'a mut dyn PackedStreams,
    /// The number of the next packed piece.
    number: u32,
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
    let number = streams.number;
    streams.number += 1;
    if streams.packed.write(number, out)? {
        streams.framing.skip(plain.framing_bytes());
        streams.content.skip(plain.content_bytes());
        streams.number += plain.packed_count();
        // Whoever has nothing to copy could not encode more.
        let left = streams.heavy_left.checked_sub(heavy_bytes(method, plain));
        streams.heavy_left = left.ok_or(io::ErrorKind::InvalidData)?;
        return Ok(());
    }
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

/// Returns the plain bytes of the xz and zstd streams of a packed piece; archives in those count as they are unpacked.
fn heavy_bytes(method: &Method, plain: &Plan) -> u64 {
    if method.format().is_heavy() {
        return plain.framing_bytes() + plain.content_bytes();
    }
    let below = |piece: &Piece| match piece {
        Piece::Packed { method, plain, .. } => heavy_bytes(method, plain),
        Piece::Framing(_) | Piece::Content(_) => 0,
    };
    plain.pieces().iter().map(below).sum()
}

fn copy(from: &mut dyn Skip, mut bytes: u64, buffer: &mut [u8], out: &mut dyn Write) -> io::Result<()> {
    while bytes > 0 {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact(&mut buffer[..length])?;
        out.write_all(&buffer[..length])?;
        bytes -= length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Check, Xz};
    use crate::deflate;

    /// Has every stream, as nothing.
    struct Everything;

    impl PackedStreams for Everything {
        fn write(&mut self, _: u32, _: &mut dyn Write) -> io::Result<bool> {
            Ok(true)
        }
    }

    impl Skip for io::Empty {
        fn skip(&mut self, _: u64) {}
    }

    #[test]
    fn no_more_is_copied_than_could_be_encoded() {
        let packed = |method, plain| Piece::Packed { packed: 0, method, plain, named: None };
        let xz = |bytes| packed(Method::Xz(Xz::single(6, Check::Crc64)), Plan::plain(bytes));
        let inside = |piece| {
            let mut plain = Plan::default();
            plain.push(piece);
            packed(deflate::Method::STOCK.into(), plain)
        };
        let copied = |pieces: Vec<Piece>| {
            let mut plan = Plan::default();
            for piece in pieces {
                plan.push(piece);
            }
            let (mut framing, mut content) = (io::empty(), io::empty());
            let copied = rebuild_copying(&plan, &mut framing, &mut content, &mut Everything, &mut io::sink());
            copied.map_err(|error| error.kind())
        };
        assert_eq!(copied(vec![xz(1), inside(xz(HEAVY_BYTES_MAX - 1))]), Ok(()));
        assert_eq!(copied(vec![xz(1), xz(HEAVY_BYTES_MAX)]), Err(io::ErrorKind::InvalidData));
        assert_eq!(copied(vec![xz(1), inside(xz(HEAVY_BYTES_MAX))]), Err(io::ErrorKind::InvalidData));
    }
}
