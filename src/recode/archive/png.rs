//! Finds the image stream of a PNG file that has it in one piece (W3C PNG, sections 5.3 and 10.1).

use super::Member;
use crate::deflate::Hint;

const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";
/// 64: chunks that may come before the image.
const CHUNKS_MAX: usize = 64;

/// Returns the deflate stream of the only `IDAT` chunk; `None` if this is no PNG file, or one with several.
pub(super) fn member(bytes: &[u8]) -> Option<Member> {
    let mut at = MAGIC.len();
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    for _ in 0..CHUNKS_MAX {
        let (size, name) = chunk(bytes, at)?;
        let next = at.checked_add(12)?.checked_add(size)?;
        if name == b"IDAT" {
            let single = chunk(bytes, next).is_some_and(|(_, name)| name != b"IDAT");
            let zlib = bytes.get(at + 8..at + 10)?;
            if !single || size < 6 || zlib[0] & 15 != 8 || zlib[1] & 0x20 != 0 || next > bytes.len() {
                return None;
            }
            // RFC 1950 section 2.2: two bytes before, four after.
            let window = (zlib[0] >> 4).min(7) + 8;
            return Some(Member::deflated(at as u64 + 10, size as u64 - 6, Hint::Image(window)));
        }
        at = next;
    }
    None
}

fn chunk(bytes: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let header = bytes.get(at..at.checked_add(8)?)?;
    let size = u32::from_be_bytes(header[..4].try_into().expect("four bytes"));
    Some((size as usize, &header[4..]))
}
