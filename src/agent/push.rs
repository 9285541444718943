//! Pushes a directory or file: scans it, negotiates, feeds what is missing, waits for deliveries.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc as threads};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::feed::{self, Fed, Job};
use super::memory::Memory;
use super::receipt::{self, Receipt, ReceiptBytes, ReceiptChunks, ReceiptWire};
use super::scan::{self, Scan, Selection, Spool};
use super::{Error, Result, Session, blocking};
use crate::chunking::Profile;
use crate::compression::{Compressor, LEVEL_DEFAULT};
use crate::faults::Faulty;
use crate::ids::{AppName, DestinationName, Label};
use crate::link::{Receiver, Sender};
use crate::monitor::{Monitor, Phase};
use crate::push::{Action, Agent};
use crate::record::{DeliveryEvent, DeliveryState, Record};
use crate::wire::{Batch, FromAgent, Open, Operation, PushReply};

/// What to push, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// The application.
    pub app: AppName,
    /// A directory or a file.
    pub path: PathBuf,
    /// What of it.
    pub selection: Selection,
    /// Words for the release.
    pub labels: Vec<Label>,
    /// Where to deliver it.
    pub destinations: Vec<DestinationName>,
    /// Negotiate only.
    pub dry_run: bool,
    /// The folder of what earlier pushes left (the [`super::memory`]); none to remember nothing.
    pub state: Option<PathBuf>,
    /// Read every file, whatever is remembered of it.
    pub checksum: bool,
    /// Workers for hashing and compressing.
    pub threads: usize,
}

/// Batches ready for the link: with those under way in the feeder, some 8 MB.
const BATCHES_AHEAD: usize = 4;

/// Pushes once; where a file changed under the reader, everything is read once more.
///
/// # Errors
/// Any of [`Error`]; what was acknowledged before is not sent again by the next push.
pub async fn push(session: &Session, order: &Order, monitor: &Arc<dyn Monitor>) -> Result<Receipt> {
    let begin = Instant::now();
    match attempt(session, order, monitor, begin).await {
        Err(Error::Scan(error)) if error.is_passing() => {
            monitor.note(&format!("{error}; reading everything once more"));
            // What is remembered of the file may be to blame.
            let order = Order { checksum: true, ..order.clone() };
            attempt(session, &order, monitor, begin).await
        }
        result => result,
    }
}

