//! Serves one pull: names the release's segments, then sends what the agent lacks.

mod download_limit;
mod frame_cache;
mod parcel_cache;
mod patch_cache;
mod read_view;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Interval;

pub(super) use download_limit::DownloadLimit;
pub(super) use frame_cache::FrameCache;
pub(super) use parcel_cache::ParcelCache;
pub(super) use patch_cache::PatchCache;
use read_view::{ReadView, unreadable};

use super::current_token::checks;
use super::memory_share::MemoryShare;
use super::read_scope::ReadScope;
use super::{Granted, owner, refuse};
use crate::net::blocking;
use crate::net::link::{Receiver, Sender};
use crate::net::link_estimate::Link;
use crate::store::Store;
use format::manifest::NodeRef;
use ground::faults::Fault;
use ground::ids::{ChunkId, Selector};
use ground::limits::PULL_REQUESTS_OPEN;
use ground::stall::Watch;
use protocol::Error;
use protocol::pull::{Proxy, Release};
use protocol::token::Action;
use protocol::transfer::Bounds;
use protocol::wire::{PullReply, PullRequest, Refusal};

/// Replies that wait for the link: some 2 MB. The machine makes none while they wait, and reads no request; the reading
/// task reads on.
const REPLIES_AHEAD: usize = 4;

/// What a pull asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Which release.
    pub release: Selector,
    /// The root of the agent's directory.
    pub have: Option<ChunkId>,
    /// True if archives should come unpacked where they are stored so.
    pub unpacked: bool,
    /// The link to the agent.
    pub link: Link,
}

/// Serves a pull until the agent is done or gone.
pub async fn serve(granted: Arc<Granted>, wanted: Wanted, mut sender: Sender, receiver: Receiver) {
    if let Err(refusal) = granted.allow(Action::Pull, Some(&wanted.release.app)) {
        return refuse(sender, refusal).await;
    }
    let (requests_in, requests) = mpsc::channel(PULL_REQUESTS_OPEN);
    let (replies_in, mut replies) = mpsc::channel(REPLIES_AHEAD);
    let (held_in, mut held) = tokio::sync::oneshot::channel();
    let open = Arc::new(AtomicUsize::new(0));
    let mut reader = {
        let (granted, open) = (Arc::clone(&granted), Arc::clone(&open));
        tokio::spawn(async move {
            if let Err(refusal) = read(receiver, &requests_in, &granted, &open).await {
                drop(held_in.send(refusal));
            }
            // Dropped only now: the task that serves requests then ends, and reports the reason.
            drop(requests_in);
        })
    };
    let pull = {
        let granted = Arc::clone(&granted);
        blocking::start(move || run(&granted, &wanted, (requests, &open), &replies_in))
    };
    let mut checks = checks();
    let mut ended = None;
    while ended.is_none() {
        tokio::select! {
            reply = replies.recv() => {
                let Some(reply) = reply else { break };
                ended = wait_turn(&granted, download_limit::bytes(&reply), &mut checks).await.err();
                if ended.is_none() && sender.send(&reply).await.is_err() {
                    break;
                }
            }
            _ = checks.tick() => ended = granted.still_holds().err(),
        }
    }
    // The work is over: no requests come, and nobody reads.
    drop(replies);
    if ended.is_some() {
        reader.abort();
        drop((&mut reader).await);
    }
    let pulled = pull.await;
    let ended = ended.or_else(|| held.try_recv().ok());
    match ended.map_or(pulled, |refusal| Ok(Err(refusal))) {
        Ok(Ok(())) => drop(sender.finish()),
        Ok(Err(refusal)) => refuse(sender, refusal).await,
        Err(error) => refuse(sender, Refusal::of(&error)).await,
    }
    reader.abort();
}

/// Waits until a message may be sent, while the token is good.
async fn wait_turn(granted: &Granted, bytes: usize, checks: &mut Interval) -> Result<(), Refusal> {
    let mut turn = pin!(granted.shared.downloads.take(bytes));
    loop {
        tokio::select! {
            () = &mut turn => return Ok(()),
            _ = checks.tick() => granted.still_holds()?,
        }
    }
}

