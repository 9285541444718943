//! Fills the cache with what a destination holds: read, cut and stored here, as a push of it into the cache would.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::Granted;
use super::audit::Entry;
use crate::agent::scan::{self, Archives, LastOpened, Reader, Scan, Selection};
use crate::ledger::Lease;
use crate::store::{self, Store};
use delta::compression::{Compressor, LEVEL_DEFAULT};
use delta::similar::Sketch;
use format::chunking::Profile;
use format::manifest::SegmentIndex;
use format::pack::{Frame, FrameEnd, FrameKind, Framer};
use format::recipe::ChunkRef;
use ground::faults::{Fault, Faulty, faulty};
use ground::ids::{AppName, DestinationName};
use ground::monitor::Silent;
use protocol::token::Action;
use protocol::wire::{Primed, Refusal};

/// Workers that read and cut files: a proxy serves pushes meanwhile.
const THREADS: usize = 1;

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The files.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] format::manifest::Error),
    /// What a service has can be copied nowhere.
    #[error("no folder can be made beside the store: {0}")]
    Space(std::io::Error),
    /// The proxy stops.
    #[error("the proxy stops")]
    Stopping,
    /// It took so long that chunks may have been collected.
    #[error("the content took too long to read, and some of it was collected meanwhile")]
    Lapsed,
}

faulty! {
    Error passes on Scan, Store, Manifest;
    Self::Space(error) => Fault::of_io(error);
    Self::Stopping | Self::Lapsed => Fault::Retry, "prime again: stored content is not stored twice";
}

/// Takes what a destination holds of an application into the cache.
///
/// Time O(bytes held). Memory: as a scan. It makes no release: nobody can pull it.
///
/// # Errors
/// The token does not allow it, the destination cannot be read back, or the disk's.
pub fn prime(granted: &Granted, app: &AppName, destination: &DestinationName) -> Result<Primed, Refusal> {
    granted.allow(Action::Push, Some(app))?;
    granted.allow_destination(destination)?;
    let refusal = |error: &dyn Faulty| Refusal::of(error);
    let shared = &granted.shared;
    let place = shared.destinations.get(destination).ok_or_else(|| Refusal {
        fault: Fault::Missing,
        text: format!("there is no destination `{destination}`"),
        hint: Some("`whit destinations` lists those that the token allows".to_owned()),
    })?;
    let store = granted.store()?;
    store.check_cache().map_err(|error| refusal(&error))?;
    // Not where the system has its temporary files, which may be in memory.
    let (scratch, reserve_bytes) = store.scratch().map_err(|error| refusal(&error))?;
    let space = tempfile::tempdir_in(scratch).map_err(|source| refusal(&Error::Space(source)))?;
    let held = place.held(app, (space.path(), reserve_bytes), &shared.stopping);
    let folder = held.map_err(|error| match error.fault() {
        Fault::Missing => Refusal {
            text: format!("destination `{destination}` holds nothing of `{app}`"),
            hint: Some("give a directory that holds an older copy: `whit prime APP DIR`".to_owned()),
            ..refusal(&error)
        },
        _ => refusal(&error),
    })?;
    let folder = folder.ok_or_else(|| Refusal {
        fault: Fault::Input,
        text: format!("destination `{destination}`, of kind {}, cannot list what it has", place.kind()),
        hint: Some("give a directory that has the same files: `whit prime APP DIR`".to_owned()),
    })?;
    let selection = Selection { needs_files: true, ..Selection::everything() };
    let archives = Archives::leaving(scratch.to_owned(), reserve_bytes);
    let reader = Reader {
        selection: &selection,
        profile: Profile::DEFAULT,
        threads: THREADS,
        memory: None,
        archives: Some(&archives),
        on_segment: None,
        monitor: &Silent,
    };
    let primed = (|| {
        let scan = reader.scan(&folder)?;
        let mut taking = Taking::begin(&store)?;
        let is_stopping = || shared.stopping.load(Ordering::Relaxed);
        taking.take(&scan, is_stopping)?;
        store.sync()?;
        Ok((scan.root, taking))
    })();
    let (root, taking) = primed.map_err(|error: Error| refusal(&error))?;
    granted.still_holds()?;
    if !taking.lease.renew() {
        return Err(refusal(&Error::Lapsed));
    }
    let (release, totals) = (root.release(), root.totals);
    let until = store.cache(app, &root.id(), &granted.grant.user, [totals.bytes, 0]);
    let until = until.map_err(|error| refusal(&error))?;
    store.sketches().flush();
    let destinations = std::slice::from_ref(destination);
    shared.audit.write(&Entry { destinations, ..Entry::of(&granted.grant, "prime", app, release) });
    let (files, bytes, unseen_bytes) = (totals.files, totals.bytes, taking.unseen_bytes);
    Ok(Primed { release, files, bytes, unseen_bytes, until })
}