async fn attempt(
    session: &Session,
    order: &Order,
    monitor: &Arc<dyn Monitor>,
    begin: Instant,
) -> Result<Receipt> {
    let key = session.memory_key(&order.app);
    let scan = {
        let (order, monitor) = (order.clone(), Arc::clone(monitor));
        let work = move || {
            let memory = order.state.as_ref().and_then(|folder| Memory::open(folder, &key));
            let seen = memory.as_ref().filter(|_| !order.checksum);
            let (path, selection, threads) = (&order.path, &order.selection, order.threads);
            scan::scan_remembering(path, selection, Profile::DEFAULT, threads, seen, monitor.as_ref())
        };
        blocking(work).await?
    };
    let Scan { root, segments, spool, seen } = scan;
    let (listed, files_remembered) = (segments.clone(), seen.remembered);
    let open = Open {
        app: order.app.clone(),
        labels: order.labels.clone(),
        destinations: order.destinations.clone(),
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments.len()).expect("a manifest's segments are bounded"),
        names: Vec::new(),
        dry_run: order.dry_run,
    };
    let release = root.release();
    let (machine, open) = Agent::new(open, segments);
    monitor.begin(Phase::Negotiate, None);
    let (sender, receiver) = session.request(&Operation::Push(open)).await?;
    let spool = Arc::new(Mutex::new(spool));
    let (jobs, queue) = threads::channel();
    let (fed_in, fed) = mpsc::channel(BATCHES_AHEAD);
    let feeder = {
        let (spool, workers) = (Arc::clone(&spool), order.threads);
        tokio::task::spawn_blocking(move || feed::feed(&spool, &queue, &fed_in, workers))
    };
    let mut drive = Drive {
        machine,
        sender,
        spool,
        jobs: Some(jobs),
        monitor: Arc::clone(monitor),
        bytes: ReceiptBytes { logical: root.totals.bytes, ..ReceiptBytes::default() },
        unseen_chunks: 0,
        committed: None,
        deliveries: Vec::new(),
        dry_run: order.dry_run,
        finished: false,
    };
    let result = drive.run(receiver, fed).await;
    let (bytes, unseen, round_trips) = (drive.bytes, drive.unseen_chunks, drive.machine.round_trips());
    let (committed, deliveries) = (drive.committed.take(), std::mem::take(&mut drive.deliveries));
    drop(drive.jobs.take());
    match &result {
        Ok(()) => drive.sender.finish()?,
        Err(error) => drive.sender.reset(error.fault()),
    }
    feeder.await.expect("the feeder does not panic");
    result?;
    if let (Some((record, ..)), Some(folder)) = (&committed, &order.state)
        && !order.dry_run
    {
        let (sequence, folder, monitor) = (record.sequence, folder.clone(), Arc::clone(monitor));
        let (root, spool) = (root.clone(), Arc::clone(&drive.spool));
        let work = move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            let written = seen.remember(&folder, &key, sequence, (&root, &listed), &mut spool);
            if let Err(error) = written {
                monitor.note(&format!("the next push will read every file: {error}"));
            }
        };
        tokio::task::spawn_blocking(work).await.expect("a memory is written without a panic");
    }
    let counters = session.counters();
    let (seconds, record) = match committed {
        Some((record, existing, at)) => ((at - begin).as_secs_f64(), Some((record, existing))),
        None => (begin.elapsed().as_secs_f64(), None),
    };
    Ok(Receipt {
        release,
        app: order.app.clone(),
        sequence: record.as_ref().filter(|_| !order.dry_run).map(|(record, _)| record.sequence),
        unchanged: record.is_some_and(|(_, existing)| existing),
        dry_run: order.dry_run,
        files: root.totals.files,
        files_remembered,
        bytes,
        chunks: ReceiptChunks { total: root.totals.chunks, unseen },
        wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
        round_trips: round_trips + 1,
        seconds,
        peak_rss: receipt::peak_rss(),
        delivered: deliveries,
    })
}

/// Runs the state machine over the link.
struct Drive {
    machine: Agent,
    sender: Sender,
    spool: Arc<Mutex<Spool>>,
    /// Gone when no more chunks will be asked for.
    jobs: Option<threads::Sender<Job>>,
    monitor: Arc<dyn Monitor>,
    bytes: ReceiptBytes,
    unseen_chunks: u64,
    committed: Option<(Record, bool, Instant)>,
    deliveries: Vec<DeliveryEvent>,
    dry_run: bool,
    finished: bool,
}

impl Drive {
    async fn run(&mut self, mut receiver: Receiver, mut fed: mpsc::Receiver<Fed>) -> Result<()> {
        // A task of its own listens, so that the proxy is heard while a send waits.
        let (replies_in, mut replies) = mpsc::channel(64);
        let reader = tokio::spawn(async move {
            loop {
                let reply = receiver.receive::<PushReply>().await;
                let ends = !matches!(reply, Ok(Some(_)));
                if replies_in.send(reply).await.is_err() || ends {
                    break;
                }
            }
        });
        let mut heard_all = false;
        let result = loop {
            if self.finished {
                break Ok(());
            }
            let step = tokio::select! {
                biased;
                reply = replies.recv(), if !heard_all => match reply {
                    Some(Ok(Some(reply))) => self.reply(reply).await,
                    Some(Err(error)) => Err(error.into()),
                    Some(Ok(None)) if self.machine.is_answered() => {
                        heard_all = true;
                        Ok(())
                    }
                    Some(Ok(None)) | None => Err(Error::Ended),
                },
                Some(next) = fed.recv() => self.fed(next).await,
                else => Err(Error::Ended),
            };
            // A peer that refuses closes its half first: what it said before is the better reason.
            if let Err(error) = step {
                break Err(self.reason(error, &mut replies).await);
            }
        };
        fed.close();
        reader.abort();
        result
    }

