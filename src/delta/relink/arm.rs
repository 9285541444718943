//! Trades what depends on places in 64-bit ARM code: branches, and addresses made of a page and an offset.
//!
//! Encodings: Arm Architecture Reference Manual, C4.1. `adrp` makes a page, and a later `add`, load or
//! store adds the low twelve bits. Which one that is follows from opcodes and registers alone, and so is
//! the same before and after the trade. An `adrp` without one is traded as a page. Tables of jumps are
//! relative to code in this instruction set, and need nothing.

use super::exchange::{Direction, Exchange, Kind};
use super::numbers::{put_u32, u32_at};

/// Instructions that are searched for the second half of an address.
const SEARCH: usize = 16;
/// The displacement of a traded branch: 128 MiB back, outside every function.
const BRANCH_MARKER: u32 = 0x200_0000;
const BRANCH_BITS: u32 = 0x3ff_ffff;
/// The offset of a traded load or store: further than the page, unless it is one of single bytes.
const OFFSET_MARKER: u32 = 0xfff;
/// The bits of `adrp` and `adr` that are not the displacement.
const PAGE_OPCODE: u32 = 0x9f00_001f;

/// Trades the displacements of all instructions in `code`, which lies at `address`.
pub fn walk(code: &mut [u8], address: u64, exchange: &mut impl Exchange) -> Option<()> {
    let bytes = code.len() as u64;
    for at in (0..code.len() / 4).map(|word| 4 * word) {
        let word = u32_at(code, at)?;
        let here = address.wrapping_add(at as u64);
        if word & 0x7c00_0000 == 0x1400_0000 {
            branch(code, at, here, (address, bytes), exchange)?;
        } else if word & 0x9f00_0000 == 0x9000_0000 {
            page(code, at, here, exchange)?;
        }
    }
    Some(())
}

/// Trades `b` and `bl` where they leave the function.
fn branch(
    code: &mut [u8],
    at: usize,
    here: u64,
    (address, bytes): (u64, u64),
    exchange: &mut impl Exchange,
) -> Option<()> {
    let word = u32_at(code, at)?;
    let target = here.wrapping_add_signed(4 * signed(word & BRANCH_BITS, 26));
    let traded = match exchange.direction() {
        Direction::Out => target.wrapping_sub(address) >= bytes,
        Direction::Back | Direction::Count => word & BRANCH_BITS == BRANCH_MARKER,
    };
    if !traded {
        return Some(());
    }
    let target = exchange.whole(Kind::Branch, target)?;
    match exchange.direction() {
        Direction::Out => put_u32(code, at, word & !BRANCH_BITS | BRANCH_MARKER),
        Direction::Back => {
            put_u32(code, at, word & !BRANCH_BITS | low(target.wrapping_sub(here) >> 2) & BRANCH_BITS)
        }
        Direction::Count => Some(()),
    }
}

/// Trades `adrp` together with the instruction that adds the offset in the page.
fn page(code: &mut [u8], at: usize, here: u64, exchange: &mut impl Exchange) -> Option<()> {
    let word = u32_at(code, at)?;
    let page = here & !0xfff;
    let displacement = word >> 29 & 3 | word >> 3 & 0x1f_fffc;
    let target = page.wrapping_add_signed(signed(displacement, 21) << 12);
    let user = user(code, at, word & 31).filter(|user| match exchange.direction() {
        Direction::Out => user.offset << user.scale < 0x1000,
        Direction::Back | Direction::Count => user.scale == 0 || user.offset == OFFSET_MARKER,
    });
    let offset = user.as_ref().map_or(0, |user| u64::from(user.offset << user.scale));
    let target = exchange.whole(Kind::Data, target.wrapping_add(offset))?;
    match exchange.direction() {
        Direction::Out => {
            put_u32(code, at, word & PAGE_OPCODE)?;
            user.map_or(Some(()), |user| user.put(code, OFFSET_MARKER))
        }
        Direction::Back => {
            let pages = low((target & !0xfff).wrapping_sub(page) >> 12);
            put_u32(code, at, word & PAGE_OPCODE | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5)?;
            user.map_or(Some(()), |user| user.put(code, low(target & 0xfff) >> user.scale))
        }
        Direction::Count => Some(()),
    }
}

/// An instruction that adds an offset to a page.
struct User {
    at: usize,
    word: u32,
    offset: u32,
    scale: u32,
}

impl User {
    fn put(&self, code: &mut [u8], offset: u32) -> Option<()> {
        put_u32(code, self.at, self.word & !(0xfff << 10) | (offset & 0xfff) << 10)
    }
}

/// Returns the first instruction after `at` that adds to `register`, before it is written.
fn user(code: &[u8], at: usize, register: u32) -> Option<User> {
    for at in (1..=SEARCH).map(|step| at + 4 * step) {
        let word = u32_at(code, at)?;
        // Branches and system instructions: their low bits may be part of a displacement.
        if word & 0x1c00_0000 == 0x1400_0000 {
            continue;
        }
        if word >> 5 & 31 == register
            && let Some(scale) = scale(word)
        {
            return Some(User { at, word, offset: word >> 10 & 0xfff, scale });
        }
        if word & 31 == register {
            return None;
        }
    }
    None
}

/// Returns how far the offset of an `add`, load or store is shifted; `None` for other instructions.
fn scale(word: u32) -> Option<u32> {
    if word & 0xffc0_0000 == 0x9100_0000 {
        return Some(0);
    }
    let is_vector = word >> 26 & 1 == 1;
    (word & 0x3b00_0000 == 0x3900_0000).then_some(if is_vector && word >> 23 & 1 == 1 {
        4
    } else {
        word >> 30
    })
}

/// Sign-extends a number of `bits` bits.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)).cast_signed() >> (32 - bits))
}

/// Returns the low half.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("32 bits were kept")
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{Putting, Taking};
    use super::*;

    #[test]
    fn branches_and_addresses_come_back() {
        let words = [
            0x9400_1000u32, // bl +0x4000
            0x1400_0002,    // b +8, within
            0xb000_0008,    // adrp x8, +1 page
            0x9400_0400,    // bl
            0x9101_2108,    // add x8, x8, #0x48
            0xd000_0009,    // adrp x9, +2 pages
            0xf940_0d2a,    // ldr x10, [x9, #24]
            0x9000_000b,    // adrp x11, which is overwritten
            0xaa00_03eb,    // mov x11, x0
            0x9000_000c,    // adrp x12
            0xf97f_c18d,    // ldr x13, [x12, #32640]: beyond the page
        ];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut taking = Taking::default();
        let mut work = code.clone();
        walk(&mut work, 0x10_0ff0, &mut taking).expect("it fits");
        assert_eq!(taking.targets.branches, [0x10_4ff0, 0x10_1ffc]);
        assert_eq!(taking.targets.data, [0x10_1048, 0x10_3018, 0x10_1000, 0x10_1000]);
        // The same code elsewhere, with the same targets, is the same bytes.
        let mut moved = work.clone();
        walk(&mut moved, 0x20_0010, &mut Putting::new(&taking.targets)).expect("as many targets");
        assert_ne!(moved, code);
        let mut again = Taking::default();
        walk(&mut moved, 0x20_0010, &mut again).expect("it fits");
        assert_eq!((again.targets, &moved), (taking.targets.clone(), &work));
        walk(&mut work, 0x10_0ff0, &mut Putting::new(&taking.targets)).expect("as many targets");
        assert_eq!(work, code);
    }
}
