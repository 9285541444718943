//! Finds where x86-64 instructions end, and which bytes of them depend on where they lie.
//!
//! A frozen length decoder for 64-bit mode, from the opcode maps of Intel's manual (volume 2, appendix A).
//! It need not be right about every byte pattern, only the same on both sides of a link for ever: an
//! instruction's extent follows from its prefixes, opcode, `ModRM` and `SIB`, never from its displacement or
//! immediate, so that it reads normalised code as it read the original.

/// The part of an instruction that depends on its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// No such part that matters here.
    None,
    /// The 32-bit displacement of a call, jump or conditional jump, at this offset.
    Branch(usize),
    /// The 32-bit displacement of an operand relative to the next instruction, at this offset.
    Relative(usize),
    /// The same of `lea`, which makes an address: where a jump table may be.
    Address(usize),
}

/// The extent of one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes from its first prefix on: 1 to 15.
    pub length: usize,
    /// Its displacement.
    pub operand: Operand,
}

/// 15: the processor refuses longer ones.
const LENGTH_MAX: usize = 15;

/// Followed by a `ModRM` byte.
const MODRM: u8 = 1;
/// Followed by one byte.
const BYTE: u8 = 2;
/// Followed by four bytes, or two with the prefix 66.
const WORD: u8 = 4;
/// Followed by two bytes.
const SHORT: u8 = 8;
/// Followed by a branch's four bytes.
const BRANCH: u8 = 16;
/// Decided where it is met.
const SPECIAL: u8 = 32;
/// No instruction.
const INVALID: u8 = 64;

const ONE: [u8; 256] = one_byte_map();
const TWO: [u8; 256] = two_byte_map();

const fn one_byte_map() -> [u8; 256] {
    let mut map = [0; 256];
    let mut opcode = 0;
    while opcode < 256 {
        map[opcode] = match opcode {
            0x0f | 0x62 | 0xc4 | 0xc5 | 0xa0..=0xa3 | 0xb8..=0xbf | 0xf6 | 0xf7 | 0x8f => SPECIAL,
            0x00..=0x3f => match opcode % 8 {
                0..=3 => MODRM,
                4 => BYTE,
                5 => WORD,
                _ => INVALID,
            },
            0x60 | 0x61 | 0x82 | 0x9a | 0xce | 0xd4..=0xd6 | 0xea => INVALID,
            0x63 | 0x84..=0x8e | 0xd0..=0xd3 | 0xd8..=0xdf | 0xfe | 0xff => MODRM,
            0x68 | 0xa9 => WORD,
            0x69 | 0x81 | 0xc7 => MODRM | WORD,
            0x6a | 0x70..=0x7f | 0xa8 | 0xb0..=0xb7 | 0xcd | 0xe0..=0xe7 | 0xeb => BYTE,
            0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => MODRM | BYTE,
            0xc2 | 0xca => SHORT,
            0xc8 => SHORT | BYTE,
            0xe8 | 0xe9 => BRANCH,
            _ => 0,
        };
        opcode += 1;
    }
    map
}

const fn two_byte_map() -> [u8; 256] {
    let mut map = [0; 256];
    let mut opcode = 0;
    while opcode < 256 {
        map[opcode] = match opcode {
            0x04 | 0x0a | 0x0c | 0x24..=0x27 | 0x36 | 0x39 | 0x3b..=0x3f | 0x7a | 0x7b | 0xa6 | 0xa7 => {
                INVALID
            }
            0x05..=0x09 | 0x0b | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa | 0xc8..=0xcf => 0,
            0x20..=0x23 | 0x38 | 0x3a => SPECIAL,
            0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => MODRM | BYTE,
            0x80..=0x8f => BRANCH,
            _ => MODRM,
        };
        opcode += 1;
    }
    map
}

/// Reads the instruction at the front of `code`.
///
/// # Errors
/// The number of bytes read, at least one, where there is no instruction or it does not fit; the caller goes on after
/// them.
pub fn decode(code: &[u8]) -> Result<Instruction, usize> {
    let mut at = 0;
    decode_at(code, &mut at).filter(|found| found.length <= LENGTH_MAX.min(code.len())).ok_or(at.max(1))
}

