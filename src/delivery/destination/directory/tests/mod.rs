//! A directory destination: its folders, what is kept, what is in the way.

mod attributes;
mod races;
mod sharing;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::ShownLog;
use super::*;
use crate::restore::{Entry, MemorySource, noise, one_of_each, read_tree, sorted};
use disk::files::Lock;
use format::manifest::{Root, Shape};
use format::shown::Shown;
use ground::faults::{Fault, Faulty};
use ground::ids::{DeliveryId, DestinationName};
use ground::monitor::Silent;

static GOES_ON: AtomicBool = AtomicBool::new(false);

/// A destination, a source, and the releases made so far.
struct Bench {
    app: AppName,
    destination: DestinationName,
    folder: tempfile::TempDir,
    source: MemorySource,
    roots: Mutex<Vec<Root>>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            app: "app".parse().expect("a name"),
            destination: "web".parse().expect("a name"),
            folder,
            source: MemorySource::default(),
            roots: Mutex::default(),
        }
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
        self.roots.lock().expect("no panic").push(root.clone());
        root
    }

    fn job<'a>(&'a self, root: &'a Root) -> Job<'a> {
        let (source, root_of, cancelled) = (&self.source, &|_: &ReleaseId| None, &GOES_ON);
        let id = DeliveryId { proxy: [0; 4], number: 1 };
        Job {
            id,
            app: &self.app,
            destination: &self.destination,
            root,
            labels: &[],
            created: 0,
            user: None,
            is_current: true,
            behalf: &[],
            source,
            root_of,
            shown: &NothingShown,
            monitor: &Silent,
            cancelled,
        }
    }

    fn deliver(&self, directory: &Directory, root: &Root) -> Result<Delivered, Error> {
        self.deliver_at(directory, root, 0)
    }

    /// Delivers a release that was pushed at `created`.
    fn deliver_at(&self, directory: &Directory, root: &Root, created: u64) -> Result<Delivered, Error> {
        let known = |id: &ReleaseId| {
            self.roots.lock().expect("no panic").iter().find(|root| root.release() == *id).cloned()
        };
        directory.deliver(&Job { root_of: &known, created, ..self.job(root) })
    }

    /// Adds a release of these entries.
    fn release(&mut self, entries: &[Entry]) -> Root {
        let root = self.source.release(Shape::Tree, entries);
        self.roots.lock().expect("no panic").push(root.clone());
        root
    }
}

/// A directory looks at its own copies.
struct NothingShown;

impl ShownLog for NothingShown {
    fn shown(&self) -> Shown {
        Shown::default()
    }

    fn note(&self, _started: u64, _done: u64) -> Result<(), Error> {
        Ok(())
    }

    fn switch(&self, _kept: &[ReleaseId]) -> Result<(), Error> {
        Ok(())
    }
}

fn shown(directory: &Directory) -> Vec<Entry> {
    read_tree(
        &fs::canonicalize(directory.path.as_path().join("current")).expect("there is a current release"),
    )
}

