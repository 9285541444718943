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
use crate::restore::{ChunkSource, check_fits};
use crate::store::Store;
use delta::compression::{Compressor, Decompressor, LEVEL_FAST};
use format::manifest::{self, Reference, Root, SegmentIndex};
use format::pack::{Frame, FrameEnd, FrameKind, Framer, split};
use format::recipe::ChunkRef;
use format::record::Record;
use ground::ids::{ReleaseId, Selector};
use ground::limits::PARCEL_BASIS_MAX;
use ground::monitor::{Monitor, Phase};
use protocol::transfer::decode_parcel;
use protocol::wire::{Basis, Operation, Parcel, PullReply, PullRequest};

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
        check_fits(place, root.totals)?;
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
                    let (parcel, payload) = self.payload(parcel).await?;
                    plain = told_by_older(&parcel, &payload, present, store)?;
                    (parcel.lengths, None)
                }
                _ => return Err(Error::OutOfTurn("something before the chunks")),
            };
            let mut chunks = Vec::new();
            for part in split(&plain, &lengths) {
                chunks.push(awaited.arrive(part, window, listing)?);
                fetched.bytes += part.len() as u64;
                monitor.advance(Phase::Transfer, part.len() as u64);
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
                    None => keep_anew(&store, &chunks, &plain),
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
    Ok(decode_parcel(parcel, payload, &older)?)
}

/// Stores chunks that follow one another in `plain`, in frames of its own.
pub(super) fn keep_anew(store: &Store, chunks: &[ChunkRef], plain: &[u8]) -> crate::store::Result<()> {
    let mut compressor = Compressor::new(LEVEL_FAST);
    let framer = Framer::new(FrameKind::Content, FrameEnd::Below, &mut compressor);
    let parts = chunks.iter().copied().zip(split(plain, chunks.iter().map(|chunk| &chunk.bytes)));
    framer.frame_all(parts, |frame| store.append(&frame).map(drop))
}
