//! Splits an archive by its plan into the framing and the content streams.

use std::io;

use super::known::StreamName;
use super::plan::{Piece, Plan};
use crate::codec::Decoder;
use crate::deflate::{Broken, Progress};

/// The parts of an unpacked archive, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The next bytes of the framing stream.
    Framing(&'a [u8]),
    /// The next bytes of the current content stream.
    Content(&'a [u8]),
    /// The current content stream has this many bytes, which are not decoded.
    Known(u64),
    /// The current content stream ends.
    End,
}

/// Passes the parts of `archive` to `take`. Memory: 75 KiB for each level of nesting, 9 MiB inside an xz or zstd stream.
///
/// Packed streams without an archive in them whose name `is_known` are not decoded.
///
/// # Errors
/// The first error of `take`; `InvalidData` if `plan` is not one of `archive`.
pub fn unpack(
    plan: &Plan,
    archive: &[u8],
    is_known: &dyn Fn(&StreamName) -> bool,
    take: &mut dyn FnMut(Part<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut level = Level::new(plan, is_known);
    level.push(archive, take)?;
    level.finish()
}

/// One level of a plan under way: takes bytes and passes parts on.
struct Level<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    piece: Option<&'a Piece>,
    /// Remaining bytes of the piece.
    left: u64,
    inner: Option<Box<(Decoder, Level<'a>)>>,
    is_known: &'a dyn Fn(&StreamName) -> bool,
    /// The plain bytes of the piece, if it is passed over.
    passed_over: Option<u64>,
}

fn differs() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the archive changed since it was planned")
}

impl<'a> Level<'a> {
    fn new(plan: &'a Plan, is_known: &'a dyn Fn(&StreamName) -> bool) -> Self {
        let pieces = plan.pieces().iter();
        let mut level = Self { pieces, piece: None, left: 0, inner: None, is_known, passed_over: None };
        level.advance();
        level
    }

    fn advance(&mut self) {
        self.piece = self.pieces.next();
        self.left = self.piece.map_or(0, Piece::bytes);
        let known = |piece: &Piece| piece.content_name().filter(|(name, _)| (self.is_known)(name));
        self.passed_over = self.piece.and_then(known).map(|(_, plain)| plain);
        if let Some(Piece::Packed { plain, method, .. }) = self.piece
            && self.passed_over.is_none()
        {
            let inner = Level::new(plain, self.is_known);
            match &mut self.inner {
                Some(pair) => {
                    pair.0.reset(method.format());
                    pair.1 = inner;
                }
                none => *none = Some(Box::new((Decoder::new(method.format()), inner))),
            }
        }
    }

    fn push(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(Part<'_>) -> io::Result<()>) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = self.piece.ok_or_else(differs)?;
            let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(length);
            bytes = rest;
            self.left -= length as u64;
            match piece {
                Piece::Framing(_) => take(Part::Framing(now))?,
                Piece::Content(_) => take(Part::Content(now))?,
                Piece::Packed { .. } if self.passed_over.is_some() => {}
                Piece::Packed { .. } => self.decode(now, take)?,
            }
            if self.left == 0 {
                if let Some(plain) = self.passed_over {
                    take(Part::Known(plain))?;
                }
                if self.passed_over.is_some() || matches!(piece, Piece::Content(_)) {
                    take(Part::End)?;
                }
                self.advance();
            }
        }
        Ok(())
    }

    fn decode(&mut self, packed: &[u8], take: &mut dyn FnMut(Part<'_>) -> io::Result<()>) -> io::Result<()> {
        let (decoder, level) = &mut **self.inner.as_mut().expect("made when the piece began");
        let progress =
            decoder.push(packed, |plain| level.push(plain, take)).map_err(|broken| match broken {
                Broken::Stream => differs(),
                Broken::Taker(error) => error,
            })?;
        let expected = if self.left == 0 { Progress::End(packed.len()) } else { Progress::More };
        if progress != expected {
            return Err(differs());
        }
        if self.left == 0 { level.finish() } else { Ok(()) }
    }

    fn finish(&self) -> io::Result<()> {
        if self.piece.is_none() { Ok(()) } else { Err(differs()) }
    }
}
