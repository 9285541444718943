//! Unpacks, while nobody uses the proxy, archives that crossed as they are: what is in them is then stored once, and later
//! pushes over slow links build on it.
//!
//! A release gets a second manifest, in which its archives are unpacked; one whose archives crossed unpacked gets one in which they are
//! as they are ([`packing`]). Packed bytes of the current and the previous release
//! stay beside it, so that nobody who pulls or is delivered to waits for an encoder; those of earlier ones go. An improvement
//! that was interrupted is begun again, and finds what it had proven.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::older_archives::{Found, OlderArchives};
use super::taking::{Error, Taking};
use super::{archive_proof, packing};
use crate::agent::scan::{Archives, Reader, Selection};
use crate::restore::{ChunkReader as _, Items, Step};
use crate::store::{ArchiveForm, Store, StoreReader};
use disk::crash_points;
use format::manifest::{Builder, EntryPath, Item, Root, Segment, decode_segment};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, ChunkId, ContentId, ReleaseId};
use ground::monitor::Silent;

/// 256 MiB: of a larger archive nobody could wait for the end.
const ARCHIVE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// 512 Ki, as many as 2 GiB have at 4 KiB each: an archive of more is left as it is. Memory: 18 MiB.
const ARCHIVE_CHUNKS_MAX: usize = 512 * 1024;
/// Chunk references of unpacked archives that are remembered: 36 MB.
const KNOWN_CHUNKS_MAX: usize = 1024 * 1024;
/// Releases of an application among which one is looked for that was improved.
const RECENT_MAX: usize = 4;
/// Half an hour: what is stored for a release must be named before its lease lapses. Archives beyond it are left as they are.
const TIME_MAX: Duration = Duration::from_secs(1800);

/// What ends an improvement, and what it leaves alone.
pub(super) struct Bounds<'a> {
    /// Whether nobody uses the proxy.
    pub is_idle: &'a (dyn Fn() -> bool + Sync),
    /// Whether a delivery of the release waits.
    pub is_pending: &'a (dyn Fn(&AppName, &ReleaseId) -> bool + Sync),
    /// Set once the proxy stops.
    pub stopping: &'a Arc<AtomicBool>,
}

/// Improves the releases of a space that people see, while it may; returns how many it improved. Where one cannot be improved,
/// the others are all the same.
///
/// `proven` has archives that earlier improvements proved. One archive at a time, on this thread: time some 5 MB of archives a
/// second, half an hour a release, memory as a scan's and 100 MB, disk twice an archive's bytes beside the store, and what is new
/// in it.
///
/// # Errors
/// [`Error::Stopping`]; a full disk; the first failure.
pub(super) fn improve(
    store: &Arc<Store>,
    proven: &mut UnpackedArchives,
    bounds: &Bounds<'_>,
) -> Result<u64, Error> {
    let (mut improved, mut failed) = (0, None);
    for summary in store.records().apps() {
        let app = summary.app;
        let standing = store.records().standing(&app);
        let mut seen: Vec<ReleaseId> = standing.current.into_iter().collect();
        if !seen.contains(&summary.latest.release) {
            seen.push(summary.latest.release);
        }
        for release in &seen {
            let begun = Instant::now();
            let root_at = |id: ChunkId| store.root_at(&id).ok();
            let (made, is_unpacking) = if let Some(root) = store.packed_only(release).and_then(root_at) {
                (Improvement::begin(store, &app, &root, proven, bounds).and_then(Improvement::run), true)
            } else if let Some(root) = store.unpacked_only(release).and_then(root_at) {
                // What is not unpacked of it may have crossed so as it is tightly packed.
                let unpacked =
                    Improvement::begin(store, &app, &root, proven, bounds).and_then(Improvement::run);
                let before = OlderArchives::before(store, &app, release);
                let pack = || packing::pack(store, &root, &before, bounds.is_idle, bounds.stopping);
                let made = match unpacked {
                    Err(error) if ends_all(&error) => Err(error),
                    // Without room to unpack an archive the others are packed all the same.
                    unpacked => pack().and_then(|packed| unpacked.map(|_| packed)),
                };
                (made, false)
            } else {
                continue;
            };
            match made {
                Ok((archives, bytes)) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    let done =
                        if is_unpacking { "unpacked stored archives" } else { "packed stored archives" };
                    tracing::info!(%app, ?release, archives, bytes, seconds, "{done}");
                    improved += 1;
                }
                Err(error) if ends_all(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%app, ?release, %error, "a release was not improved");
                    failed.get_or_insert(error);
                }
            }
        }
        match forget_packed(store, &app, seen, standing.previous, bounds) {
            Ok(()) => {}
            Err(error) if ends_all(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%app, %error, "packed archives of earlier releases were not forgotten");
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(improved), Err)
}

