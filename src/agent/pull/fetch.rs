//! Asks the proxy for a release and fetches what is missing into a store.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::super::{Error, Result, Session, blocking};
use super::held::{Held, Present};
use crate::compression::{self, Codec, Compressor, Decompressor, LEVEL_FAST};
use crate::ids::{ChunkId, Selector};
use crate::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, MANIFEST_SEGMENTS_MAX, PARCEL_BASIS_MAX};
use crate::link::{Receiver, Sender};
use crate::manifest::{self, NodeRef, Root};
use crate::monitor::{Monitor, Phase};
use crate::pack::{Frame, FrameKind};
use crate::patch;
use crate::push;
use crate::reassembly::ChunkSource;
use crate::recipe::ChunkRef;
use crate::record::Record;
use crate::store::Store;
use crate::wire::{
    Basis, Batch, Marks, Operation, Parcel, ParcelError, PullReply, PullRequest, unpack_names,
};

/// Segments whose chunks are asked for in one request: some 60 MB of content.
const WINDOW_SEGMENTS: usize = 64;
/// Requests for chunks under way.
const WINDOWS_OPEN: usize = 4;

/// A release whose chunks are all at hand.
#[derive(Debug)]
pub struct Fetched {
    /// What the proxy says of it.
    pub record: Record,
    /// Its root, verified.
    pub root: Root,
    /// Chunks that had to be fetched.
    pub chunks: u64,
    /// Their plain bytes.
    pub bytes: u64,
}

