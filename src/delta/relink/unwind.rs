//! Takes what depends on places out of the unwind data of functions, and puts it back.
//!
//! A function's FDE holds its address, the distance to its CIE and a pointer to its LSDA. All three follow
//! from where the plan puts the parts, so that nothing of them is sent but the CIE's number.

use std::ops::Range;

use super::elf::Image;
use super::exchange::{Exchange, Kind};
use super::frames::{Common, Frames, LSDA_AT, START_AT, common, entries};
use super::lsda;
use super::numbers::{displacement, put_u32, u32_at};
use super::plan::Plan;

/// Takes the addresses out of the FDEs of all functions of the plan.
pub fn take(file: &mut [u8], plan: &Plan, frames: &Frames) -> Option<()> {
    for function in plan.functions.iter().filter(|function| !function.frame.is_empty()) {
        let at = function.frame.start;
        let frame = frames.frames.binary_search_by_key(&at, |frame| frame.place.start).ok()?;
        let number = u32::try_from(frames.frames.get(frame)?.common + 1).ok()?;
        put_u32(file, at + 4, number)?;
        put_u32(file, at + START_AT, 0)?;
        if !function.lsda.is_empty() {
            put_u32(file, at + LSDA_AT, 0)?;
        }
    }
    Some(())
}

/// Puts the addresses back. The CIEs and the lengths of all entries are in place already.
pub fn put(file: &mut [u8], image: &Image, plan: &Plan) -> Option<()> {
    let commons: Vec<Common> = entries(file, image.frames.unwrap_or(file.len()))
        .filter(|entry| entry.back == 0)
        .map(|entry| common(file, entry.place))
        .collect();
    for function in plan.functions.iter().filter(|function| !function.frame.is_empty()) {
        let at = function.frame.start;
        let number = usize::try_from(u32_at(file, at + 4)?).ok()?;
        let common = commons.get(number.checked_sub(1)?)?;
        let address = image.address(at)?;
        put_u32(file, at + 4, u32::try_from((at + 4).checked_sub(common.offset)?).ok()?)?;
        let start = image.address(function.code.start)?;
        put_u32(file, at + START_AT, displacement(address.wrapping_add(START_AT as u64), start))?;
        if !function.lsda.is_empty() {
            let lsda = image.address(function.lsda.start)?;
            put_u32(file, at + LSDA_AT, displacement(address.wrapping_add(LSDA_AT as u64), lsda))?;
        }
    }
    Some(())
}

/// Trades the type tables of all LSDAs of the plan. An empty entry, which catches everything, stays.
pub fn trade_types(file: &mut [u8], image: &Image, plan: &Plan, exchange: &mut impl Exchange) -> Option<()> {
    for lsda in plan.functions.iter().map(|function| &function.lsda).filter(|lsda| !lsda.is_empty()) {
        let Some(table) = lsda::type_table(file.get(lsda.clone())?) else { continue };
        for at in table.step_by(4).map(|at| lsda.start + at) {
            let stored = u32_at(file, at)?;
            if stored != 0 {
                let (_, stored) = exchange.displacement(Kind::Type, image.address(at)?, stored)?;
                put_u32(file, at, stored)?;
            }
        }
    }
    Some(())
}

/// Returns the table that a linker makes for a binary search of the FDEs: pairs of a function's address and its
/// FDE's, both from the table's header on, in rising order.
pub fn table(image: &Image, frames: &Frames) -> Option<(Range<usize>, Vec<u8>)> {
    let (start, count) = image.frame_table?;
    if count != frames.frames.len() {
        return None;
    }
    let header = image.address(start)?.wrapping_sub(12);
    let mut pairs = Vec::with_capacity(count);
    for frame in &frames.frames {
        let place = displacement(header, image.address(frame.place.start)?);
        pairs.push((displacement(header, frame.start).cast_signed(), place));
    }
    pairs.sort_by_key(|(start, _)| *start);
    let table: Vec<u8> = pairs
        .into_iter()
        .flat_map(|(start, place)| [start.to_le_bytes(), place.to_le_bytes()])
        .flatten()
        .collect();
    Some((start..start + table.len(), table))
}
