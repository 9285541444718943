//! Rebuilds the new archives of a release before it is acknowledged.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::ids::ReleaseId;
use crate::manifest::{EntryPath, Item, Root};
use crate::reassembly::{self, Archive, Error, write_archive};
use crate::recipe::{ChunkRef, Container};
use crate::store::{Store, StoreReader};

/// What came of a proof.
#[derive(Debug, Default)]
pub struct Proof {
    /// Archives that were rebuilt.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first that became something else.
    pub failed: Option<EntryPath>,
}

/// Checks the whole manifest, and rebuilds each archive that the release `latest` does not have.
///
/// `alone` is held while an archive is rebuilt, which keeps one processor busy; `alive` is called again and again. Memory: 32 B for each archive of the two releases, and one archive's
/// chunks. Time: what encoding the streams takes, some 30 MB/s.
///
/// # Errors
/// A damaged manifest, or a chunk that cannot be had.
pub fn prove(
    store: &Store,
    root: &Root,
    latest: Option<&ReleaseId>,
    alone: &Mutex<()>,
    alive: &mut dyn FnMut(),
) -> Result<Proof, Error> {
    let mut proof = Proof::default();
    // Read once the first archive is met.
    let mut known: Option<HashSet<blake3::Hash>> = None;
    let (mut reader, mut chunk_reader) = (StoreReader::new(store), StoreReader::new(store));
    let each = &mut |path: &EntryPath, size: u64, container: Container, chunks: &[ChunkRef]| {
        let known =
            known.get_or_insert_with(|| latest.map(|latest| archives_of(store, latest)).unwrap_or_default());
        if proof.failed.is_some() || !known.insert(fingerprint(size, container, chunks)) {
            return Ok(());
        }
        let _alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
        proof.archives += 1;
        proof.bytes += size;
        let archive = Archive { path, size, container, chunks };
        let rebuilt = write_archive(archive, &mut chunk_reader, &mut |_| {
            alive();
            Ok(())
        });
        match rebuilt {
            Err(Error::OtherArtifact(path) | Error::Plan { path, .. }) => proof.failed = Some(path),
            other => other?,
        }
        Ok(())
    };
    each_archive(root, &mut reader, each)?;
    Ok(proof)
}

/// The archives of a release; none where it cannot be read.
fn archives_of(store: &Store, release: &ReleaseId) -> HashSet<blake3::Hash> {
    let mut known = HashSet::new();
    let Ok(root) = store.root(release) else { return known };
    let each = &mut |_: &EntryPath, size: u64, container: Container, chunks: &[ChunkRef]| {
        known.insert(fingerprint(size, container, chunks));
        Ok(())
    };
    match each_archive(&root, &mut StoreReader::new(store), each) {
        Ok(()) => known,
        Err(_) => HashSet::new(),
    }
}

/// What decides what an archive is rebuilt as.
fn fingerprint(size: u64, container: Container, chunks: &[ChunkRef]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&container.stream_bytes.to_le_bytes());
    hasher.update(container.artifact.as_bytes());
    for chunk in chunks {
        hasher.update(chunk.id.as_bytes());
    }
    hasher.finalize()
}

/// Takes an archive: its path, size and container, and its chunks.
type EachArchive<'a> = dyn FnMut(&EntryPath, u64, Container, &[ChunkRef]) -> Result<(), Error> + 'a;

/// Hands over each archive of a release with its chunks.
fn each_archive(
    root: &Root,
    reader: &mut StoreReader<&Store>,
    each: &mut EachArchive<'_>,
) -> Result<(), Error> {
    let mut open: Option<(EntryPath, u64, Container)> = None;
    let mut chunks = Vec::new();
    let mut end = |open: &mut Option<(EntryPath, u64, Container)>, chunks: &mut Vec<ChunkRef>| {
        if let Some((path, size, container)) = open.take() {
            each(&path, size, container, chunks)?;
            chunks.clear();
        }
        Ok::<(), Error>(())
    };
    reassembly::walk::<Error>(root, reader, &mut |item| {
        if let Item::Chunk(chunk) = item {
            if open.is_some() {
                chunks.push(chunk);
            }
            return Ok(());
        }
        end(&mut open, &mut chunks)?;
        if let Item::File { path, size, recipe, .. } = item {
            open = recipe.container().map(|container| (path, size, container));
        }
        Ok(())
    })?;
    end(&mut open, &mut chunks)
}
