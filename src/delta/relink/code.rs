//! Walks the instructions of a function and exchanges displacements for targets.
//!
//! A linear sweep as of objdump, after the idea of Courgette (Google, 2009) and of call filters in xz: with absolute
//! targets a call is the same bytes wherever its function lies. Both directions must see the same instructions, so that
//! nothing that is exchanged may decide where the next instruction begins.

use super::exchange::{Direction, Exchange, Kind, MARKER};
use super::numbers::{displaced, put_u32, u32_at};
use super::x86::{Operand, decode};

/// Trades the displacements of x86-64 instructions in `code`, which lies at `address`; passes each target
/// of a `lea` to `made`.
///
/// Branches within the function stay.
pub fn walk_x86(
    code: &mut [u8],
    address: u64,
    exchange: &mut impl Exchange,
    made: &mut impl FnMut(u64),
) -> Option<()> {
    let bytes = code.len() as u64;
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let instruction = match decode(rest) {
            Ok(instruction) => instruction,
            // Data among code: the decoder looked at `seen` bytes, which stay; it goes on after them.
            Err(seen) => {
                at += seen;
                continue;
            }
        };
        let (start, end) = (at, at + instruction.length);
        at = end;
        let next = address.wrapping_add(end as u64);
        let (kind, place) = match instruction.operand {
            Operand::None => continue,
            Operand::Branch(place) => (Kind::Branch, start + place),
            Operand::Relative(place) | Operand::Address(place) => (Kind::Data, start + place),
        };
        let stored = u32_at(code, place)?;
        // A branch inside the function is the same wherever the function lies and stays. On the way back only the marker
        // says that one was taken out: 2 GiB back is in no function, as functions are below 64 MiB.
        let trade = kind == Kind::Data
            || if exchange.direction() == Direction::Out {
                displaced(next, stored).wrapping_sub(address) >= bytes
            } else {
                stored == MARKER
            };
        if trade {
            let (target, stored) = exchange.displacement(kind, next, stored)?;
            put_u32(code, place, stored)?;
            if matches!(instruction.operand, Operand::Address(_)) {
                made(target);
            }
        }
    }
    Some(())
}
