//! Asks the proxy for a release and fetches what is missing into a store.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::listing::{self, Listing};
use super::local_chunks::{DirectoryChunks, LocalChunks};
use super::stream::PullStream;
use super::window::{Awaited, Window};
use crate::agent::link_speed::LinkSpeed;
use crate::agent::{Error, Result, Session, blocking};
use crate::restore::{ChunkSource, room};
use crate::store::Store;
use delta::compression::{self, Codec, Compressor, Decompressor, LEVEL_FAST};
use delta::patch;
use format::manifest::{self, Reference, Root, SegmentIndex};
use format::pack::{Frame, FrameKind};
use format::record::Record;
use ground::ids::{ReleaseId, Selector};
use ground::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, PARCEL_BASIS_MAX};
use ground::monitor::{Monitor, Phase};
use protocol::wire::{Basis, Operation, Parcel, ParcelError, PullReply, PullRequest};

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

/// Says how to fetch a release.
#[derive(Debug, Clone, Copy, Default)]
pub struct FetchOptions<'a> {
    /// Where the release will be written: nothing is fetched unless it has room there.
    pub place: Option<&'a Path>,
    /// The link. Where it is slow, executables cross by their functions, which takes both sides seconds.
    pub link: Option<&'a LinkSpeed>,
}

/// Fetches what neither `present` nor `store` has of a release; all of it is then verified and in the two.
///
/// # Errors
/// The link, a refusal, no room, or a proxy that sends other content than it named.
pub async fn fetch(
    session: &Session,
    selector: &Selector,
    present: &Arc<DirectoryChunks>,
    store: &Arc<Store>,
    options: FetchOptions<'_>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Fetched> {
    monitor.begin(Phase::Negotiate, None);
    let have = present.release();
    let fetched = match fetch_from(session, selector, have, present, store, options, monitor).await {
        // What came stays: only the manifest comes again, in full.
        Err(Error::Push(protocol::Error::Mismatch)) if have.is_some() => {
            fetch_from(session, selector, None, present, store, options, monitor).await?
        }
        fetched => fetched?,
    };
    let store = Arc::clone(store);
    blocking(move || store.sync()).await?;
    Ok(fetched)
}

/// Fetches a release that comes as changes to the directory's release, or by names.
async fn fetch_from(
    session: &Session,
    selector: &Selector,
    have: Option<ReleaseId>,
    present: &Arc<DirectoryChunks>,
    store: &Arc<Store>,
    options: FetchOptions<'_>,
    monitor: &Arc<dyn Monitor>,
) -> Result<Fetched> {
    let operation = Operation::Pull { release: selector.clone(), have };
    let mut stream = PullStream::new(session.request(&operation).await?, session.renewals());
    let (record, root, mut listing) = stream.listing(selector, present, store).await?;
    if let Some(place) = options.place {
        room::check(place, root.totals)?;
    }
    let is_thin = !listing.thin.is_empty();
    let mut fetched = Fetched { record, root, chunks: 0, bytes: 0 };
    if is_thin && options.link.is_some_and(LinkSpeed::is_slow) {
        let bytes_max = fetched.root.totals.bytes;
        (fetched.chunks, fetched.bytes) = stream.executables(bytes_max, present, store).await?;
    }
    stream.chunks(&mut fetched, &mut listing, present, store, monitor).await?;
    stream.sender.finish()?;
    let segments = listing.whole().ok_or(Error::OutOfTurn("the end before all chunks"))?;
    match listing::keep_nodes(&fetched.root, &segments, present, store) {
        Err(Error::Manifest(manifest::Error::OtherRoot { .. })) if is_thin => {
            Err(protocol::Error::Mismatch.into())
        }
        kept => kept.map(|()| fetched),
    }
}

impl PullStream {
    /// Fetches all chunks that neither side has, a few windows of segments at a time.
    async fn chunks(
        &mut self,
        fetched: &mut Fetched,
        listing: &mut Listing,
        present: &Arc<DirectoryChunks>,
        store: &Arc<Store>,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<()> {
        let segments = listing.nodes.len();
        let mut next = 0;
        let mut open: VecDeque<Window> = VecDeque::new();
        let mut awaited = Awaited::default();
        let mut announced = 0;
        let (mut zstd, mut plain) = (Decompressor::new(), Vec::new());
        loop {
            while open.len() < WINDOWS_OPEN && next < segments {
                let (first, end) = (next, segments.min(next + WINDOW_SEGMENTS));
                next = end;
                let (marks, window) =
                    awaited.open(SegmentIndex::range(first..end), listing, present, store)?;
                if !window.expected.is_empty() {
                    fetched.chunks += window.expected.len() as u64;
                    let of = |one: &Reference| {
                        one.full().map_or(fetched.root.profile.average, |chunk| chunk.bytes)
                    };
                    announced += window.expected.iter().map(|one| u64::from(of(one))).sum::<u64>();
                    monitor.begin(Phase::Transfer, Some(announced));
                    let count = u32::try_from(end - first).expect("at most 64");
                    let first = SegmentIndex::of(first);
                    self.ask(&PullRequest::WantChunks { first, count, marks }).await?;
                    open.push_back(window);
                }
            }
            let whole = awaited.whole();
            let Some(window) = open.front_mut() else {
                return Ok(listing::keep_parts(&whole, store)?);
            };
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
                chunks.push(awaited.arrive(part, window, listing)?);
                fetched.bytes += u64::from(*length);
                monitor.advance(Phase::Transfer, u64::from(*length));
            }
            if window.expected.is_empty() {
                open.pop_front();
            }
            let store = Arc::clone(store);
            let plain = std::mem::take(&mut plain);
            blocking(move || {
                match frame {
                    Some((codec, payload)) => {
                        store.append(&Frame { kind: FrameKind::Content, codec, chunks, payload }).map(drop)
                    }
                    None => keep_anew(&store, &plain, &lengths),
                }?;
                listing::keep_parts(&whole, &store)
            })
            .await?;
        }
    }
}

/// Decodes chunks that are made from those of the directory.
fn told_by_older(
    parcel: &Parcel,
    payload: &[u8],
    present: &DirectoryChunks,
    store: &Store,
) -> Result<Vec<u8>> {
    let bytes = parcel.plain_bytes().map_err(protocol::Error::from)?;
    let (Basis::Prefix(spans) | Basis::Patch(spans)) = &parcel.basis else {
        return Err(Error::OutOfTurn("a parcel of another kind"));
    };
    let held = LocalChunks { present, fetched: store };
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
                .map_err(|error| protocol::Error::from(ParcelError::from(error)))?;
        }
        (_, Codec::Raw) if payload.len() == bytes => plain.extend_from_slice(payload),
        _ => compression::decompress_against(&older, payload, bytes, &mut plain)
            .map_err(|error| protocol::Error::from(ParcelError::from(error)))?,
    }
    Ok(plain)
}

/// Keeps chunks that follow one another in `plain`.
pub(super) fn keep_anew(store: &Store, mut plain: &[u8], lengths: &[u32]) -> crate::store::Result<()> {
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
