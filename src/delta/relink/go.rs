//! Go's function table (`.gopclntab`): where functions are in programs without unwind data, and numbers in
//! it that change whenever something before them does.
//!
//! Layout: runtime/symtab.go and internal/abi of Go 1.20 and later. Each entry's offsets are traded for
//! their difference from the entry before it, which is the length of something, and stays.

use std::ops::Range;

use super::elf::Image;
use super::numbers::{put_u32, size_at, u32_at, u64_at};

/// Version, padding, least instruction (1 or 4 bytes), pointer of 8 bytes.
const MAGIC: [u8; 6] = [0xf1, 0xff, 0xff, 0xff, 0, 0];
const ALIGNMENT: usize = 16;
/// Offsets in `_func` of numbers that rise from function to function: its name, its tables of stack depths, files and
/// lines, and its unit.
const RISING: [usize; 5] = [4, 16, 20, 24, 32];
const ENTRY_AT: usize = 0;
const STACK_AT: usize = 16;
const TABLES_COUNT_AT: usize = 28;
const TABLES_AT: usize = 44;
/// More tables than any function has.
const TABLES_MAX: u32 = 16;

/// The table's places in the file.
struct Table {
    text: u64,
    /// Pairs of a function's offset in the text and its `_func`'s in this table.
    pairs: usize,
    count: usize,
}

fn find(file: &[u8]) -> Option<Table> {
    let is_header = |at: &usize| {
        file.get(*at..*at + 8)
            .is_some_and(|found| found.starts_with(&MAGIC) && matches!(found, [.., 1 | 4, 8]))
    };
    let header = (0..file.len()).step_by(ALIGNMENT).find(is_header)?;
    let pairs = header.checked_add(size_at(file, header + 64)?)?;
    let count = size_at(file, header + 8)?;
    let fits = count <= file.len().checked_sub(pairs)? / 8;
    fits.then_some(Table { text: u64_at(file, header + 24)?, pairs, count })
}

/// Returns the code of all functions, in rising order. Time: one pass over the file.
pub fn functions(file: &[u8], image: &Image) -> Vec<Range<usize>> {
    let Some(table) = find(file) else { return Vec::new() };
    let start = |index: usize| u32_at(file, table.pairs + 8 * index).map(u64::from);
    (0..table.count)
        .filter_map(|index| {
            let (start, end) = (start(index)?, start(index + 1)?);
            let bytes = usize::try_from(end.checked_sub(start)?).ok()?;
            image.code(table.text.wrapping_add(start), bytes)
        })
        .collect()
}

/// Trades the numbers of the table, out of the file or back into it. Changes nothing where there is no table.
pub fn trade(file: &mut [u8], out: bool) {
    let Some(table) = find(file) else { return };
    let mut last = [0u32; 2 + RISING.len()];
    for index in 0..table.count {
        let pair = table.pairs + 8 * index;
        let swap = |file: &mut [u8], at: usize, last: &mut u32| -> Option<u32> {
            let stored = u32_at(file, at)?;
            let (value, put) = if out {
                (stored, stored.wrapping_sub(*last))
            } else {
                (stored.wrapping_add(*last), stored.wrapping_add(*last))
            };
            put_u32(file, at, put)?;
            *last = value;
            Some(value)
        };
        let mut each = || {
            let [first, second, rising @ ..] = &mut last;
            let mut entry = swap(file, pair, first)?;
            let function = table.pairs.checked_add(usize::try_from(swap(file, pair + 4, second)?).ok()?)?;
            swap(file, function + ENTRY_AT, &mut entry)?;
            let mut stack = 0;
            for (at, last) in RISING.into_iter().zip(rising) {
                let value = swap(file, function + at, last)?;
                if at == STACK_AT {
                    stack = value;
                }
            }
            let tables = u32_at(file, function + TABLES_COUNT_AT)?.min(TABLES_MAX);
            for number in 0..usize::try_from(tables).ok()? {
                let at = function + TABLES_AT + 4 * number;
                put_u32(file, at, near(u32_at(file, at)?, stack, out))?;
            }
            Some(())
        };
        if each().is_none() {
            return;
        }
    }
}

/// Trades an offset for its distance from another. 0, which means none, stays; the offset that would become 0 becomes
/// the distance that 0 would have.
fn near(value: u32, other: u32, out: bool) -> u32 {
    let other = if out { other } else { other.wrapping_neg() };
    match value {
        0 => 0,
        _ if value == other => other.wrapping_neg(),
        _ => value.wrapping_sub(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_come_back_and_nothing_stays_nothing() {
        for value in [0, 1, 5, 6, 7, u32::MAX, 6u32.wrapping_neg()] {
            assert_eq!(near(near(value, 6, true), 6, false), value);
        }
        assert_eq!((near(0, 6, true), near(9, 6, true)), (0, 3));
    }

    #[test]
    fn a_table_of_unchanged_functions_reads_the_same_wherever_it_lies() {
        // A header, three pairs and a last start, then a `_func` of 48 bytes with one table for each.
        let table = |moved: u32| {
            let mut file = vec![0; 72 + 32 + 3 * 48];
            file[..8].copy_from_slice(&[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]);
            (file[8], file[64]) = (3, 72);
            for index in 0..3u8 {
                let (pair, function) = (72 + 8 * usize::from(index), 104 + 48 * usize::from(index));
                let number = u32::from(index);
                put_u32(&mut file, pair, moved + 100 * number).expect("it fits");
                put_u32(&mut file, pair + 4, 32 + 48 * number).expect("it fits");
                put_u32(&mut file, function, moved + 100 * number).expect("it fits");
                for at in RISING {
                    put_u32(&mut file, function + at, moved + 7 * number).expect("it fits");
                }
                put_u32(&mut file, function + TABLES_COUNT_AT, 1).expect("it fits");
                put_u32(&mut file, function + TABLES_AT, moved + 7 * number + 3).expect("it fits");
            }
            file
        };
        let (mut old, mut new) = (table(1000), table(5000));
        trade(&mut old, true);
        trade(&mut new, true);
        assert_eq!(old[152..], new[152..]);
        trade(&mut new, false);
        assert_eq!(new, table(5000));
    }
}
