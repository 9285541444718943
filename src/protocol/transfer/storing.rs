//! Stores received chunks and segments as frames.

use crate::{ContentView, Error, StorageView};
use delta::compression::Compressor;
use format::manifest::NodeRef;
use format::pack::{FrameEnd, FrameKind, Framer, split};
use format::recipe::ChunkRef;
use ground::limits::SEGMENT_BATCH_BYTES;

/// Stores the parts of `plain` that are wanted, in frames of its own.
///
/// # Errors
/// [`Error::Space`] where the view has no room or fails.
pub fn keep_chunks(
    plain: &[u8],
    lengths: &[u32],
    wanted: &[Option<ChunkRef>],
    compressor: &mut Compressor,
    view: &mut impl StorageView,
) -> Result<(), Error> {
    let framer = Framer::new(FrameKind::Content, FrameEnd::Reached, compressor);
    let parts = wanted.iter().zip(split(plain, lengths)).filter_map(|(chunk, part)| Some(((*chunk)?, part)));
    framer.frame_all(parts, |frame| view.keep(frame)).map_err(Error::Space)
}

/// Segments, and nodes above them, that are complete and not stored yet. Memory: 128 KiB and a segment.
#[derive(Debug, Default)]
pub struct SegmentBuffer {
    segments: Vec<Vec<u8>>,
    bytes: usize,
}

impl SegmentBuffer {
    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a segment; stores it with its neighbours once they fill a frame.
    ///
    /// # Errors
    /// As [`SegmentBuffer::flush`].
    pub fn add(
        &mut self,
        segment: Vec<u8>,
        compressor: &mut Compressor,
        view: &mut impl StorageView,
    ) -> Result<(), Error> {
        self.bytes += segment.len();
        self.segments.push(segment);
        if self.bytes >= SEGMENT_BATCH_BYTES { self.flush(compressor, view) } else { Ok(()) }
    }

    /// Stores what was added.
    ///
    /// # Errors
    /// [`Error::Space`] where the view has no room or fails.
    pub fn flush(&mut self, compressor: &mut Compressor, view: &mut impl StorageView) -> Result<(), Error> {
        let Self { segments, .. } = std::mem::take(self);
        let framer = Framer::new(FrameKind::Manifest, FrameEnd::Below, compressor).with_target(usize::MAX);
        let parts = segments.iter().map(|segment| (ChunkRef::of(segment), segment.as_slice()));
        framer.frame_all(parts, |frame| view.keep(frame)).map_err(Error::Space)
    }
}

/// Returns the bytes of a segment, or of another node of a manifest.
///
/// # Errors
/// [`Error::Space`] where it is not there, or damaged.
pub fn read_segment(node: &NodeRef, view: &mut impl ContentView) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    view.read(&(*node).into(), &mut bytes).map_err(Error::Space)?;
    Ok(bytes)
}
