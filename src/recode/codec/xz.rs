//! How an xz stream was made (the .xz file format 1.2.1, and the presets of liblzma).

use std::fmt;

const MAGIC: &[u8] = b"\xfd7zXZ\0\0";
/// Section 2.1.1: magic, flags, CRC32.
const STREAM_HEADER_BYTES: usize = 12;
/// Section 5.3.1.
const LZMA2: u8 = 0x21;
/// 8 MiB, that of the default preset: its encoder takes 94 MiB, that of 64 MiB 674 MiB.
pub(super) const DICTIONARY_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// 24 MiB: the blocks of that dictionary. Each is held in memory, packed and plain.
const BLOCK_BYTES_MAX: u32 = 3 * DICTIONARY_BYTES_MAX;
/// 1 MiB: the least that the multi-threaded encoder chooses for a block.
const BLOCK_BYTES_MIN: u32 = 1024 * 1024;
/// lc 3, lp 0, pb 2: those of all presets (section 4.4 of the LZMA specification).
const PROPERTIES: u8 = 93;
/// 9 * 5 * 5: numbers of properties.
const PROPERTIES_END: u8 = 225;
/// The bit of the extreme variant in a preset's number.
pub const EXTREME: u8 = 0x80;
/// The dictionaries of presets, by the format's numbers of sizes.
const DICTIONARIES: [u8; 10] = [12, 16, 18, 20, 20, 22, 22, 24, 26, 28];
/// Presets, the likeliest first; from 6 on they differ in the dictionary alone.
const LIKELY: [u8; 14] = [
    6,
    6 | EXTREME,
    5,
    4,
    3,
    5 | EXTREME,
    3 | EXTREME,
    2,
    1,
    0,
    4 | EXTREME,
    2 | EXTREME,
    1 | EXTREME,
    EXTREME,
];

/// The check of the plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Nothing.
    None,
    /// CRC32.
    Crc32,
    /// CRC64, the default of `xz`.
    Crc64,
    /// SHA-256.
    Sha256,
}

/// Checks and their numbers (section 2.1.1.2).
const CHECKS: [(Check, u8); 4] =
    [(Check::None, 0), (Check::Crc32, 1), (Check::Crc64, 4), (Check::Sha256, 10)];

/// The settings of liblzma's encoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xz {
    /// 0 to 9, plus [`EXTREME`] for the extreme variant.
    pub(super) preset: u8,
    pub(super) check: Check,
    /// The dictionary's size, as the format numbers it (section 5.3.1).
    pub(super) dictionary: u8,
    /// lc, lp and pb, as LZMA2 numbers them.
    pub(super) properties: u8,
    /// Plain bytes of each block of the multi-threaded encoder; 0 for the one without threads, which makes one block.
    pub(super) block_bytes: u32,
}

/// The fields of a stream's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    check: Check,
    dictionary: u8,
    properties: u8,
    /// Plain bytes of the first block, where its header holds them.
    block_bytes: Option<u64>,
    /// Where the LZMA2 data begin.
    pub data_at: usize,
}

impl fmt::Display for Xz {
    /// The preset, and the settings that are not its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = usize::from(self.preset & !EXTREME);
        let extreme = if self.preset & EXTREME == 0 { "" } else { "e" };
        write!(f, "xz, preset {level}{extreme}")?;
        if DICTIONARIES.get(level) != Some(&self.dictionary) {
            write!(f, ", dictionary {} KiB", dictionary_bytes(self.dictionary).unwrap_or_default() / 1024)?;
        }
        if self.properties != PROPERTIES {
            let (low, pb) = (self.properties % 45, self.properties / 45);
            write!(f, ", lc {}, lp {}, pb {pb}", low % 9, low / 9)?;
        }
        if self.block_bytes > 0 { write!(f, ", blocks of {} KiB", self.block_bytes / 1024) } else { Ok(()) }
    }
}

impl Xz {
    /// Returns the settings of `xz` without threads at a preset from 0 to 6.
    pub fn single(preset: u8, check: Check) -> Self {
        let dictionary = DICTIONARIES[usize::from(preset & !EXTREME).min(6)];
        Self { preset, check, dictionary, properties: PROPERTIES, block_bytes: 0 }
    }

    /// Returns the settings of `xz -T0` and `dpkg-deb` at a preset from 0 to 6.
    #[cfg(any(test, feature = "testing"))]
    pub fn threaded(preset: u8, check: Check) -> Self {
        let single = Self::single(preset, check);
        Self { block_bytes: default_block_bytes(single.dictionary), ..single }
    }

    /// Returns its bytes in a plan, after the number of its format.
    pub(super) fn encode(&self) -> [u8; 8] {
        let check = CHECKS.iter().find(|(check, _)| *check == self.check).map(|(_, number)| *number);
        let [a, b, c, d] = self.block_bytes.to_le_bytes();
        let check = check.expect("all are listed");
        [self.preset, check, self.dictionary, self.properties, a, b, c, d]
    }

    /// # Errors
    /// The number that is unknown to this version.
    pub(super) fn decode(bytes: [u8; 8]) -> Result<Self, u8> {
        let [preset, number, dictionary, properties, block @ ..] = bytes;
        let check = check_of(number).ok_or(number)?;
        Ok(Self { preset, check, dictionary, properties, block_bytes: u32::from_le_bytes(block) })
    }