fn current(directory: &Directory) -> Result<Option<ReleaseId>, Error> {
    let copies = Copies::look(directory.path.as_path())?;
    Ok(copies.map_or(Ok(None), |copies| copies.current())?.map(|slot| slot.release))
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn the_first_delivery_makes_the_folder_and_a_complete_copy() {
    let mut bench = Bench::new();
    let (directory, root) = (bench.directory(), bench.root(1));
    assert_eq!(current(&directory).expect("nothing is in the way"), None);
    let delivered = bench.deliver(&directory, &root).expect("delivered");
    assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
    assert_eq!((delivered.files, delivered.already), (6, false));
    assert_eq!(current(&directory).expect("a link"), Some(root.release()));
    let link = fs::read_link(directory.path.as_path().join("current")).expect("a link");
    assert_eq!(link, Path::new("releases").join(root.release().to_string()));
    assert_eq!(count(&directory.path.as_path().join(".whit")), 2, "the lock, and what is known of the copy");
}

#[test]
fn a_second_delivery_of_the_same_release_does_nothing() {
    let mut bench = Bench::new();
    let (directory, root) = (bench.directory(), bench.root(1));
    let first = bench.deliver(&directory, &root).expect("delivered");
    let inode = || fs::metadata(directory.path.as_path().join("current")).expect("a copy").ino();
    let (before, _) = (inode(), bench.source.content_reads());
    let second = bench.deliver(&directory, &root).expect("delivered");
    assert_eq!(second, Delivered { already: true, reused_bytes: first.bytes, sent_bytes: 0, ..first });
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
    let inode = |place: &str| fs::metadata(place).expect("a folder").ino();
    let (held, old) = (fs::File::open(&first.place).expect("opened"), inode(&first.place));
    fs::remove_file(Path::new(&first.place).join("README")).expect("removed");
    let second = bench.deliver(&directory, &root).expect("delivered");
    assert!(!second.already && second.place == first.place);
    assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
    assert_eq!((held.metadata().expect("a folder").ino(), inode(&format!("{}.1", first.place))), (old, old));
    assert!(
        !Path::new(&format!("{}.1", first.place)).join("README").exists(),
        "a copy that someone may have open is not touched"
    );
}

#[test]
fn going_back_to_a_kept_release_undoes_what_was_changed_in_it() {
    let mut bench = Bench::new();
    let (directory, old, new) = (bench.directory(), bench.root(1), bench.root(2));
    let first = bench.deliver(&directory, &old).expect("delivered");
    bench.deliver(&directory, &new).expect("delivered");
    fs::write(Path::new(&first.place).join("README"), "Read me").expect("written");
    fs::write(Path::new(&first.place).join("cache"), "left by the application").expect("written");
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
        let directory = Directory {
            keep,
            path: Template::new(bench.folder.path().join(keep.to_string())),
            ..bench.directory()
        };
        fs::create_dir_all(directory.path.as_path().join("releases/not ours")).expect("created");
        for root in &roots {
            bench.deliver(&directory, root).expect("delivered");
        }
        let releases = directory.path.as_path().join("releases");
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
    let private = directory.path.as_path().join(".whit");
    let staging = private.join(format!("staging-{}", root.release()));
    fs::create_dir_all(staging.join("half")).expect("created");
    fs::create_dir_all(private.join("removed-x/y")).expect("created");
    std::os::unix::fs::symlink("releases/x", private.join("current-next")).expect("linked");
    bench.deliver(&directory, &root).expect("delivered");
    assert_eq!(count(&private), 2, "the lock, and what is known of the copy");
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
    let next = bench.root(3);
    let stopped = directory.deliver(&Job { cancelled: &AtomicBool::new(true), ..bench.job(&next) });
    assert_eq!(stopped.expect_err("cancelled").fault(), Fault::Interrupted);
    let other = bench.deliver(&directory, &Root { depth: 1, ..old.clone() });
    assert!(other.is_err());
    assert_eq!(current(&directory).expect("a link"), Some(old.release()));
    assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
    assert_eq!(
        (count(&directory.path.as_path().join("releases")), count(&directory.path.as_path().join(".whit"))),
        (1, 2)
    );
}

#[test]
fn what_is_in_the_way_is_refused_and_left_alone() {
    let mut bench = Bench::new();
    let (directory, root) = (bench.directory(), bench.root(1));
    fs::create_dir_all(directory.path.as_path().join("current")).expect("created");
    let error = bench.deliver(&directory, &root).expect_err("a folder is where the link goes");
    assert!(matches!(error, Error::NotALink(_)) && error.hint().is_some(), "{error}");
    assert_eq!(count(directory.path.as_path()), 1);
    let file = Directory::new(bench.folder.path().join("file"));
    fs::write(file.path.as_path(), "mine").expect("written");
    let error = bench.deliver(&file, &root).expect_err("a file is where the folder goes");
    assert!(matches!(error, Error::NotAFolder(_)), "{error}");
    let linked = Directory::new(bench.folder.path().join("linked"));
    fs::create_dir(linked.path.as_path()).expect("created");
    std::os::unix::fs::symlink("..", linked.path.as_path().join(".whit")).expect("linked");
    let error = bench.deliver(&linked, &root).expect_err("what lies there is not ours");
    assert!(matches!(error, Error::NotAFolder(_)), "{error}");
}

#[test]
fn two_deliveries_do_not_mix() {
    let mut bench = Bench::new();
    let (directory, root) = (bench.directory(), bench.root(1));
    fs::create_dir_all(directory.path.as_path().join(".whit")).expect("created");
    let lock = directory.path.as_path().join(".whit/lock");
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
