//! Jump tables: differences between the places of cases and the table itself.
//!
//! A compiled `switch` makes the address of its table with `lea`, and each entry is a case's address less
//! the table's. So the addresses that a function makes are the candidates, and entries last as long as
//! they lead into that function. They are traded for the case's offset in the function, which does not
//! change when either moves; the trade is a bijection on all 32-bit values, and needs no side data.

use std::ops::Range;

use super::elf::Image;
use super::numbers::{put_u32, u32_at};
use super::plan::Plan;

/// The start of the traded entries' values: a range that data seldom holds.
const BASE: u32 = 0xa500_0000;
/// Tables of longer functions stay.
const FUNCTION_BYTES_MAX: u32 = 1 << 24;
/// More cases than a compiler writes.
const ENTRIES_MAX: usize = 1 << 16;

/// An address that a function computes by `lea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// The address.
    pub target: u64,
    /// The number of the function.
    pub function: u32,
}

/// Trades all tables, out of the file or back into it. `made` holds every computed address, in any order.
///
/// Time O(n log n) in the number of addresses, plus the tables' entries.
pub fn trade(
    file: &mut [u8],
    image: &Image,
    plan: &Plan,
    covers: &[Range<usize>],
    mut made: Vec<Made>,
    out: bool,
) {
    made.sort_unstable();
    made.dedup_by_key(|made| made.target);
    for (index, candidate) in made.iter().enumerate() {
        let next = made.get(index + 1).map_or(u64::MAX, |next| next.target);
        let Some(start) = image.offset(candidate.target) else { continue };
        // A table ends before another candidate and before bytes that are not plain.
        let after = covers.partition_point(|cover| cover.end <= start);
        let free = covers.get(after).map_or(file.len(), |cover| cover.start);
        let length = usize::try_from(next - candidate.target).unwrap_or(usize::MAX);
        let end = start.saturating_add(length.min(4 * ENTRIES_MAX)).min(free);
        let function = plan.functions.get(candidate.function as usize).map(|function| function.code.clone());
        if let Some(code) = function
            && let Some(address) = image.address(code.start)
            && let Some(table) = file.get_mut(start..end)
        {
            trade_one(table, address.wrapping_sub(candidate.target), code.len(), out);
        }
    }
}

/// Trades one table, whose function starts `distance` after it.
fn trade_one(table: &mut [u8], distance: u64, code_bytes: usize, out: bool) {
    let Ok(bytes) = u32::try_from(code_bytes) else { return };
    let first = u32::try_from(distance & u64::from(u32::MAX)).expect("32 bits were kept");
    let apart = first.wrapping_sub(BASE) >= bytes && BASE.wrapping_sub(first) >= bytes;
    let near = distance.cast_signed() == i64::from(first.cast_signed());
    if bytes > FUNCTION_BYTES_MAX || !apart || !near {
        return;
    }
    let (from, to) = if out { (first, BASE) } else { (BASE, first) };
    for at in (0..table.len()).step_by(4) {
        let Some(entry) = u32_at(table, at) else { return };
        let (inside, taken) = (entry.wrapping_sub(from), entry.wrapping_sub(to));
        if inside < bytes {
            put_u32(table, at, to.wrapping_add(inside));
        } else {
            // A plain value that looks like a traded entry changes places with that entry's value.
            if taken < bytes {
                put_u32(table, at, from.wrapping_add(taken));
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[u32]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    #[test]
    fn entries_become_offsets_in_the_function() {
        let distance = 0x1000u64.wrapping_neg();
        let first = 0x1000u32.wrapping_neg();
        let original = table(&[first + 7, first, first + 99, 5, first]);
        let mut traded = original.clone();
        trade_one(&mut traded, distance, 100, true);
        assert_eq!(traded, table(&[BASE + 7, BASE, BASE + 99, 5, first]));
        trade_one(&mut traded, distance, 100, false);
        assert_eq!(traded, original);
    }

    #[test]
    fn what_looks_like_an_entry_comes_back() {
        let distance = 0x1000u64.wrapping_neg();
        let first = 0x1000u32.wrapping_neg();
        for end in [BASE, BASE + 99, first - 1, first + 100] {
            let original = table(&[first + 7, end, first + 1]);
            let mut traded = original.clone();
            trade_one(&mut traded, distance, 100, true);
            trade_one(&mut traded, distance, 100, false);
            assert_eq!(traded, original);
        }
    }
}