/// The prefixes' effects, and the opcode after them.
struct Start {
    opcode: u8,
    /// Immediates of two bytes instead of four.
    short: bool,
    short_addresses: bool,
    /// Operands of eight bytes.
    wide: bool,
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

fn start(next: &mut impl FnMut() -> Option<u8>) -> Option<Start> {
    let mut start = Start { opcode: next()?, short: false, short_addresses: false, wide: false };
    while is_prefix(start.opcode) {
        start.short |= start.opcode == 0x66;
        start.short_addresses |= start.opcode == 0x67;
        // A REX prefix counts where it is the last one.
        start.wide = start.opcode & 0xf8 == 0x48;
        start.opcode = next()?;
    }
    Some(start)
}

fn decode_at(code: &[u8], at: &mut usize) -> Option<Instruction> {
    let mut next = || {
        let byte = code.get(*at).copied();
        *at += 1;
        byte.filter(|_| *at <= LENGTH_MAX)
    };
    let Start { opcode, short, short_addresses, wide } = start(&mut next)?;
    let (form, modrm) = form(opcode, &mut next)?;
    if form & INVALID != 0 {
        return None;
    }
    if form & BRANCH != 0 {
        return Some(Instruction { length: *at + 4, operand: Operand::Branch(*at) });
    }
    let mut relative = false;
    let mut displacement = 0;
    if form & MODRM != 0 {
        let modrm = match modrm {
            Some(found) => found,
            None => next()?,
        };
        let mode = modrm >> 6;
        displacement = [0, 1, 4, 0][usize::from(mode)];
        if mode != 3 && modrm & 7 == 4 && next()? & 7 == 5 && mode == 0 {
            displacement = 4;
        } else if mode == 0 && modrm & 7 == 5 {
            displacement = 4;
            relative = true;
        }
    }
    let mut tail = usize::from(form & BYTE != 0) + 2 * usize::from(form & SHORT != 0);
    tail += match (form & WORD != 0, short && !wide) {
        (false, _) => 0,
        (true, true) => 2,
        (true, false) => 4,
    };
    tail += match opcode {
        0xa0..=0xa3 => 8 - 4 * usize::from(short_addresses),
        0xb8..=0xbf if wide => 4,
        _ => 0,
    };
    let operand = match (relative, opcode) {
        (false, _) => Operand::None,
        (true, 0x8d) => Operand::Address(*at),
        (true, _) => Operand::Relative(*at),
    };
    Some(Instruction { length: *at + displacement + tail, operand })
}

/// Returns the form of an instruction, and its `ModRM` byte where that had to be read.
fn form(opcode: u8, next: &mut impl FnMut() -> Option<u8>) -> Option<(u8, Option<u8>)> {
    let form = match opcode {
        0x0f => match next()? {
            0x38 => next().map(|_| MODRM)?,
            0x3a => next().map(|_| MODRM | BYTE)?,
            0x20..=0x23 => next().map(|_| 0)?,
            second => TWO[usize::from(second)],
        },
        0xc5 => {
            next()?;
            vector_form(1, next()?)
        }
        0xc4 => {
            let map = next()? & 0x1f;
            next()?;
            vector_form(map, next()?)
        }
        0x62 => {
            let map = next()? & 7;
            next()?;
            next()?;
            vector_form(map, next()?)
        }
        0xa0..=0xa3 => 0,
        // Eight bytes where the operand is wide: decode_at adds the other four.
        0xb8..=0xbf => WORD,
        0xf6 | 0xf7 => {
            let modrm = next()?;
            let form = match (modrm & 0x38 < 0x10, opcode) {
                (false, _) => MODRM,
                (true, 0xf6) => MODRM | BYTE,
                (true, _) => MODRM | WORD,
            };
            return Some((form, Some(modrm)));
        }
        0x8f => {
            let modrm = next()?;
            return Some((if modrm & 0x38 == 0 { MODRM } else { INVALID }, Some(modrm)));
        }
        _ => ONE[usize::from(opcode)],
    };
    Some((form, None))
}

/// Returns the form of an instruction with a VEX or EVEX prefix.
fn vector_form(map: u8, opcode: u8) -> u8 {
    match (map, opcode) {
        (1, 0x77) => 0,
        (1, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) | (3, _) => MODRM | BYTE,
        (1 | 2 | 5 | 6, _) => MODRM,
        _ => INVALID,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: &[u8]) -> (usize, Operand) {
        let found = decode(code).expect("an instruction");
        (found.length, found.operand)
    }

    #[test]
    fn lengths_and_operands_of_known_instructions() {
        use Operand::{Address, Branch, None, Relative};
        let vectors: [(&[u8], usize, Operand); 20] = [
            (&[0xc3], 1, None),
            (&[0xe8, 1, 2, 3, 4], 5, Branch(1)),
            (&[0x66, 0x66, 0x48, 0xe8, 1, 2, 3, 4], 8, Branch(4)),
            (&[0x0f, 0x84, 1, 2, 3, 4], 6, Branch(2)),
            (&[0x48, 0x8d, 0x05, 1, 2, 3, 4], 7, Address(3)),
            (&[0x48, 0x8b, 0x05, 1, 2, 3, 4], 7, Relative(3)),
            (&[0xff, 0x15, 1, 2, 3, 4], 6, Relative(2)),
            (&[0x80, 0x3d, 1, 2, 3, 4, 5], 7, Relative(2)),
            (&[0x66, 0xc7, 0x05, 1, 2, 3, 4, 5, 6], 9, Relative(3)),
            (&[0xf7, 0x05, 1, 2, 3, 4, 5, 6, 7, 8], 10, Relative(2)),
            (&[0xf7, 0xd8], 2, None),
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10, None),
            (&[0x66, 0xb8, 1, 2], 4, None),
            (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 10, None),
            (&[0x8b, 0x04, 0x25, 1, 2, 3, 4], 7, None),
            (&[0xc5, 0xf8, 0x77], 3, None),
            (&[0xc5, 0xf9, 0x6f, 0x05, 1, 2, 3, 4], 8, Relative(4)),
            (&[0xc4, 0xe3, 0x7d, 0x39, 0x05, 1, 2, 3, 4, 5], 10, Relative(5)),
            (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x05, 1, 2, 3, 4], 10, Relative(6)),
            (&[0x66, 0x0f, 0x3a, 0x0f, 0x05, 1, 2, 3, 4, 8], 10, Relative(5)),
        ];
        for (code, length, operand) in vectors {
            assert_eq!(read(code), (length, operand), "{code:02x?}");
        }
    }

    #[test]
    fn what_is_none_says_how_far_it_looked() {
        assert_eq!(decode(&[0x06, 0x90]), Err(1));
        assert_eq!(decode(&[0x0f, 0x04]), Err(2));
        assert_eq!(decode(&[0x66; 20]), Err(16));
        assert!(decode(&[0xe8, 1, 2]).is_err());
        assert!(decode(&[]).is_err());
    }
}
