//! The header of one tar entry, in the GNU format: a function of the entry alone.
//!
//! Owner 0, one time and no user names, so that equal releases give equal archives. Names and targets
//! longer than their fields go before the entry as GNU long-name entries, in bytes, in any encoding.

use format::manifest::{EntryPath, Item};

/// Bytes of a tar block.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of the fields for a name and a target.
const NAME_BYTES: usize = 100;
/// The name of every long-name entry.
const LONG_NAME: &[u8] = b"././@LongLink";

/// The kinds of entries, as their byte in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    File = b'0',
    HardLink = b'1',
    Symlink = b'2',
    Directory = b'5',
    LongTarget = b'K',
    LongName = b'L',
}

/// Returns all blocks before an entry's content, the entry below `prefix`, with a time in Unix seconds; none for an item that
/// is no entry. Times beyond the year 2242 are the last that fits.
pub fn header(item: &Item, prefix: Option<&EntryPath>, time: u64) -> Vec<u8> {
    let (kind, path, mode, size, target) = match item {
        Item::Directory { path, mode } => (Kind::Directory, path, *mode, 0, &[][..]),
        Item::File { path, mode, size, .. } => (Kind::File, path, *mode, *size, &[][..]),
        Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
            (Kind::Symlink, path, 0o777, 0, target.as_slice())
        }
        Item::HardLink { path, target } => (Kind::HardLink, path, 0o644, 0, target.as_bytes()),
        Item::Chunk(_) | Item::Linked => return Vec::new(),
    };
    let below = |path: &[u8]| match prefix {
        Some(prefix) => [prefix.as_bytes(), b"/", path].concat(),
        None => path.to_vec(),
    };
    let mut name = below(path.as_bytes());
    // A hard link's target is a name in the archive, a symbolic link's a text of its own.
    let target = if kind == Kind::HardLink { below(target) } else { target.to_vec() };
    if kind == Kind::Directory {
        name.push(b'/');
    }
    let mut blocks = Vec::with_capacity(BLOCK_BYTES);
    long(Kind::LongTarget, &target, &mut blocks);
    long(Kind::LongName, &name, &mut blocks);
    block(kind, &name, &Numbers { mode, size, time }, &target, &mut blocks);
    blocks
}

/// Returns the zeros that fill the last block of `bytes` bytes.
pub fn padding(bytes: u64) -> &'static [u8] {
    let over = usize::try_from(bytes % BLOCK_BYTES as u64).expect("less than a block");
    &[0; BLOCK_BYTES][..(BLOCK_BYTES - over) % BLOCK_BYTES]
}

/// Appends a long-name entry for a text that does not fit its field with room for a zero byte.
fn long(kind: Kind, text: &[u8], blocks: &mut Vec<u8>) {
    if text.len() < NAME_BYTES {
        return;
    }
    let bytes = text.len() as u64 + 1;
    block(kind, LONG_NAME, &Numbers { mode: 0o644, size: bytes, time: 0 }, &[], blocks);
    blocks.extend_from_slice(text);
    blocks.push(0);
    blocks.extend_from_slice(padding(bytes));
}

/// The numbers of a header.
#[derive(Clone, Copy)]
struct Numbers {
    mode: u16,
    size: u64,
    time: u64,
}

/// Appends one header block; numbers are octal, and end in a zero byte.
fn block(kind: Kind, name: &[u8], numbers: &Numbers, target: &[u8], blocks: &mut Vec<u8>) {
    let Numbers { mode, size, time } = *numbers;
    let mut block = [0; BLOCK_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(NAME_BYTES)]);
    put(100, format!("{mode:07o}").as_bytes());
    // The owner's user and group.
    put(108, b"0000000");
    put(116, b"0000000");
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        // Larger numbers are binary, which the highest bit says.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    // The time of the last change.
    put(136, format!("{:011o}", time.min((1 << 33) - 1)).as_bytes());
    // The checksum is the sum of all bytes, its own taken as spaces.
    put(148, b"        ");
    put(156, &[kind as u8]);
    put(157, &target[..target.len().min(NAME_BYTES)]);
    put(257, b"ustar  ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    blocks.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::recipe::Recipe;

    #[test]
    fn sizes_beyond_8_gib_are_kept() {
        let path = EntryPath::new("big").expect("a plain path");
        let size = (8 << 30) + 12_345;
        let bytes = header(&Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }, None, 0);
        let read = tar::Header::from_byte_slice(&bytes);
        assert_eq!((read.size().expect("a size"), bytes.len()), (size, BLOCK_BYTES));
    }

    #[test]
    fn padding_fills_the_last_block_only() {
        let lengths = [0, 1, 511, 512, 513].map(|bytes| padding(bytes).len());
        assert_eq!(lengths, [0, 511, 1, 0, 511]);
    }
}
