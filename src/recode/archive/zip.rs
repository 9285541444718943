//! Finds the members of a zip archive by its central directory (PKWARE's APPNOTE.TXT 6.3.10).
//!
//! Names are not read at all. Whatever contradicts itself is not a member, and stays framing.

use super::Member;

const END_SIGNATURE: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR_SIGNATURE: u32 = 0x0706_4b50;
const LOCATOR_BYTES: usize = 20;
const ENTRY_SIGNATURE: u32 = 0x0201_4b50;
const ENTRY_BYTES: usize = 46;
const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;
/// A comment of the archive has at most 65,535 bytes.
const END_SEARCH_BYTES: usize = 65_535 + END_BYTES;

/// Reads little-endian fields, `None` past the end.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn at<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn two(&self, at: usize) -> Option<u16> {
        self.at(at).map(u16::from_le_bytes)
    }

    fn four(&self, at: usize) -> Option<u32> {
        self.at(at).map(u32::from_le_bytes)
    }

    fn eight(&self, at: usize) -> Option<u64> {
        self.at(at).map(u64::from_le_bytes)
    }
}

/// Returns the members in the order of their places, none overlapping another; at most `members_max`.
///
/// `None` if this is not a zip archive. Time O(n log n) in the entries that fit.
pub(super) fn members(bytes: &[u8], members_max: usize) -> Option<Vec<Member>> {
    let file = Fields(bytes);
    let end = find_end(bytes)?;
    let (mut size, mut offset) = (u64::from(file.four(end + 12)?), u64::from(file.four(end + 16)?));
    let mut directory_end = end;
    if let Some(locator) = end.checked_sub(LOCATOR_BYTES)
        && file.four(locator) == Some(LOCATOR_SIGNATURE)
        && let Some((end64, fields)) = find_end64(file, locator)
    {
        (size, offset) = fields;
        directory_end = end64;
    }
    // A program may precede the archive: then all offsets are too small by its length.
    let directory = (directory_end as u64).checked_sub(size)?;
    let shift = directory.checked_sub(offset)?;
    let mut members = Vec::new();
    let mut at = usize::try_from(directory).ok()?;
    while members.len() < members_max && at < directory_end && file.four(at) == Some(ENTRY_SIGNATURE) {
        let (member, next) = entry(file, at, shift)?;
        members.extend(member);
        at = next;
    }
    members.sort_by_key(|member| member.at);
    let mut free = 0;
    members.retain(|member| {
        let apart = member.at >= free && member.end() <= directory;
        if apart {
            free = member.end();
        }
        apart
    });
    Some(members)
}

/// Returns the end record: the last one whose comment fits.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let file = Fields(bytes);
    let last = bytes.len().checked_sub(END_BYTES)?;
    let first = bytes.len().saturating_sub(END_SEARCH_BYTES);
    (first..=last).rev().find(|at| {
        file.four(*at) == Some(END_SIGNATURE)
            && file.two(at + 20).is_some_and(|comment| at + END_BYTES + usize::from(comment) <= bytes.len())
    })
}

/// Returns the place of the zip64 end record, and the size and the offset of the directory.
fn find_end64(file: Fields<'_>, locator: usize) -> Option<(usize, (u64, u64))> {
    let named = usize::try_from(file.eight(locator + 8)?).ok();
    let before = locator.checked_sub(56);
    [named, before].into_iter().flatten().find_map(|at| {
        if at >= locator || file.four(at) != Some(END64_SIGNATURE) {
            return None;
        }
        Some((at, (file.eight(at.checked_add(40)?)?, file.eight(at.checked_add(48)?)?)))
    })
}

/// Reads one entry of the directory: its member, if that can be unpacked, and the next entry's place.
fn entry(file: Fields<'_>, at: usize, shift: u64) -> Option<(Option<Member>, usize)> {
    let lengths = [28, 30, 32].map(|field| file.two(at + field).map(usize::from));
    let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
    let next = at + ENTRY_BYTES + name + extra + comment;
    let extra = file.0.get(at + ENTRY_BYTES + name..at + ENTRY_BYTES + name + extra)?;
    Some((member(file, at, shift, extra), next))
}

fn member(file: Fields<'_>, at: usize, shift: u64, extra: &[u8]) -> Option<Member> {
    let flags = file.two(at + 8)?;
    let method = file.two(at + 10)?;
    let (fields, _) = zip64_fields(extra).as_chunks::<8>();
    let mut fields = fields.iter();
    // APPNOTE 4.5.3: the fields that do not fit into 32 bits, in this order.
    let mut field = |at| match file.four(at)? {
        u32::MAX => fields.next().map(|field| u64::from_le_bytes(*field)),
        short => Some(u64::from(short)),
    };
    let (_plain, packed, offset) = (field(at + 24)?, field(at + 20)?, field(at + 42)?);
    let encrypted = flags & 1 != 0;
    if encrypted || packed == 0 || !matches!(method, 0 | 8) {
        return None;
    }
    let local = usize::try_from(offset.checked_add(shift)?).ok()?;
    if file.four(local) != Some(LOCAL_SIGNATURE) || file.two(local + 8) != Some(method) {
        return None;
    }
    let names = usize::from(file.two(local + 26)?) + usize::from(file.two(local + 28)?);
    let at = (local + LOCAL_BYTES + names) as u64;
    at.checked_add(packed).filter(|end| *end <= file.0.len() as u64)?;
    Some(if method == 0 { Member::stored(at, packed) } else { Member::deflated(at, packed, hint(flags)) })
}

/// Returns the hint of bits 1 and 2 (APPNOTE 4.4.4).
fn hint(flags: u16) -> crate::deflate::Hint {
    match (flags >> 1) & 3 {
        0 => crate::deflate::Hint::None,
        1 => crate::deflate::Hint::Best,
        _ => crate::deflate::Hint::Fast,
    }
}

/// Returns the data of the extra field with id 1 (APPNOTE 4.5.3).
fn zip64_fields(mut extra: &[u8]) -> &[u8] {
    while let [id_low, id_high, size_low, size_high, rest @ ..] = extra {
        let size = usize::from(u16::from_le_bytes([*size_low, *size_high]));
        let Some((data, after)) = rest.split_at_checked(size) else { break };
        if (*id_low, *id_high) == (1, 0) {
            return data;
        }
        extra = after;
    }
    &[]
}
