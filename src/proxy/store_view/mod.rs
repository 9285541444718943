//! A space as the proxy's half of a push sees it.

mod recording;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Granted;
use super::archive_proof::{self, Proof};
use super::granted::Queued;
use super::read_scope::{ReadScope, Readable};
use super::refusal::lapsed;

use crate::ledger::Lease;
use crate::net::blocking;
use crate::net::identity;
use crate::net::link::Replies;
use crate::restore::{self, ChunkReader, SourceError};
use crate::store::{ArchiveForm, FaultInjection, Found, Store, StoreReader};
use delta::similar::Sketch;
use disk::crash_points;
use format::manifest::{self, EntryPath, NodeRef, Reference, SegmentName};
use format::pack::Frame;
use format::recipe::ChunkRef;
use format::record::{Cost, Record};
use ground::ids::{AppName, ChunkId, ShortId, UserName};
use ground::limits::ALIVE_EVERY;
use protocol::wire::{Open, Refusal};
use protocol::{ContentView, Proposal, SpaceView, StorageView};

/// Content written since the last sync after which another is begun: what an interrupted push sends again.
const SYNC_BYTES: u64 = 16 * 1024 * 1024;
/// The same by time, for slow links.
const SYNC_EVERY: Duration = Duration::from_secs(2);

/// Releases among which a push looks for its base, and their segments: 2 MB.
const RECENT_MAX: usize = 8;
/// Of these, manifests that are only cached.
const RECENT_CACHED_MAX: usize = 4;
const RECENT_SEGMENTS_MAX: usize = 64 * 1024;

/// One push's view of its space.
#[derive(Debug)]
pub struct StoreView {
    store: Arc<Store>,
    user: UserName,
    now: u64,
    replies: Replies,
    app: AppName,
    app_latest: Option<Record>,
    /// What the application has in the cache, the latest first.
    cached: Vec<ChunkId>,
    /// Reads the content that the push builds on.
    reader: StoreReader<Arc<Store>>,
    /// The number of frames in the store after each message of content that is not yet reported.
    unreported: VecDeque<u64>,
    reported: u64,
    unsynced_bytes: u64,
    last_sync: Instant,
    lease: Lease,
    /// The store's count of damage when the push's chunks were last checked.
    damage_met: u64,
    /// The lock of work that rebuilds an archive as a proof, or an executable.
    heavy_work: Arc<Mutex<()>>,
    /// The applications that the token may read, and the releases that the push builds on.
    scope: ReadScope,
    readable: Readable,
    /// The token, checked again before anything is recorded.
    granted: Option<Arc<Granted>>,
    /// The deliveries that were recorded with the release.
    queued: Option<Queued>,
    /// How the release's archives are stored, once that was proven.
    archives_stored: ArchiveForm,
    /// Whether the link was fast when the push began.
    is_fast: bool,
}

impl StoreView {
    /// Begins a push of `app` by `user` at `now`, seconds since 1970; reports to `replies` what is durable.
    ///
    /// # Errors
    /// No lease could be created.
    pub fn new(
        store: Arc<Store>,
        app: AppName,
        user: UserName,
        now: u64,
        replies: Replies,
    ) -> Result<Self, Refusal> {
        let app_latest = store.records().latest(&app);
        let lease = store.lease().map_err(|error| Refusal::of(&error))?;
        // Under the lease: what lapses from now on stays until the push has ended.
        let cached = store.records().cached_now(&app).map_err(|error| Refusal::of(&error))?;
        let cached = cached.into_iter().map(|(root, _)| root).collect();
        let last_sync = store.now();
        let damage_met = store.damage_met();
        let reader = StoreReader::new(Arc::clone(&store));
        Ok(Self {
            store,
            user,
            now,
            replies,
            app,
            app_latest,
            cached,
            reader,
            unreported: VecDeque::new(),
            reported: 0,
            unsynced_bytes: 0,
            last_sync,
            lease,
            damage_met,
            heavy_work: Arc::default(),
            scope: ReadScope::default(),
            readable: Readable::default(),
            granted: None,
            queued: None,
            archives_stored: ArchiveForm::Packed,
            is_fast: false,
        })
    }