/// Returns whether no other release can be improved either.
fn ends_all(error: &Error) -> bool {
    match error {
        Error::Stopping => true,
        // A smaller one may have room.
        Error::Archive(_) => false,
        error => error.fault() == Fault::Full,
    }
}

/// Forgets the packed bytes of an application's releases, but of those `seen` and the previous one, and of those that are held or
/// wait for a delivery.
fn forget_packed(
    store: &Store,
    app: &AppName,
    seen: Vec<ReleaseId>,
    previous: Option<ReleaseId>,
    bounds: &Bounds<'_>,
) -> Result<(), Error> {
    let mut checked: HashSet<ReleaseId> = seen.into_iter().chain(previous).collect();
    checked.extend(store.records().held(app)?);
    for pushed in store.records().pushed(app)? {
        let release = pushed.release;
        if !checked.insert(release) {
            continue;
        }
        // Who reads the release now reads its packed bytes.
        if !(bounds.is_idle)() {
            return Err(Error::Stopping);
        }
        if !store.records().is_pinned(app, &release) && !(bounds.is_pending)(app, &release) {
            store.forget_packed(&release)?;
            crash_points::point("improve.forgotten");
        }
    }
    Ok(())
}

/// An archive, as it is stored unpacked.
type Unpacked = (Container, Vec<ChunkRef>);

/// Archives that are known to be rebuilt from what a store has, or had.
#[derive(Debug, Default)]
pub(super) struct UnpackedArchives {
    archives: HashMap<ContentId, Unpacked>,
    chunks: usize,
}

impl UnpackedArchives {
    /// Adds one where there is room.
    fn add(&mut self, content: ContentId, container: Container, chunks: &[ChunkRef]) {
        let sum = self.chunks + chunks.len();
        if sum <= KNOWN_CHUNKS_MAX && self.archives.insert(content, (container, chunks.to_vec())).is_none() {
            self.chunks = sum;
        }
    }

    /// Returns the archive with this content, if the store still has all of it.
    fn find(&self, content: &ContentId, store: &Store) -> Result<Option<Unpacked>, Error> {
        let Some((container, chunks)) = self.archives.get(content) else { return Ok(None) };
        for chunk in chunks {
            if !store.holds(chunk)? {
                return Ok(None);
            }
        }
        Ok(Some((*container, chunks.clone())))
    }
}

/// The second manifest of one release, in the making.
struct Improvement<'a> {
    store: &'a Arc<Store>,
    root: &'a Root,
    bounds: &'a Bounds<'a>,
    begun: Instant,
    taking: Taking<'a>,
    builder: Builder,
    /// Archives that earlier releases of the application have unpacked.
    known: UnpackedArchives,
    /// Archives of the release before.
    before: OlderArchives,
    /// Archives that were proven before, by a run that was interrupted.
    proven: &'a mut UnpackedArchives,
    /// The archive whose chunks come.
    open: Option<(EntryPath, u16, u64)>,
    chunks: Vec<ChunkRef>,
    /// Archives that are unpacked now, and their bytes.
    unpacked: (u64, u64),
}

