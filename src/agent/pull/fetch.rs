//! Asks the proxy for a release and fetches what is missing into a store.
//!
//! The state machine, the directory and the store work on one blocking thread; two tasks move messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::directory_view::{FetchOptions, PullView};
use super::fetched_chunks::FetchedChunks;
use super::local_chunks::{DirectoryChunks, Present};
use crate::agent::pace::{Method, Pace};
use crate::agent::{Error, Result, Session};
use crate::net::blocking;
use crate::net::link::{Receiver, Sender};
use crate::net::owned_task::OwnedTask;
use format::manifest::Root;
use format::record::Record;
use ground::ids::{ChunkId, Selector};
use ground::limits::{PULL_PROGRESS_TIME_MAX, PULL_REQUESTS_OPEN};
use ground::monitor::{Monitor, Phase};
use ground::stall::Watch;
use protocol::pull::{Agent, Fetched as Counts, Window};
use protocol::wire::{Operation, PullReply, PullRequest};

/// Replies read ahead of the machine: some 2 MB. It fills where the disk is slower than the link; then the link waits, and
/// the machine's requests, which the proxy reads at any time, do not.
const REPLIES_AHEAD: usize = 4;
/// 32 MiB: archives in a usual release that has some.
const ARCHIVE_BYTES_USUAL: u64 = 32 * 1024 * 1024;
/// How long to wait for the reason of a proxy that has refused: it is on its way.
const HEAR_OUT: Duration = Duration::from_secs(5);

/// How often it is looked whether what is in memory is to be written, while the proxy says nothing.
const LOOK_EACH: Duration = Duration::from_secs(2);
/// How long a pull that is dropped waits until what it has fetched is written: 64 MiB to a slow disk.
pub const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);

/// A release that the directory holds, or whose chunks are all here.
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

