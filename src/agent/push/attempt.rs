//! One attempt of a push: over one connection, until it is done or fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::base::Base;
use super::content::Content;
use super::conversation::{Conversation, Kept, Outcome};
use super::earlier::Earlier;
use super::encode::pipeline::Pipeline;
use super::options::PushOptions;
use super::receipt::{self, Receipt, ReceiptChunks, ReceiptWire};
use super::source::{FilesRead, Reading, Scanned, Source};
use super::stored::StoredRelease;
use super::stream::{Ending, Inbox, Outbox};
use super::watchdog::Watchdog;
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::memory::{
    Key, Memory, RememberedStreams, Underway, WriteOptions, remember_link, remember_slowness,
};
use crate::agent::pace::Pace;
use crate::agent::scan::{Seen, Spool};
use crate::agent::{Error, Result, Session, check_pushed};
use crate::net::blocking::{self, Running};
use crate::store::ArchiveForm;
use format::manifest::{NodeRef, Root};
use ground::faults::Faulty;
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use protocol::push::{Agent, Opening};
use protocol::wire::{ManifestForm, Open, Operation};

/// Batches that wait for the link: with those under way in the pipeline, some 30 MB.
const BATCHES_READY: usize = 4;

/// What all attempts of one push share.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// The connection.
    pub session: &'a Session,
    /// The options of a push.
    pub options: &'a PushOptions,
    /// The release in a store that is pushed; none to push files.
    pub stored: Option<&'a Arc<StoredRelease>>,
    /// Chooses what saves time on this link.
    pub pace: &'a Pace,
    /// Shows progress.
    pub monitor: &'a Arc<dyn Monitor>,
    /// When the push began.
    pub begun: Instant,
}

/// The assumptions of an attempt. A push that fails by one of these drops it and tries again.
#[derive(Debug, Clone, Copy)]
pub struct Assumptions {
    /// How the input is read.
    pub reading: Reading,
    /// How chunks are named.
    pub names: Names,
    /// No earlier attempt has sent anything: chunks that the base lacks may be sent before the proxy asks.
    pub is_first: bool,
}

/// How the manifest names chunks and segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// By short names, which may be ambiguous.
    Short,
    /// By whole ids.
    Full,
}

impl Assumptions {
    /// Returns those of a first attempt.
    pub fn of(options: &PushOptions) -> Self {
        let files = if options.checksum { FilesRead::All } else { FilesRead::Changed };
        let archives = if options.raw { ArchiveForm::Packed } else { ArchiveForm::Unpacked };
        Self { reading: Reading { files, archives }, names: Names::Short, is_first: true }
    }
}

/// The promise of who calls [`attempt`].
const READ: &str = "the input is read before it is pushed";

/// Pushes `source` once, which is there before and after; sets `stored` once the proxy has stored something new.
pub async fn attempt(
    push: &Push<'_>,
    assumptions: Assumptions,
    source: &mut Option<Source>,
    stored: &Arc<AtomicBool>,
) -> Result<Receipt> {
    let attempt = Attempt::open(push, assumptions, source.as_ref().expect(READ), stored).await?;
    let (outcome, base, rest) = attempt.talk(source).await?;
    let Some(Source::Scanned(scanned)) = source else {
        return Err(protocol::Error::OutOfTurn("Done").into());
    };
    rest.settle(outcome, base, scanned).await
}

/// A conversation that was opened.
struct Attempt<'a> {
    conversation: Conversation,
    /// Tells the tasks and the thread of the conversation how it ends. Where it is dropped, they give up.
    end: watch::Sender<Option<Ending>>,
    pipeline: Running<()>,
    rest: Rest<'a>,
}

/// The parts of an attempt needed at its end.
struct Rest<'a> {
    push: &'a Push<'a>,
    key: Key,
    cache: Option<Arc<ChunkCache>>,
    underway: Underway,
}