impl<'a> Improvement<'a> {
    fn begin(
        store: &'a Arc<Store>,
        app: &AppName,
        root: &'a Root,
        proven: &'a mut UnpackedArchives,
        bounds: &'a Bounds<'a>,
    ) -> Result<Self, Error> {
        let mut builder = Builder::new(root.profile);
        builder.folder_mode(root.totals.folder_mode());
        Ok(Self {
            store,
            root,
            bounds,
            begun: Instant::now(),
            // Before anything is looked up.
            taking: Taking::begin(store)?,
            builder,
            known: known(store, app),
            before: OlderArchives::before(store, app, &root.release()),
            proven,
            open: None,
            chunks: Vec::new(),
            unpacked: (0, 0),
        })
    }

    /// Makes the manifest and notes it; returns the archives that it unpacks, and their bytes.
    fn run(mut self) -> Result<(u64, u64), Error> {
        let mut reader = StoreReader::new(&**self.store);
        for item in Items::new(self.root, &mut reader) {
            match item? {
                Item::Chunk(chunk) if self.open.is_some() && self.chunks.len() < ARCHIVE_CHUNKS_MAX => {
                    self.chunks.push(chunk);
                }
                Item::Chunk(chunk) => {
                    self.leave_archive()?;
                    self.push(&Item::Chunk(chunk))?;
                }
                Item::File { path, mode, size, recipe: Recipe::Packed } => {
                    self.end_archive()?;
                    self.open = Some((path, mode, size));
                }
                item => {
                    self.end_archive()?;
                    self.push(&item)?;
                }
            }
        }
        self.end_archive()?;
        let Self { root, taking, builder, unpacked, .. } = self;
        taking.name(builder, root, ArchiveForm::Unpacked)?;
        Ok(unpacked)
    }

    fn push(&mut self, item: &Item) -> Result<(), Error> {
        match self.builder.push(item) {
            Some(Segment { bytes, .. }) => self.taking.take_manifest(vec![bytes]),
            None => Ok(()),
        }
    }

    /// Ends the archive whose chunks came: it is unpacked where that rebuilds it.
    fn end_archive(&mut self) -> Result<(), Error> {
        let Some((path, mode, size)) = self.open.take() else { return Ok(()) };
        if !(self.bounds.is_idle)() {
            return Err(Error::Stopping);
        }
        let packed = std::mem::take(&mut self.chunks);
        let content = ContentHasher::of(&packed);
        let mut unpacked = self.known.find(&content, self.store)?;
        if unpacked.is_none() {
            unpacked = self.proven.find(&content, self.store)?;
        }
        if unpacked.is_none() && size <= ARCHIVE_BYTES_MAX && self.begun.elapsed() < TIME_MAX {
            unpacked = self.unpack(&path, size, &packed, content)?;
        }
        let Some((container, chunks)) = unpacked else {
            (self.open, self.chunks) = (Some((path, mode, size)), packed);
            return self.leave_archive();
        };
        crash_points::point("improve.archive");
        self.unpacked = (self.unpacked.0 + 1, self.unpacked.1 + size);
        self.push(&Item::File { path, mode, size, recipe: Recipe::Container(container) })?;
        chunks.into_iter().try_for_each(|chunk| self.push(&Item::Chunk(chunk)))
    }

    /// Leaves the archive whose chunks came as it is.
    fn leave_archive(&mut self) -> Result<(), Error> {
        let Some((path, mode, size)) = self.open.take() else { return Ok(()) };
        self.push(&Item::File { path, mode, size, recipe: Recipe::Packed })?;
        let chunks = std::mem::take(&mut self.chunks);
        chunks.into_iter().try_for_each(|chunk| self.push(&Item::Chunk(chunk)))
    }

