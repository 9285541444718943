//! A folder that shows one release at a time.
//!
//! `PATH/current` is a relative link to a complete copy. Whoever opens files through it sees the old
//! release or the new one, and whoever has resolved it once keeps a whole copy, as the one just left is
//! never removed. Copies are never changed after they are complete: a damaged one is replaced by another.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::{self, Layout, Slot};
use crate::restore::{
    self, ChunkSource, OutsideLinks, Previous, Reuse, TreeOptions, looks_complete, write_tree,
};
use disk::files;
use format::manifest::{self, Root};
use ground::ids::ReleaseId;
use ground::monitor::Monitor;

/// Copies kept unless told otherwise: the current one and two to go back to.
const KEEP_DEFAULT: usize = 3;

/// A directory destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The folder; created with its first release.
    pub path: PathBuf,
    /// Copies kept, the current one included. The one just left is kept in any case.
    pub keep: usize,
    /// How unchanged files of the current copy are used again.
    pub reuse: Reuse,
    /// How to treat links that lead outside a release.
    pub outside_links: OutsideLinks,
}

/// What a delivery did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The folder that holds the complete copy.
    pub path: PathBuf,
    /// Files of the release.
    pub files: u64,
    /// Bytes of the release.
    pub bytes: u64,
    /// Bytes that came from an earlier copy; all of them where the release was already there.
    pub reused_bytes: u64,
    /// Whether the release was current before, so that nothing was done.
    pub already: bool,
}

impl Directory {
    /// A destination at `path` with the default number of copies, independent of each other.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (reuse, outside_links) = (Reuse::default(), OutsideLinks::default());
        Self { path: path.into(), keep: KEEP_DEFAULT, reuse, outside_links }
    }

    /// The release that readers see; none before the first delivery.
    ///
    /// # Errors
    /// The link cannot be read, or something else is in its place.
    pub fn current(&self) -> Result<Option<ReleaseId>, Error> {
        Ok(layout::current(&self.path)?.map(|slot| slot.release))
    }

    /// Returns the complete copies of a release that are kept here: the one that readers see first, then the newest. They
    /// may have been changed since they were delivered.
    pub fn copies(&self, release: &ReleaseId) -> Vec<PathBuf> {
        layout::copies(&self.path, release)
    }

    /// Makes `release`, whose root is `root`, the current one.
    ///
    /// Where it is already current and complete by names, sizes and modes, nothing is done. Otherwise a
    /// new copy is written in any case, from a kept copy of the same release or the current one as far
    /// as their bytes are right (`previous_root` gives the roots of earlier releases), so that nothing
    /// an application changed in its folder comes back.
    ///
    /// # Errors
    /// Readers still see what they saw before, and nothing of the new copy is left.
    pub fn deliver(
        &self,
        release: &ReleaseId,
        root: &Root,
        source: &dyn ChunkSource,
        previous_root: &dyn Fn(&ReleaseId) -> Option<Root>,
        monitor: &dyn Monitor,
        cancelled: Option<&AtomicBool>,
    ) -> Result<Delivered, Error> {
        check_release(release, root)?;
        let layout = Layout::open(&self.path)?;
        let left = layout::current(&self.path)?;
        if let Some(current) = left.filter(|slot| slot.release == *release) {
            let folder = layout.folder(current);
            if looks_complete(root, source, &folder)? {
                // The delivery before may have been killed before its last sync.
                files::sync_folder(&self.path)?;
                let (files, bytes) = (root.totals.files, root.totals.bytes);
                return Ok(Delivered { path: folder, files, bytes, reused_bytes: bytes, already: true });
            }
            monitor.note("the current copy has changed since it was delivered: it is replaced");
        }

        let kept = layout.slots()?.into_iter().find(|slot| slot.release == *release);
        let basis = kept.map(|slot| (slot, Some(root.clone())));
        let basis = basis.or_else(|| left.map(|slot| (slot, previous_root(&slot.release))));
        let basis = basis.and_then(|(slot, root)| root.map(|root| (layout.folder(slot), root)));
        let previous = basis.as_ref().map(|(folder, root)| Previous { folder, root });
        let (reuse, outside_links) = (self.reuse, self.outside_links);
        let options = TreeOptions { previous, reuse, cancelled, outside_links, ..TreeOptions::default() };

        let staging = layout.staging(*release);
        let written = write_tree(root, source, &staging, &options, monitor)?;
        let slot = layout.publish(&staging, *release)?;
        layout.switch(slot)?;
        self.remove_old(&layout, slot, left, monitor);
        Ok(Delivered {
            path: layout.folder(slot),
            files: written.files,
            bytes: written.bytes,
            reused_bytes: written.reused_bytes,
            already: false,
        })
    }

    /// Removes all but the newest copies; a failure is told and tried again by the next delivery.
    fn remove_old(&self, layout: &Layout<'_>, current: Slot, left: Option<Slot>, monitor: &dyn Monitor) {
        let protected = |slot: &Slot| *slot == current || Some(*slot) == left;
        let kept = |error| monitor.note(&format!("an old copy was not removed: {error}"));
        let slots = layout.slots().map_err(kept).unwrap_or_default();
        let room = self.keep.saturating_sub(slots.iter().filter(|slot| protected(slot)).count());
        for slot in slots.into_iter().filter(|slot| !protected(slot)).skip(room) {
            // A copy that cannot be removed does not keep the others.
            layout.remove(slot).unwrap_or_else(kept);
        }
    }
}