    /// Limits the view to what a token allows, for as long as the token is good.
    #[must_use]
    pub(super) fn on_behalf_of(self, granted: &Arc<Granted>) -> Self {
        Self { scope: ReadScope::of(&granted.grant), granted: Some(Arc::clone(granted)), ..self }
    }

    /// The same, over a link that is fast, or not.
    #[must_use]
    pub(super) fn over_fast_link(self, is_fast: bool) -> Self {
        Self { is_fast, ..self }
    }

    /// The same, with the lock of heavy work that others use.
    #[must_use]
    pub fn sharing_heavy_work(self, heavy_work: &Arc<Mutex<()>>) -> Self {
        Self { heavy_work: Arc::clone(heavy_work), ..self }
    }

    /// Returns the bytes of memory that it holds for the push, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.readable.memory_bytes()
    }

    /// Returns whether a segment that the store has lists only chunks that it has too.
    fn is_complete(&self, node: &NodeRef, reader: &mut StoreReader<&Store>) -> Result<bool, Refusal> {
        let stored = ChunkRef::from(*node);
        if !self.has(&stored)? {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        if reader.read(&stored, &mut bytes).is_err() {
            return Ok(false);
        }
        // A chunk of content may happen to have that name; it is then no segment.
        let Ok(chunks) = manifest::segment_chunks(&bytes) else { return Ok(false) };
        for chunk in chunks {
            if !self.has(&chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether a push may count on the chunk, in the length that is claimed.
    fn has(&self, chunk: &ChunkRef) -> Result<bool, Refusal> {
        self.store.holds(chunk).map_err(|error| Refusal::of(&error))
    }

    /// Checks every chunk again, after the promise that they stay has lapsed.
    ///
    /// Under a new lease, taken first: what is found must stay until the record is written.
    fn check_again(&mut self, segments: &[NodeRef]) -> Result<(), Refusal> {
        if !self.store.injects(FaultInjection::CheckedUnheld) {
            self.lease = self.store.lease().map_err(|error| Refusal::of(&error))?;
        }
        let mut reader = StoreReader::new(&*self.store);
        for segment in segments {
            if !self.is_complete(segment, &mut reader)? {
                return Err(lapsed());
            }
            // The check itself may take long.
            self.lease.renew();
        }
        let is_held = self.lease.renew() || self.store.injects(FaultInjection::CheckedUnheld);
        if is_held { Ok(()) } else { Err(lapsed()) }
    }

    /// Checks every chunk again where the lease has lapsed, or damage was found since.
    fn keep_promise(&mut self, segments: &[NodeRef]) -> Result<(), Refusal> {
        let is_held = self.lease.renew() || self.store.injects(FaultInjection::LapsedUnchecked);
        let met = self.store.damage_met();
        if is_held && met == self.damage_met {
            return Ok(());
        }
        self.damage_met = met;
        self.check_again(segments)
    }

    /// Reports how many content frames are durable, if more than before.
    fn report(&mut self) {
        let durable = self.store.durable();
        let before = self.reported;
        while self.unreported.front().is_some_and(|position| *position <= durable) {
            self.unreported.pop_front();
            self.reported += 1;
        }
        if self.reported > before {
            self.replies.stored(self.reported);
        }
    }

    /// Begins a sync beside the push when enough has come since the last.
    fn sync_beside(&mut self) {
        if self.unsynced_bytes < SYNC_BYTES && self.store.now() - self.last_sync < SYNC_EVERY {
            return;
        }
        (self.unsynced_bytes, self.last_sync) = (0, self.store.now());
        let store = Arc::clone(&self.store);
        // Where no thread does it, the commit's own sync has more to do.
        drop(blocking::start(move || {
            if let Err(error) = store.sync() {
                tracing::error!(%error, "a sync failed; the push will fail at its commit");
            }
        }));
    }
}

impl ContentView for StoreView {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.reader.read(chunk, out).map_err(|error| match error {
            // It was there when the push asked, and was collected since.
            SourceError::Unknown(_) if !self.lease.holds() => lapsed(),
            error => Refusal::of(&error),
        })
    }

    fn heavy_work(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.heavy_work)
    }
}

impl StorageView for StoreView {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        self.lease.renew();
        let find = |reference: &Reference| match reference {
            Reference::Short(short) => self.store.find_short(*short).map_err(|error| Refusal::of(&error)),
            Reference::Full(chunk) => Ok(self.has(chunk)?.then_some(*chunk)),
        };
        references.iter().map(find).collect()
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        self.lease.brought(frame.payload.len() as u64);
        self.store.append(&frame).map_err(|error| Refusal::of(&error))?;
        self.unsynced_bytes += frame.payload.len() as u64;
        self.sync_beside();
        Ok(())
    }
}

