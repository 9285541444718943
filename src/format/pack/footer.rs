//! The footer of a sealed pack: where each chunk lies, sorted by id (FORMAT 3.2).
//!
//! | size | field |
//! |---|---|
//! | 4 | `wFTR` |
//! | 4 | f, the number of frames |
//! | 4 | n, the number of chunks |
//! | 16 f | for each frame: offset (8), bytes (4), plain bytes (4) |
//! | 44 n | for each chunk, sorted by id: id (32), frame (4), offset in the frame's plain bytes (4), bytes (4) |
//!
//! The file ends in a trailer of 64 bytes: footer offset (8), footer bytes (8), BLAKE3 of the footer (32),
//! version (4), kind bits (4: 1 content, 2 manifest), `whitpEND` (8).

use std::borrow::Cow;

use super::{Error, FrameKind, eight, four};
use crate::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::PACK_CHUNKS_MAX;

const MAGIC: [u8; 4] = *b"wFTR";
const END: [u8; 8] = *b"whitpEND";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 12;
const FRAME_BYTES: usize = 16;
const CHUNK_BYTES: usize = 44;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 64;

/// A chunk in a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterChunk {
    /// Its name and plain bytes.
    pub chunk: ChunkRef,
    /// The offset of its frame in the pack.
    pub frame_offset: u64,
    /// Its offset in the frame's plain bytes.
    pub plain_offset: u32,
}

/// Returns whether these bytes, after a pack's last frame, are a footer or the first of one.
pub fn begins_footer(bytes: &[u8]) -> bool {
    let length = bytes.len().min(MAGIC.len());
    bytes[..length] == MAGIC[..length]
}

/// Gathers a footer while frames are appended.
#[derive(Debug, Default)]
pub struct Footer {
    frames: Vec<(u64, u32, u32)>,
    chunks: Vec<(ChunkRef, u32, u32)>,
    kinds: u32,
}

impl Footer {
    /// Adds the frame of `frame_bytes` bytes at `offset`.
    pub fn add(
        &mut self,
        offset: u64,
        frame_bytes: u32,
        kind: FrameKind,
        chunks: impl Iterator<Item = ChunkRef>,
    ) {
        let frame = u32::try_from(self.frames.len()).expect("a pack has fewer frames than bytes");
        let mut plain = 0;
        for chunk in chunks {
            self.chunks.push((chunk, frame, plain));
            plain += chunk.bytes;
        }
        self.frames.push((offset, frame_bytes, plain));
        self.kinds |= match kind {
            FrameKind::Content => 1,
            FrameKind::Manifest => 2,
        };
    }

    /// Returns the number of chunks so far.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the footer and trailer that follow the pack's first `offset` bytes.
    pub fn encode(mut self, offset: u64) -> Vec<u8> {
        self.chunks.sort_unstable_by_key(|(chunk, frame, _)| (chunk.id, *frame));
        let count = |length: usize| u32::try_from(length).expect("a pack is within its limits").to_le_bytes();
        let mut out = Vec::with_capacity(
            FIXED_BYTES + FRAME_BYTES * self.frames.len() + CHUNK_BYTES * self.chunks.len() + TRAILER_BYTES,
        );
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&count(self.frames.len()));
        out.extend_from_slice(&count(self.chunks.len()));
        for (frame_offset, bytes, plain) in &self.frames {
            out.extend_from_slice(&frame_offset.to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&plain.to_le_bytes());
        }
        for (chunk, frame, plain_offset) in &self.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            out.extend_from_slice(&frame.to_le_bytes());
            out.extend_from_slice(&plain_offset.to_le_bytes());
            out.extend_from_slice(&chunk.bytes.to_le_bytes());
        }
        let hash = blake3::hash(&out);
        let length = out.len() as u64;
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(hash.as_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.kinds.to_le_bytes());
        out.extend_from_slice(&END);
        out
    }
}

/// The last bytes of a sealed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The footer's offset.
    pub footer_offset: u64,
    /// The footer's bytes.
    pub footer_bytes: u64,
    hash: [u8; 32],
}

impl Trailer {
    /// Reads the trailer, the last [`TRAILER_BYTES`], of a pack of `pack_bytes`.
    ///
    /// # Errors
    /// A newer version, or bytes that are no trailer of a pack of that length.
    pub fn parse(bytes: &[u8; TRAILER_BYTES], pack_bytes: u64) -> Result<Self, Error> {
        let damaged =
            Error::Damaged { part: "trailer", offset: pack_bytes.saturating_sub(TRAILER_BYTES as u64) };
        if bytes[56..] != END {
            return Err(damaged);
        }
        let version = u32::from_le_bytes(four(bytes, 48));
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let (footer_offset, footer_bytes) =
            (u64::from_le_bytes(eight(bytes, 0)), u64::from_le_bytes(eight(bytes, 8)));
        let end =
            footer_offset.checked_add(footer_bytes).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        if end != Some(pack_bytes) {
            return Err(damaged);
        }
        let hash = bytes[16..48].try_into().expect("a trailer has 64 bytes");
        Ok(Self { footer_offset, footer_bytes, hash })
    }
}

/// A view of a pack's footer, inside the pack's bytes or in a copy.
#[derive(Debug, Clone)]
pub struct FooterView<'a> {
    bytes: Cow<'a, [u8]>,
    /// The offset of the entries of chunks.
    chunks_begin: usize,
}

