//! The RELATIVE relocations of a position-independent file: where an address is stored, and which.

use ground::leb128;
use std::ops::Range;

use super::elf::{Image, Machine};
use super::exchange::{Exchange, Kind};
use super::numbers::{Cursor, put_u64, u64_at};

/// Offset, kind, addend.
pub const ENTRY_BYTES: usize = 24;

fn kind(machine: Machine) -> u64 {
    match machine {
        Machine::X86 => 8,
        Machine::Arm => 1027,
    }
}

/// Returns the place of the RELATIVE relocations that a linker puts first.
pub fn run(file: &[u8], image: &Image) -> Range<usize> {
    let all = image.relocations.clone();
    let count = all
        .clone()
        .step_by(ENTRY_BYTES)
        .take_while(|at| at + ENTRY_BYTES <= all.end && u64_at(file, at + 8) == Some(kind(image.machine)))
        .count();
    all.start..all.start + count * ENTRY_BYTES
}

/// Takes the relocations at `place` out; appends the differences of their offsets to `offsets`.
pub fn take(
    file: &[u8],
    place: Range<usize>,
    offsets: &mut Vec<u8>,
    exchange: &mut impl Exchange,
) -> Option<()> {
    let mut last = 0u64;
    for at in place.step_by(ENTRY_BYTES) {
        let offset = u64_at(file, at)?;
        leb128::write(leb128::folded(offset.wrapping_sub(last).cast_signed()), offsets);
        last = offset;
        exchange.whole(Kind::Relocation, u64_at(file, at + 16)?)?;
    }
    Some(())
}

/// Puts the relocations at `place` back.
pub fn put(
    file: &mut [u8],
    image: &Image,
    place: Range<usize>,
    offsets: &mut Cursor<'_>,
    exchange: &mut impl Exchange,
) -> Option<()> {
    let mut last = 0u64;
    for at in place.step_by(ENTRY_BYTES) {
        last = last.wrapping_add_signed(leb128::unfolded(offsets.leb128()?));
        put_u64(file, at, last)?;
        put_u64(file, at + 8, kind(image.machine))?;
        put_u64(file, at + 16, exchange.whole(Kind::Relocation, 0)?)?;
    }
    Some(())
}