impl SpaceView for StoreView {
    fn recognize(&mut self, open: &Open) -> Result<Option<(Record, bool)>, Refusal> {
        // Another push may have been faster.
        let records = self.store.records();
        self.app_latest = records.latest(&self.app);
        let allowed = records.check_push(&open.app, &open.release, &open.labels, recording::intent(open));
        allowed.map_err(|error| Refusal::of(&error))?;
        if !self.store.is_whole() {
            // Some chunk may be gone: ask for the segments, and for what they lack.
            return Ok(None);
        }
        match self.store.records().recognize(&open.app, &open.release, |app| self.scope.has(app)) {
            None => Ok(None),
            Some(Found::Latest(record)) if open.dry_run => Ok(Some((record, true))),
            Some(Found::Elsewhere(record)) if open.dry_run => Ok(Some((record, false))),
            Some(Found::Latest(record))
                if open.labels.iter().all(|label| record.labels.contains(label))
                    && (self.keeps_current(open) || self.is_current(&record)) =>
            {
                Ok(Some((record, true)))
            }
            Some(Found::Latest(record)) => {
                Ok(Some((self.write_record(open, record.totals, Cost::default())?, true)))
            }
            Some(Found::Elsewhere(record)) => {
                Ok(Some((self.write_record(open, record.totals, Cost::default())?, false)))
            }
        }
    }

