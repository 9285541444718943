//! Decodes parcels that hold a whole executable.
//!
//! A wrong one, by its agent's mistake or for a basis that differs, ends as [`Error::Mismatch`]: the push is
//! repeated without this method.

use super::parcel::read_spans;
use crate::wire::{Cut, Parcel, Span};
use crate::{ContentView, Error};
use delta::relink::{Encoded, Payload, RecordIndex, RecordNames, Records, normalise_unproven, rebuild};
use format::manifest::NodeRef;
use format::recipe::ChunkRef;
use ground::limits::{EXECUTABLE_BASIS_RATIO_MAX, EXECUTABLE_BYTES_MAX, EXECUTABLE_CHUNKS_MAX};
use ground::poison::Unpoisoned as _;

/// A query whose records are there.
#[derive(Debug)]
pub struct Answered {
    /// The names of the new file's records.
    pub names: Vec<u8>,
    /// The older file.
    pub chunks: Vec<ChunkRef>,
}

/// Rebuilds the new file from an older one that is listed in the base; appends the parcel's chunks to `plain`.
///
/// Memory: 4 times the larger file, which is heavy work: one at a time in the process. Time: in proportion to the older
/// file, which is at most [`EXECUTABLE_BASIS_RATIO_MAX`] times what the parcel brings.
///
/// # Errors
/// [`Error::Mismatch`] where the payload is not one for that file, [`Error::Limit`] for a file of too many chunks.
pub fn open_kept(
    parcel: &Parcel,
    spans: &[Span],
    cuts: &[Cut],
    payload: &[u8],
    base: &[NodeRef],
    view: &mut impl ContentView,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    let heavy_work = view.heavy_work();
    let _alone = heavy_work.lock().unpoisoned();
    let mut old = Vec::new();
    let chunks = spans.iter().fold(0, |chunks: usize, span| chunks.saturating_add(span.count as usize));
    if chunks > EXECUTABLE_CHUNKS_MAX {
        return Err(Error::Limit { what: "chunks of an executable", max: EXECUTABLE_CHUNKS_MAX });
    }
    let bytes_max =
        parcel.plain_bytes()?.saturating_mul(EXECUTABLE_BASIS_RATIO_MAX).min(EXECUTABLE_BYTES_MAX);
    read_spans(spans, base, bytes_max, view, &mut old)?;
    make(old, parcel, cuts, payload, plain)
}

/// Rebuilds the new file from an older one's bytes; appends the parcel's chunks to `plain`.
fn make(
    old: Vec<u8>,
    parcel: &Parcel,
    cuts: &[Cut],
    payload: &[u8],
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    let made = || {
        let parts = normalise_unproven(old)?;
        Encoded::decode(payload)?.rebuild(parts, EXECUTABLE_BYTES_MAX).ok()
    };
    cut(&made().ok_or(Error::Mismatch)?, parcel, cuts, plain)
}

/// Rebuilds the new file from one whose records were queried and found; appends the parcel's chunks to `plain`.
///
/// Memory: 4 times the larger file, which is heavy work: one at a time in the process.
///
/// # Errors
/// [`Error::OutOfTurn`] for a query that was not answered, else [`Error::Mismatch`].
pub fn open_records(
    parcel: &Parcel,
    answered: Option<Answered>,
    cuts: &[Cut],
    payload: &[u8],
    view: &mut impl ContentView,
    plain: &mut Vec<u8>,
) -> Result<(), Error> {
    let answered = answered.ok_or(Error::OutOfTurn("code records that were not requested"))?;
    let heavy_work = view.heavy_work();
    let _alone = heavy_work.lock().unpoisoned();
    let mut made = || {
        let old = read_chunks(&answered.chunks, view)?;
        let parts = normalise_unproven(old)?;
        let records = Records::new(&parts);
        let index = RecordIndex::new(parts, records);
        let (_, places) = index.answer(&RecordNames::decode(&answered.names)?);
        rebuild(index, &places, &Payload::decode(payload)?, EXECUTABLE_BYTES_MAX).ok()
    };
    cut(&made().ok_or(Error::Mismatch)?, parcel, cuts, plain)
}

/// Returns the bytes of consecutive chunks; none where one is damaged, which costs the method, not the push.
pub fn read_chunks(chunks: &[ChunkRef], view: &mut impl ContentView) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    chunks.iter().try_for_each(|chunk| view.read(chunk, &mut bytes)).ok()?;
    Some(bytes)
}

/// Appends the chunks that are cut out of a file.
fn cut(file: &[u8], parcel: &Parcel, cuts: &[Cut], plain: &mut Vec<u8>) -> Result<(), Error> {
    let mut lengths = parcel.lengths.iter();
    let mut rest = file;
    for cut in cuts {
        let bytes = lengths.by_ref().take(cut.chunks as usize).map(|length| *length as usize).sum();
        let (_, after) = rest.split_at_checked(cut.skipped as usize).ok_or(Error::Mismatch)?;
        let (chunks, after) = after.split_at_checked(bytes).ok_or(Error::Mismatch)?;
        plain.extend_from_slice(chunks);
        rest = after;
    }
    if lengths.next().is_some() { Err(Error::Mismatch) } else { Ok(()) }
}
