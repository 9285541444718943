//! Unpacks, while nobody uses the proxy, archives that crossed as they are: what is in them is then stored once, and later
//! pushes over slow links build on it.
//!
//! A release gets a second manifest, in which its archives are unpacked. Packed bytes of the current and the previous release
//! stay beside it, so that nobody who pulls or is delivered to waits for an encoder; those of earlier ones go. An improvement
//! that was interrupted is begun again, and finds what it had stored.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;
use std::time::Instant;

use super::archive_proof;
use super::taking::{Error, Taking};
use crate::agent::scan::{Archives, Reader, Selection};
use crate::restore::{ChunkReader as _, Items};
use crate::store::{ArchivesStored, Store, StoreReader};
use format::manifest::{Builder, EntryPath, Item, Root, Segment, decode_segment};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::ids::{AppName, ContentId, ReleaseId};
use ground::monitor::Silent;

/// 256 MiB: of a larger archive nobody could wait for the end.
const ARCHIVE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Chunk references of archives of an earlier release that are remembered: 36 MB.
const KNOWN_CHUNKS_MAX: usize = 1024 * 1024;
/// Releases of an application among which one is looked for that was improved.
const RECENT_MAX: usize = 4;

/// Improves the releases of a space that people see, while `is_idle`; returns how many it improved.
///
/// One archive at a time, on this thread: time some 5 MB of archives a second, memory as a scan's and 36 MB, disk twice an
/// archive's bytes beside the store, and what is new in it.
pub(super) fn improve(
    store: &Arc<Store>,
    pending: &[ReleaseId],
    is_idle: &dyn Fn() -> bool,
) -> Result<u64, Error> {
    let mut improved = 0;
    for summary in store.records().apps() {
        let app = summary.app;
        let standing = store.records().standing(&app);
        let mut seen: Vec<ReleaseId> = standing.current.into_iter().collect();
        if !seen.contains(&summary.latest.release) {
            seen.push(summary.latest.release);
        }
        for release in &seen {
            let Some(root) = store.packed_only(release).and_then(|id| store.root_at(&id).ok()) else {
                continue;
            };
            let begun = Instant::now();
            let (archives, bytes) = Improvement::begin(store, &app, &root, is_idle)?.run()?;
            let seconds = begun.elapsed().as_secs_f64();
            tracing::info!(%app, ?release, archives, bytes, seconds, "unpacked stored archives");
            improved += 1;
        }
        seen.extend(standing.previous);
        seen.extend(store.records().held(&app)?);
        seen.extend(pending);
        for pushed in store.records().pushed(&app)? {
            if !seen.contains(&pushed.release) && !store.records().is_pinned(&app, &pushed.release) {
                store.forget_packed(&pushed.release)?;
            }
        }
    }
    Ok(improved)
}

/// An archive, as it is stored unpacked.
type Unpacked = (Container, Vec<ChunkRef>);

/// The second manifest of one release, in the making.
struct Improvement<'a> {
    store: &'a Arc<Store>,
    root: &'a Root,
    is_idle: &'a dyn Fn() -> bool,
    taking: Taking<'a>,
    builder: Builder,
    /// Archives that an earlier release of the application has unpacked.
    known: HashMap<ContentId, Unpacked>,
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
        is_idle: &'a dyn Fn() -> bool,
    ) -> Result<Self, Error> {
        let mut builder = Builder::new(root.profile);
        builder.folder_mode(root.totals.folder_mode());
        Ok(Self {
            store,
            root,
            is_idle,
            taking: Taking::begin(store)?,
            builder,
            known: known(store, app),
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
                Item::Chunk(chunk) if self.open.is_some() => self.chunks.push(chunk),
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
        let Self { store, root, mut taking, builder, unpacked, .. } = self;
        let (last, made, segments) = builder.finish(root.shape)?;
        if let Some(last) = last {
            taking.take_manifest(vec![last.bytes])?;
        }
        taking.take_root(&made, segments)?;
        store.sync()?;
        if made.release() != root.release() {
            return Err(format::manifest::Error::OtherContent.into());
        }
        if !taking.lease.renew() {
            return Err(Error::Lapsed);
        }
        store.keep_root(&made, ArchivesStored::Unpacked)?;
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
        let packed = std::mem::take(&mut self.chunks);
        let unpacked = match self.known.get(&ContentHasher::of(&packed)) {
            Some(known) => Some(known.clone()),
            None if size > ARCHIVE_BYTES_MAX => None,
            None => self.unpack(&path, size, &packed)?,
        };
        let (recipe, chunks) = match unpacked {
            Some((container, chunks)) => {
                self.unpacked = (self.unpacked.0 + 1, self.unpacked.1 + size);
                (Recipe::Container(container), chunks)
            }
            None => (Recipe::Packed, packed),
        };
        self.push(&Item::File { path, mode, size, recipe })?;
        chunks.into_iter().try_for_each(|chunk| self.push(&Item::Chunk(chunk)))
    }

    /// Unpacks an archive and stores what it holds; none where that does not rebuild it.
    fn unpack(
        &mut self,
        path: &EntryPath,
        size: u64,
        packed: &[ChunkRef],
    ) -> Result<Option<Unpacked>, Error> {
        if !(self.is_idle)() {
            return Err(Error::Stopping);
        }
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
        let archives = Archives::leaving(folder.path().to_owned(), reserve_bytes);
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
        let Some(container) = container else { return Ok(None) };
        self.taking.take_content(&scan, || !(self.is_idle)())?;
        // From what is stored now, as whoever reads it will.
        let alive = &mut |_: &[u8]| {
            self.taking.lease.renew();
        };
        let archive = crate::restore::Archive { path, size, container, chunks: &chunks };
        let is_proven = archive_proof::is_rebuilt(archive, self.root.profile, &mut reader, alive)?;
        Ok(is_proven.then_some((container, chunks)))
    }
}

/// Returns the archives that a recent release of an application has unpacked.
fn known(store: &Store, app: &AppName) -> HashMap<ContentId, Unpacked> {
    let (mut known, mut chunks_left) = (HashMap::new(), KNOWN_CHUNKS_MAX);
    let mut reader = StoreReader::new(store);
    let recent = store.records().recent(app, RECENT_MAX).into_iter().collect::<HashSet<_>>();
    for root in recent.iter().filter_map(|release| store.unpacked(release)) {
        let Ok(root) = store.root_at(&root) else { continue };
        // What cannot be read is unpacked anew.
        let read = crate::restore::each_archive(&root, &mut reader, &mut |archive| {
            if let Some(content) = archive.container.content
                && let Some(left) = chunks_left.checked_sub(archive.chunks.len())
            {
                chunks_left = left;
                known.insert(content, (archive.container, archive.chunks.to_vec()));
            }
            Ok(())
        });
        if let Err(error) = read {
            tracing::debug!(%error, "an earlier release cannot be read; its archives are unpacked again");
        }
    }
    known
}
