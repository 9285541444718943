//! Reads gzip headers (RFC 1952) to find where the deflate stream begins.

use crate::deflate::Hint;

const HAS_CHECK: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;
/// The number of an unknown system, which Go writes, and Python with zlib.
const UNKNOWN: u8 = 255;
/// 64 KiB: longer bytes are no name or comment.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Check value and length after the stream.
pub(super) const TRAILER_BYTES: usize = 8;

/// Returns the length of the header at the start of `bytes`, and its hint of the level.
pub(super) fn header(bytes: &[u8]) -> Option<(usize, Hint)> {
    let [0x1f, 0x8b, 8, flags, _, _, _, _, effort, system, ..] = *bytes else { return None };
    if flags & RESERVED != 0 {
        return None;
    }
    let mut length = 10;
    if flags & HAS_EXTRA != 0 {
        let size = bytes.get(length..length + 2)?;
        length += 2 + usize::from(u16::from_le_bytes([size[0], size[1]]));
    }
    for text in [HAS_NAME, HAS_COMMENT] {
        if flags & text != 0 {
            let rest = bytes.get(length..)?;
            length += 1 + rest.iter().take(TEXT_BYTES_MAX).position(|byte| *byte == 0)?;
        }
    }
    if flags & HAS_CHECK != 0 {
        length += 2;
    }
    let hint = match (system, effort) {
        (UNKNOWN, 2) => Hint::Go(9),
        (UNKNOWN, 4) => Hint::Go(1),
        (UNKNOWN, _) => Hint::Go(6),
        (_, 2) => Hint::Best,
        (_, 4) => Hint::Fast,
        _ => Hint::None,
    };
    (length < bytes.len()).then_some((length, hint))
}
