//! What a push hands to the shelf, and what it takes from it by name.

use std::collections::HashMap;

use super::{Error, Shelf};
use crate::basis::Sketch;
use crate::compression::Compressor;
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET};
use crate::manifest::NodeRef;
use crate::pack::{Frame, FrameKind};
use crate::recipe::ChunkRef;
use crate::wire::{short_name, unpack_names, unpack_short_names};

/// Keeps those parts of `plain` that have a name, in frames made here.
pub(super) fn anew(
    mut plain: &[u8],
    lengths: &[u32],
    arrived: &[Option<ChunkRef>],
    compressor: &mut Compressor,
    shelf: &mut impl Shelf,
) -> Result<(), Error> {
    let (mut chunks, mut bytes) = (Vec::new(), Vec::new());
    for (at, (length, chunk)) in (1..).zip(lengths.iter().zip(arrived)) {
        let (part, rest) = plain.split_at(*length as usize);
        plain = rest;
        if let Some(chunk) = chunk {
            chunks.push(*chunk);
            bytes.extend_from_slice(part);
        }
        let is_full = bytes.len() >= FRAME_PLAIN_TARGET || chunks.len() == FRAME_CHUNKS_MAX;
        if (is_full || at == lengths.len()) && !chunks.is_empty() {
            let (codec, payload) = compressor.compress(&bytes);
            bytes.clear();
            let chunks = std::mem::take(&mut chunks);
            let frame = Frame { kind: FrameKind::Content, codec, chunks, payload };
            shelf.keep(frame).map_err(Error::Shelf)?;
        }
    }
    Ok(())
}

/// Notes what those parts of `plain` are like that have a name.
pub(super) fn sketch(
    mut plain: &[u8],
    lengths: &[u32],
    arrived: &[Option<ChunkRef>],
    shelf: &mut impl Shelf,
) {
    let sketched = lengths.iter().zip(arrived).filter_map(|(length, chunk)| {
        let (part, rest) = plain.split_at(*length as usize);
        plain = rest;
        chunk.and_then(|chunk| Some((chunk.id.into(), Sketch::of(part)?)))
    });
    shelf.sketch(sketched.collect());
}

/// Keeps segments, neighbours together.
pub(super) fn segments(
    segments: &[Vec<u8>],
    compressor: &mut Compressor,
    shelf: &mut impl Shelf,
) -> Result<(), Error> {
    for some in segments.chunks(FRAME_CHUNKS_MAX) {
        let frame = Frame::compress(FrameKind::Manifest, some.iter().map(Vec::as_slice), compressor);
        shelf.keep(frame).map_err(Error::Shelf)?;
    }
    Ok(())
}

/// The segments that names mean, and those of the release among which short ones were looked for.
pub(super) fn named(
    names: &[u8],
    is_full: bool,
    shelf: &mut impl Shelf,
) -> Result<(Vec<Option<NodeRef>>, Vec<NodeRef>), Error> {
    if is_full {
        return Ok((shelf.resolve(&unpack_names(names)?).map_err(Error::Shelf)?, Vec::new()));
    }
    let base = shelf.base(None).map_err(Error::Shelf)?.unwrap_or_default();
    let by_name: HashMap<u32, NodeRef> =
        base.iter().map(|node| (short_name(node.id.prefix()), *node)).collect();
    let found = unpack_short_names(names)?.iter().map(|name| by_name.get(name).copied()).collect();
    Ok((found, base))
}
