//! Finds the members of an `ar` archive, which a Debian package is.

use super::Member;

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// Returns the members in order; `None` if this is no `ar` archive.
pub(super) fn members(bytes: &[u8], members_max: usize) -> Option<Vec<Member>> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len();
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        if !header.ends_with(b"`\n") || members.len() >= members_max {
            break;
        }
        let Some(size) =
            std::str::from_utf8(&header[48..58]).ok().and_then(|size| size.trim_end().parse::<u32>().ok())
        else {
            break;
        };
        let begin = at + HEADER_BYTES;
        let end = begin.saturating_add(size as usize);
        if end > bytes.len() {
            break;
        }
        members.push(Member::stored(begin as u64, u64::from(size)));
        at = end + end % 2;
    }
    Some(members)
}