    /// The refusal behind a broken stream, if the proxy sent one.
    async fn reason(&mut self, error: Error, replies: &mut mpsc::Receiver<LinkReply>) -> Error {
        if !matches!(error, Error::Link(_)) {
            return error;
        }
        let refusal = async {
            while let Some(Ok(Some(reply))) = replies.recv().await {
                if let PushReply::Refused(refusal) = reply {
                    return Some(refusal);
                }
            }
            None
        };
        let waited = tokio::time::timeout(Duration::from_secs(1), refusal).await;
        waited.ok().flatten().map_or(error, Error::Refused)
    }

    async fn reply(&mut self, reply: PushReply) -> Result<()> {
        for action in self.machine.receive(reply)? {
            self.act(action).await?;
        }
        Ok(())
    }

    async fn fed(&mut self, next: Fed) -> Result<()> {
        match next {
            Fed::Batch(batch, plain) => {
                self.bytes.sent += batch.payload.len() as u64;
                if !self.dry_run {
                    self.sender.send(&FromAgent::Chunks(batch)).await?;
                }
                self.monitor.advance(Phase::Transfer, plain);
            }
            Fed::JobDone => {
                for action in self.machine.chunks_sent() {
                    self.act(action).await?;
                }
            }
            Fed::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Send(message) => self.sender.send(&message).await?,
            Action::SendSegments(places) => {
                let batch = self.segments(&places)?;
                self.sender.send(&FromAgent::Segments(batch)).await?;
            }
            Action::SendChunks { segments, marks } => self.send_chunks(segments, marks)?,
            Action::Stored(_) => {}
            Action::Committed { record, existing } => {
                self.committed = Some((record, existing, Instant::now()));
            }
            Action::Delivery(event) => self.delivery(event),
            Action::Finish => self.finished = true,
        }
        Ok(())
    }

    fn segments(&self, places: &[u32]) -> Result<Batch> {
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plain = Vec::new();
        let mut lengths = Vec::with_capacity(places.len());
        for place in places {
            let bytes = spool.segment(*place)?;
            lengths.push(u32::try_from(bytes.len()).expect("segments are some KiB"));
            plain.extend_from_slice(&bytes);
        }
        let (codec, payload) = Compressor::new(LEVEL_DEFAULT).compress(&plain);
        Ok(Batch { codec, lengths, payload })
    }

    fn send_chunks(&mut self, segments: Vec<u32>, marks: crate::wire::Marks) -> Result<()> {
        let mut missing = marks.iter();
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut count, mut bytes) = (0, 0);
        for segment in &segments {
            for located in spool.chunks(*segment)? {
                if missing.next() == Some(true) {
                    count += 1;
                    bytes += u64::from(located.chunk.bytes);
                }
            }
        }
        drop(missing);
        self.unseen_chunks += count;
        self.bytes.unseen += bytes;
        self.monitor.begin(Phase::Transfer, Some(self.bytes.unseen));
        if let Some(jobs) = &self.jobs {
            // The feeder ends only after `jobs` is dropped.
            drop(jobs.send(Job { segments, marks }));
        }
        Ok(())
    }

    fn delivery(&mut self, event: DeliveryEvent) {
        match &event.state {
            DeliveryState::Running => {
                self.monitor.note(&format!("delivering to {}", event.destination));
            }
            DeliveryState::Retrying { reason, seconds } => {
                let text =
                    format!("delivery to {} failed: {reason}; next try in {seconds} s", event.destination);
                self.monitor.note(&text);
            }
            DeliveryState::Queued | DeliveryState::Delivered(_) | DeliveryState::Failed { .. } => {}
        }
        // The receipt tells each delivery's last state.
        self.deliveries.retain(|earlier| earlier.destination != event.destination);
        self.deliveries.push(event);
    }
}

type LinkReply = std::result::Result<Option<PushReply>, crate::link::Error>;
