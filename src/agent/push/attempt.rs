//! One attempt of a push: over one connection, until it is done or fails.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Instant;

use tokio::sync::mpsc;

use super::base::Base;
use super::driver::Driver;
use super::encode::explain::Explanation;
use super::encode::pipeline;
use super::options::PushOptions;
use super::rate_limit::RateLimit;
use super::receipt::{self, Receipt, ReceiptChunks, ReceiptWire};
use super::record_queries::RecordQueries;
use super::sketches::Sketcher;
use super::source::{Scanned, Source};
use super::watchdog::Watchdog;
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::link_speed::LinkSpeed;
use crate::agent::memory::{Key, Memory, Underway};
use crate::agent::scan::{Seen, Spool};
use crate::agent::{Result, Session, check_pushed};
use crate::net::blocking::{self, Running};
use format::manifest::{NodeRef, Root};
use ground::faults::Faulty;
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use protocol::push::{Agent, Opening};
use protocol::wire::{ManifestForm, Open, Operation};

/// Units ready for the link: with those under way in the feeder, some 30 MB.
const BATCHES_READY: usize = 4;

/// What an attempt relies on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is given up by itself")]
pub struct Trust {
    /// On what is remembered of the files.
    pub memory: bool,
    /// On names that are cut short.
    pub short: bool,
    /// On nothing having crossed before.
    pub eager: bool,
    /// On the proxy's making the same archives.
    pub archives: bool,
}

/// How a push opens, before it is said how it is told.
fn opening(options: &PushOptions, root: &Root, segments: &[NodeRef]) -> Open {
    Open {
        app: options.app.clone(),
        labels: options.labels.clone(),
        destinations: options.destinations.clone(),
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments.len()).expect("a manifest's segments are bounded"),
        manifest: ManifestForm::Short(Vec::new()),
        dry_run: options.dry_run,
    }
}

/// How a push tells of its manifest, and the base that it then has.
fn manifest_form(input: &Source, base: Option<Base>, trust: Trust) -> (Opening, Option<Base>) {
    match (input, base) {
        (Source::Scanning(_), _) => (Opening::Growing, None),
        (Source::Scanned(_), Some(base)) => {
            let (release, segments) = (base.release(), base.segments().to_vec());
            let opening = if trust.eager {
                Opening::Base(release, segments)
            } else {
                Opening::Again(release, segments)
            };
            (opening, Some(base))
        }
        (Source::Scanned(_), None) if trust.short => (Opening::Short, None),
        (Source::Scanned(_), None) => (Opening::Full, None),
    }
}

/// Starts the feeder on a thread of its own; `ends` are where jobs come from and where what it makes goes to.
fn start_feeder(
    options: &PushOptions,
    spool: &Spool,
    keep: Option<Arc<ChunkCache>>,
    speed: LinkSpeed,
    ends: (std_mpsc::Receiver<pipeline::Job>, mpsc::Sender<pipeline::Output>),
) -> Running<()> {
    let spool = spool.clone();
    let (threads, explain) = (options.threads, options.explain);
    blocking::start(move || {
        let keep = keep.as_deref();
        let source = pipeline::Source { spool: &spool, speed: &speed, keep, threads, explain };
        pipeline::feed(&source, &ends.0, &ends.1);
    })
}

