//! Blocks: neighbouring segments, or stats, compressed together.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use delta::compression::{Codec, Decompressor};

/// 256 KiB: plain bytes gathered into one block.
pub(super) const BLOCK_PLAIN_TARGET: usize = 256 * 1024;
/// A block at its target, and one segment more (17 KiB at most).
pub(super) const BLOCK_PLAIN_MAX: usize = BLOCK_PLAIN_TARGET + 32 * 1024;

/// A block as the footer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    /// How it is compressed.
    pub codec: Codec,
    /// Bytes in the file.
    pub stored: u32,
    /// Bytes decoded.
    pub plain: u32,
    /// Segments, or stats.
    pub count: u32,
}

/// A block and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub listed: Listed,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its first segment or stat.
    pub begin: u32,
    /// The one after its last.
    pub end: u32,
}

/// Reads blocks; keeps the last.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    decompressor: Decompressor,
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// The offset of the block in `plain`.
    at: Option<u64>,
}

impl Decoder {
    /// Returns the plain bytes of a block; none where it is damaged.
    pub fn block(&mut self, file: &File, block: &Block) -> io::Result<Option<&[u8]>> {
        if self.at != Some(block.offset) {
            self.at = None;
            // The footer's reader has held both lengths to their bounds.
            self.stored.resize(block.listed.stored as usize, 0);
            file.read_exact_at(&mut self.stored, block.offset)?;
            let (codec, plain) = (block.listed.codec, block.listed.plain as usize);
            if self.decompressor.decompress(codec, &self.stored, plain, &mut self.plain).is_err() {
                return Ok(None);
            }
            self.at = Some(block.offset);
        }
        Ok(Some(&self.plain))
    }
}
