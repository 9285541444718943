//! Rebuilds the new archives of a release before it is acknowledged.

use std::sync::Mutex;

use super::older_archives::{Found, OlderArchives};
use crate::restore::{
    Archive, ChunkReader, ChunkSource, Error, Older, Step, each_archive, write_archive_copying,
};
use crate::store::{ArchiveForm, FaultInjection, Store, StoreReader};
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
    /// Those of streams that were copied from archives of the latest release.
    pub copied: u64,
    /// The first that became something else.
    pub failed: Option<EntryPath>,
    /// How the release's archives are stored.
    pub stored: ArchiveForm,
}

/// Checks the whole manifest, and rebuilds each unpacked archive that the release `latest` does not have.
///
/// A stream that an archive of `latest` has too is copied: that archive was proven, its packed bytes are verified, and decoding it shows
/// where the stream lies in them, so that encoding would give the same. Of an archive that has little of it nothing is copied.
///
/// `alone` is locked while an archive is rebuilt, which keeps one processor busy; `alive` is called regularly; rebuilt
/// archives are stored for deliveries if `keep` says so. Memory: 32 B for each archive of the two releases, 70 B for each chunk of
/// those of `latest`, within a bound, and one archive's chunks. Time: that of encoding the streams that are new, some 30 MB/s, 3 to 5 for
/// xz and high levels of zstd, whose encoder takes up to 220 MiB; that of decoding the others.
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
    let mut proof = Proof { archives: 0, bytes: 0, copied: 0, failed: None, stored: ArchiveForm::Packed };
    // Read once the first archive is met.
    let mut known: Option<OlderArchives> = None;
    let (mut reader, mut chunk_reader) = (StoreReader::new(store), StoreReader::new(store));
    let each = &mut |archive: Archive<'_>| {
        let Archive { path, size, container, .. } = archive;
        proof.stored = ArchiveForm::Unpacked;
        let known = known
            .get_or_insert_with(|| latest.map(|latest| OlderArchives::of(store, latest)).unwrap_or_default());
        if proof.failed.is_some() || known.has(archive) {
            return Ok(());
        }
        let _alone = alone.lock().unpoisoned();
        proof.archives += 1;
        proof.bytes += size;
        let cache = store.rebuilt().filter(|_| keep);
        let keep = || cache.and_then(|cache| cache.keep(&container.artifact, size));
        let mut keeping = keep();
        let found = known.most_like(archive, store, &mut || {
            alive();
            true
        });
        let older = found.as_ref().map(Found::older);
        let copied = rebuild(archive, older, root.profile, &mut chunk_reader, &mut |step| {
            alive();
            match (step, &mut keeping) {
                (Step::Bytes(bytes), Some(keeping)) => keeping.write(bytes),
                (Step::Bytes(_), None) | (Step::Searching, _) => {}
                (Step::Anew, _) => keeping = keep(),
            }
            Ok(())
        })?;
        proof.copied += copied.unwrap_or(0);
        if copied.is_none() || store.injects(FaultInjection::OtherArchives) {
            proof.failed = Some(path.clone());
        } else if let Some(keeping) = keeping {
            keeping.end();
        }
        Ok(())
    };
    each_archive(root, &mut reader, each)?;
    Ok(proof)
}