    /// Returns whether liblzma takes these settings, within the memory that is given.
    pub(super) fn is_bounded(&self) -> bool {
        self.preset & !EXTREME <= 9
            && dictionary_bytes(self.dictionary).is_some_and(|bytes| bytes <= DICTIONARY_BYTES_MAX)
            && self.properties < PROPERTIES_END
            && self.literal_bits().0 + self.literal_bits().1 <= 4
            && self.block_bytes <= BLOCK_BYTES_MAX
    }

    /// Returns lc and lp.
    pub(super) fn literal_bits(&self) -> (u32, u32) {
        let low = u32::from(self.properties % 45);
        (low % 9, low / 9)
    }

    /// Returns pb.
    pub(super) fn position_bits(&self) -> u32 {
        u32::from(self.properties / 45)
    }

    /// Returns the bytes of the dictionary; `None` if it is too large here.
    pub(super) fn dictionary_bytes(&self) -> Option<u32> {
        dictionary_bytes(self.dictionary)
    }
}

impl Header {
    /// Reads the headers of the stream and its first block; `None` where no settings here make such headers.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let check = check_of(*bytes.strip_prefix(MAGIC)?.first()?)?;
        // Section 3.1: size, flags, packed and plain bytes if it has them, filters.
        let mut at = STREAM_HEADER_BYTES;
        let size = usize::from(*bytes.get(at)?);
        let flags = *bytes.get(at + 1)?;
        // The multi-threaded encoder writes both sizes, the other none; one filter.
        if size == 0 || !matches!(flags, 0 | 0xc0) {
            return None;
        }
        let data_at = at + (size + 1) * 4;
        at += 2;
        let mut block_bytes = None;
        if flags == 0xc0 {
            number(bytes, &mut at)?;
            block_bytes = Some(number(bytes, &mut at)?);
        }
        let [LZMA2, 1, dictionary] = *bytes.get(at..at + 3)? else { return None };
        dictionary_bytes(dictionary).filter(|bytes| *bytes <= DICTIONARY_BYTES_MAX)?;
        // LZMA2: a chunk with new properties has them in its sixth byte.
        let first = bytes.get(data_at..data_at + 6)?;
        let properties = if first[0] >= 0xe0 { first[5] } else { PROPERTIES };
        Some(Self { check, dictionary, properties, block_bytes, data_at })
    }

    /// Returns settings worth a try for a stream of `plain` bytes, the likeliest first.
    pub fn likely(&self, plain: u64) -> Vec<Xz> {
        let block_bytes = match self.block_bytes {
            None => 0,
            Some(all) if all == plain => default_block_bytes(self.dictionary),
            Some(first) => u32::try_from(first).unwrap_or(u32::MAX),
        };
        let with = |preset: u8| {
            let Self { check, dictionary, properties, .. } = *self;
            Xz { preset, check, dictionary, properties, block_bytes }
        };
        let usual = |preset: &u8| DICTIONARIES[usize::from(preset & !EXTREME)] == self.dictionary;
        let (mut presets, others): (Vec<u8>, Vec<u8>) = LIKELY.iter().partition(|preset| usual(preset));
        presets.extend(others);
        presets.into_iter().map(with).filter(Xz::is_bounded).collect()
    }

    /// Returns the plain bytes of the first block of a stream of `plain`.
    pub fn first_block(&self, plain: u64) -> u64 {
        self.block_bytes.map_or(plain, |first| first.min(plain))
    }
}

/// Returns whether an xz stream begins here.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

fn check_of(number: u8) -> Option<Check> {
    CHECKS.iter().find(|(_, known)| *known == number).map(|(check, _)| *check)
}

/// Returns the size for a number (section 5.3.1: one bit or two, shifted); `None` above 2 GiB, which no encoder makes.
fn dictionary_bytes(number: u8) -> Option<u32> {
    (number < 40).then(|| (2 | u32::from(number & 1)) << (number / 2 + 11))
}

fn default_block_bytes(dictionary: u8) -> u32 {
    let bytes = dictionary_bytes(dictionary).unwrap_or(DICTIONARY_BYTES_MAX).min(DICTIONARY_BYTES_MAX);
    (bytes * 3).max(BLOCK_BYTES_MIN)
}

/// Reads a number (section 1.2: seven bits a byte, the low ones first, at most nine bytes).
fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_what_they_are() {
        let named = [
            (Xz::single(6, Check::Crc64), "xz, preset 6"),
            (Xz::threaded(6 | EXTREME, Check::Crc64), "xz, preset 6e, blocks of 24576 KiB"),
            (Xz { dictionary: 14, ..Xz::single(9, Check::None) }, "xz, preset 9, dictionary 512 KiB"),
            (Xz { properties: 0, ..Xz::single(0, Check::Sha256) }, "xz, preset 0, lc 0, lp 0, pb 0"),
        ];
        for (xz, name) in named {
            assert_eq!(xz.to_string(), name);
        }
    }

    #[test]
    fn large_dictionaries_and_blocks_are_out_of_bounds() {
        let usual = Xz::threaded(6, Check::Crc64);
        assert!(usual.is_bounded());
        for dictionary in [23, 24, 39, 40, 255] {
            assert!(!Xz { dictionary, ..usual }.is_bounded());
        }
        assert!(!Xz { block_bytes: usual.block_bytes + 1, ..usual }.is_bounded());
        assert!(!Xz { preset: 10, ..usual }.is_bounded());
        // lc 3 and lp 2.
        assert!(!Xz { properties: 21, ..usual }.is_bounded());
    }
}