    /// Unpacks an archive and stores what it holds; none where that does not rebuild it.
    fn unpack(
        &mut self,
        path: &EntryPath,
        size: u64,
        packed: &[ChunkRef],
        content: ContentId,
    ) -> Result<Option<Unpacked>, Error> {
        let (scratch, reserve_bytes) = self.store.scratch()?;
        let folder = tempfile::tempdir_in(scratch).map_err(Error::Space)?;
        let copy = folder.path().join("archive");
        let mut reader = StoreReader::new(&**self.store);
        let mut file = BufWriter::new(File::create(&copy).map_err(Error::Space)?);
        let mut bytes = Vec::new();
        for chunk in packed {
            bytes.clear();
            reader.read(chunk, &mut bytes).map_err(crate::restore::Error::from)?;
            file.write_all(&bytes).map_err(Error::Space)?;
            self.taking.lease.renew();
        }
        file.flush().map_err(Error::Space)?;
        let stopping = self.bounds.stopping;
        let go_on = &mut || {
            self.taking.lease.renew();
            !stopping.load(Ordering::Relaxed)
        };
        let known = Arc::new(self.before.known_streams(path, self.store, go_on));
        let archives = Archives::leaving(folder.path().to_owned(), reserve_bytes).stopped_by(stopping);
        let archives = archives.knowing(known);
        let selection = Selection::everything();
        let scan = Reader {
            selection: &selection,
            profile: self.root.profile,
            threads: 1,
            memory: None,
            archives: Some(&archives),
            on_segment: None,
            monitor: &Silent,
        };
        let scan = scan.scan(&copy)?;
        if archives.lacked_room() {
            return Err(Error::Archive(path.clone()));
        }
        if stopping.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let (mut container, mut chunks) = (None, Vec::new());
        for (index, _) in format::manifest::SegmentIndex::enumerate(&scan.segments) {
            for item in decode_segment(&scan.spool.segment(index).map_err(crate::agent::scan::Error::from)?)?
            {
                match item {
                    Item::File { recipe, .. } => container = recipe.container(),
                    Item::Chunk(chunk) => chunks.push(chunk),
                    _ => {}
                }
            }
        }
        // Whoever pushed it may have cut it otherwise; then the release would get another name.
        let Some(container) = container.filter(|container| container.content == Some(content)) else {
            return Ok(None);
        };
        self.taking.take_content(&scan, || stopping.load(Ordering::Relaxed))?;
        let go_on = &mut || {
            self.taking.lease.renew();
            !stopping.load(Ordering::Relaxed)
        };
        let archive = crate::restore::Archive { path, size, container, chunks: &chunks };
        let found = self.before.most_like(archive, self.store, go_on);
        // From what is stored now, as whoever reads it will.
        let alive = &mut |_: Step<'_>| {
            self.taking.lease.renew();
            if stopping.load(Ordering::Relaxed) { Err(crate::restore::Error::Cancelled) } else { Ok(()) }
        };
        let older = found.as_ref().map(Found::older);
        match archive_proof::rebuild(archive, older, self.root.profile, &mut reader, alive) {
            Ok(Some(_)) => {
                self.proven.add(content, container, &chunks);
                Ok(Some((container, chunks)))
            }
            Ok(None) => Ok(None),
            Err(crate::restore::Error::Cancelled) => Err(Error::Stopping),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the archives that a recent release of an application has unpacked.
fn known(store: &Store, app: &AppName) -> UnpackedArchives {
    let mut known = UnpackedArchives::default();
    let mut reader = StoreReader::new(store);
    let recent = store.records().recent(app, RECENT_MAX).into_iter().collect::<HashSet<_>>();
    for root in recent.iter().filter_map(|release| store.unpacked(release)) {
        let Ok(root) = store.root_at(&root) else { continue };
        // What cannot be read is unpacked anew.
        let read = crate::restore::each_archive(&root, &mut reader, &mut |archive| {
            if let Some(content) = archive.container.content {
                known.add(content, archive.container, archive.chunks);
            }
            Ok(())
        });
        if let Err(error) = read {
            tracing::debug!(%error, "an earlier release cannot be read; its archives are unpacked again");
        }
    }
    known
}