/// Rebuilds an archive, whose bytes `take` sees, with what it has of `older`. Returns the bytes that were copied; none where it is not
/// what its recipe says.
///
/// # Errors
/// A chunk that cannot be read; the first of `take`.
pub fn rebuild(
    archive: Archive<'_>,
    older: Option<Older<'_>>,
    profile: Profile,
    reader: &mut dyn ChunkReader,
    take: &mut dyn FnMut(Step<'_>) -> Result<(), Error>,
) -> Result<Option<u64>, Error> {
    let (mut cutter, mut content) = (Cutter::new(profile), ContentHasher::default());
    let rebuilt = write_archive_copying(archive, older, reader, &Permits::default(), &mut |step| {
        match step {
            Step::Bytes(bytes) => cutter.push(bytes, &mut |chunk| content.push(&ChunkRef::of(chunk))),
            Step::Anew => (cutter, content) = (Cutter::new(profile), ContentHasher::default()),
            Step::Searching => {}
        }
        take(step)
    });
    cutter.finish(&mut |chunk| content.push(&ChunkRef::of(chunk)));
    match rebuilt {
        Ok(copied) => {
            let is_named = archive.container.content.is_none_or(|named| named == content.finish());
            Ok(is_named.then_some(copied))
        }
        Err(Error::OtherArtifact(_) | Error::Plan { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::agent::scan::{Archives, Reader, Selection};
    use crate::proxy::packing;
    use crate::proxy::taking::Taking;
    use crate::restore::{gzips, noise, write_file};
    use crate::store::Options;
    use ground::monitor::Silent;

    /// An archive, of which only one member depends on the build; noise, so that the packed forms are as long as the plain ones.
    fn archive(build: u64) -> Vec<u8> {
        gzips(
            &[1, 2, 100 + build, 3].map(|seed| noise(seed, 400_000).iter().map(|byte| byte % 128).collect()),
        )
    }

    /// Stores a tree with the archive of a build, unpacked.
    fn store_build(store: &Store, folder: &Path, build: u64) -> Root {
        store_archive(store, folder, &format!("app-{build}.gz"), &archive(build))
    }

    /// Stores a tree with this archive, unpacked.
    fn store_archive(store: &Store, folder: &Path, name: &str, archive: &[u8]) -> Root {
        let tree = folder.join(name.trim_end_matches(".gz"));
        fs::create_dir(&tree).expect("made");
        fs::write(tree.join(name), archive).expect("written");
        let archives = Archives::new(folder.to_owned());
        let reader = Reader {
            selection: &Selection::everything(),
            profile: Profile::DEFAULT,
            threads: 1,
            memory: None,
            archives: Some(&archives),
            on_segment: None,
            monitor: &Silent,
        };
        let scan = reader.scan(&tree).expect("scanned");
        Taking::begin(store).and_then(|mut taking| taking.take(&scan, || false)).expect("stored");
        store.sync().expect("synced");
        store.keep_root(&scan.root, ArchiveForm::Unpacked).expect("noted");
        scan.root
    }

    fn proof(store: &Store, root: &Root, latest: Option<&Root>, keep: bool) -> Proof {
        let latest = latest.map(Root::release);
        prove(store, root, latest.as_ref(), &Mutex::default(), keep, &mut || {}).expect("read")
    }

    /// Changes a byte in a hundred of what is packed there.
    fn damage(file: &Path) {
        let open = fs::OpenOptions::new().write(true).open(file).expect("opened");
        let length = open.metadata().expect("there").len();
        for at in (1000..length).step_by(100) {
            open.write_all_at(&[7], at).expect("written");
        }
    }

    #[test]
    fn an_archive_that_shares_little_with_a_large_one_is_encoded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store"), Options::default()).expect("a store");
        let member = |seed, bytes| noise(seed, bytes).iter().map(|byte| byte % 128).collect::<Vec<u8>>();
        let old = gzips(&[member(1, 200_000), member(2, 200_000), member(3, 1_300_000)]);
        let old = store_archive(&store, folder.path(), "old.gz", &old);
        assert_eq!(proof(&store, &old, None, true).archives, 1);
        let small = gzips(&[member(1, 200_000)]);
        let small = store_archive(&store, folder.path(), "small.gz", &small);
        assert_eq!(proof(&store, &small, Some(&old), false).copied, 0);
        let larger = gzips(&[member(1, 200_000), member(2, 200_000)]);
        let larger = store_archive(&store, folder.path(), "larger.gz", &larger);
        assert!(proof(&store, &larger, Some(&old), false).copied > 300_000);
    }

    #[test]
    fn members_that_did_not_change_are_copied_from_the_latest_release_and_damage_costs_time_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store"), Options::default()).expect("a store");
        let store = Arc::new(store);
        let [old, new] = [0, 1].map(|build| store_build(&store, folder.path(), build));
        let path = EntryPath::new("app-1.gz").expect("a path");
        let is_right = |proof: Proof| (proof.archives, proof.failed.is_some(), proof.copied > 700_000);
        // Nothing is at hand yet.
        assert_eq!(is_right(proof(&store, &new, Some(&old), false)), (1, false, false));
        assert_eq!(is_right(proof(&store, &old, None, true)), (1, false, false));
        assert_eq!(is_right(proof(&store, &new, Some(&old), false)), (1, false, true));
        let kept = fs::read_dir(folder.path().join("store/rebuilt")).expect("a folder").next();
        damage(&kept.expect("one archive").expect("an entry").path());
        assert_eq!(is_right(proof(&store, &new, Some(&old), false)), (1, false, false));
        // Its packed bytes; those of the newer one are the same, however they are made.
        packing::pack(&store, &old, &OlderArchives::default(), &|| true, &false.into()).expect("packed");
        assert_eq!(is_right(proof(&store, &new, Some(&old), false)), (1, false, true));
        let before = OlderArchives::of(&store, &old.release());
        packing::pack(&store, &new, &before, &|| true, &false.into()).expect("packed");
        assert_eq!(store.records().roots(&new.release()).expect("listed").len(), 2);
        let mut packed = Vec::new();
        write_file(&store.root(&new.release()).expect("read"), &*store, Some(&path), &mut packed)
            .expect("read");
        assert!(packed == archive(1));
    }
}