    fn base(&mut self, root: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal> {
        if !self.store.is_whole() {
            // Some chunk of it may be gone.
            return Ok(None);
        }
        let root = match root {
            None => {
                let latest = self.app_latest.as_ref();
                let latest = latest.and_then(|latest| self.store.root(&latest.release).ok());
                latest.or_else(|| self.store.root_at(self.cached.first()?).ok())
            }
            Some(id) => self
                .store
                .root_at(id)
                .ok()
                .filter(|root| self.cached.contains(id) || self.scope.has_manifest(&self.store, root)),
        };
        let mut reader = StoreReader::new(&*self.store);
        let mut leaves = root.as_ref().and_then(|root| restore::leaves(root, &mut reader).ok());
        if root.is_some_and(|root| self.cached.contains(&root.id())) {
            // Nobody heals what is only cached.
            for leaf in leaves.clone().unwrap_or_default() {
                if !self.is_complete(&leaf, &mut reader)? {
                    leaves = None;
                    break;
                }
            }
        }
        if let Some(leaves) = leaves.as_ref().filter(|_| !self.scope.is_whole()) {
            self.readable.add(leaves);
        }
        Ok(leaves)
    }

    fn recent(&mut self) -> Result<Vec<Vec<NodeRef>>, Refusal> {
        let cached = self.cached.iter().copied().take(RECENT_CACHED_MAX);
        let mut roots: Vec<ChunkId> = cached.collect();
        let records = self.store.records();
        for release in records.recent(&self.app, RECENT_MAX - roots.len()) {
            roots.extend(records.roots(&release).unwrap_or_default());
        }
        let (mut recent, mut segments) = (Vec::new(), 0);
        for root in roots {
            let Some(base) = self.base(Some(&root))? else { continue };
            segments += base.len();
            if segments > RECENT_SEGMENTS_MAX && !recent.is_empty() {
                break;
            }
            recent.push(base);
        }
        Ok(recent)
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        if !self.scope.is_whole() {
            // A segment reveals the ids of its chunks.
            self.recent()?;
        }
        let store = Arc::clone(&self.store);
        let mut reader = StoreReader::new(&*store);
        let mut resolved = Vec::with_capacity(names.len());
        for name in names {
            let node = if self.scope.is_whole() {
                store.find_name(*name).map_err(|error| Refusal::of(&error))?
            } else {
                self.readable.segment(*name)
            };
            resolved.push(match node {
                Some(node) if self.is_complete(&node, &mut reader)? => Some(node),
                _ => None,
            });
        }
        Ok(resolved)
    }

    fn reads_all(&self) -> bool {
        self.scope.is_whole()
    }

    fn may_read(&mut self, chunk: &ChunkRef) -> Result<bool, Refusal> {
        Ok(self.scope.is_whole() || self.readable.has(chunk, &mut self.reader))
    }

    fn nonce(&mut self) -> Result<[u8; 32], Refusal> {
        identity::random().map_err(|error| Refusal::of(&error))
    }

    fn sketch(&mut self, chunks: Vec<(ShortId, Sketch)>) {
        self.store.sketches().insert(chunks.into_iter());
    }

    fn is_fast(&self) -> bool {
        self.is_fast
    }

    fn has_sketches(&mut self) -> bool {
        !self.store.sketches().is_empty()
    }

    fn most_similar(&mut self, sketch: &Sketch) -> Option<(ShortId, usize)> {
        self.store.sketches().most_similar(sketch)
    }

    fn kept_message(&mut self) {
        // Also what another push brought that this one counts on.
        self.unreported.push_back(self.store.appended());
        self.report();
    }

    fn prove(&mut self, proposal: &Proposal) -> Result<Option<EntryPath>, Refusal> {
        self.keep_promise(&proposal.segments)?;
        self.keep_nodes(proposal)?;
        self.store.sync().map_err(|error| Refusal::of(&error))?;
        crash_points::point("commit.synced");
        self.report();
        let latest = self.app_latest.as_ref().map(|latest| latest.release);
        let begin = Instant::now();
        let mut alive = begin;
        let is_delivered = !proposal.open.destinations.is_empty();
        let mut tell = || {
            if alive.elapsed() >= ALIVE_EVERY {
                alive = Instant::now();
                self.lease.renew();
            }
        };
        let (root, latest) = (&proposal.root, latest.as_ref());
        let proof =
            archive_proof::prove(&self.store, root, latest, &self.heavy_work, is_delivered, &mut tell);
        let Proof { archives, bytes, copied, failed, stored } = proof.map_err(|error| Refusal::of(&error))?;
        self.archives_stored = stored;
        if archives > 0 {
            let seconds = begin.elapsed().as_secs_f64();
            let failed = failed.is_some();
            tracing::info!(archives, bytes, copied, seconds, failed, "rebuilt archives as a proof");
        }
        Ok(failed)
    }

    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal> {
        // A proof may have taken long.
        if !self.store.injects(FaultInjection::CheckedUnheld) {
            self.keep_promise(&proposal.segments)?;
        }
        let root = &proposal.root;
        self.store.keep_root(root, self.archives_stored).map_err(|error| Refusal::of(&error))?;
        let existing = self.app_latest.as_ref().is_some_and(|latest| latest.release == proposal.open.release);
        let record = self.write_record(&proposal.open, root.totals, proposal.cost)?;
        self.store.suspect_if_incomplete();
        self.store.sketches().flush();
        Ok((record, existing))
    }

    fn cache(&mut self, proposal: &Proposal) -> Result<u64, Refusal> {
        self.fill_cache(proposal)
    }
}
