//! The header of one tar entry, in the GNU format: a function of the entry alone.
//!
//! Owner 0, time 0 and no user names, so that equal releases give equal archives. Names and targets
//! longer than their fields go before the entry as GNU long-name entries, in bytes, in any encoding.

use tar::{EntryType, Header};

use format::manifest::Item;

/// Bytes of a tar block.
pub(super) const BLOCK_BYTES: usize = 512;
/// What the name of a long-name entry is.
const LONG_NAME: &[u8] = b"././@LongLink";

/// All blocks before an entry's content; nothing for an item that is not an entry.
pub(super) fn header(item: &Item) -> Vec<u8> {
    let (kind, path, mode, size, target) = match item {
        Item::Directory { path, mode } => (EntryType::Directory, path, *mode, 0, &[][..]),
        Item::File { path, mode, size, .. } => (EntryType::Regular, path, *mode, *size, &[][..]),
        Item::Symlink { path, target } | Item::OutsideLink { path, target } => {
            (EntryType::Symlink, path, 0o777, 0, target.as_slice())
        }
        Item::HardLink { path, target } => (EntryType::Link, path, 0o644, 0, target.as_bytes()),
        Item::Chunk(_) | Item::Linked => return Vec::new(),
    };
    let mut name = path.as_bytes().to_vec();
    if kind == EntryType::Directory {
        name.push(b'/');
    }
    let mut blocks = Vec::with_capacity(BLOCK_BYTES);
    long(EntryType::GNULongLink, target, &mut blocks);
    long(EntryType::GNULongName, &name, &mut blocks);
    block(kind, &name, u32::from(mode), size, target, &mut blocks);
    blocks
}

/// Fills the last block of `bytes` bytes with zeros.
pub(super) fn padding(bytes: u64) -> &'static [u8] {
    let over = usize::try_from(bytes % BLOCK_BYTES as u64).expect("less than a block");
    &[0; BLOCK_BYTES][..(BLOCK_BYTES - over) % BLOCK_BYTES]
}

/// Appends a long-name entry for a text that does not fit its field with room for a zero byte.
fn long(kind: EntryType, text: &[u8], blocks: &mut Vec<u8>) {
    if text.len() < 100 {
        return;
    }
    let bytes = text.len() as u64 + 1;
    block(kind, LONG_NAME, 0o644, bytes, &[], blocks);
    blocks.extend_from_slice(text);
    blocks.push(0);
    blocks.extend_from_slice(padding(bytes));
}

fn block(kind: EntryType, name: &[u8], mode: u32, size: u64, target: &[u8], blocks: &mut Vec<u8>) {
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().expect("it was made as GNU");
    let fits = name.len().min(fields.name.len());
    fields.name[..fits].copy_from_slice(&name[..fits]);
    let fits = target.len().min(fields.linkname.len());
    fields.linkname[..fits].copy_from_slice(&target[..fits]);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    blocks.extend_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::manifest::EntryPath;
    use format::recipe::Recipe;

    #[test]
    fn sizes_beyond_8_gib_are_kept() {
        let path = EntryPath::new("big").expect("a plain path");
        let size = (8 << 30) + 12_345;
        let bytes = header(&Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks });
        let read = Header::from_byte_slice(&bytes);
        assert_eq!((read.size().expect("a size"), bytes.len()), (size, BLOCK_BYTES));
    }

    #[test]
    fn padding_fills_the_last_block_only() {
        let lengths = [0, 1, 511, 512, 513].map(|bytes| padding(bytes).len());
        assert_eq!(lengths, [0, 511, 1, 0, 511]);
    }
}
