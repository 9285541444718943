//! Pushes a directory or file: scans it, negotiates, feeds what is missing, waits for deliveries.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc as threads};
use std::time::Instant;

use tokio::sync::mpsc;

use super::base::Base;
use super::drive::Drive;
use super::feed;
use super::keep::{KEPT_BYTES_DEFAULT, Keep};
use super::memory::Memory;
use super::pace::Pace;
use super::receipt::{self, Receipt, ReceiptChunks, ReceiptWire};
use super::scan::{self, Scan, Selection};
use super::{Error, Result, Session, blocking};
use crate::chunking::Profile;
use crate::faults::Faulty;
use crate::ids::{AppName, DestinationName, Label};
use crate::monitor::{Monitor, Phase};
use crate::push::{self as machines, Agent, Telling};
use crate::wire::{Open, Operation, Told};

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
    /// Workers for hashing and compressing.
    pub threads: usize,
    /// Bytes a second that the link carries, where it is not to be measured.
    pub link_rate: Option<f64>,
    /// The state folder in which the agent remembers its pushes; none to remember nothing.
    pub state: Option<PathBuf>,
    /// Read every file, also those that look as they did at the last push.
    pub checksum: bool,
    /// Bytes of pushed content that may be kept in the state folder as the basis of later pushes.
    pub keep_bytes: u64,
}

impl Order {
    /// A push of all of `path`, that remembers nothing.
    pub fn new(app: AppName, path: PathBuf) -> Self {
        Self {
            app,
            path,
            selection: Selection::default(),
            labels: Vec::new(),
            destinations: Vec::new(),
            dry_run: false,
            threads: 1,
            link_rate: None,
            state: None,
            checksum: false,
            keep_bytes: KEPT_BYTES_DEFAULT,
        }
    }
}

/// Units ready for the link: with those under way in the feeder, some 30 MB.
const UNITS_READY: usize = 4;

/// Pushes once; where a file changed under the reader, everything is read once more.
///
/// # Errors
/// Any of [`Error`]; what was acknowledged before is not sent again by the next push.
pub async fn push(session: &Session, order: &Order, monitor: &Arc<dyn Monitor>) -> Result<Receipt> {
    let begin = Instant::now();
    let mut trust = Trust { memory: !order.checksum, short: true };
    loop {
        let error = match attempt(session, order, monitor, begin, trust).await {
            Err(error) => error,
            receipt => return receipt,
        };
        match &error {
            // Something changed, or what is remembered of it is wrong: then all is read, once.
            Error::Scan(scan) if scan.is_passing() && trust.memory => trust.memory = false,
            Error::Push(machines::Error::Mismatch) if trust.short => trust.short = false,
            _ => return Err(error),
        }
        monitor.note(&format!("{error}; once more"));
    }
}

/// What an attempt relies on.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// On what is remembered of the files.
    memory: bool,
    /// On names that are cut short.
    short: bool,
}

async fn attempt(
    session: &Session,
    order: &Order,
    monitor: &Arc<dyn Monitor>,
    begin: Instant,
    trust: Trust,
) -> Result<Receipt> {
    let key = session.memory_key(&order.app);
    let (scan, memory) = {
        let (order, monitor, key) = (order.clone(), Arc::clone(monitor), key);
        blocking(move || {
            let memory = order.state.as_ref().and_then(|state| Memory::open(state, &key));
            let known = memory.as_ref().filter(|_| trust.memory);
            scan::scan_remembering(
                &order.path,
                &order.selection,
                Profile::DEFAULT,
                order.threads,
                known,
                monitor.as_ref(),
            )
            .map(|scan| (scan, memory))
        })
        .await?
    };
    let Scan { root, segments, spool, seen } = scan;
    let release = root.release();
    let open = Open {
        app: order.app.clone(),
        labels: order.labels.clone(),
        destinations: order.destinations.clone(),
        release,
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments.len()).expect("a manifest's segments are bounded"),
        told: Told::Short(Vec::new()),
        dry_run: order.dry_run,
    };
    let keep = match &order.state {
        Some(state) if order.keep_bytes > 0 && !order.dry_run => Keep::open(state, &key).map(Arc::new),
        _ => None,
    };
    let base = memory.filter(|_| trust.short).and_then(|memory| Base::new(memory, &segments, keep.clone()));
    let telling = match &base {
        Some(base) => Telling::Base(base.release(), base.segments().to_vec()),
        None if trust.short => Telling::Short,
        None => Telling::Full,
    };
    let (machine, open, actions) = Agent::new(open, segments.clone(), telling);
    monitor.begin(Phase::Negotiate, None);
    let (sender, receiver) = session.request(&Operation::Push(open)).await?;
    let spool = Arc::new(Mutex::new(spool));
    let (jobs, queue) = threads::channel();
    let (fed_in, fed) = mpsc::channel(UNITS_READY);
    let pace = order.link_rate.map_or_else(|| session.pace(), Pace::given);
    let feeder = {
        let (spool, threads, keep) = (Arc::clone(&spool), order.threads, keep.clone());
        tokio::task::spawn_blocking(move || {
            let source = feed::Source { spool: &spool, pace: &pace, keep: keep.as_deref(), threads };
            feed::feed(&source, &queue, &fed_in);
        })
    };
    let mut drive = Drive {
        machine,
        sender,
        spool: Arc::clone(&spool),
        base,
        jobs: Some(jobs),
        monitor: Arc::clone(monitor),
        bytes: receipt::ReceiptBytes { logical: root.totals.bytes, ..receipt::ReceiptBytes::default() },
        unseen_chunks: 0,
        committed: None,
        deliveries: Vec::new(),
        dry_run: order.dry_run,
        finished: false,
    };
    let result = drive.run(actions, receiver, fed).await;
    let (bytes, unseen, round_trips) = (drive.bytes, drive.unseen_chunks, drive.machine.round_trips());
    let (committed, deliveries) = (drive.committed.take(), std::mem::take(&mut drive.deliveries));
    drop(drive.jobs.take());
    match &result {
        Ok(()) => drive.sender.finish()?,
        Err(error) => drive.sender.reset(error.fault()),
    }
    feeder.await.expect("the feeder does not panic");
    result?;
    let counters = session.counters();
    let (seconds, record) = match committed {
        Some((record, existing, at)) => ((at - begin).as_secs_f64(), Some((record, existing))),
        None => (begin.elapsed().as_secs_f64(), None),
    };
    let files_remembered = seen.remembered;
    if let (Some(folder), Some((record, _)), false) = (&order.state, &record, order.dry_run) {
        let (folder, sequence, monitor) = (folder.clone(), record.sequence, Arc::clone(monitor));
        let (root, base, keep_bytes) = (root.clone(), drive.base.take(), order.keep_bytes);
        let work = move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            let earlier = base.as_ref().map(Base::memory);
            let written = seen.remember(&folder, &key, sequence, (&root, &segments), &mut spool, earlier);
            if let Err(error) = written {
                monitor.note(&format!("the next push will read every file: {error}"));
            }
            drop(base);
            if let Some(keep) = keep.and_then(Arc::into_inner)
                && let Err(error) = keep.finish(&folder, root.totals.bytes, keep_bytes)
            {
                monitor.note(&format!("pushed content is not kept: {error}"));
            }
        };
        tokio::task::spawn_blocking(work).await.expect("a memory is written without a panic");
    }
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
