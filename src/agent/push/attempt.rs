//! One attempt of a push: over one connection, until it is done or fails.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Instant;

use tokio::sync::mpsc;

use super::base::Base;
use super::driver::Drive;
use super::encode::explain::Explanation;
use super::encode::pipeline;
use super::options::PushOptions;
use super::rate_limit::Throttle;
use super::receipt::{self, Receipt, ReceiptChunks, ReceiptWire};
use super::record_queries::Offers;
use super::sketches::Sketcher;
use super::source::{Input, Scanned};
use super::watchdog::Course;
use crate::agent::chunk_cache::Keep;
use crate::agent::link_speed::Pace;
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
const UNITS_READY: usize = 4;

/// What an attempt relies on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is given up by itself")]
pub struct Trust {
    /// On what is remembered of the files.
    pub memory: bool,
    /// On names that are cut short.
    pub short: bool,
    /// On nothing having crossed before.
    pub offer: bool,
    /// On the proxy's making the same archives.
    pub archives: bool,
}

/// How a push opens, before it is said how it is told.
fn opening(order: &PushOptions, root: &Root, segments: &[NodeRef]) -> Open {
    Open {
        app: order.app.clone(),
        labels: order.labels.clone(),
        destinations: order.destinations.clone(),
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments.len()).expect("a manifest's segments are bounded"),
        manifest: ManifestForm::Short(Vec::new()),
        dry_run: order.dry_run,
    }
}

/// How a push tells of its manifest, and the base that it then has.
fn manifest_form(input: &Input, base: Option<Base>, trust: Trust) -> (Opening, Option<Base>) {
    match (input, base) {
        (Input::Growing(_), _) => (Opening::Growing, None),
        (Input::Read(_), Some(base)) => {
            let (release, segments) = (base.release(), base.segments().to_vec());
            let opening = if trust.offer {
                Opening::Base(release, segments)
            } else {
                Opening::Again(release, segments)
            };
            (opening, Some(base))
        }
        (Input::Read(_), None) if trust.short => (Opening::Short, None),
        (Input::Read(_), None) => (Opening::Full, None),
    }
}

/// Starts the feeder on a thread of its own; `ends` are where jobs come from and where what it makes goes to.
fn start_feeder(
    order: &PushOptions,
    spool: &Spool,
    keep: Option<Arc<Keep>>,
    pace: Pace,
    ends: (std_mpsc::Receiver<pipeline::Job>, mpsc::Sender<pipeline::Fed>),
) -> Running<()> {
    let spool = spool.clone();
    let (threads, explain) = (order.threads, order.explain);
    blocking::start(move || {
        let keep = keep.as_deref();
        let source = pipeline::Source { spool: &spool, pace: &pace, keep, threads, explain };
        pipeline::feed(&source, &ends.0, &ends.1);
    })
}