fn check_release(release: &ReleaseId, root: &Root) -> Result<(), Error> {
    let (expected, found) = ((*release).into(), root.release().into());
    if expected == found {
        Ok(())
    } else {
        Err(restore::Error::from(manifest::Error::OtherRoot { expected, found }).into())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::restore::{Entry, MemorySource, noise, one_of_each, read_tree, sorted};
    use disk::files::Lock;
    use format::manifest::Shape;
    use ground::faults::{Fault, Faulty};
    use ground::monitor::Silent;

    /// A destination, a source, and the releases made so far.
    struct Bench {
        folder: tempfile::TempDir,
        source: MemorySource,
        roots: RefCell<Vec<Root>>,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            Self { folder, source: MemorySource::default(), roots: RefCell::default() }
        }

        fn directory(&self) -> Directory {
            Directory::new(self.folder.path().join("app"))
        }

        /// One release after another: something of each kind, and a file that differs.
        fn entries(version: u64) -> Vec<Entry> {
            let mut entries = one_of_each();
            entries.push(Entry::file("version", 0o644, version.to_string()));
            entries
        }

        fn root(&mut self, version: u64) -> Root {
            let root = self.source.release(Shape::Tree, &Self::entries(version));
            self.roots.borrow_mut().push(root.clone());
            root
        }

        fn deliver(&self, directory: &Directory, root: &Root) -> Result<Delivered, Error> {
            let known =
                |id: &ReleaseId| self.roots.borrow().iter().find(|root| root.release() == *id).cloned();
            directory.deliver(&root.release(), root, &self.source, &known, &Silent, None)
        }
    }

    fn shown(directory: &Directory) -> Vec<Entry> {
        read_tree(&fs::canonicalize(directory.path.join("current")).expect("there is a current release"))
    }

    fn count(folder: &Path) -> usize {
        fs::read_dir(folder).expect("a folder").count()
    }

    #[test]
    fn the_first_delivery_makes_the_folder_and_a_complete_copy() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        assert_eq!(directory.current().expect("nothing is in the way"), None);
        let delivered = bench.deliver(&directory, &root).expect("delivered");
        assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
        assert_eq!((delivered.files, delivered.already), (6, false));
        assert_eq!(directory.current().expect("a link"), Some(root.release()));
        let link = fs::read_link(directory.path.join("current")).expect("a link");
        assert_eq!(link, Path::new("releases").join(root.release().to_string()));
        assert_eq!(count(&directory.path.join(".whit")), 1, "only the lock");
    }

    #[test]
    fn a_second_delivery_of_the_same_release_does_nothing() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        let first = bench.deliver(&directory, &root).expect("delivered");
        let inode = || fs::metadata(directory.path.join("current")).expect("a copy").ino();
        let (before, _) = (inode(), bench.source.content_reads());
        let second = bench.deliver(&directory, &root).expect("delivered");
        assert_eq!(second, Delivered { already: true, reused_bytes: first.bytes, ..first });
        assert_eq!((inode(), bench.source.content_reads()), (before, 0));
    }

    #[test]
    fn the_next_release_reads_only_what_changed() {
        let mut bench = Bench::new();
        let (directory, old, new) = (bench.directory(), bench.root(1), bench.root(2));
        bench.deliver(&directory, &old).expect("delivered");
        bench.source.content_reads();
        let delivered = bench.deliver(&directory, &new).expect("delivered");
        assert_eq!((delivered.bytes - delivered.reused_bytes, bench.source.content_reads()), (1, 1));
        assert_eq!(shown(&directory), sorted(&Bench::entries(2)));
    }

    #[test]
    fn a_current_copy_that_was_changed_is_replaced_and_left_as_it_is() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        let first = bench.deliver(&directory, &root).expect("delivered");
        fs::remove_file(first.path.join("README")).expect("removed");
        let second = bench.deliver(&directory, &root).expect("delivered");
        assert!(!second.already && second.path != first.path);
        assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
        assert!(!first.path.join("README").exists(), "a copy that someone may have open is not touched");
    }

    #[test]
    fn going_back_to_a_kept_release_undoes_what_was_changed_in_it() {
        let mut bench = Bench::new();
        let (directory, old, new) = (bench.directory(), bench.root(1), bench.root(2));
        let first = bench.deliver(&directory, &old).expect("delivered");
        bench.deliver(&directory, &new).expect("delivered");
        fs::write(first.path.join("README"), "Read me").expect("written");
        fs::write(first.path.join("cache"), "left by the application").expect("written");
        bench.source.content_reads();
        bench.deliver(&directory, &old).expect("delivered");
        assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
        assert_eq!(bench.source.content_reads(), 1, "all but one file came from the kept copy");
    }

    #[test]
    fn as_many_copies_are_kept_as_asked_for_and_the_last_one_always() {
        let mut bench = Bench::new();
        let roots: Vec<Root> = (0..6).map(|version| bench.root(version)).collect();
        for (keep, expected) in [(3, 3), (1, 2), (0, 2)] {
            let directory =
                Directory { keep, path: bench.folder.path().join(keep.to_string()), ..bench.directory() };
            fs::create_dir_all(directory.path.join("releases/not ours")).expect("created");
            for root in &roots {
                bench.deliver(&directory, root).expect("delivered");
            }
            let releases = directory.path.join("releases");
            assert_eq!(count(&releases), expected + 1, "keep {keep}");
            for root in &roots[6 - expected..] {
                assert!(releases.join(root.release().to_string()).exists(), "keep {keep}");
            }
        }
    }

    #[test]
    fn what_a_killed_delivery_left_is_removed() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        let private = directory.path.join(".whit");
        let staging = private.join(format!("staging-{}", root.release()));
        fs::create_dir_all(staging.join("half")).expect("created");
        fs::create_dir_all(private.join("removed-x/y")).expect("created");
        std::os::unix::fs::symlink("releases/x", private.join("current-next")).expect("linked");
        bench.deliver(&directory, &root).expect("delivered");
        assert_eq!(count(&private), 1, "only the lock");
        assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
    }

    #[test]
    fn a_delivery_that_fails_changes_nothing() {
        let mut bench = Bench::new();
        let (directory, old) = (bench.directory(), bench.root(1));
        bench.deliver(&directory, &old).expect("delivered");
        let mut entries = Bench::entries(2);
        entries.push(Entry::file("lost", 0o644, noise(99, 9000)));
        let new = bench.source.release(Shape::Tree, &entries);
        bench.source.lose(&noise(99, 9000));
        let error = bench.deliver(&directory, &new).expect_err("a chunk is missing");
        assert_eq!(error.fault(), Fault::Corrupt);
        let cancelled = AtomicBool::new(false);
        cancelled.store(true, Ordering::Relaxed);
        let next = bench.root(3);
        let stopped =
            directory.deliver(&next.release(), &next, &bench.source, &|_| None, &Silent, Some(&cancelled));
        assert_eq!(stopped.expect_err("cancelled").fault(), Fault::Interrupted);
        let other = bench.deliver(&directory, &Root { depth: 1, ..old.clone() });
        assert!(other.is_err());
        assert_eq!(directory.current().expect("a link"), Some(old.release()));
        assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
        assert_eq!((count(&directory.path.join("releases")), count(&directory.path.join(".whit"))), (1, 1));
    }

    #[test]
    fn what_is_in_the_way_is_refused_and_left_alone() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        fs::create_dir_all(directory.path.join("current")).expect("created");
        let error = bench.deliver(&directory, &root).expect_err("a folder is where the link goes");
        assert!(matches!(error, Error::NotALink(_)) && error.hint().is_some(), "{error}");
        assert_eq!(count(&directory.path), 1);
        let file = Directory::new(bench.folder.path().join("file"));
        fs::write(&file.path, "mine").expect("written");
        let error = bench.deliver(&file, &root).expect_err("a file is where the folder goes");
        assert!(matches!(error, Error::NotAFolder(_)), "{error}");
        let linked = Directory::new(bench.folder.path().join("linked"));
        fs::create_dir(&linked.path).expect("created");
        std::os::unix::fs::symlink("..", linked.path.join(".whit")).expect("linked");
        let error = bench.deliver(&linked, &root).expect_err("what lies there is not ours");
        assert!(matches!(error, Error::NotAFolder(_)), "{error}");
    }

    #[test]
    fn two_deliveries_do_not_mix() {
        let mut bench = Bench::new();
        let (directory, root) = (bench.directory(), bench.root(1));
        fs::create_dir_all(directory.path.join(".whit")).expect("created");
        let lock = directory.path.join(".whit/lock");
        let held = Lock::take(&lock, Duration::ZERO).expect("a lock file");
        let error = bench.deliver(&directory, &root).expect_err("another one is under way");
        assert_eq!((error.fault(), held.is_some()), (Fault::Retry, true));
        drop(held);
        bench.deliver(&directory, &root).expect("delivered");
    }

    #[test]
    fn a_reader_sees_one_release_or_the_other() {
        let mut bench = Bench::new();
        // None is removed, however slow the reader is.
        let directory = Directory { keep: 20, ..bench.directory() };
        let (old, new) = (bench.root(1), bench.root(2));
        bench.deliver(&directory, &old).expect("delivered");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (one, two) = (sorted(&Bench::entries(1)), sorted(&Bench::entries(2)));
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) || looks == 0 {
                    let found = shown(&directory);
                    assert!(found == one || found == two);
                    looks += 1;
                }
            });
            for _ in 0..5 {
                bench.deliver(&directory, &new).expect("delivered");
                bench.deliver(&directory, &old).expect("delivered");
            }
            done.store(true, Ordering::Relaxed);
            reader.join().expect("the reader saw whole releases");
        });
    }
}