/// Fetches what neither `present` nor `store` has of a release; all of it is then verified and in the two.
///
/// # Errors
/// The link, a refusal, or a proxy that sends something else than it named.
pub async fn fetch(
    session: &Session,
    selector: &Selector,
    present: &Arc<Present>,
    store: &Arc<Store>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Fetched> {
    monitor.begin(Phase::Negotiate, None);
    let (sender, receiver) = session.request(&Operation::Pull(selector.clone())).await?;
    let mut talk = Talk { sender, receiver };
    let (record, root, names) = talk.release().await?;
    let segments = talk.segments(&root, names, present, store).await?;
    let mut fetched = Fetched { record, root, chunks: 0, bytes: 0 };
    talk.chunks(&mut fetched, &segments, present, store, monitor).await?;
    talk.sender.finish()?;
    let store = Arc::clone(store);
    blocking(move || store.sync()).await?;
    Ok(fetched)
}

/// Both halves of the stream.
struct Talk {
    sender: Sender,
    receiver: Receiver,
}

/// Segments whose chunks were asked for, and which chunks come.
struct Window {
    expected: VecDeque<ChunkRef>,
}

impl Talk {
    async fn reply(&mut self) -> Result<PullReply> {
        match self.receiver.receive::<PullReply>().await? {
            Some(PullReply::Refused(refusal)) => Err(Error::Refused(refusal)),
            Some(reply) => Ok(reply),
            None => Err(Error::Ended),
        }
    }

    /// What the proxy names: the release's record, its root, the names of its segments.
    async fn release(&mut self) -> Result<(Record, Root, Vec<u64>)> {
        let PullReply::Release { record, root, segments } = self.reply().await? else {
            return Err(Error::OutOfTurn("something before the release"));
        };
        let root = Root::decode(&root)?;
        let (expected, found) = (record.release.into(), root.release().into());
        if expected != found {
            return Err(manifest::Error::OtherRoot { expected, found }.into());
        }
        if segments as usize > MANIFEST_SEGMENTS_MAX {
            return Err(manifest::Error::TooLarge(MANIFEST_SEGMENTS_MAX).into());
        }
        let mut names = Vec::new();
        while names.len() < segments as usize {
            let PullReply::Names(part) = self.reply().await? else {
                return Err(Error::OutOfTurn("something before the names"));
            };
            names.extend(unpack_names(&part)?);
        }
        if names.len() == segments as usize {
            Ok((record, root, names))
        } else {
            Err(Error::OutOfTurn("Names"))
        }
    }

    /// Brings all segments, and the nodes above them, into the store; proves that they make the root.
    async fn segments(
        &mut self,
        root: &Root,
        names: Vec<u64>,
        present: &Arc<Present>,
        store: &Arc<Store>,
    ) -> Result<Vec<NodeRef>> {
        let mut nodes: Vec<Option<NodeRef>> = Vec::with_capacity(names.len());
        for name in &names {
            let here = present.segment(*name).map(|(node, _)| *node);
            nodes.push(match here {
                Some(node) => Some(node),
                None => store.find_name(*name)?,
            });
        }
        let wanted: Marks = nodes.iter().map(Option::is_none).collect();
        let mut places: VecDeque<u32> = wanted.places().collect();
        if let Some(release) = present.release() {
            self.sender.send(&PullRequest::Have(release)).await?;
        }
        if !places.is_empty() {
            self.sender.send(&PullRequest::WantSegments(wanted)).await?;
        }
        let (mut zstd, mut plain) = (Decompressor::new(), Vec::new());
        while !places.is_empty() {
            let PullReply::Segments(batch) = self.reply().await? else {
                return Err(Error::OutOfTurn("something before the segments"));
            };
            let mut chunks = Vec::new();
            for (part, length) in batch.open(&mut zstd, &mut plain)?.into_iter().zip(&batch.lengths) {
                let node = NodeRef { id: ChunkId::of(&plain[part]), bytes: *length };
                let place = places.pop_front().ok_or(Error::OutOfTurn("Segments"))? as usize;
                if names[place] != node.id.prefix() {
                    return Err(Error::WrongChunk);
                }
                nodes[place] = Some(node);
                chunks.push(ChunkRef { id: node.id, bytes: node.bytes });
            }
            keep(store, FrameKind::Manifest, chunks, batch)?;
        }
        let segments: Vec<NodeRef> = nodes.into_iter().flatten().collect();
        keep_nodes(root, &segments, present, store)?;
        Ok(segments)
    }

    /// Fetches all chunks that neither side has, a few windows of segments at a time.
    async fn chunks(
        &mut self,
        fetched: &mut Fetched,
        segments: &[NodeRef],
        present: &Arc<Present>,
        store: &Arc<Store>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<()> {
        let mut windows = segments.chunks(WINDOW_SEGMENTS);
        let mut first = 0;
        let mut open: VecDeque<Window> = VecDeque::new();
        let mut asked: HashSet<ChunkId> = HashSet::new();
        let (mut zstd, mut plain) = (Decompressor::new(), Vec::new());
        loop {
            while open.len() < WINDOWS_OPEN {
                let Some(window) = windows.next() else { break };
                let (marks, expected) = missing(window, present, store, &asked)?;
                let count = u32::try_from(window.len()).expect("a window is small");
                if !expected.is_empty() {
                    asked.extend(expected.iter().map(|chunk| chunk.id));
                    fetched.chunks += expected.len() as u64;
                    fetched.bytes += expected.iter().map(|chunk| u64::from(chunk.bytes)).sum::<u64>();
                    monitor.begin(Phase::Transfer, Some(fetched.bytes));
                    self.sender.send(&PullRequest::WantChunks { first, count, marks }).await?;
                    open.push_back(Window { expected: expected.into() });
                }
                first += count;
            }
            let Some(window) = open.front_mut() else { return Ok(()) };
            let (lengths, frame) = match self.reply().await? {
                PullReply::Chunks(batch) => {
                    batch.open(&mut zstd, &mut plain)?;
                    (batch.lengths, Some((batch.codec, batch.payload)))
                }
                PullReply::Parcel(parcel) => {
                    let payload = self.payload(&parcel).await?;
                    plain = told_by_older(&parcel, &payload, present, store)?;
                    (parcel.lengths, None)
                }
                _ => return Err(Error::OutOfTurn("something before the chunks")),
            };
            let mut chunks = Vec::new();
            let mut rest = plain.as_slice();
            for length in &lengths {
                let (part, after) = rest.split_at(*length as usize);
                rest = after;
                let chunk = window.expected.pop_front().ok_or(Error::OutOfTurn("Chunks"))?;
                // The manifest may lie about a length: a frame kept with it could not be read back.
                if *length != chunk.bytes || ChunkId::of(part) != chunk.id {
                    return Err(Error::WrongChunk);
                }
                asked.remove(&chunk.id);
                monitor.advance(Phase::Transfer, u64::from(chunk.bytes));
                chunks.push(chunk);
            }
            if window.expected.is_empty() {
                open.pop_front();
            }
            let store = Arc::clone(store);
            let plain = std::mem::take(&mut plain);
            blocking(move || match frame {
                Some((codec, payload)) => {
                    store.append(&Frame { kind: FrameKind::Content, codec, chunks, payload }).map(drop)
                }
                None => keep_anew(&store, &plain, &lengths),
            })
            .await?;
        }
    }

    /// The pieces of a parcel.
    async fn payload(&mut self, parcel: &Parcel) -> Result<Vec<u8>> {
        parcel.plain_bytes().map_err(push::Error::from)?;
        let mut payload = Vec::new();
        while payload.len() < parcel.payload_bytes as usize {
            let PullReply::Piece(piece) = self.reply().await? else {
                return Err(Error::OutOfTurn("something inside a parcel"));
            };
            if piece.is_empty() || payload.len() + piece.len() > parcel.payload_bytes as usize {
                return Err(push::Error::from(ParcelError::Piece).into());
            }
            payload.extend_from_slice(&piece);
        }
        Ok(payload)
    }
}

/// Decodes chunks that are told by those of the directory.
fn told_by_older(parcel: &Parcel, payload: &[u8], present: &Present, store: &Store) -> Result<Vec<u8>> {
    let bytes = parcel.plain_bytes().map_err(push::Error::from)?;
    let (Basis::Prefix(spans) | Basis::Patch(spans)) = &parcel.basis else {
        return Err(Error::OutOfTurn("a parcel of another kind"));
    };
    let held = Held { present, fetched: store };
    let mut reader = held.reader();
    let mut older = Vec::new();
    for span in spans {
        let left = PARCEL_BASIS_MAX - older.len();
        let chunks = present.chunks_of(*span, left).ok_or(Error::OutOfTurn("a parcel outside its base"))?;
        for chunk in chunks {
            reader.read(&chunk, &mut older).map_err(|_| Error::DirectoryChanged)?;
        }
    }
    let mut plain = Vec::new();
    match (&parcel.basis, parcel.codec) {
        (Basis::Patch(_), _) => {
            plain = patch::decompress(payload, &older, bytes)
                .map_err(|error| push::Error::from(ParcelError::from(error)))?;
        }
        (_, Codec::Raw) if payload.len() == bytes => plain.extend_from_slice(payload),
        _ => compression::decompress_against(&older, payload, bytes, &mut plain)
            .map_err(|error| push::Error::from(ParcelError::from(error)))?,
    }
    Ok(plain)
}

/// Keeps chunks that lie behind one another in `plain`.
fn keep_anew(store: &Store, mut plain: &[u8], lengths: &[u32]) -> crate::store::Result<()> {
    let mut compressor = Compressor::new(LEVEL_FAST);
    let mut rest = lengths;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |length: &&u32| {
            bytes += **length as usize;
            bytes <= FRAME_PLAIN_TARGET
        };
        let count = rest.iter().take(FRAME_CHUNKS_MAX).take_while(fits).count().max(1);
        let (some, after) = rest.split_at(count);
        let parts = some.iter().map(|length| {
            let (part, behind) = plain.split_at(*length as usize);
            plain = behind;
            part
        });
        store.append(&Frame::compress(FrameKind::Content, parts, &mut compressor))?;
        rest = after;
    }
    Ok(())
}

/// Which chunks of some segments are at neither place and not on their way.
fn missing(
    segments: &[NodeRef],
    present: &Present,
    store: &Store,
    asked: &HashSet<ChunkId>,
) -> Result<(Marks, Vec<ChunkRef>)> {
    let mut reader = crate::store::StoreReader::new(store);
    let mut expected = Vec::new();
    let mut marks = Vec::new();
    let mut now: HashSet<ChunkId> = HashSet::new();
    for segment in segments {
        for chunk in segment_chunks(segment, present, &mut reader)? {
            let known = present.has(&chunk.id) || asked.contains(&chunk.id) || now.contains(&chunk.id);
            let missing = !known && store.find(&chunk.id)?.is_none();
            if missing {
                now.insert(chunk.id);
                expected.push(chunk);
            }
            marks.push(missing);
        }
    }
    Ok((marks.into_iter().collect(), expected))
}

fn segment_chunks(
    segment: &NodeRef,
    present: &Present,
    reader: &mut crate::store::StoreReader<&Store>,
) -> Result<Vec<ChunkRef>> {
    use crate::reassembly::{self, ChunkReader};
    if let Some((_, bytes)) = present.segment(segment.id.prefix()) {
        return Ok(manifest::segment_chunks(bytes)?);
    }
    let mut bytes = Vec::new();
    let read = reader.read(&ChunkRef { id: segment.id, bytes: segment.bytes }, &mut bytes);
    read.map_err(reassembly::Error::from)?;
    Ok(manifest::segment_chunks(&bytes)?)
}

/// Keeps the nodes above the segments, and the segments that only the directory's manifest has: the
/// rebuild reads all of them from the store.
fn keep_nodes(root: &Root, segments: &[NodeRef], present: &Present, store: &Store) -> Result<()> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let made =
        Root::above(root.profile, root.shape, root.totals, segments.to_vec(), |node| parts.push(node.bytes))?;
    if made != *root {
        let (expected, found) = (root.release().into(), made.release().into());
        return Err(manifest::Error::OtherRoot { expected, found }.into());
    }
    for segment in segments {
        if let Some((_, bytes)) = present.segment(segment.id.prefix())
            && store.find(&segment.id)?.is_none()
        {
            parts.push(bytes.clone());
        }
    }
    let mut compressor = Compressor::new(LEVEL_FAST);
    for some in parts.chunks(8) {
        store.append(&Frame::compress(
            FrameKind::Manifest,
            some.iter().map(Vec::as_slice),
            &mut compressor,
        ))?;
    }
    Ok(())
}

fn keep(store: &Store, kind: FrameKind, chunks: Vec<ChunkRef>, batch: Batch) -> Result<()> {
    store.append(&Frame { kind, codec: batch.codec, chunks, payload: batch.payload })?;
    Ok(())
}