impl<'a> Attempt<'a> {
    /// Opens the state folder, sends the request, and starts the pipeline.
    async fn open(
        push: &'a Push<'a>,
        assumptions: Assumptions,
        source: &Source,
        stored: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let Push { session, options, pace, monitor, .. } = *push;
        let key = session.memory_key(&options.app);
        let (root, segments) = match source {
            Source::Scanned(scanned) => (scanned.root.clone(), scanned.segments.clone()),
            Source::Scanning(scanning) => (scanning.empty_root(), Vec::new()),
        };
        let names = assumptions.names;
        let Recalled { cache, base, underway } = match push.stored {
            Some(stored) => basis(stored, &segments, names).await?,
            None => recall(options, key, &segments, names, source.memory()).await?,
        };
        let was_cut = underway.was_cut() || push.stored.is_some_and(|stored| stored.was_cut);
        let is_eager = assumptions.is_first && !was_cut;
        let (form, base) = opening(source, base, names, is_eager);
        let open = open_message(options, &root, &segments);
        let (machine, open) = Agent::with_window(options.window, open, segments, form);
        monitor.begin(Phase::Negotiate, None);
        let (sender, receiver) = session.request(&Operation::Push(open)).await?;
        // Twice what the machine has under way at a time.
        let (jobs, queue) = std_mpsc::sync_channel(2 * options.window.steps);
        let (outputs_in, outputs) = mpsc::channel(BATCHES_READY);
        let spool = source.spool();
        let pipeline = {
            let (spool, pace, cache) = (spool.clone(), pace.clone(), cache.clone());
            let (threads, explain) = (options.threads, options.explain);
            blocking::start(move || {
                let cache = cache.as_deref();
                let pipeline = Pipeline { spool: &spool, pace: &pace, cache, threads, explain };
                pipeline.run(&queue, &outputs_in);
            })
        };
        let is_raw = options.raw || names == Names::Full;
        let (end, ending) = watch::channel(None);
        let (rate_max, tokens) = (options.upload_rate_max, session.renewals());
        let conversation = Conversation {
            machine,
            content: Content::new(spool, base, pace.clone(), jobs, Arc::clone(monitor))
                .raw(is_raw)
                .explaining(options.explain),
            outputs,
            inbox: Inbox::open(receiver),
            outbox: Outbox::open(sender, rate_max, tokens, Arc::clone(monitor), ending.clone()),
            ending,
            monitor: Arc::clone(monitor),
            watchdog: Watchdog::new(session.quiet_max(options.patience), Arc::clone(stored)),
            outcome: Outcome::new(root.totals.bytes, options.explain),
            is_dry_run: options.dry_run,
            leaves_after: options.no_wait.then_some(options.destinations.len()),
            is_finished: false,
        };
        let rest = Rest { push, key, cache, underway };
        Ok(Self { conversation, end, pipeline, rest })
    }

    /// Talks until the push is done or fails, and until all that took part has ended. Puts the source back.
    async fn talk(self, source: &mut Option<Source>) -> Result<(Outcome, Option<Base>, Rest<'a>)> {
        let Self { conversation, end, pipeline, rest } = self;
        let Push { session, options, .. } = *rest.push;
        let known = source.take().expect(READ);
        let mut talking = blocking::start(move || conversation.run(known));
        let tell = |error: &Error| end.send_replace(Some(Ending::Failed(error.fault())));
        let (ended, unheard) = tokio::select! {
            ended = &mut talking => (ended, None),
            error = session.unheard(options.patience) => {
                tell(&error);
                (talking.await, Some(error))
            }
        };
        let (result, outbox) = match ended {
            Ok(ended) => {
                *source = Some(ended.source);
                (unheard.map_or(ended.result, Err), Some(ended.outbox))
            }
            Err(error) => (Err(error.into()), None),
        };
        match &result {
            Ok(_) => drop(end.send_replace(Some(Ending::Well))),
            Err(error) => drop(tell(error)),
        }
        let written = match outbox {
            Some(outbox) => outbox.finish().await,
            None => Ok(()),
        };
        pipeline.await?;
        let (outcome, base) = result?;
        written?;
        Ok((outcome, base, rest))
    }
}

