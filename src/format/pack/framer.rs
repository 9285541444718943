//! Puts chunks that follow one another into frames.

use std::mem;

use super::{Frame, FrameKind};
use crate::recipe::ChunkRef;
use delta::compression::Compressor;
use ground::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET};

/// Where a frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameEnd {
    /// Before the chunk that would exceed the target.
    Below,
    /// With the chunk that reaches the target: a frame is up to one chunk larger.
    Reached,
}

/// Gathers chunks and compresses as many together as fit a frame.
///
/// Memory: one frame's plain bytes.
#[derive(Debug)]
pub struct Framer<'a> {
    kind: FrameKind,
    end: FrameEnd,
    plain_target: usize,
    compressor: &'a mut Compressor,
    chunks: Vec<ChunkRef>,
    plain: Vec<u8>,
}

impl<'a> Framer<'a> {
    /// Creates a framer for one kind, with frames of at most [`FRAME_CHUNKS_MAX`] chunks and about [`FRAME_PLAIN_TARGET`] bytes.
    pub fn new(kind: FrameKind, end: FrameEnd, compressor: &'a mut Compressor) -> Self {
        Self {
            kind,
            end,
            plain_target: FRAME_PLAIN_TARGET,
            compressor,
            chunks: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Sets the target for the plain bytes of a frame.
    #[must_use]
    pub fn with_target(self, plain_target: usize) -> Self {
        Self { plain_target, ..self }
    }

    /// Adds a chunk and its bytes; returns the frame that this completes, if any.
    pub fn push(&mut self, chunk: ChunkRef, bytes: &[u8]) -> Option<Frame> {
        let is_full = |framer: &Self| match framer.end {
            FrameEnd::Below => framer.plain.len() + bytes.len() > framer.plain_target,
            FrameEnd::Reached => framer.plain.len() >= framer.plain_target,
        };
        let before = match self.end {
            FrameEnd::Below if is_full(self) || self.chunks.len() == FRAME_CHUNKS_MAX => self.frame(),
            _ => None,
        };
        self.chunks.push(chunk);
        self.plain.extend_from_slice(bytes);
        match self.end {
            FrameEnd::Reached if is_full(self) || self.chunks.len() == FRAME_CHUNKS_MAX => self.frame(),
            _ => before,
        }
    }

    /// Returns the last frame, if there is a chunk for one.
    pub fn finish(mut self) -> Option<Frame> {
        self.frame()
    }

    /// Frames all parts and passes each frame to `keep`, until it fails.
    ///
    /// # Errors
    /// The first error of `keep`.
    pub fn frame_all<'b, E>(
        mut self,
        parts: impl IntoIterator<Item = (ChunkRef, &'b [u8])>,
        mut keep: impl FnMut(Frame) -> Result<(), E>,
    ) -> Result<(), E> {
        for (chunk, bytes) in parts {
            self.push(chunk, bytes).map_or(Ok(()), &mut keep)?;
        }
        self.finish().map_or(Ok(()), keep)
    }

    fn frame(&mut self) -> Option<Frame> {
        if self.chunks.is_empty() {
            return None;
        }
        let (codec, payload) = self.compressor.compress(&self.plain);
        self.plain.clear();
        Some(Frame { kind: self.kind, codec, chunks: mem::take(&mut self.chunks), payload })
    }
}

/// Cuts `plain` into parts of these lengths; ends before the first that `plain` does not have whole.
pub fn split<'a>(
    mut plain: &'a [u8],
    lengths: impl IntoIterator<Item = &'a u32>,
) -> impl Iterator<Item = &'a [u8]> {
    lengths.into_iter().map_while(move |length| {
        let (part, rest) = plain.split_at_checked(*length as usize)?;
        plain = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta::compression::LEVEL_FAST;
    use ground::ids::ChunkId;

    /// Returns how many chunks of `bytes` each frame holds.
    fn counts(end: FrameEnd, count: usize, bytes: usize) -> Vec<usize> {
        let part = vec![7; bytes];
        let chunk = ChunkRef { id: ChunkId::of(&part), bytes: u32::try_from(bytes).expect("small") };
        let mut counts = Vec::new();
        let mut compressor = Compressor::new(LEVEL_FAST);
        let parts = std::iter::repeat_n((chunk, part.as_slice()), count);
        let framed = Framer::new(FrameKind::Content, end, &mut compressor).frame_all(parts, |frame| {
            counts.push(frame.chunks.len());
            Ok::<(), ()>(())
        });
        assert_eq!(framed, Ok(()));
        counts
    }

    #[test]
    fn a_frame_ends_below_its_target_or_with_the_chunk_that_reaches_it() {
        let bytes = FRAME_PLAIN_TARGET / 4 + 1;
        assert_eq!(counts(FrameEnd::Below, 7, bytes), [3, 3, 1]);
        assert_eq!(counts(FrameEnd::Reached, 9, bytes), [4, 4, 1]);
        assert_eq!(counts(FrameEnd::Below, 8, bytes - 1), [4, 4]);
        for end in [FrameEnd::Below, FrameEnd::Reached] {
            assert_eq!(counts(end, FRAME_CHUNKS_MAX + 1, 1), [FRAME_CHUNKS_MAX, 1]);
            assert_eq!(counts(end, 0, 1), []);
        }
    }

    #[test]
    fn parts_end_where_the_bytes_do() {
        let parts = |plain: &'static [u8]| split(plain, &[2, 0, 3]).collect::<Vec<_>>();
        assert_eq!(parts(b"abcdef"), [b"ab".as_slice(), b"", b"cde"]);
        assert_eq!(parts(b"abcd"), [b"ab".as_slice(), b""]);
        assert!(parts(b"a").is_empty());
        assert_eq!(split(b"ab", &[u32::MAX, 1]).count(), 0);
    }
}
