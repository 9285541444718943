//! Reads an ELF file's program headers.
//!
//! Section headers are not read: they may lie or be stripped, and nothing at run time needs them.

use std::ops::Range;

use super::numbers::{displaced, size_at, u16_at, u32_at, u64_at};

/// The first bytes of every ELF file.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

/// More program headers than any linker writes.
const SEGMENTS_MAX: usize = 256;
/// More dynamic entries than any linker writes.
const DYNAMIC_MAX: usize = 4096;

const TYPE_LOAD: u32 = 1;
const TYPE_DYNAMIC: u32 = 2;
const TYPE_FRAME_HEADER: u32 = 0x6474_e550;
const FLAG_EXECUTE: u32 = 1;
const DYNAMIC_RELOCATIONS: u64 = 7;
const DYNAMIC_RELOCATIONS_BYTES: u64 = 8;
/// The frame header that every linker writes: pointers as `pcrel|sdata4`, `udata4`, `datarel|sdata4`.
const FRAME_HEADER_FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// The instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86,
    /// 64-bit ARM, little-endian.
    Arm,
}

/// A piece of the file that is mapped into memory.
#[derive(Debug, Clone)]
struct Segment {
    file: Range<usize>,
    address: u64,
    executable: bool,
}

/// How the file lies in memory, and where its tables are. Offsets are bytes of the file.
#[derive(Debug, Clone)]
pub struct Image {
    /// The instruction set.
    pub machine: Machine,
    segments: Vec<Segment>,
    /// Where the frame header's table starts, and how many entries it says it has.
    pub frame_table: Option<(usize, usize)>,
    /// Where `.eh_frame` starts.
    pub frames: Option<usize>,
    /// Relocations with addends.
    pub relocations: Range<usize>,
}

impl Image {
    /// Reads the headers of a little-endian 64-bit executable or shared library; `None` for all else.
    ///
    /// Time and memory are bounded by the constants above, whatever the headers say.
    pub fn parse(file: &[u8]) -> Option<Self> {
        // Class 64, little-endian, version 1.
        if !file.starts_with(b"\x7fELF\x02\x01\x01") || !matches!(u16_at(file, 16)?, 2 | 3) {
            return None;
        }
        let machine = match u16_at(file, 18)? {
            62 => Machine::X86,
            183 => Machine::Arm,
            _ => return None,
        };
        let headers = size_at(file, 32)?;
        let count = usize::from(u16_at(file, 56)?);
        if u16_at(file, 54)? != 56 || count > SEGMENTS_MAX {
            return None;
        }
        let mut image =
            Self { machine, segments: Vec::new(), frame_table: None, frames: None, relocations: 0..0 };
        let (mut dynamic, mut frame_header) = (0..0, 0..0);
        for index in 0..count {
            let at = headers.checked_add(index * 56)?;
            let (kind, flags) = (u32_at(file, at)?, u32_at(file, at + 4)?);
            let (offset, address, bytes) =
                (size_at(file, at + 8)?, u64_at(file, at + 16)?, size_at(file, at + 32)?);
            let Some(place) = offset.checked_add(bytes).map(|end| offset..end) else { continue };
            if place.is_empty() || place.end > file.len() {
                continue;
            }
            match kind {
                TYPE_LOAD => image.segments.push(Segment {
                    file: place,
                    address,
                    executable: flags & FLAG_EXECUTE != 0,
                }),
                TYPE_DYNAMIC => dynamic = place,
                TYPE_FRAME_HEADER => frame_header = place,
                _ => {}
            }
        }
        image.read_frame_header(file, frame_header.start);
        image.read_dynamic(file, dynamic);
        Some(image)
    }

    fn read_frame_header(&mut self, file: &[u8], at: usize) -> Option<()> {
        if at == 0 || !file.get(at..)?.starts_with(&FRAME_HEADER_FORM) {
            return None;
        }
        let address = self.address(at)?;
        self.frames = Some(self.offset(displaced(address.wrapping_add(4), u32_at(file, at + 4)?))?);
        let count = usize::try_from(u32_at(file, at + 8)?).ok()?;
        let table = at + 12;
        self.frame_table = (count <= (file.len() - table) / 8).then_some((table, count));
        Some(())
    }

    fn read_dynamic(&mut self, file: &[u8], place: Range<usize>) -> Option<()> {
        let (mut address, mut bytes) = (0, 0);
        for at in place.step_by(16).take(DYNAMIC_MAX) {
            match u64_at(file, at)? {
                0 => break,
                DYNAMIC_RELOCATIONS => address = u64_at(file, at + 8)?,
                DYNAMIC_RELOCATIONS_BYTES => bytes = size_at(file, at + 8)?,
                _ => {}
            }
        }
        let start = self.offset(address)?;
        let end = start.checked_add(bytes).filter(|end| *end <= file.len())?;
        self.relocations = start..end;
        Some(())
    }

    /// Returns the file's offset of `address`, where the file has it.
    pub fn offset(&self, address: u64) -> Option<usize> {
        self.segments.iter().find_map(|segment| {
            let inside = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            (inside < segment.file.len()).then(|| segment.file.start + inside)
        })
    }

    /// Returns the address of the file's byte at `offset`, where it is mapped.
    pub fn address(&self, offset: usize) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.file.contains(&offset))?;
        Some(segment.address.wrapping_add((offset - segment.file.start) as u64))
    }

    /// Returns the file's range of `bytes` bytes at `address`, where one executable segment holds them all.
    pub fn code(&self, address: u64, bytes: usize) -> Option<Range<usize>> {
        let start = self.offset(address)?;
        let end = start.checked_add(bytes)?;
        let holds = |segment: &&Segment| {
            segment.executable && segment.file.contains(&start) && end <= segment.file.end
        };
        self.segments.iter().find(holds).map(|_| start..end)
    }

    /// Returns the file's ranges of all executable segments, in the order of the headers.
    pub fn executable(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.segments.iter().filter(|segment| segment.executable).map(|segment| segment.file.clone())
    }
}