impl Rest<'_> {
    /// Checks what the proxy recorded, remembers the release, and makes the receipt.
    async fn settle(self, outcome: Outcome, base: Option<Base>, scanned: &Scanned) -> Result<Receipt> {
        let Push { session, options, pace, monitor, begun, .. } = *self.push;
        let Scanned { root, unpacked, dropped, seen, .. } = scanned;
        let committed = outcome.committed;
        let (recorded, cached_until) = match committed.as_ref().map(|committed| &committed.kept) {
            Some(Kept::Release(record)) if !options.cache_only => (Some(record), None),
            Some(Kept::Until(until)) if options.cache_only => (None, Some(*until)),
            Some(Kept::Release(_)) => return Err(protocol::Error::OutOfTurn("Committed").into()),
            Some(Kept::Until(_)) => return Err(protocol::Error::OutOfTurn("Cached").into()),
            None => (None, None),
        };
        let release = check_pushed(recorded, &options.app, root.release())?;
        let counters = session.counters();
        let ended = committed.as_ref().map_or_else(Instant::now, |committed| committed.at);
        let seen = seen.lock().unpoisoned().take();
        let files_remembered = seen.as_ref().map_or(0, |seen| seen.remembered);
        let sequence = recorded.filter(|_| !options.dry_run).map(|record| record.sequence);
        if let (Some(folder), Some(sequence), Some(seen)) = (&options.state, sequence, seen) {
            let work = {
                let (folder, cache_bytes_max) = (folder.clone(), options.cache_bytes_max);
                let (root, segments, spool) = (root.clone(), scanned.segments.clone(), scanned.spool.clone());
                let (streams, monitor) = (scanned.streams.clone(), Arc::clone(monitor));
                move || {
                    let is_same = base.is_some_and(|base| base.root() == root.id());
                    let cache = self.cache.and_then(Arc::into_inner);
                    let cache = cache.filter(|cache| !is_same || !cache.is_untouched());
                    let cache = cache.map(|cache| (cache, cache_bytes_max));
                    let confirmed = Confirmed {
                        folder: &folder,
                        key: &self.key,
                        sequence,
                        root: &root,
                        segments: &segments,
                        streams: streams.as_deref(),
                    };
                    remember(&confirmed, &spool, seen, cache, monitor.as_ref());
                    self.underway.end();
                }
            };
            // The release is pushed, remembered or not. After a push into the cache, the mark of one under way stays: the proxy
            // has chunks that the next push does not send unasked.
            if let Err(error) = blocking::start(work).await {
                monitor.note(&format!("this push is not remembered: {error}"));
            }
        }
        if let Some(state) = &options.state {
            let (state, url) = (state.clone(), session.url().clone());
            let (link, slowness) = (session.measured_link(), pace.processor().measured());
            // Without them, the next push assumes a rate and a machine.
            let remember = move || {
                drop(link.map(|link| remember_link(&state, &url, &link)));
                drop(slowness.map(|slowness| remember_slowness(&state, slowness)));
            };
            blocking::start(remember).await?;
        }
        Ok(Receipt {
            release,
            app: options.app.clone(),
            sequence,
            cached_until,
            unchanged: committed.is_some_and(|committed| committed.existing),
            dry_run: options.dry_run,
            files: root.totals.files,
            files_remembered,
            archives: *unpacked,
            dropped: dropped.clone(),
            bytes: outcome.bytes,
            chunks: ReceiptChunks { total: root.totals.chunks, unseen: outcome.unseen_chunks },
            wire: ReceiptWire { up: counters.sent_bytes, down: counters.received_bytes },
            round_trips: outcome.round_trips + 1,
            seconds: (ended - begun).as_secs_f64(),
            peak_rss: receipt::peak_rss(),
            link: pace.link(),
            slowness: pace.processor().slowness(),
            choices: pace.chosen(),
            explained: outcome.explained.unwrap_or_default().finish(),
            delivered: outcome.deliveries.into_deliveries(),
            rollout: outcome.rollout,
        })
    }
}

/// Returns the request; the machine fills in the manifest's form.
fn open_message(options: &PushOptions, root: &Root, segments: &[NodeRef]) -> Open {
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
        behalf: options.behalf.clone(),
        then: options.then.clone(),
        keeps_current: options.keeps_current,
        moves: options.moves,
        cache_only: options.cache_only,
        root: root.named.map(|_| root.id()),
    }
}