/// Reads the agent's requests, even while replies are being sent, until its half ends. `open` counts unanswered
/// requests.
///
/// # Errors
/// A new token that cannot replace the old; too many requests at a time; an agent that reads too slowly.
async fn read(
    mut receiver: Receiver,
    requests: &mpsc::Sender<PullRequest>,
    granted: &Granted,
    open: &AtomicUsize,
) -> Result<(), Refusal> {
    let mut watch = Watch::new(Instant::now(), receiver.progress_max());
    loop {
        // While something is being sent it is not the agent's turn.
        if open.load(Ordering::Relaxed) > 0 {
            watch.renew(Instant::now());
        }
        watch.hear(receiver.sent_bytes(), Instant::now(), Instant::now());
        let left = watch.left(Instant::now()).ok_or_else(|| stalled(receiver.progress_max()))?;
        let Ok(request) = tokio::time::timeout(left, receiver.receive::<PullRequest>()).await else {
            continue;
        };
        match request {
            Ok(Some(PullRequest::Renew(token))) => granted.renew(&token)?,
            Ok(Some(request)) => {
                open.fetch_add(1, Ordering::Relaxed);
                match requests.try_send(request) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => {
                        return Err(Refusal::of(&Error::OutOfTurn("more requests than allowed at a time")));
                    }
                    // The pull has ended; the agent reads the reason before this half is given up.
                    Err(TrySendError::Closed(_)) => return std::future::pending().await,
                }
            }
            Ok(None) | Err(_) => return Ok(()),
        }
    }
}

/// Returns the refusal that ends a pull without progress.
fn stalled(time: Duration) -> Refusal {
    let text = format!("the pull made no progress for {} s", time.as_secs());
    let hint = "pull again: received content is not sent again".to_owned();
    Refusal { fault: Fault::Retry, text, hint: Some(hint) }
}

/// Runs the state machine against the store. `open` counts unanswered requests.
fn run(
    granted: &Granted,
    wanted: &Wanted,
    (mut requests, open): (mpsc::Receiver<PullRequest>, &AtomicUsize),
    replies: &mpsc::Sender<PullReply>,
) -> Result<(), Refusal> {
    let store = granted.store()?;
    // What the pull was promised is kept until it ends, whatever is removed meanwhile.
    let lease = store.lease().map_err(|error| Refusal::of(&error))?;
    let Wanted { release: selector, have, unpacked, link } = wanted;
    let record = store.select(selector).map_err(|error| Refusal::of(&error))?;
    store.records().touch(&record.app, &record.release);
    let stored = if *unpacked { store.unpacked(&record.release) } else { None };
    let stored = stored.and_then(|id| store.root_at(&id).ok());
    let root = stored.map_or_else(|| store.root(&record.release), Ok).map_err(|error| unreadable(&error))?;
    let mut view = ReadView::new(&store, &lease, replies, &granted.shared, link);
    let segments = view.segments(&root)?;
    let base = have.as_ref().and_then(|have| base(&store, &ReadScope::of(&granted.grant), have, &mut view));
    let mut machine = Proxy::open(Release { record, root, segments }, base, Bounds::PULL, &mut view);
    let mut memory = MemoryShare::new(&granted.shared.memory, owner(&granted.grant));
    let refusal = |error: Error| Refusal::of(&error);
    let mut answered = 0;
    loop {
        while let Some(reply) = machine.next(&mut view).map_err(refusal)? {
            lease.renew();
            memory.resize(machine.memory_bytes())?;
            if replies.blocking_send(reply).is_err() {
                // The agent is gone, or no longer allowed.
                return Ok(());
            }
        }
        open.fetch_sub(answered, Ordering::Relaxed);
        let Some(request) = requests.blocking_recv() else { return Ok(()) };
        machine.receive(request).map_err(refusal)?;
        answered = 1;
    }
}

/// Returns the segments of the manifest that the agent says it has; none where the space does not have all of it, or the
/// token may not read it.
fn base(store: &Store, scope: &ReadScope, id: &ChunkId, view: &mut ReadView<'_>) -> Option<Vec<NodeRef>> {
    let root = store.root_at(id).ok().filter(|_| store.is_whole())?;
    if scope.has_manifest(store, &root) { view.segments(&root).ok() } else { None }
}