/// Pushes once; sets `stored` once the proxy has stored something new.
pub async fn attempt(
    session: &Session,
    order: &PushOptions,
    monitor: &Arc<dyn Monitor>,
    begin: Instant,
    trust: Trust,
    input: &mut Input,
    stored: &AtomicBool,
) -> Result<Receipt> {
    let key = session.memory_key(&order.app);
    let (root, segments, spool) = match input {
        Input::Read(scanned) => (scanned.root.clone(), scanned.segments.clone(), scanned.spool.clone()),
        Input::Growing(growing) => (growing.beginning(), Vec::new(), growing.spool.clone()),
    };
    let open = opening(order, &root, &segments);
    let Recalled { keep, base, underway } = recall(order, key, &segments, trust).await?;
    let trust = Trust { offer: trust.offer && !underway.was_cut(), ..trust };
    let (opening, base) = manifest_form(input, base, trust);
    let (machine, open, actions) = Agent::with_window(order.window, open, segments, opening);
    monitor.begin(Phase::Negotiate, None);
    let (sender, receiver) = session.request(&Operation::Push(open)).await?;
    // Twice what the machine has under way at a time.
    let (jobs, queue) = std_mpsc::sync_channel(2 * order.window.steps);
    let (fed_in, fed) = mpsc::channel(UNITS_READY);
    let pace = order.link_rate.or(order.upload_rate_max).map_or_else(|| session.pace(), Pace::given);
    let feeder = start_feeder(order, &spool, keep.clone(), pace.clone(), (queue, fed_in));
    let mut drive = Drive {
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
        dry_run: order.dry_run,
        explained: order.explain.then(Explanation::default),
        throttle: Throttle::new(order.upload_rate_max),
        pace: pace.clone(),
        offers: Offers::default(),
        sketcher: Sketcher::default(),
        raw: order.raw || !trust.short,
        renewals: session.renewals(),
        finished: false,
        course: Course::new(session.quiet_max(order.patience), stored),
    };
    let result = tokio::select! {
        result = drive.run(actions, receiver, fed, input) => result,
        error = session.unheard(order.patience) => Err(error),
    };
    drop(drive.jobs.take());
    match &result {
        Ok(()) => drive.sender.finish()?,
        Err(error) => drive.sender.reset(error.fault()),
    }
    feeder.await?;
    result?;
    let Input::Read(scanned) = input else { return Err(protocol::Error::OutOfTurn("Done").into()) };
    let Scanned { root, segments, spool, apart, dropped, seen } = scanned.as_ref();
    let recorded = drive.committed.as_ref().map(|(record, ..)| record);
    let release = check_pushed(recorded, &order.app, root.release())?;
    let counters = session.counters();
    let (seconds, record) = match drive.committed.take() {
        Some((record, existing, at)) => ((at - begin).as_secs_f64(), Some((record, existing))),
        None => (begin.elapsed().as_secs_f64(), None),
    };
    let seen = seen.lock().unpoisoned().take();
    let files_remembered = seen.as_ref().map_or(0, |seen| seen.remembered);
    if let (Some(folder), Some((record, _)), Some(seen), false) = (&order.state, &record, seen, order.dry_run)
    {
        let (folder, sequence, notes) = (folder.clone(), record.sequence, monitor);
        let monitor = Arc::clone(notes);
        let (root, base, keep_bytes) = (root.clone(), drive.base.take(), order.keep_bytes);
        let (segments, spool) = (segments.clone(), spool.clone());
        let work = move || {
            drop(base);
            let keep = keep.and_then(Arc::into_inner).map(|keep| (keep, keep_bytes));
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
        app: order.app.clone(),
        sequence: record.as_ref().filter(|_| !order.dry_run).map(|(record, _)| record.sequence),
        unchanged: record.is_some_and(|(_, existing)| existing),
        dry_run: order.dry_run,
        files: root.totals.files,
        files_remembered,
        archives: *apart,
        dropped: dropped.clone(),
        bytes: drive.bytes,
        chunks: ReceiptChunks { total: root.totals.chunks, unseen: drive.unseen_chunks },
        wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
        round_trips: drive.machine.round_trips() + 1,
        seconds,
        peak_rss: receipt::peak_rss(),
        explained: drive.explained.take().unwrap_or_default().finish(),
        delivered: std::mem::take(&mut drive.deliveries),
    })
}

/// Keeps what the next push can build on: what the proxy confirmed, and the content itself.
fn remember(
    confirmed: &Confirmed<'_>,
    spool: &Spool,
    seen: Seen,
    keep: Option<(Keep, u64)>,
    monitor: &dyn Monitor,
) {
    let &Confirmed { folder, key, sequence, root, segments } = confirmed;
    if let Err(error) = seen.remember(folder, key, sequence, (root, segments), spool) {
        monitor.note(&format!("the next push will read every file: {error}"));
    }
    let Some((keep, bytes_max)) = keep else { return };
    let count = u32::try_from(segments.len()).expect("a manifest's segments are bounded");
    keep.fill(spool, count, bytes_max / 2);
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
    keep: Option<Arc<Keep>>,
    base: Option<Base>,
    underway: Underway,
}

/// Opens what is remembered and kept, and marks that a push is under way.
async fn recall(order: &PushOptions, key: Key, segments: &[NodeRef], trust: Trust) -> Result<Recalled> {
    let (order, segments) = (order.clone(), segments.to_vec());
    Ok(blocking::start(move || recall_now(&order, &key, &segments, trust)).await?)
}

fn recall_now(order: &PushOptions, key: &Key, segments: &[NodeRef], trust: Trust) -> Recalled {
    let Some(state) = order.state.as_ref().filter(|_| !order.dry_run) else {
        let memory = order.state.as_ref().filter(|_| trust.short).and_then(|state| Memory::open(state, key));
        let base = memory.and_then(|memory| Base::new(memory, segments, None));
        return Recalled { keep: None, base, underway: Underway::nothing() };
    };
    let underway = Underway::begin(state, key);
    let keep = (order.keep_bytes > 0).then(|| Keep::open(state, key).map(Arc::new)).flatten();
    let memory = Memory::open(state, key).filter(|_| trust.short);
    let base = memory.and_then(|memory| Base::new(memory, segments, keep.clone()));
    // Without older content here, the proxy's signatures save more than the round trips cost.
    Recalled { keep, base: base.filter(Base::is_kept), underway }
}
