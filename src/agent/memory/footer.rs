//! The footer of a memory, and the checks that a memory must pass (FORMAT 8).

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::block::{BLOCK_PLAIN_MAX, Block, Listed};
use super::confirmed::Confirmed;
use super::stat::STAT_BYTES;
use super::{Key, MEMORY_BYTES_MAX};
use format::manifest::{NodeRef, Root};
use ground::ids::ChunkId;
use ground::limits::{MANIFEST_SEGMENTS_MAX, PATH_BYTES_MAX};

/// The first bytes of a memory: magic and version.
pub(super) const HEADER: [u8; 16] = *b"whitmemo\x02\0\0\0\0\0\0\0";
/// Bytes of the check at the end.
pub(super) const CHECK_BYTES: usize = 16;
/// The footer's length (4) and the check.
const TRAILER_BYTES: usize = 4 + CHECK_BYTES;
/// Bytes of a segment in the footer: its id and length.
const SEGMENT_BYTES: usize = 36;
/// The longest list of segments, and a root, a path and some thousands of blocks.
const FOOTER_BYTES_MAX: usize = MANIFEST_SEGMENTS_MAX * SEGMENT_BYTES + 1024 * 1024;

/// 256 KiB: one read.
const READ_BYTES: usize = 256 * 1024;

/// The footer's fields, checked.
pub(super) struct Footer {
    pub sequence: u64,
    pub root: Root,
    pub segments: Vec<NodeRef>,
    pub source: PathBuf,
    pub began: i64,
    pub segment_blocks: Vec<Block>,
    pub stat_blocks: Vec<Block>,
}

/// The footer as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    key: ByteArray<32>,
    sequence: u64,
    root: ByteBuf,
    source: ByteBuf,
    began: i64,
    segments: ByteBuf,
    segment_blocks: Vec<Listed>,
    stat_blocks: Vec<Listed>,
}

/// Returns the footer's bytes, and its length after them.
pub(super) fn encode(
    key: &Key,
    confirmed: &Confirmed<'_>,
    source: &Path,
    segment_blocks: Vec<Listed>,
    stat_blocks: Vec<Listed>,
) -> Vec<u8> {
    let mut segments = Vec::with_capacity(confirmed.segments.len() * SEGMENT_BYTES);
    for segment in confirmed.segments {
        segments.extend_from_slice(segment.id.as_bytes());
        segments.extend_from_slice(&segment.bytes.to_le_bytes());
    }
    let written = Written {
        key: ByteArray::new(*key.as_bytes()),
        sequence: confirmed.sequence,
        root: ByteBuf::from(confirmed.root.encode()),
        source: ByteBuf::from(source.as_os_str().as_bytes()),
        began: confirmed.began,
        segments: ByteBuf::from(segments),
        segment_blocks,
        stat_blocks,
    };
    let mut bytes = rmp_serde::to_vec(&written).expect("a Vec takes every write");
    let length = u32::try_from(bytes.len()).expect("a manifest's segments are bounded");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes
}

/// Checks a whole memory and reads its footer; returns none for bytes that [`super::write`] does not write for `key`.
pub(super) fn read(file: &File, key: &Key) -> Option<Footer> {
    let length = file.metadata().ok()?.len();
    let footer_end = length.checked_sub(TRAILER_BYTES as u64)?;
    if length > MEMORY_BYTES_MAX || footer_end < HEADER.len() as u64 || !is_whole(file, length) {
        return None;
    }
    let mut header = [0; HEADER.len()];
    file.read_exact_at(&mut header, 0).ok()?;
    let mut footer_bytes = [0; 4];
    file.read_exact_at(&mut footer_bytes, footer_end).ok()?;
    let footer_bytes = u32::from_le_bytes(footer_bytes) as usize;
    let footer_begin = footer_end.checked_sub(footer_bytes as u64)?;
    if header != HEADER || footer_bytes > FOOTER_BYTES_MAX || footer_begin < HEADER.len() as u64 {
        return None;
    }
    let mut footer = vec![0; footer_bytes];
    file.read_exact_at(&mut footer, footer_begin).ok()?;
    let written: Written = rmp_serde::from_slice(&footer).ok()?;
    check(&written, footer_begin, key)
}

/// Returns whether the check at the end matches the bytes before it.
fn is_whole(file: &File, length: u64) -> bool {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let (mut offset, end) = (0, length - CHECK_BYTES as u64);
    while offset < end {
        let count = usize::try_from(end - offset).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        if file.read_exact_at(&mut buffer[..count], offset).is_err() {
            return false;
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    let mut check = [0; CHECK_BYTES];
    file.read_exact_at(&mut check, end).is_ok() && check == hasher.finalize().as_bytes()[..CHECK_BYTES]
}

fn check(written: &Written, footer_begin: u64, key: &Key) -> Option<Footer> {
    let root = Root::decode(&written.root).ok()?;
    let entries = written.segments.chunks_exact(SEGMENT_BYTES);
    let fits =
        entries.remainder().is_empty() && written.segments.len() / SEGMENT_BYTES <= MANIFEST_SEGMENTS_MAX;
    if written.key.as_slice() != key.as_bytes() || written.source.len() > PATH_BYTES_MAX || !fits {
        return None;
    }
    let segment = |entry: &[u8]| {
        let (id, bytes) = entry.split_at(32);
        let id = ChunkId::from_bytes(id.try_into().expect("32 bytes"));
        NodeRef { id, bytes: u32::from_le_bytes(bytes.try_into().expect("four bytes")) }
    };
    let segments: Vec<NodeRef> = entries.map(segment).collect();
    // The list of segments makes the root, or the memory is of no release.
    let above = root.over(segments.clone(), |_| {}).ok()?;
    let mut offset = HEADER.len() as u64;
    let segment_blocks = place(&written.segment_blocks, &mut offset)?;
    let stat_blocks = place(&written.stat_blocks, &mut offset)?;
    let count = |blocks: &[Block]| blocks.last().map_or(0, |block| u64::from(block.end));
    let complete = count(&segment_blocks) == segments.len() as u64
        && count(&stat_blocks) == root.totals.files
        && stat_blocks
            .iter()
            .all(|block| block.listed.plain as usize == block.listed.count as usize * STAT_BYTES);
    (above == root && complete && offset == footer_begin).then(|| Footer {
        sequence: written.sequence,
        root,
        segments,
        source: PathBuf::from(OsStr::from_bytes(&written.source)),
        began: written.began,
        segment_blocks,
        stat_blocks,
    })
}

/// Returns the ranges of consecutive blocks; none if one breaks its bounds.
fn place(listed: &[Listed], offset: &mut u64) -> Option<Vec<Block>> {
    let mut next = 0u32;
    let place = |listed: &Listed| {
        let bounded =
            listed.plain as usize <= BLOCK_PLAIN_MAX && listed.stored <= listed.plain && listed.count > 0;
        let end = next.checked_add(listed.count).filter(|_| bounded)?;
        let block = Block { listed: *listed, offset: *offset, begin: next, end };
        *offset += u64::from(listed.stored);
        next = end;
        Some(block)
    };
    listed.iter().map(place).collect()
}
