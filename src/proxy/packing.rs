//! Makes, while nobody uses the proxy, the packed bytes of archives that crossed unpacked: whoever pulls the release, or goes back to
//! it, then waits for no encoder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::older_archives::{Found, OlderArchives};
use super::taking::{Error, Taking};
use crate::restore::{self, Archive, Items, Step, write_archive_copying};
use crate::store::{ArchiveForm, Store, StoreReader};
use disk::crash_points;
use format::chunking::Cutter;
use format::manifest::{Builder, EntryPath, Item, Root, Segment};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use recode::codec::Permits;

/// 1 MiB: chunks that are stored at a time.
const BATCH_BYTES: usize = 1024 * 1024;

/// Makes the manifest of a release that has all archives as they are, from the one with this root, and notes it; returns the archives
/// that it packs, and their bytes. Ends at the next archive when the proxy is not idle, and soon when it stops.
///
/// Streams that an archive of the release `before` has too are copied.
///
/// Time: that of encoding the others, some 30 MB/s. Memory: 7 MB, and one archive's chunk references.
///
/// # Errors
/// [`Error::Stopping`]; a chunk that cannot be read, an archive that is not what its recipe says; the disk's.
pub(super) fn pack(
    store: &Arc<Store>,
    root: &Root,
    before: &OlderArchives,
    is_idle: &dyn Fn() -> bool,
    stopping: &AtomicBool,
) -> Result<(u64, u64), Error> {
    let mut builder = Builder::new(root.profile);
    builder.folder_mode(root.totals.folder_mode());
    // The lease comes before anything is looked up.
    let taking = Taking::begin(store)?;
    let mut packing = Packing { store, root, before, is_idle, stopping, taking, builder, packed: (0, 0) };
    let (mut reader, mut content) = (StoreReader::new(&**store), StoreReader::new(&**store));
    let mut open: Option<(EntryPath, u16, u64, Container)> = None;
    let mut chunks = Vec::new();
    for item in Items::new(root, &mut reader) {
        match item? {
            Item::Chunk(chunk) if open.is_some() => chunks.push(chunk),
            item => {
                if let Some((path, mode, size, container)) = open.take() {
                    let archive = Archive { path: &path, size, container, chunks: &chunks };
                    packing.archive(archive, mode, &mut content)?;
                    chunks.clear();
                }
                match item {
                    Item::File { path, mode, size, recipe: Recipe::Container(container) } => {
                        open = Some((path, mode, size, container));
                    }
                    item => packing.push(&item)?,
                }
            }
        }
    }
    if let Some((path, mode, size, container)) = open {
        packing.archive(Archive { path: &path, size, container, chunks: &chunks }, mode, &mut content)?;
    }
    let Packing { taking, builder, packed, .. } = packing;
    taking.name(builder, root, ArchiveForm::Packed)?;
    Ok(packed)
}

/// The packed manifest of one release, in the making.
struct Packing<'a> {
    store: &'a Store,
    root: &'a Root,
    before: &'a OlderArchives,
    is_idle: &'a dyn Fn() -> bool,
    stopping: &'a AtomicBool,
    taking: Taking<'a>,
    builder: Builder,
    /// Archives that were packed, and their bytes.
    packed: (u64, u64),
}

impl Packing<'_> {
    fn push(&mut self, item: &Item) -> Result<(), Error> {
        match self.builder.push(item) {
            Some(Segment { bytes, .. }) => self.taking.take_manifest(vec![bytes]),
            None => Ok(()),
        }
    }

    /// Packs an archive, stores its bytes and lists them.
    fn archive(
        &mut self,
        archive: Archive<'_>,
        mode: u16,
        reader: &mut StoreReader<&Store>,
    ) -> Result<(), Error> {
        if !(self.is_idle)() {
            return Err(Error::Stopping);
        }
        let mut cutter = Cutter::new(self.root.profile);
        let (mut listed, mut batch, mut batch_bytes) = (Vec::new(), Vec::new(), 0);
        let (taking, stopping) = (&mut self.taking, self.stopping);
        let mut failure = None;
        let found = self.before.most_like(archive, self.store, &mut || {
            taking.lease.renew();
            !stopping.load(Ordering::Relaxed)
        });
        let older = found.as_ref().map(Found::older);
        let profile = self.root.profile;
        let written = write_archive_copying(archive, older, reader, &Permits::default(), &mut |step| {
            match step {
                Step::Bytes(bytes) => cutter.push(bytes, &mut |chunk| {
                    listed.push(ChunkRef::of(chunk));
                    batch_bytes += chunk.len();
                    batch.push(chunk.to_vec());
                }),
                Step::Anew => {
                    // What was stored of it goes when the store collects.
                    (cutter, batch_bytes) = (Cutter::new(profile), 0);
                    listed.clear();
                    batch.clear();
                }
                Step::Searching => {
                    taking.lease.renew();
                }
            }
            let kept = if stopping.load(Ordering::Relaxed) {
                Err(Error::Stopping)
            } else if batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                taking.lease.renew();
                taking.take_chunks(std::mem::take(&mut batch))
            } else {
                Ok(())
            };
            kept.map_err(|error| {
                failure = Some(error);
                restore::Error::Cancelled
            })
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        written?;
        cutter.finish(&mut |chunk| {
            listed.push(ChunkRef::of(chunk));
            batch.push(chunk.to_vec());
        });
        self.taking.take_chunks(batch)?;
        if archive.container.content != Some(ContentHasher::of(&listed)) {
            return Err(restore::Error::OtherArtifact(archive.path.clone()).into());
        }
        crash_points::point("improve.archive");
        self.packed = (self.packed.0 + 1, self.packed.1 + archive.size);
        let (path, size) = (archive.path.clone(), archive.size);
        self.push(&Item::File { path, mode, size, recipe: Recipe::Packed })?;
        listed.into_iter().try_for_each(|chunk| self.push(&Item::Chunk(chunk)))
    }
}
