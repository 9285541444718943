//! One frame: some neighbouring chunks, compressed together (FORMAT 3.1).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `wFRM` |
//! | 4 | 1 | kind: 0 content, 1 manifest |
//! | 5 | 1 | codec: 0 raw, 1 zstd |
//! | 6 | 2 | n, the number of chunks |
//! | 8 | 4 | plain bytes |
//! | 12 | 4 | stored bytes, s |
//! | 16 | 36 n | for each chunk: id (32), plain bytes (4) |
//! | 16 + 36 n | s | payload |
//! | 16 + 36 n + s | 16 | BLAKE3 of all before it, first 16 bytes |

use super::{Error, four};
use crate::recipe::ChunkRef;
use delta::compression::{Codec, Compressor};
use ground::ids::ChunkId;
use ground::limits::{CHUNK_BYTES_MAX, FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX, FRAME_STORED_MAX};

/// The first bytes of every frame.
pub(super) const MAGIC: [u8; 4] = *b"wFRM";
const FIXED_BYTES: usize = 16;
const ENTRY_BYTES: usize = 36;
const CHECK_BYTES: usize = 16;
/// Bytes of a frame beyond its table and payload.
pub const FRAME_OVERHEAD: usize = FIXED_BYTES + CHECK_BYTES;

/// The kind of a frame's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// 0: parts of artifacts.
    Content,
    /// 1: segments, nodes and roots.
    Manifest,
}

/// Chunks and their payload, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the chunks.
    pub kind: FrameKind,
    /// The codec of the payload.
    pub codec: Codec,
    /// The chunks, in the payload's order.
    pub chunks: Vec<ChunkRef>,
    /// The chunks' bytes, one after another, under the codec.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Compresses chunks of one kind together.
    pub fn compress<'a>(
        kind: FrameKind,
        chunks: impl IntoIterator<Item = &'a [u8]>,
        compressor: &mut Compressor,
    ) -> Self {
        let mut plain = Vec::new();
        let mut references = Vec::new();
        for chunk in chunks {
            references.push(ChunkRef::of(chunk));
            plain.extend_from_slice(chunk);
        }
        let (codec, payload) = compressor.compress(&plain);
        Self { kind, codec, chunks: references, payload }
    }

    /// Returns the plain bytes of all chunks.
    pub fn plain_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// Appends the frame's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let number = |value: usize| u32::try_from(value).expect("a frame is within its limits");
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.push(match self.kind {
            FrameKind::Content => 0,
            FrameKind::Manifest => 1,
        });
        out.push(self.codec.into());
        out.extend_from_slice(
            &u16::try_from(self.chunks.len()).expect("a frame is within its limits").to_le_bytes(),
        );
        out.extend_from_slice(
            &u32::try_from(self.plain_bytes()).expect("a frame is within its limits").to_le_bytes(),
        );
        out.extend_from_slice(&number(self.payload.len()).to_le_bytes());
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            out.extend_from_slice(&chunk.bytes.to_le_bytes());
        }
        out.extend_from_slice(&self.payload);
        let check = blake3::hash(&out[start..]);
        out.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    }
}

/// Returns the bytes of a frame with `chunks` chunks and `stored` bytes of payload.
pub fn frame_bytes(chunks: usize, stored: usize) -> usize {
    FRAME_OVERHEAD + ENTRY_BYTES * chunks + stored
}

/// Bytes at a frame's start from which its length follows.
pub const FRAME_HEAD_BYTES: usize = FIXED_BYTES;

/// Returns the length of the frame with this head; none beyond the limits.
pub fn frame_length(head: &[u8; FRAME_HEAD_BYTES]) -> Option<usize> {
    let count = usize::from(u16::from_le_bytes([head[6], head[7]]));
    let stored = u32::from_le_bytes(four(head, 12)) as usize;
    let bounded = head[..4] == MAGIC && count <= FRAME_CHUNKS_MAX && stored <= FRAME_STORED_MAX;
    bounded.then(|| frame_bytes(count, stored))
}

/// A frame inside a pack's bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    kind: FrameKind,
    codec: Codec,
    plain_bytes: usize,
    table: &'a [u8],
    payload: &'a [u8],
    bytes: &'a [u8],
    checked: &'a [u8],
}

impl<'a> FrameView<'a> {
    /// Reads the frame at the start of `bytes`; checks its numbers, not its checksum.
    ///
    /// # Errors
    /// [`Error::Damaged`] with `offset`, the frame's place in its pack.
    pub fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, Error> {
        let damaged = || Error::Damaged { part: "frame", offset };
        let fixed = bytes.get(..FIXED_BYTES).ok_or_else(damaged)?;
        let kind = match fixed[4] {
            0 => FrameKind::Content,
            1 => FrameKind::Manifest,
            _ => return Err(damaged()),
        };
        let codec = Codec::try_from(fixed[5]).map_err(|_| damaged())?;
        let count = usize::from(u16::from_le_bytes([fixed[6], fixed[7]]));
        let plain_bytes = u32::from_le_bytes(four(fixed, 8)) as usize;
        let stored = u32::from_le_bytes(four(fixed, 12)) as usize;
        let bounded = (1..=FRAME_CHUNKS_MAX).contains(&count)
            && (1..=FRAME_PLAIN_MAX).contains(&plain_bytes)
            && (1..=FRAME_STORED_MAX).contains(&stored);
        if fixed[..4] != MAGIC || !bounded {
            return Err(damaged());
        }
        let payload_at = FIXED_BYTES + ENTRY_BYTES * count;
        let check_at = payload_at + stored;
        let whole = bytes.get(..check_at + CHECK_BYTES).ok_or_else(damaged)?;
        let table = &whole[FIXED_BYTES..payload_at];
        let view = Self {
            kind,
            codec,
            plain_bytes,
            table,
            payload: &whole[payload_at..check_at],
            bytes: whole,
            checked: &whole[..check_at],
        };
        let sum: usize = view.chunks().map(|chunk| chunk.bytes as usize).sum();
        let sized = view.chunks().all(|chunk| (1..=CHUNK_BYTES_MAX).contains(&chunk.bytes));
        if sized && sum == plain_bytes { Ok(view) } else { Err(damaged()) }
    }

    /// Returns whether the checksum holds. Time O(frame).
    pub fn is_whole(&self) -> bool {
        blake3::hash(self.checked).as_bytes()[..CHECK_BYTES] == self.bytes[self.checked.len()..]
    }

    /// Returns the kind of the chunks.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Returns the codec of the payload.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the plain bytes of all chunks; within the limits.
    pub fn plain_bytes(&self) -> usize {
        self.plain_bytes
    }

    /// Returns the stored payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Returns the whole frame's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the chunks, in the payload's order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = ChunkRef> + use<'a> {
        self.table.chunks_exact(ENTRY_BYTES).map(|entry| ChunkRef {
            id: ChunkId::from_bytes(entry[..32].try_into().expect("an entry has 36 bytes")),
            bytes: u32::from_le_bytes(four(entry, 32)),
        })
    }
}
