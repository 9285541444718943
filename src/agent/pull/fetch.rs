//! Asks the proxy for a release and fetches what is missing into a store.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::assembly::{Assembly, Received};
use super::local_chunks::DirectoryChunks;
use super::stream::PullStream;
use super::window::Window;
use crate::agent::link_speed::LinkSpeed;
use crate::agent::{Error, Result, Session, blocking};
use crate::restore::check_fits;
use crate::store::Store;
use format::manifest::{self, Reference, Root, SegmentIndex};
use format::record::Record;
use ground::ids::{ReleaseId, Selector};
use ground::monitor::{Monitor, Phase};
use protocol::wire::{Operation, PullReply, PullRequest};

/// Segments whose chunks are asked for in one request: some 60 MB of content.
const WINDOW_SEGMENTS: usize = 64;
/// Requests for chunks under way.
const WINDOWS_OPEN: usize = 4;

/// A release whose chunks are all here.
#[derive(Debug)]
pub struct Fetched {
    /// Its record at the proxy.
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
    /// Where the release will be written; nothing is fetched unless there is room for it.
    pub place: Option<&'a Path>,
    /// The link's speed. On a slow link executables cross by their functions, which takes both sides seconds.
    pub link: Option<&'a LinkSpeed>,
}

/// Fetches the chunks and segments of a release that neither `present` nor `store` has, into `store`, and verifies all.
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
        // Chunks that came stay: only the manifest comes again, in full.
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
    let (record, root, listing) = stream.listing(selector, present, store).await?;
    if let Some(place) = options.place {
        check_fits(place, root.totals)?;
    }
    let is_thin = !listing.thin.is_empty();
    let mut fetched = Fetched { record, root, chunks: 0, bytes: 0 };
    if is_thin && options.link.is_some_and(LinkSpeed::is_slow) {
        let bytes_max = fetched.root.totals.bytes;
        (fetched.chunks, fetched.bytes) = stream.executables(bytes_max, present, store).await?;
    }
    let assembly = Assembly::new(listing, present, store);
    let assembly = stream.chunks(&mut fetched, assembly, monitor).await?;
    stream.sender.finish()?;
    let finished = blocking(move || {
        let finished = assembly.finish(&fetched.root);
        finished.map(|()| fetched)
    });
    match finished.await {
        Err(Error::Manifest(manifest::Error::OtherRoot { .. })) if is_thin => {
            Err(protocol::Error::Mismatch.into())
        }
        finished => finished,
    }
}

impl PullStream {
    /// Fetches all chunks that neither side has, a few windows of segments at a time.
    async fn chunks(
        &mut self,
        fetched: &mut Fetched,
        mut assembly: Assembly,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Assembly> {
        let segments = assembly.segments();
        let (mut next, mut announced) = (0, 0);
        let mut open: VecDeque<Window> = VecDeque::new();
        loop {
            while open.len() < WINDOWS_OPEN && next < segments {
                let (first, end) = (next, segments.min(next + WINDOW_SEGMENTS));
                next = end;
                let work = move || assembly.open(first..end).map(|opened| (assembly, opened));
                let (marks, window);
                (assembly, (marks, window)) = blocking(work).await?;
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
            let Some(mut window) = open.pop_front() else { return Ok(assembly) };
            let received = match self.reply().await? {
                PullReply::Chunks(batch) => Received::Batch(batch),
                PullReply::Parcel(parcel) => {
                    let (parcel, payload) = self.payload(parcel).await?;
                    Received::Parcel(parcel, payload)
                }
                _ => return Err(Error::OutOfTurn("another message before the chunks")),
            };
            let bytes;
            let work = move || {
                let bytes = assembly.take(received, &mut window)?;
                Ok::<_, Error>((assembly, window, bytes))
            };
            (assembly, window, bytes) = blocking(work).await?;
            fetched.bytes += bytes;
            monitor.advance(Phase::Transfer, bytes);
            if !window.expected.is_empty() {
                open.push_front(window);
            }
        }
    }
}
