//! The type table of an LSDA: pointers from where they lie to the types that are caught.
//!
//! Layout: Itanium C++ ABI, exception handling tables; only the forms that compilers write for
//! position-independent code.

use std::ops::Range;

use super::numbers::Cursor;

const ENCODING_OMITTED: u8 = 0xff;
/// `indirect|pcrel|sdata4`.
const ENCODING_TYPES: u8 = 0x9b;

/// Returns where the type table lies in `lsda`: entries of four bytes.
///
/// Time is proportional to the LSDA's bytes.
pub fn type_table(lsda: &[u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor::new(lsda);
    if cursor.byte()? != ENCODING_OMITTED || cursor.byte()? != ENCODING_TYPES {
        return None;
    }
    let distance = unsigned(&mut cursor)?;
    let end = cursor.at().checked_add(distance).filter(|end| *end <= lsda.len())?;
    if cursor.byte()? != 1 {
        return None;
    }
    let sites_bytes = unsigned(&mut cursor)?;
    let mut sites = Cursor::new(cursor.take(sites_bytes)?);
    let actions = lsda.get(cursor.at()..end)?;
    let mut steps = lsda.len();
    let mut count = 0;
    while !sites.rest().is_empty() {
        for _ in 0..3 {
            unsigned(&mut sites)?;
        }
        let mut action = unsigned(&mut sites)?;
        while action != 0 && steps > 0 {
            steps -= 1;
            let mut record = Cursor::new(actions.get(action - 1..)?);
            let filter = signed(&mut record)?;
            count = count.max(filter);
            let next_at = action + record.at();
            let next = signed(&mut record)?;
            action = if next == 0 { 0 } else { next_at.checked_add_signed(isize::try_from(next).ok()?)? };
        }
    }
    let bytes = usize::try_from(count).ok()?.checked_mul(4)?;
    let start = end.checked_sub(bytes)?;
    (start >= cursor.at()).then_some(start..end)
}

/// Reads a number in groups of seven bits; assemblers pad some with empty groups.
fn unsigned(cursor: &mut Cursor<'_>) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = cursor.byte()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

/// Reads a signed number in groups of seven bits.
fn signed(cursor: &mut Cursor<'_>) -> Option<i64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = cursor.byte()?;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let sign = 1 << (shift + 6);
            return Some(if value & sign == 0 { value } else { value - 2 * sign });
        }
    }
    None
}
