//! How a zstd frame was made (RFC 8878, and the levels of libzstd 1.5.7).

use std::fmt;

const MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// Levels whose window has at most 8 MiB.
const LEVEL_MAX: u8 = 19;
/// The window of level 19, as a power of two.
pub(super) const WINDOW_LOG_MAX: u32 = 23;
/// Levels, the likeliest first: that of the program, that of Debian packages, that of most libraries, others.
const LIKELY: [u8; 19] = [3, 19, 1, 9, 6, 10, 12, 15, 2, 4, 5, 7, 8, 11, 13, 14, 16, 17, 18];

const CHECKED: u8 = 1;
const JOBS: u8 = 2;
const KNOWS_PLAIN: u8 = 4;

/// The settings of libzstd's encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// 1 to 19.
    pub level: u8,
    /// True if a check value ends it.
    pub checked: bool,
    /// True if it is made in jobs, as with any number of threads but none.
    pub jobs: bool,
    /// The plain bytes, if its header holds them.
    pub plain_bytes: Option<u64>,
}

/// The fields of a frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    checked: bool,
    plain_bytes: Option<u64>,
    /// Where the first block ends.
    pub first_block_end: u64,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = if self.jobs { ", in jobs" } else { "" };
        write!(f, "zstd 1.5.7, level {}{jobs}", self.level)
    }
}

impl Frame {
    /// Returns its bytes in a plan, after the number of its format.
    pub(super) fn encode(&self) -> [u8; 10] {
        let known = if self.plain_bytes.is_some() { KNOWS_PLAIN } else { 0 };
        let flags = (u8::from(self.checked) * CHECKED) | (u8::from(self.jobs) * JOBS) | known;
        let mut bytes = [0; 10];
        bytes[0] = self.level;
        bytes[1] = flags;
        bytes[2..].copy_from_slice(&self.plain_bytes.unwrap_or_default().to_le_bytes());
        bytes
    }

    /// # Errors
    /// The number that is unknown to this version.
    pub(super) fn decode(bytes: [u8; 10]) -> Result<Self, u8> {
        let [level, flags, plain @ ..] = bytes;
        let plain = u64::from_le_bytes(plain);
        let plain_bytes = Some(plain).filter(|_| flags & KNOWS_PLAIN != 0);
        if flags > (CHECKED | JOBS | KNOWS_PLAIN) || plain_bytes.unwrap_or_default() != plain {
            return Err(flags);
        }
        Ok(Self { level, checked: flags & CHECKED != 0, jobs: flags & JOBS != 0, plain_bytes })
    }

    pub(super) fn is_bounded(&self) -> bool {
        // One less is the library's mark of a length that is not known.
        (1..=LEVEL_MAX).contains(&self.level) && self.plain_bytes.is_none_or(|bytes| bytes < 1 << 63)
    }
}

impl Header {
    /// Reads the headers of the frame and its first block; `None` where no settings here make them.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        // Section 3.1.1.1: size of the field of the plain bytes, one segment or a window, check, dictionary.
        let flags = *bytes.strip_prefix(MAGIC)?.first()?;
        let (size, single, dictionary) = (flags >> 6, flags & 0x20 != 0, flags & 3);
        if flags & 0x18 != 0 || dictionary != 0 {
            return None;
        }
        let mut at = MAGIC.len() + 1;
        if !single {
            at += 1;
        }
        let field = match (size, single) {
            (0, false) => 0,
            (0, true) => 1,
            (size, _) => 1usize << size,
        };
        let mut plain = [0; 8];
        plain[..field].copy_from_slice(bytes.get(at..at + field)?);
        // Section 3.1.1.1.4: two bytes begin at 256.
        let plain = u64::from_le_bytes(plain).saturating_add(if field == 2 { 256 } else { 0 });
        at += field;
        let block = bytes.get(at..at + 3)?;
        let block = u32::from_le_bytes([block[0], block[1], block[2], 0]);
        // Section 3.1.1.2: of a block of one byte repeated, the size is that of the plain bytes.
        let length = if block >> 1 & 3 == 1 { 1 } else { block >> 3 };
        let first_block_end = at as u64 + 3 + u64::from(length);
        Some(Self {
            checked: flags & 4 != 0,
            plain_bytes: Some(plain).filter(|_| field > 0),
            first_block_end,
        })
    }

    /// Returns settings worth a try, the likeliest first; each without jobs, as the first block is the same.
    pub fn likely(&self) -> Vec<Frame> {
        let Self { checked, plain_bytes, .. } = *self;
        LIKELY.map(|level| Frame { level, checked, jobs: false, plain_bytes }).to_vec()
    }
}

/// Returns whether a zstd frame begins here.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}