/// Fetches the chunks and segments of a release that neither `present` nor `store` has, into `store`, and verifies all. Neither
/// is looked at where the directory holds the release.
///
/// # Errors
/// The link, a refusal, no room, or a proxy that sends other content than it named.
pub async fn fetch(
    session: &Session,
    selector: &Selector,
    present: &Arc<Present>,
    store: &Arc<FetchedChunks>,
    options: FetchOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<Fetched> {
    monitor.begin(Phase::Negotiate, None);
    let fetch = Fetch {
        selector: selector.clone(),
        present: Arc::clone(present),
        store: Arc::clone(store),
        options,
        monitor: Arc::clone(monitor),
    };
    match fetch.clone().run(session, true).await {
        // Chunks that came stay: only the manifest comes again, in full.
        Err(Error::Push(protocol::Error::Mismatch)) if present.root().is_some() => {
            fetch.run(session, false).await
        }
        fetched => fetched,
    }
}

/// One pull.
#[derive(Clone)]
struct Fetch {
    selector: Selector,
    present: Arc<Present>,
    store: Arc<FetchedChunks>,
    options: FetchOptions,
    monitor: Arc<dyn Monitor>,
}

impl Fetch {
    /// Pulls over one stream; by the release that the directory holds where `by_base` says so.
    async fn run(self, session: &Session, by_base: bool) -> Result<Fetched> {
        let have = self.present.root().filter(|_| by_base);
        let pays = |pace: &Pace| pace.would_pay(Method::Archives, ARCHIVE_BYTES_USUAL);
        let unpacked = self.options.pace.as_ref().is_some_and(pays);
        let operation = Operation::Pull { release: self.selector.clone(), have, unpacked };
        let (sender, receiver) = session.request(&operation).await?;
        let (replies_in, replies) = mpsc::channel(REPLIES_AHEAD);
        let (requests, requests_in) = mpsc::channel(PULL_REQUESTS_OPEN);
        let _reader = OwnedTask::start(read(receiver, replies_in));
        let writer = OwnedTask::start(write(sender, requests_in, session.renewals()));
        let (is_wanted, ended) = oneshot::channel();
        let talk =
            Talk { replies, requests, ended, store: Arc::clone(&self.store), runtime: Handle::current() };
        let mut conversing = blocking::start_ending(LEAVE_TIME_MAX, move || self.converse(talk, have));
        // Dropped with this future, before the other: then the thread sees the end, and ends too.
        let _is_wanted: oneshot::Sender<()> = is_wanted;
        let fetched = (&mut conversing).await??;
        writer.await.unwrap_or(Err(Error::Ended))?;
        Ok(fetched)
    }

    /// Runs the state machine until the release is here whole and stored, or turns out to be the one that is there. `have` is the
    /// root that the request named. Blocks.
    fn converse(self, mut talk: Talk, have: Option<ChunkId>) -> Result<Fetched> {
        // Let go last, after the store.
        let _lock = self.options.lock.clone();
        let Self { selector, present, store, options, monitor } = self;
        let mut next = Some(talk.reply()?);
        let is_held = matches!(&next, Some(PullReply::Release { record, .. }) if options.holds.contains(&record.release));
        let nothing = DirectoryChunks::default();
        let chunks = if is_held { &nothing } else { present.chunks() };
        if !is_held && have.is_some() && chunks.root().map(Root::id) != have {
            // It has changed since it was compared.
            return Err(protocol::Error::Mismatch.into());
        }
        let base = if have.is_some() { chunks.release_segments().to_vec() } else { Vec::new() };
        let mut view = PullView::new(&selector, chunks, &store, options);
        let mut machine = Agent::new(Window::default(), base);
        let mut shown = Counts::default();
        while !machine.is_finished() && !view.is_held() {
            let reply = next.take().map_or_else(|| talk.reply(), Ok)?;
            let requests = machine.receive(reply, &mut view).map_err(|error| view.reason(error))?;
            for request in requests {
                talk.ask(request)?;
            }
            let counts = machine.fetched();
            if counts.expected_bytes > shown.expected_bytes {
                monitor.begin(Phase::Transfer, Some(counts.expected_bytes));
            }
            if counts.bytes > shown.bytes {
                monitor.advance(Phase::Transfer, counts.bytes - shown.bytes);
            }
            shown = counts;
        }
        let (record, root) = machine.into_release().expect("it was announced");
        Ok(Fetched { record, root, chunks: shown.chunks, bytes: shown.bytes })
    }
}

/// The conversation, as the machine's thread sees it. Dropped, it ends the agent's half.
struct Talk {
    replies: mpsc::Receiver<Result<PullReply>>,
    requests: mpsc::Sender<PullRequest>,
    /// Ends once nobody wants the release any more.
    ended: oneshot::Receiver<()>,
    store: Arc<FetchedChunks>,
    runtime: Handle,
}

impl Talk {
    /// Waits for the proxy's next message. What is in memory for long goes to the disk meanwhile.
    fn reply(&mut self) -> Result<PullReply> {
        loop {
            let reply = async {
                tokio::select! {
                    biased;
                    _ = &mut self.ended => None,
                    reply = self.replies.recv() => reply,
                }
            };
            if let Some(reply) = blocking::wait(reply, LOOK_EACH) {
                return reply.unwrap_or(Err(Error::Ended));
            }
            self.store.write_old();
        }
    }

    /// Sends a request. There is room for as many as may be open.
    fn ask(&mut self, request: PullRequest) -> Result<()> {
        if self.requests.blocking_send(request).is_ok() {
            return Ok(());
        }
        // A proxy that refuses closes its half first: what it said before is the better reason.
        let heard = async {
            while let Some(Ok(reply)) = self.replies.recv().await {
                if let PullReply::Refused(refusal) = reply {
                    return Error::Refused(refusal);
                }
            }
            Error::Ended
        };
        let heard = self.runtime.block_on(async { tokio::time::timeout(HEAR_OUT, heard).await });
        Err(heard.unwrap_or(Error::Ended))
    }
}

/// Reads the proxy's messages. The release and the requests bound what the proxy may send; one that sends too slowly ends
/// the pull.
async fn read(mut receiver: Receiver, replies: mpsc::Sender<Result<PullReply>>) {
    let mut heard = Instant::now();
    let mut watch = Watch::new(heard, PULL_PROGRESS_TIME_MAX);
    loop {
        // The machine's own work is not the proxy's time.
        watch.hear(receiver.received_bytes(), heard, Instant::now());
        let received = receiver.receive::<PullReply>().await;
        heard = Instant::now();
        watch.hear(receiver.received_bytes(), heard, heard);
        let reply = match received {
            Ok(Some(PullReply::Refused(refusal))) => Err(Error::Refused(refusal)),
            Ok(Some(_)) if watch.left(heard).is_none() => {
                Err(Error::Stalled(PULL_PROGRESS_TIME_MAX.as_secs()))
            }
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Error::Ended),
            Err(error) => Err(error.into()),
        };
        let ends = reply.is_err();
        if replies.send(reply).await.is_err() || ends {
            return;
        }
    }
}

/// Sends the agent's messages and new tokens, until the machine is done; then ends the agent's half.
async fn write(
    mut sender: Sender,
    mut requests: mpsc::Receiver<PullRequest>,
    mut renewals: mpsc::Receiver<String>,
) -> Result<()> {
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => sender.send(&request).await?,
                None => break,
            },
            Some(token) = renewals.recv() => sender.send(&PullRequest::Renew(token)).await?,
        }
    }
    Ok(sender.finish()?)
}
