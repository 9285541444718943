//! Rebuilds the new archives of a release before it is acknowledged.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::restore::{Archive, ChunkReader, ChunkSource, Error, each_archive, write_archive};
use crate::store::{ArchivesStored, FaultInjection, Store, StoreReader};
use format::chunking::{Cutter, Profile};
use format::manifest::{EntryPath, Root};
use format::recipe::{ChunkRef, ContentHasher};
use ground::ids::ReleaseId;
use ground::poison::Unpoisoned as _;
use recode::codec::Permits;

/// The result of a proof.
#[derive(Debug)]
pub struct Proof {
    /// Archives that were rebuilt.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first that became something else.
    pub failed: Option<EntryPath>,
    /// How the release's archives are stored.
    pub stored: ArchivesStored,
}

/// Checks the whole manifest, and rebuilds each unpacked archive that the release `latest` does not have.
///
/// `alone` is locked while an archive is rebuilt, which keeps one processor busy; `alive` is called regularly; rebuilt
/// archives are stored for deliveries if `keep` says so. Memory: 32 B for each archive of the two releases, and one
/// archive's chunks. Time: that of encoding the streams, some 30 MB/s, 3 to 5 for xz and high levels of zstd, whose
/// encoder takes up to 220 MiB.
///
/// # Errors
/// A damaged manifest, or a chunk that cannot be read.
pub fn prove(
    store: &Store,
    root: &Root,
    latest: Option<&ReleaseId>,
    alone: &Mutex<()>,
    keep: bool,
    alive: &mut dyn FnMut(),
) -> Result<Proof, Error> {
    let mut proof = Proof { archives: 0, bytes: 0, failed: None, stored: ArchivesStored::Packed };
    // Read once the first archive is met.
    let mut known: Option<HashSet<blake3::Hash>> = None;
    let (mut reader, mut chunk_reader) = (StoreReader::new(store), StoreReader::new(store));
    let each = &mut |archive: Archive<'_>| {
        let Archive { path, size, container, .. } = archive;
        proof.stored = ArchivesStored::Unpacked;
        let known =
            known.get_or_insert_with(|| latest.map(|latest| archives_of(store, latest)).unwrap_or_default());
        if proof.failed.is_some() || !known.insert(fingerprint(archive)) {
            return Ok(());
        }
        let _alone = alone.lock().unpoisoned();
        proof.archives += 1;
        proof.bytes += size;
        let cache = store.rebuilt().filter(|_| keep);
        let mut keeping = cache.and_then(|cache| cache.keep(&container.artifact, size));
        let is_rebuilt = is_rebuilt(archive, root.profile, &mut chunk_reader, &mut |bytes| {
            alive();
            if let Some(keeping) = &mut keeping {
                keeping.write(bytes);
            }
            Ok(())
        })?;
        if !is_rebuilt || store.injects(FaultInjection::OtherArchives) {
            proof.failed = Some(path.clone());
        } else if let Some(keeping) = keeping {
            keeping.end();
        }
        Ok(())
    };
    each_archive(root, &mut reader, each)?;
    Ok(proof)
}

/// Rebuilds an archive, whose bytes `take` sees; returns whether it is what its recipe says.
///
/// # Errors
/// A chunk that cannot be read; the first of `take`.
pub fn is_rebuilt(
    archive: Archive<'_>,
    profile: Profile,
    reader: &mut dyn ChunkReader,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<bool, Error> {
    let (mut cutter, mut content) = (Cutter::new(profile), ContentHasher::default());
    let mut add = |chunk: &[u8]| content.push(&ChunkRef::of(chunk));
    let rebuilt = write_archive(archive, reader, &Permits::default(), &mut |bytes| {
        take(bytes)?;
        cutter.push(bytes, &mut add);
        Ok(())
    });
    cutter.finish(&mut add);
    match rebuilt {
        Ok(()) => Ok(archive.container.content.is_none_or(|named| named == content.finish())),
        Err(Error::OtherArtifact(_) | Error::Plan { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the unpacked archives of a release; none where it cannot be read.
fn archives_of(store: &Store, release: &ReleaseId) -> HashSet<blake3::Hash> {
    let mut known = HashSet::new();
    for root in store.records().roots(release).unwrap_or_default() {
        let Ok(root) = store.root_at(&root) else { continue };
        let mut found = Vec::new();
        let each = &mut |archive: Archive<'_>| {
            found.push(fingerprint(archive));
            Ok(())
        };
        if each_archive(&root, &mut StoreReader::new(store), each).is_ok() {
            known.extend(found);
        }
    }
    known
}

/// Hashes the inputs that decide what an archive is rebuilt to.
fn fingerprint(archive: Archive<'_>) -> blake3::Hash {
    let Archive { size, container, chunks, .. } = archive;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&container.stream_bytes.to_le_bytes());
    hasher.update(container.artifact.as_bytes());
    if let Some(content) = container.content {
        hasher.update(content.as_bytes());
    }
    for chunk in chunks {
        hasher.update(chunk.id.as_bytes());
    }
    hasher.finalize()
}