/// Stores what the store lacks of a scan.
struct Taking<'a> {
    store: &'a Store,
    lease: Lease,
    compressor: Compressor,
    taken: HashSet<ChunkRef>,
    unseen_bytes: u64,
}

impl<'a> Taking<'a> {
    fn begin(store: &'a Store) -> Result<Self, Error> {
        let (lease, compressor) = (store.lease()?, Compressor::new(LEVEL_DEFAULT));
        Ok(Self { store, lease, compressor, taken: HashSet::new(), unseen_bytes: 0 })
    }

    /// Stores the content and the manifest of a scan, segment by segment.
    fn take(&mut self, scan: &Scan, is_stopping: impl Fn() -> bool) -> Result<(), Error> {
        let mut last = LastOpened::default();
        for index in SegmentIndex::range(0..scan.segments.len()) {
            if is_stopping() {
                return Err(Error::Stopping);
            }
            self.lease.renew();
            let mut chunks = Vec::new();
            for located in scan.spool.chunks(index)? {
                let chunk = located.chunk;
                if self.lacks(&chunk)? {
                    let mut plain = Vec::new();
                    located.read_verified(&mut last, &mut plain)?;
                    chunks.push((chunk, plain));
                }
            }
            self.unseen_bytes += chunks.iter().map(|(chunk, _)| u64::from(chunk.bytes)).sum::<u64>();
            let sketches =
                chunks.iter().filter_map(|(chunk, plain)| Some((chunk.id.into(), Sketch::of(plain)?)));
            self.store.sketches().insert(sketches);
            self.keep(FrameKind::Content, FrameEnd::Reached, &chunks)?;
            let segment = scan.spool.segment(index).map_err(scan::Error::from)?;
            self.keep_manifest(vec![segment])?;
        }
        let root = &scan.root;
        let mut nodes = Vec::new();
        root.over(scan.segments.clone(), |node| nodes.push(node.bytes))?;
        nodes.push(root.encode());
        self.keep_manifest(nodes)
    }

    /// Returns whether the store lacks a chunk, which is then taken.
    fn lacks(&mut self, chunk: &ChunkRef) -> Result<bool, Error> {
        Ok(!self.store.holds(chunk)? && self.taken.insert(*chunk))
    }

    fn keep_manifest(&mut self, parts: Vec<Vec<u8>>) -> Result<(), Error> {
        let mut lacking = Vec::new();
        for part in parts {
            let chunk = ChunkRef::of(&part);
            if self.lacks(&chunk)? {
                lacking.push((chunk, part));
            }
        }
        self.keep(FrameKind::Manifest, FrameEnd::Below, &lacking)
    }

    fn keep(&mut self, kind: FrameKind, end: FrameEnd, chunks: &[(ChunkRef, Vec<u8>)]) -> Result<(), Error> {
        let (store, lease) = (self.store, &self.lease);
        let framer = Framer::new(kind, end, &mut self.compressor);
        framer.frame_all(chunks.iter().map(|(chunk, bytes)| (*chunk, bytes.as_slice())), |frame: Frame| {
            lease.brought(frame.payload.len() as u64);
            store.append(&frame)?;
            Ok(())
        })
    }
}
