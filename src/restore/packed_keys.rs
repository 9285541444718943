//! Keys of packed pieces: two archives whose pieces have the same key have the same packed bytes there.

use std::io::{self, Read};

use super::archive_stream::{Archive, Head, Shared, StreamSection};
use format::recipe::ChunkRef;
use recode::archive::{PackedPiece, Skip, encode_head};
use recode::codec::Method;

/// 1 KiB: shorter content shares chunks with its neighbours (FORMAT 2.5).
const CONTENT_BYTES_MIN: u64 = 1024;
/// The first 16 bytes of the BLAKE3 of a stream's method and of what is in it. Equal ones have equal packed bytes.
pub(super) type Key = [u8; 16];

/// Names the packed pieces of one archive, in order.
pub(super) struct Keys<'a, 'b> {
    place: ChunkPlace<'a>,
    /// The place of the content's beginning in the archive's stream.
    begin: u64,
    framing: StreamSection<'a, 'b>,
    framing_at: u64,
    content: StreamSection<'a, 'b>,
    content_at: u64,
}

impl<'a, 'b> Keys<'a, 'b> {
    pub(super) fn new(archive: Archive<'a>, head: &Head, shared: &'a Shared<'b>) -> Self {
        let Archive { chunks, .. } = archive;
        let begin = head.bytes + head.framing_bytes;
        Self {
            place: ChunkPlace { chunks: chunks.iter(), at: 0 },
            begin,
            framing: StreamSection::new(shared, chunks, head.bytes, head.framing_bytes),
            framing_at: 0,
            content: StreamSection::new(shared, chunks, begin, head.content_bytes),
            content_at: 0,
        }
    }

    /// Returns the key of a packed piece, whose plain bytes are one content stream with chunks of its own, or an archive that is
    /// in no other packed piece.
    pub(super) fn of(&mut self, piece: &PackedPiece<'_>) -> Option<Key> {
        let (begin, end) = (piece.content.start, piece.content.end);
        if end - begin < CONTENT_BYTES_MIN {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&encoded(&piece.method));
        if piece.plain.is_plain() {
            self.place.pass(self.begin + begin)?;
            self.place.hash(self.begin + end, &mut hasher)?;
        } else if piece.is_outermost {
            self.archive(piece, &mut hasher)?;
        } else {
            return None;
        }
        hasher.finalize().as_bytes().first_chunk().copied()
    }

    /// Hashes an archive in a packed piece: its plan, framing and content. Members that are parts of their own count by their chunks; what
    /// comes before the first and after the last of them is read, as it may share chunks with other members.
    fn archive(&mut self, piece: &PackedPiece<'_>, hasher: &mut blake3::Hasher) -> Option<()> {
        hasher.update(&encode_head(piece.plain));
        self.framing.skip(piece.framing.start - self.framing_at);
        hash_bytes(&mut self.framing, piece.framing.end - piece.framing.start, hasher)?;
        self.framing_at = piece.framing.end;
        let (mut at, mut parts) = (piece.content.start, None);
        for bytes in piece.plain.contents() {
            if bytes >= CONTENT_BYTES_MIN {
                let (first, _) = parts.unwrap_or((at, 0));
                parts = Some((first, at + bytes));
            }
            at += bytes;
        }
        let (first, last) = parts.unwrap_or((piece.content.end, piece.content.end));
        self.content.skip(piece.content.start - self.content_at);
        hash_bytes(&mut self.content, first - piece.content.start, hasher)?;
        self.content.skip(last - first);
        hash_bytes(&mut self.content, piece.content.end - last, hasher)?;
        self.content_at = piece.content.end;
        if first < last {
            // Pieces in this one come next.
            let mut place = self.place.clone();
            place.pass(self.begin + first)?;
            place.hash(self.begin + last, hasher)?;
        }
        Some(())
    }
}

/// A place between two chunks of an archive's stream.
#[derive(Clone)]
struct ChunkPlace<'a> {
    chunks: std::slice::Iter<'a, ChunkRef>,
    /// Bytes before it.
    at: u64,
}

impl ChunkPlace<'_> {
    /// Moves on to `end`; none where no chunk ends there.
    fn pass(&mut self, end: u64) -> Option<()> {
        self.to(end, |_| {})
    }

    /// Does the same, and hashes the names of the chunks.
    fn hash(&mut self, end: u64, hasher: &mut blake3::Hasher) -> Option<()> {
        self.to(end, |chunk| {
            hasher.update(chunk.id.as_bytes());
        })
    }

    fn to(&mut self, end: u64, mut each: impl FnMut(&ChunkRef)) -> Option<()> {
        while self.at < end {
            let chunk = self.chunks.next()?;
            self.at += u64::from(chunk.bytes);
            each(chunk);
        }
        (self.at == end).then_some(())
    }
}

/// Hashes the next bytes of a stream, then their number; none where it has fewer.
fn hash_bytes(stream: &mut StreamSection<'_, '_>, bytes: u64, hasher: &mut blake3::Hasher) -> Option<()> {
    io::copy(&mut stream.take(bytes), hasher).ok().filter(|read| *read == bytes)?;
    hasher.update(&bytes.to_le_bytes());
    Some(())
}

fn encoded(method: &Method) -> Vec<u8> {
    let mut bytes = Vec::new();
    method.encode(&mut bytes);
    bytes
}
