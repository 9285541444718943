//! Writes what a block is made of: stored bytes, the lengths of its codes, its symbols (RFC 1951 section 3.2).

use super::bits::BitWriter;
use super::codes::{
    DISTANCE_EXTRA, DISTANCE_FIRST, DISTANCES, END, FIXED_DISTANCE_BITS, FIXED_LITERAL_BITS, LENGTH_BASE,
    LENGTH_CODE, LENGTH_EXTRA, LENGTH_FIRST, LITERALS, RUN_EXTRA, RUN_ORDER, RUNS, distance_code, number,
};
use super::tree::Code;

/// A symbol of the code length alphabet and the value of its extra bits.
pub(super) type Run = (u8, u8);

/// A literal, or a length minus 3 with the distance from bit 8 on.
pub(super) type Symbol = u32;

/// Returns a copy of 3 to 258 bytes from 1 to 32,768 bytes before, as a symbol.
#[inline]
pub(super) fn copy(distance: usize, length: usize) -> Symbol {
    (distance as u32) << 8 | ((length - 3) & 255) as u32
}

/// Returns how many lengths of the code for code lengths are sent.
pub(super) fn lengths_sent(run_code: &Code<RUNS>) -> usize {
    let unused = |symbol: &&usize| run_code.bits[**symbol] == 0;
    RUNS - RUN_ORDER[4..].iter().rev().take_while(unused).count()
}

/// Makes the codes the fixed ones.
pub(super) fn fix(literals: &mut Code<LITERALS>, distances: &mut Code<DISTANCES>) {
    literals.bits.copy_from_slice(&FIXED_LITERAL_BITS[..LITERALS]);
    distances.bits = FIXED_DISTANCE_BITS;
    let mut codes = [0; LITERALS + 2];
    number(&FIXED_LITERAL_BITS, &mut codes);
    literals.codes.copy_from_slice(&codes[..LITERALS]);
    number(&FIXED_DISTANCE_BITS, &mut distances.codes);
}

/// Writes the lengths of both codes up to their last symbols, as `runs` say them, in `run_code`.
pub(super) fn write_codes(
    (literals, distances): (&Code<LITERALS>, &Code<DISTANCES>),
    (runs, run_code): (&[Run], &Code<RUNS>),
    bits: &mut BitWriter,
    out: &mut Vec<u8>,
) {
    let sent = lengths_sent(run_code);
    bits.put((literals.last + 1 - 257) as u64, 5, out);
    bits.put(distances.last as u64, 5, out);
    bits.put((sent - 4) as u64, 4, out);
    for symbol in &RUN_ORDER[..sent] {
        bits.put(u64::from(run_code.bits[*symbol]), 3, out);
    }
    for (symbol, value) in runs {
        let symbol = usize::from(*symbol);
        let width = u32::from(run_code.bits[symbol]);
        let field = u64::from(run_code.codes[symbol]) | u64::from(*value) << width;
        bits.put(field, width + u32::from(RUN_EXTRA[symbol]), out);
    }
}

/// Writes the symbols and the end of the block.
pub(super) fn write_symbols(
    symbols: impl Iterator<Item = Symbol>,
    (literals, distances): (&Code<LITERALS>, &Code<DISTANCES>),
    bits: &mut BitWriter,
    out: &mut Vec<u8>,
) {
    for symbol in symbols {
        let (distance, low) = ((symbol >> 8) as usize, (symbol & 255) as usize);
        if distance == 0 {
            bits.put(u64::from(literals.codes[low]), u32::from(literals.bits[low]), out);
            continue;
        }
        let code = usize::from(LENGTH_CODE[low]);
        let mut width = u32::from(literals.bits[LENGTH_BASE + code]);
        let mut field = u64::from(literals.codes[LENGTH_BASE + code]);
        field |= (low as u64 - u64::from(LENGTH_FIRST[code])) << width;
        width += u32::from(LENGTH_EXTRA[code]);
        let code = distance_code(distance - 1);
        field |= u64::from(distances.codes[code]) << width;
        width += u32::from(distances.bits[code]);
        field |= (distance as u64 - 1 - u64::from(DISTANCE_FIRST[code])) << width;
        width += u32::from(DISTANCE_EXTRA[code]);
        bits.put(field, width, out);
    }
    bits.put(u64::from(literals.codes[END]), u32::from(literals.bits[END]), out);
}

/// Writes at most 65,535 bytes as they are.
pub(super) fn write_stored(plain: &[u8], last: bool, bits: &mut BitWriter, out: &mut Vec<u8>) {
    let length = u16::try_from(plain.len()).expect("a block is not longer than its window");
    bits.put(u64::from(last), 3, out);
    bits.align(out);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(plain);
}
