//! Gathers a parcel's pieces and decodes its chunks. Their hashes, which the caller checks, prove that they are right.

use std::collections::HashMap;
use std::ops::Range;

use crate::wire::{Basis, Parcel, ParcelError, Section, Span};
use crate::{ContentView, Error};
use delta::compression::{self, Codec, Decompressor};
use delta::patch;
use delta::rsync::{Delta, Geometry};
use format::manifest::{self, NodeRef};
use format::recipe::ChunkRef;
use ground::limits::{PARCEL_BASIS_MAX, PARCEL_PIECE_BYTES, PARCEL_SPANS_MAX};

/// Segments of the base that one parcel's spans may lead through: one for each span, and as many again for those
/// that go on in the next.
const SPAN_SEGMENTS_MAX: usize = 2 * PARCEL_SPANS_MAX;

/// The parcel whose pieces are coming. Memory: its payload, and while it is opened its plain bytes and its
/// basis; all bounded.
#[derive(Debug, Default)]
pub struct Parcels {
    open: Option<(Parcel, Vec<u8>)>,
}

impl Parcels {
    /// Returns whether a parcel's pieces are not all there.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |(_, payload)| payload.capacity())
    }

    /// Begins a parcel.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`] while another is open; [`Error::Parcel`] for one beyond its bounds.
    pub fn begin(&mut self, parcel: Parcel) -> Result<(), Error> {
        parcel.plain_bytes()?;
        if self.open.is_some() {
            return Err(Error::OutOfTurn("Parcel"));
        }
        self.open = Some((parcel, Vec::new()));
        Ok(())
    }

    /// Takes a piece; returns the parcel and its payload once they are whole.
    ///
    /// # Errors
    /// [`Error::Parcel`] for a piece that fits no open parcel.
    pub fn piece(&mut self, piece: &[u8]) -> Result<Option<(Parcel, Vec<u8>)>, Error> {
        let (parcel, payload) = self.open.as_mut().ok_or(ParcelError::Piece)?;
        let whole = parcel.payload_bytes as usize;
        if piece.is_empty() || piece.len() > PARCEL_PIECE_BYTES || payload.len() + piece.len() > whole {
            return Err(ParcelError::Piece.into());
        }
        payload.extend_from_slice(piece);
        if payload.len() < whole {
            return Ok(None);
        }
        Ok(self.open.take())
    }
}

/// Older content whose block sums the agent has.
#[derive(Debug)]
pub struct Region {
    /// Its chunks.
    pub chunks: Vec<ChunkRef>,
    /// How the block sums divide it.
    pub geometry: Geometry,
}

/// Regions by their numbers.
pub type Regions = HashMap<u32, Region>;

/// Decodes a whole parcel into `plain`. The basis' chunks are those of `base`, segment by segment, or of `regions`.
///
/// # Errors
/// [`Error::Parcel`] where it does not decode, [`Error::Mismatch`] or [`Error::Space`] where its basis cannot be read.
pub fn open(
    parcel: &Parcel,
    payload: &[u8],
    base: &[NodeRef],
    regions: &Regions,
    view: &mut impl ContentView,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut reference = Vec::new();
    match &parcel.basis {
        Basis::BlockSums(sections) => return open_deltas(parcel, sections, payload, regions, view, plain),
        Basis::Prefix(spans) | Basis::Patch(spans) => {
            read_spans(spans, base, PARCEL_BASIS_MAX, view, &mut reference)?;
        }
        _ => {}
    }
    *plain = decode(parcel, payload, &reference)?;
    Ok(())
}

/// Decodes the chunks of a parcel that is a patch of `reference`, or a zstd frame with that prefix.
///
/// # Errors
/// [`Error::Parcel`] where it does not decode, [`Error::OutOfTurn`] for a parcel of another kind.
fn decode(parcel: &Parcel, payload: &[u8], reference: &[u8]) -> Result<Vec<u8>, Error> {
    let bytes = parcel.plain_bytes()?;
    match &parcel.basis {
        Basis::Patch(_) => Ok(patch::decompress(payload, reference, bytes).map_err(ParcelError::from)?),
        Basis::None | Basis::Prefix(_) => decompress(parcel.codec, reference, payload, bytes),
        Basis::BlockSums(_) | Basis::Executable(..) | Basis::Records(..) => {
            Err(Error::OutOfTurn("a parcel of another kind"))
        }
    }
}

fn decompress(codec: Codec, prefix: &[u8], payload: &[u8], bytes: usize) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    let decoded = match codec {
        Codec::Raw => Decompressor::new().decompress(codec, payload, bytes, &mut plain),
        Codec::Zstd => compression::decompress_against(prefix, payload, bytes, &mut plain),
    };
    decoded.map_err(ParcelError::from)?;
    Ok(plain)
}

/// One stretch of a parcel of deltas.
enum Stretch {
    Whole(usize),
    Delta { delta: Delta, basis: Range<usize> },
}

