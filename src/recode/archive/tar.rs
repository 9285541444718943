//! Finds the contents of the members of a tar archive (POSIX.1-1988 ustar, and GNU's long numbers).

use super::Member;

const BLOCK_BYTES: usize = 512;
/// 16 KiB: smaller members stay in one stream with their headers and neighbours.
const MEMBER_BYTES_MIN: u64 = 16 * 1024;

/// Returns whether a tar archive begins here.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar") && bytes.get(..BLOCK_BYTES).is_some_and(is_header)
}

/// Returns the members of at least 16 KiB, in order. Time O(members); stops at the first block that is no header.
pub(super) fn members(bytes: &[u8], members_max: usize) -> Vec<Member> {
    let mut members = Vec::new();
    let mut at = 0usize;
    while let Some(header) = bytes.get(at..at.saturating_add(BLOCK_BYTES)) {
        if !is_header(header) || members.len() >= members_max {
            break;
        }
        let Some(size) = number(&header[124..136]) else { break };
        let begin = at + BLOCK_BYTES;
        let Some(end) = usize::try_from(size).ok().and_then(|size| begin.checked_add(size)) else { break };
        if end > bytes.len() {
            break;
        }
        if size >= MEMBER_BYTES_MIN && matches!(header[156], 0 | b'0' | b'7') {
            members.push(Member::stored(begin as u64, size));
        }
        at = end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
    }
    members
}

/// Returns whether the check sum is right.
fn is_header(block: &[u8]) -> bool {
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
    number(&block[148..156]) == Some(u64::from(sum - own + 8 * u32::from(b' ')))
}

/// Returns an octal number, or a binary one if the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest
            .iter()
            .try_fold(0u64, |value, byte| (value < 1 << 55).then_some(value << 8 | u64::from(*byte)));
    }
    let mut digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    let value = digits.try_fold(0u64, |value, digit| {
        any = true;
        (*digit < b'8').then_some(value << 3 | u64::from(*digit - b'0'))
    })?;
    any.then_some(value)
}