impl<'a> FooterView<'a> {
    /// Finds and checks the footer of the whole pack `bytes`. Time O(footer).
    ///
    /// # Errors
    /// Bytes that do not end as a sealed pack.
    pub fn of_pack(bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = Error::Damaged { part: "trailer", offset: bytes.len() as u64 };
        let trailer = bytes.last_chunk::<TRAILER_BYTES>().ok_or(damaged)?;
        let trailer = Trailer::parse(trailer, bytes.len() as u64)?;
        let begin = usize::try_from(trailer.footer_offset).map_err(|_| damaged)?;
        Self::parse(&bytes[begin..bytes.len() - TRAILER_BYTES], &trailer)
    }

    /// Checks a footer's bytes against the trailer.
    ///
    /// # Errors
    /// [`Error::Damaged`] where they do not belong together.
    pub fn parse(footer: impl Into<Cow<'a, [u8]>>, trailer: &Trailer) -> Result<Self, Error> {
        let footer = footer.into();
        let damaged = Error::Damaged { part: "footer", offset: trailer.footer_offset };
        if footer.len() < FIXED_BYTES
            || footer[..4] != MAGIC
            || *blake3::hash(&footer).as_bytes() != trailer.hash
        {
            return Err(damaged);
        }
        let frames = u32::from_le_bytes(four(&footer, 4)) as usize;
        let chunks = u32::from_le_bytes(four(&footer, 8)) as usize;
        let sized = frames <= chunks && chunks <= 2 * PACK_CHUNKS_MAX;
        if !sized || footer.len() != FIXED_BYTES + FRAME_BYTES * frames + CHUNK_BYTES * chunks {
            return Err(damaged);
        }
        let view = Self { bytes: footer, chunks_begin: FIXED_BYTES + FRAME_BYTES * frames };
        if view.frames_follow_one_another(trailer.footer_offset) && view.chunks_are_sorted_and_inside() {
            Ok(view)
        } else {
            Err(damaged)
        }
    }

    fn frame_entries(&self) -> &[u8] {
        &self.bytes[FIXED_BYTES..self.chunks_begin]
    }

    fn chunk_entries(&self) -> &[u8] {
        &self.bytes[self.chunks_begin..]
    }

    fn frames_follow_one_another(&self, end: u64) -> bool {
        let mut free = 0;
        (0..self.frame_count()).all(|at| {
            let (offset, bytes, _) = self.frame(at);
            let follows = offset >= free;
            free = offset.saturating_add(u64::from(bytes));
            follows && free <= end
        })
    }

    /// Returns whether chunks are sorted and inside their frames, on which binary search and merges rely.
    fn chunks_are_sorted_and_inside(&self) -> bool {
        let entries = || self.chunk_entries().chunks_exact(CHUNK_BYTES);
        let sorted = entries().zip(entries().skip(1)).all(|(one, next)| one[..32] <= next[..32]);
        sorted
            && entries().all(|entry| {
                let frame = u32::from_le_bytes(four(entry, 32)) as usize;
                let end = u64::from(u32::from_le_bytes(four(entry, 36)))
                    + u64::from(u32::from_le_bytes(four(entry, 40)));
                frame < self.frame_count() && end <= u64::from(self.frame(frame).2)
            })
    }

    /// Returns the number of chunks in the pack, repeated ones counted each time.
    pub fn chunk_count(&self) -> usize {
        self.chunk_entries().len() / CHUNK_BYTES
    }

    /// Returns the number of frames in the pack.
    pub fn frame_count(&self) -> usize {
        self.frame_entries().len() / FRAME_BYTES
    }

    /// Returns the offset, bytes and plain bytes of frame `at`, which is below [`FooterView::frame_count`].
    pub fn frame(&self, at: usize) -> (u64, u32, u32) {
        let frame = &self.frame_entries()[at * FRAME_BYTES..][..FRAME_BYTES];
        (
            u64::from_le_bytes(eight(frame, 0)),
            u32::from_le_bytes(four(frame, 8)),
            u32::from_le_bytes(four(frame, 12)),
        )
    }

    /// Returns chunk `at` in the order of ids; `at` is below [`FooterView::chunk_count`].
    pub fn entry(&self, at: usize) -> FooterChunk {
        self.chunk(&self.chunk_entries()[at * CHUNK_BYTES..][..CHUNK_BYTES])
    }

    /// Returns all chunks, sorted by id.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = FooterChunk> + '_ {
        self.chunk_entries().chunks_exact(CHUNK_BYTES).map(|bytes| self.chunk(bytes))
    }

    /// Finds a chunk. Time O(log n).
    pub fn find(&self, id: &ChunkId) -> Option<FooterChunk> {
        self.find_all(id).next()
    }

    /// Returns all entries of a chunk: a pack may hold it more than once. Time O(log n).
    pub fn find_all(&self, id: &ChunkId) -> impl Iterator<Item = FooterChunk> + '_ {
        let id = *id;
        let first = self.first_from(&id);
        let entries = (first..self.chunk_count()).map(|at| self.entry(at));
        entries.take_while(move |entry| entry.chunk.id == id)
    }

    /// Returns the first entry whose id is not below `id`.
    fn first_from(&self, id: &ChunkId) -> usize {
        let (mut low, mut high) = (0, self.chunk_count());
        while low < high {
            let middle = usize::midpoint(low, high);
            let entry = &self.chunk_entries()[middle * CHUNK_BYTES..][..CHUNK_BYTES];
            if entry[..32] < id.as_bytes()[..] { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn chunk(&self, bytes: &[u8]) -> FooterChunk {
        let id = ChunkId::from_bytes(bytes[..32].try_into().expect("an entry has 44 bytes"));
        FooterChunk {
            chunk: ChunkRef { id, bytes: u32::from_le_bytes(four(bytes, 40)) },
            frame_offset: self.frame(u32::from_le_bytes(four(bytes, 32)) as usize).0,
            plain_offset: u32::from_le_bytes(four(bytes, 36)),
        }
    }
}
