//! Finds the manifests of releases again whose list is damaged or gone (FORMAT 4.4).

use std::collections::HashSet;
use std::sync::Mutex;

use super::archive_proof;
use crate::restore;
use crate::store::{self, ArchiveForm, Store};
use format::maintenance::Incomplete;
use ground::ids::ReleaseId;

/// Looks for roots of the releases that cannot be read, and notes those that it proves; returns their number.
///
/// Anybody may have pushed a root that claims to be a release's. So each manifest is read, and its archives are rebuilt: time
/// some 30 MB/s, under a lease.
///
/// # Errors
/// The index's; the ledger's.
pub(super) fn find(store: &Store, incomplete: &[Incomplete], heavy_work: &Mutex<()>) -> store::Result<u64> {
    let unreadable = incomplete.iter().filter(|incomplete| incomplete.missing_chunks.is_none());
    let lost: HashSet<ReleaseId> =
        unreadable.map(|incomplete| incomplete.release).filter(|release| !store.has_root(release)).collect();
    if lost.is_empty() {
        return Ok(0);
    }
    let lease = store.lease()?;
    let mut roots = Vec::new();
    for root in store.find_roots(&lost)? {
        roots.push((!store.holds_manifest(&root.id())?, root));
    }
    // Those that the store has all of come first.
    roots.sort_by_key(|(lacks, root)| (*lacks, root.id()));
    let (mut found, mut named) = (0, HashSet::new());
    for (lacks, root) in roots {
        let is_named = |form: &(ReleaseId, bool)| form.0 == root.release();
        if lacks && named.iter().any(is_named) {
            continue;
        }
        let alive = &mut || {
            lease.renew();
        };
        match archive_proof::prove(store, &root, None, heavy_work, false, alive) {
            Ok(proof) if proof.failed.is_none() => {
                let form = (root.release(), proof.stored == ArchiveForm::Packed);
                if named.insert(form) {
                    store.keep_root(&root, proof.stored)?;
                    tracing::warn!(release = ?root.release(), root = %root.id(), "found a release's manifest again");
                    found += 1;
                }
            }
            Ok(_) => {}
            Err(error) => log(&error, &root.release()),
        }
    }
    Ok(found)
}

fn log(error: &restore::Error, release: &ReleaseId) {
    tracing::warn!(?release, %error, "what may be a release's manifest cannot be read");
}