/// Pushes once; sets `stored` once the proxy has stored something new.
pub async fn attempt(
    session: &Session,
    options: &PushOptions,
    monitor: &Arc<dyn Monitor>,
    begin: Instant,
    trust: Trust,
    input: &mut Source,
    stored: &AtomicBool,
) -> Result<Receipt> {
    let key = session.memory_key(&options.app);
    let (root, segments, spool) = match input {
        Source::Scanned(scanned) => (scanned.root.clone(), scanned.segments.clone(), scanned.spool.clone()),
        Source::Scanning(growing) => (growing.beginning(), Vec::new(), growing.spool.clone()),
    };
    let open = opening(options, &root, &segments);
    let Recalled { keep, base, underway } = recall(options, key, &segments, trust).await?;
    let trust = Trust { eager: trust.eager && !underway.was_cut(), ..trust };
    let (opening, base) = manifest_form(input, base, trust);
    let (machine, open, actions) = Agent::with_window(options.window, open, segments, opening);
    monitor.begin(Phase::Negotiate, None);
    let (sender, receiver) = session.request(&Operation::Push(open)).await?;
    // Twice what the machine has under way at a time.
    let (jobs, queue) = std_mpsc::sync_channel(2 * options.window.steps);
    let (fed_in, fed) = mpsc::channel(BATCHES_READY);
    let speed =
        options.link_rate.or(options.upload_rate_max).map_or_else(|| session.speed(), LinkSpeed::given);
    let feeder = start_feeder(options, &spool, keep.clone(), speed.clone(), (queue, fed_in));
    let mut driver = Driver {
        machine,
        sender,
        spool: spool.clone(),
        base,
        jobs: Some(jobs),
        monitor: Arc::clone(monitor),
        bytes: receipt::ReceiptBytes { logical: root.totals.bytes, ..receipt::ReceiptBytes::default() },
        unseen_chunks: 0,
        committed: None,
        deliveries: Vec::new(),
        dry_run: options.dry_run,
        explained: options.explain.then(Explanation::default),
        rate_limit: RateLimit::new(options.upload_rate_max),
        speed: speed.clone(),
        record_queries: RecordQueries::default(),
        sketcher: Sketcher::default(),
        raw: options.raw || !trust.short,
        renewals: session.renewals(),
        finished: false,
        watchdog: Watchdog::new(session.quiet_max(options.patience), stored),
    };
    let result = tokio::select! {
        result = driver.run(actions, receiver, fed, input) => result,
        error = session.unheard(options.patience) => Err(error),
    };
    drop(driver.jobs.take());
    match &result {
        Ok(()) => driver.sender.finish()?,
        Err(error) => driver.sender.reset(error.fault()),
    }
    feeder.await?;
    result?;
    let Source::Scanned(scanned) = input else { return Err(protocol::Error::OutOfTurn("Done").into()) };
    let Scanned { root, segments, spool, unpacked, dropped, seen } = scanned.as_ref();
    let recorded = driver.committed.as_ref().map(|(record, ..)| record);
    let release = check_pushed(recorded, &options.app, root.release())?;
    let counters = session.counters();
    let (seconds, record) = match driver.committed.take() {
        Some((record, existing, at)) => ((at - begin).as_secs_f64(), Some((record, existing))),
        None => (begin.elapsed().as_secs_f64(), None),
    };
    let seen = seen.lock().unpoisoned().take();
    let files_remembered = seen.as_ref().map_or(0, |seen| seen.remembered);
    if let (Some(folder), Some((record, _)), Some(seen), false) =
        (&options.state, &record, seen, options.dry_run)
    {
        let (folder, sequence, notes) = (folder.clone(), record.sequence, monitor);
        let monitor = Arc::clone(notes);
        let (root, base, cache_bytes_max) = (root.clone(), driver.base.take(), options.cache_bytes_max);
        let (segments, spool) = (segments.clone(), spool.clone());
        let work = move || {
            drop(base);
            let keep = keep.and_then(Arc::into_inner).map(|keep| (keep, cache_bytes_max));
            let confirmed =
                Confirmed { folder: &folder, key: &key, sequence, root: &root, segments: &segments };
            remember(&confirmed, &spool, seen, keep, monitor.as_ref());
            underway.end();
        };
        // The release is pushed, remembered or not.
        if let Err(error) = blocking::start(work).await {
            notes.note(&format!("what was pushed is not remembered: {error}"));
        }
    }
    Ok(Receipt {
        release,
        app: options.app.clone(),
        sequence: record.as_ref().filter(|_| !options.dry_run).map(|(record, _)| record.sequence),
        unchanged: record.is_some_and(|(_, existing)| existing),
        dry_run: options.dry_run,
        files: root.totals.files,
        files_remembered,
        archives: *unpacked,
        dropped: dropped.clone(),
        bytes: driver.bytes,
        chunks: ReceiptChunks { total: root.totals.chunks, unseen: driver.unseen_chunks },
        wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
        round_trips: driver.machine.round_trips() + 1,
        seconds,
        peak_rss: receipt::peak_rss(),
        explained: driver.explained.take().unwrap_or_default().finish(),
        delivered: std::mem::take(&mut driver.deliveries),
    })
}

/// Keeps what the next push can build on: what the proxy confirmed, and the content itself.
fn remember(
    confirmed: &Confirmed<'_>,
    spool: &Spool,
    seen: Seen,
    keep: Option<(ChunkCache, u64)>,
    monitor: &dyn Monitor,
) {
    let &Confirmed { folder, key, sequence, root, segments } = confirmed;
    if let Err(error) = seen.remember(folder, key, sequence, (root, segments), spool) {
        monitor.note(&format!("the next push will read every file: {error}"));
    }
    let Some((keep, bytes_max)) = keep else { return };
    keep.fill(spool, segments.len(), bytes_max / 2);
    if let Err(error) = keep.finish(folder, root.totals.bytes, bytes_max) {
        monitor.note(&format!("pushed content is not kept: {error}"));
    }
}

/// A push that the proxy has confirmed.
struct Confirmed<'a> {
    /// The state folder.
    folder: &'a Path,
    key: &'a Key,
    sequence: u64,
    root: &'a Root,
    segments: &'a [NodeRef],
}

/// What the state folder gives for one attempt.
struct Recalled {
    keep: Option<Arc<ChunkCache>>,
    base: Option<Base>,
    underway: Underway,
}

/// Opens what is remembered and kept, and marks that a push is under way.
async fn recall(options: &PushOptions, key: Key, segments: &[NodeRef], trust: Trust) -> Result<Recalled> {
    let (options, segments) = (options.clone(), segments.to_vec());
    Ok(blocking::start(move || recall_now(&options, &key, &segments, trust)).await?)
}

fn recall_now(options: &PushOptions, key: &Key, segments: &[NodeRef], trust: Trust) -> Recalled {
    let Some(state) = options.state.as_ref().filter(|_| !options.dry_run) else {
        let memory =
            options.state.as_ref().filter(|_| trust.short).and_then(|state| Memory::open(state, key));
        let base = memory.and_then(|memory| Base::new(memory, segments, None));
        return Recalled { keep: None, base, underway: Underway::nothing() };
    };
    let underway = Underway::begin(state, key);
    let keep = (options.cache_bytes_max > 0).then(|| ChunkCache::open(state, key).map(Arc::new)).flatten();
    let memory = Memory::open(state, key).filter(|_| trust.short);
    let base = memory.and_then(|memory| Base::new(memory, segments, keep.clone()));
    // Without older content here, the proxy's signatures save more than the round trips cost.
    Recalled { keep, base: base.filter(Base::is_kept), underway }
}