/// Decodes a parcel of deltas: reads each basis, then the literals, then puts them together.
fn open_deltas(
    parcel: &Parcel,
    sections: &[Section],
    payload: &[u8],
    regions: &Regions,
    view: &mut impl ContentView,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    let (mut stretches, mut literal_bytes) = (Vec::new(), 0);
    let mut lengths = parcel.lengths.iter().map(|length| *length as usize);
    let (mut bases, mut prefix) = (Vec::new(), Vec::new());
    for section in sections {
        let whole: usize = lengths.by_ref().take(section.whole as usize).sum();
        let new: usize = lengths.by_ref().take(section.chunks as usize).sum();
        let unknown = ParcelError::Region(section.region);
        let region = regions.get(&section.region).ok_or(unknown)?;
        let begin = bases.len();
        for chunk in &region.chunks {
            if bases.len() + chunk.bytes as usize > PARCEL_BASIS_MAX {
                return Err(Error::Limit { what: "bytes of reference content", max: PARCEL_BASIS_MAX });
            }
            view.read(chunk, &mut bases).map_err(Error::Space)?;
        }
        let basis = begin..bases.len();
        let mut encoded = section.delta.as_slice();
        let delta = Delta::decode(&mut encoded, region.geometry, new as u64).map_err(ParcelError::from)?;
        if !encoded.is_empty() || region.geometry.reference_bytes() != basis.len() as u64 {
            return Err(unknown.into());
        }
        for (_, copied) in delta.copies() {
            let copied = &bases[basis.clone()][range_of(copied)];
            prefix.extend_from_slice(&copied[..copied.len().min(PARCEL_BASIS_MAX - prefix.len())]);
        }
        literal_bytes += whole + usize::try_from(delta.insert_bytes()).expect("below the parcel's bytes");
        stretches.push(Stretch::Whole(whole));
        stretches.push(Stretch::Delta { delta, basis });
    }
    let rest = lengths.sum();
    stretches.push(Stretch::Whole(rest));
    let literals = decompress(parcel.codec, &prefix, payload, literal_bytes + rest)?;
    let mut literals = literals.as_slice();
    plain.clear();
    for stretch in stretches {
        match stretch {
            Stretch::Whole(bytes) => {
                let (whole, after) = literals.split_at(bytes);
                plain.extend_from_slice(whole);
                literals = after;
            }
            Stretch::Delta { delta, basis } => {
                let read = |range: Range<u64>, out: &mut Vec<u8>| {
                    out.extend_from_slice(&bases[basis.clone()][range_of(range)]);
                    Ok::<(), ParcelError>(())
                };
                delta.apply(&mut literals, read, plain).expect("its literals and basis were measured");
            }
        }
    }
    Ok(())
}

/// A range inside a basis, which fits memory.
fn range_of(range: Range<u64>) -> Range<usize> {
    let at = |offset: u64| usize::try_from(offset).expect("a basis is some MiB");
    at(range.start)..at(range.end)
}

/// Appends the bytes of runs of the base's chunks; all that is appended to stays within `bytes_max`.
///
/// # Errors
/// [`Error::Mismatch`] for a run that `base` does not have, [`Error::Limit`] beyond `bytes_max`.
pub fn read_spans(
    spans: &[Span],
    base: &[NodeRef],
    bytes_max: usize,
    view: &mut impl ContentView,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut segments_left = SPAN_SEGMENTS_MAX;
    spans.iter().try_for_each(|span| read_span(*span, base, bytes_max, &mut segments_left, view, out))
}

fn read_span(
    span: Span,
    base: &[NodeRef],
    bytes_max: usize,
    segments_left: &mut usize,
    view: &mut impl ContentView,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut left = span.count as usize;
    let mut first = span.first as usize;
    for node in base.iter().skip(span.segment.into()) {
        if left == 0 {
            break;
        }
        *segments_left = segments_left
            .checked_sub(1)
            .ok_or(Error::Limit { what: "segments of reference content", max: SPAN_SEGMENTS_MAX })?;
        let mut bytes = Vec::new();
        view.read(&(*node).into(), &mut bytes).map_err(Error::Space)?;
        let chunks = manifest::segment_chunks(&bytes)?;
        let taken = chunks.get(first..).unwrap_or_default();
        for chunk in taken.iter().take(left) {
            if out.len() + chunk.bytes as usize > bytes_max {
                return Err(Error::Limit { what: "bytes of reference content", max: bytes_max });
            }
            view.read(chunk, out).map_err(Error::Space)?;
        }
        left -= taken.len().min(left);
        first = 0;
    }
    if left == 0 {
        Ok(())
    } else {
        Err(Error::OutOfTurn("a parcel whose reference is outside the base release"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(payload_bytes: usize) -> Parcel {
        let payload_bytes = u32::try_from(payload_bytes).expect("small");
        Parcel { lengths: vec![1000], basis: Basis::None, codec: Codec::Zstd, payload_bytes }
    }

    /// Both roles of every release that speaks version 7 cut payloads at 256 KiB.
    #[test]
    fn pieces_of_256_kib_are_gathered_and_larger_ones_refused() {
        const PIECE: usize = 256 * 1024;
        let payload: Vec<u8> = (0..=u8::MAX).cycle().take(2 * PIECE + 5).collect();
        let mut parcels = Parcels::default();
        parcels.begin(parcel(payload.len())).expect("within bounds");
        let gathered: Vec<_> =
            payload.chunks(PIECE).map(|piece| parcels.piece(piece).expect("a piece")).collect();
        assert!(gathered[..2].iter().all(Option::is_none) && !parcels.is_open());
        assert_eq!(gathered[2], Some((parcel(payload.len()), payload.clone())));
        for wrong in [&payload[..=PIECE], &[]] {
            parcels.begin(parcel(payload.len())).expect("within bounds");
            assert!(matches!(parcels.piece(wrong), Err(Error::Parcel(ParcelError::Piece))));
            parcels = Parcels::default();
        }
        assert!(parcels.begin(parcel(0)).is_err(), "no piece would complete it");
    }
}
