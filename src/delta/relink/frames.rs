//! Walks `.eh_frame`: the unwind data of each function, and with it the functions' places.
//!
//! A list of entries, each with its length: CIEs, which say how addresses are encoded, and FDEs, one for each function,
//! which name a CIE by the distance back to it. Lengths and distances lie as linkers write them; the first entry that
//! contradicts itself ends the walk, and what follows stays plain.
//!
//! Layout: Linux Standard Base, section 10.6. Only the one pointer encoding that compilers write for
//! position-independent code is understood, `pcrel|sdata4`; entries of another stay plain bytes.

use std::ops::Range;

use super::elf::Image;
use super::numbers::{Cursor, displaced, u32_at};

const ENCODING_RELATIVE: u8 = 0x1b;
const ENCODING_OMITTED: u8 = 0xff;
/// Offset of a function's address in its FDE.
pub const START_AT: usize = 8;
/// Offset of a function's length in its FDE.
pub const LENGTH_AT: usize = 12;
/// Offset of the pointer to the function's LSDA in its FDE, where there is one.
pub const LSDA_AT: usize = 17;

/// The properties that a CIE gives to its FDEs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Common {
    /// Where it lies in the file.
    pub offset: usize,
    /// True if its FDEs' addresses are understood.
    pub understood: bool,
    /// True if its FDEs point to LSDAs.
    pub has_lsda: bool,
}

/// One function's unwind data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it lies in the file.
    pub place: Range<usize>,
    /// The number of its CIE.
    pub common: usize,
    /// The function's address.
    pub start: u64,
    /// The function's bytes.
    pub bytes: u32,
    /// The address of its LSDA.
    pub lsda: Option<u64>,
}

/// All of `.eh_frame`.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// The CIEs in their order.
    pub commons: Vec<Common>,
    /// The understood FDEs in their order.
    pub frames: Vec<Frame>,
}

/// One entry's extent, and the field that distinguishes CIEs from FDEs.
pub struct Entry {
    /// Where it lies in the file, its length field included.
    pub place: Range<usize>,
    /// 0 for a CIE, else the distance back to it.
    pub back: u32,
}

/// Returns the entries from `at` on, up to the terminator or the first that is malformed.
pub fn entries(file: &[u8], mut at: usize) -> impl Iterator<Item = Entry> + '_ {
    std::iter::from_fn(move || {
        let length = u32_at(file, at)?;
        let back = u32_at(file, at + 4)?;
        let end = at.checked_add(4)?.checked_add(usize::try_from(length).ok()?)?;
        // 0 ends the list, all ones announce the 64-bit form, which no compiler writes.
        if length < 8 || length == u32::MAX || end > file.len() {
            return None;
        }
        let place = at..end;
        at = end;
        Some(Entry { place, back })
    })
}

impl Frames {
    /// Reads all entries. Time and memory are proportional to their bytes.
    pub fn read(file: &[u8], image: &Image) -> Self {
        let mut found = Self::default();
        let Some(start) = image.frames else { return found };
        for entry in entries(file, start) {
            if entry.back == 0 {
                found.commons.push(common(file, entry.place));
            } else if let Some(frame) = found.frame(file, image, entry) {
                found.frames.push(frame);
            }
        }
        found
    }

    fn frame(&self, file: &[u8], image: &Image, entry: Entry) -> Option<Frame> {
        let place = entry.place;
        let common_at = (place.start + 4).checked_sub(usize::try_from(entry.back).ok()?)?;
        let common = self.commons.binary_search_by_key(&common_at, |common| common.offset).ok()?;
        let Common { understood, has_lsda, .. } = *self.commons.get(common)?;
        if !understood || place.len() < LENGTH_AT + 4 {
            return None;
        }
        let pointer = |at| {
            let address = image.address(place.start + at)?;
            Some(displaced(address, u32_at(file, place.start + at)?))
        };
        let lsda = if has_lsda && place.len() >= LSDA_AT + 4 && u32_at(file, place.start + LSDA_AT)? != 0 {
            pointer(LSDA_AT)
        } else {
            None
        };
        Some(Frame {
            common,
            start: pointer(START_AT)?,
            bytes: u32_at(file, place.start + LENGTH_AT)?,
            lsda,
            place,
        })
    }
}

/// Reads a CIE; one that is malformed is not understood.
pub fn common(file: &[u8], place: Range<usize>) -> Common {
    let offset = place.start;
    let encodings = file.get(place).and_then(augmentation);
    let (frame, lsda) = encodings.unwrap_or((0, ENCODING_OMITTED));
    let understood = frame == ENCODING_RELATIVE && matches!(lsda, ENCODING_RELATIVE | ENCODING_OMITTED);
    Common { offset, understood, has_lsda: lsda == ENCODING_RELATIVE }
}

/// Returns the encodings of addresses and of LSDA pointers that a CIE names.
fn augmentation(entry: &[u8]) -> Option<(u8, u8)> {
    let mut cursor = Cursor::new(entry.get(8..)?);
    let version = cursor.byte()?;
    let letters = cursor.rest().split(|byte| *byte == 0).next()?;
    cursor.take(letters.len() + 1)?;
    // Alignments of code and data; the return register is a byte in version 1.
    cursor.leb128()?;
    skip_signed(&mut cursor)?;
    if version == 1 {
        cursor.byte().map(u64::from)?
    } else {
        cursor.leb128()?
    };
    let (first, letters) = letters.split_first()?;
    if *first != b'z' {
        return None;
    }
    cursor.leb128()?;
    let (mut frame, mut lsda) = (0, ENCODING_OMITTED);
    for letter in letters {
        match letter {
            b'R' => frame = cursor.byte()?,
            b'L' => lsda = cursor.byte()?,
            b'P' => {
                let encoding = cursor.byte()?;
                cursor.take(match encoding & 0x0f {
                    0x00 | 0x04 | 0x0c => 8,
                    0x03 | 0x0b => 4,
                    _ => return None,
                })?;
            }
            b'S' | b'B' => {}
            _ => return None,
        }
    }
    Some((frame, lsda))
}

fn skip_signed(cursor: &mut Cursor<'_>) -> Option<()> {
    while cursor.byte()? & 0x80 != 0 {}
    Some(())
}