/// Chooses how the manifest is announced; returns the base only if the push goes on from it.
fn opening(source: &Source, base: Option<Base>, names: Names, is_eager: bool) -> (Opening, Option<Base>) {
    match (source, base) {
        (Source::Scanning(_), _) => (Opening::Growing, None),
        (Source::Scanned(_), Some(base)) => {
            let (root, segments) = (base.root(), base.segments().to_vec());
            let opening =
                if is_eager { Opening::Base(root, segments) } else { Opening::Again(root, segments) };
            (opening, Some(base))
        }
        (Source::Scanned(_), None) if names == Names::Short => (Opening::Short, None),
        (Source::Scanned(_), None) => (Opening::Full, None),
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
    streams: Option<&'a RememberedStreams>,
}

/// Writes what the next push can build on: the files' stats, the manifest, the streams of archives, and the chunks.
fn remember(
    confirmed: &Confirmed<'_>,
    spool: &Spool,
    seen: Seen,
    cache: Option<(ChunkCache, u64)>,
    monitor: &dyn Monitor,
) {
    let &Confirmed { folder, key, sequence, root, segments, streams } = confirmed;
    if let Err(error) = seen.remember(folder, key, sequence, (root, segments), spool) {
        monitor.note(&format!("the next push will read every file: {error}"));
    }
    if let Some(Err(error)) = streams.map(|streams| streams.write(&WriteOptions::default())) {
        monitor.note(&format!("the next push will unpack archives whole: {error}"));
    }
    let Some((cache, bytes_max)) = cache else { return };
    cache.fill(spool, segments.len(), bytes_max / 2);
    if let Err(error) = cache.finish(folder, root.totals.bytes, bytes_max) {
        monitor.note(&format!("pushed chunks are not cached: {error}"));
    }
}

/// The state folder's contribution to one attempt.
struct Recalled {
    cache: Option<Arc<ChunkCache>>,
    base: Option<Base>,
    underway: Underway,
}

/// Opens the memory and the chunk cache, and marks that a push is under way.
async fn recall(
    options: &PushOptions,
    key: Key,
    segments: &[NodeRef],
    names: Names,
    memory: Option<Arc<Memory>>,
) -> Result<Recalled> {
    let (options, segments) = (options.clone(), segments.to_vec());
    Ok(blocking::start(move || recall_now(&options, &key, &segments, names, memory)).await?)
}

/// Reads what a stored release is encoded against.
async fn basis(stored: &Arc<StoredRelease>, segments: &[NodeRef], names: Names) -> Result<Recalled> {
    let (stored, segments) = (Arc::clone(stored), segments.to_vec());
    let (cache, base) = blocking::start(move || stored.basis(&segments)).await?;
    let base = base.filter(|_| names == Names::Short);
    Ok(Recalled { cache: Some(cache), base, underway: Underway::nothing() })
}

/// `read`: the memory that the scan had.
fn recall_now(
    options: &PushOptions,
    key: &Key,
    segments: &[NodeRef],
    names: Names,
    read: Option<Arc<Memory>>,
) -> Recalled {
    let memory = |state: &PathBuf| match names {
        Names::Short => read.or_else(|| Memory::open(state, key).map(Arc::new)),
        Names::Full => None,
    };
    let Some(state) = options.state.as_ref().filter(|_| !options.dry_run) else {
        let memory = options.state.as_ref().and_then(memory);
        let base = memory.and_then(|memory| Base::new(Earlier::Remembered(memory), segments, None));
        return Recalled { cache: None, base, underway: Underway::nothing() };
    };
    let underway = Underway::begin(state, key);
    let cache = (options.cache_bytes_max > 0).then(|| ChunkCache::open(state, key).map(Arc::new)).flatten();
    let base =
        memory(state).and_then(|memory| Base::new(Earlier::Remembered(memory), segments, cache.clone()));
    // Without the base's chunks here, the proxy's block sums save more than the round trips cost.
    Recalled { cache, base: base.filter(Base::is_cached), underway }
}
