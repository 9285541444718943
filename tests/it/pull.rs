//! Pulls over real QUIC: what is sent, what is repaired, what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;
use ground::monitor::{Monitor, Phase};
use whit::agent::pull::{PlaceError, PullOptions, pull_tree};
use whit::agent::push::PushOptions;
use whit::agent::{Error, Session};
use whit::net::link;
use whit::restore::OutsideLinks;

use crate::trees::{assert_same, change_byte, noise, snapshot, some_tree, text, write};
use crate::world::{World, pull_as, pull_with, push_options, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_into_a_new_folder_is_the_release_and_a_second_one_fetches_nothing() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        let pushed = world.push("app", &tree).await;
        let pulled = world.pull("app", &copy).await.expect("pulled");
        assert_eq!((pulled.release, pulled.files, pulled.bytes), (pushed.release, 5, 1_100_008));
        assert_eq!((pulled.fetched_chunks, pulled.fetched_bytes), (pushed.chunks.total, 1_100_008));
        assert_same(&tree, &copy);
        let again = world.pull("app", &copy).await.expect("pulled");
        assert_eq!((again.fetched_chunks, again.fetched_bytes), (0, 0));
        assert!(again.wire.up + again.wire.down < 12_000, "{again:?}");
        assert_same(&tree, &copy);
        // An existing empty folder is as good as none.
        fs::create_dir_all(world.path("empty")).expect("created");
        world.pull("app", &world.path("empty")).await.expect("pulled");
    })
    .await;
}

/// Returns what changes where a file or folder is written: its number, and when it last changed.
fn state(path: &Path) -> (u64, i64, i64) {
    let found = fs::symlink_metadata(path).expect("it is there");
    (found.ino(), found.ctime(), found.ctime_nsec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_of_what_is_there_writes_nothing_and_one_of_what_was_changed_does() {
    within(async {
        let world = World::start();
        let (tree, target) = (world.path("tree"), world.path("target"));
        some_tree(&tree, 1);
        write(&tree, "bin/app", noise(3, 100_000));
        world.push("web", &tree).await;
        let pull = async || world.pull("web", &target).await.expect("pulled");
        assert!(!pull().await.unchanged);
        let name = "bin/app";
        let states = || [target.clone(), target.join("bin"), target.join(name)].map(|path| state(&path));
        let before = states();
        let again = pull().await;
        assert_eq!((again.unchanged, again.fetched_chunks), (true, 0));
        assert_eq!(states(), before);
        // A file that is gone, one that was edited, and a mode are put right.
        fs::remove_file(target.join(name)).expect("removed");
        assert!(!pull().await.unchanged);
        assert_same(&tree, &target);
        fs::write(target.join(name), "mine").expect("written");
        assert!(!pull().await.unchanged);
        assert_same(&tree, &target);
        fs::set_permissions(target.join(name), fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(!pull().await.unchanged);
        assert_same(&tree, &target);
        assert!(pull().await.unchanged);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_of_earlier_versions_are_read() {
    within(async {
        let world = World::start();
        let (tree, target) = (world.path("tree"), world.path("target"));
        some_tree(&tree, 1);
        world.push("web", &tree).await;
        world.pull("web", &target).await.expect("pulled");
        let path = world.path(".target.whit/pulled");
        let mut mark = fs::read(&path).expect("a mark");
        assert_eq!((mark[8], mark[13], mark[16]), (4, 0, 0x9b));
        // FORMAT 9: version 3 has a beginning without its last element, false, and no part after it that names no base.
        let end = 16 + mark[12] as usize;
        mark.drain(end - 1..end + 5);
        (mark[8], mark[12], mark[16]) = (3, mark[12] - 1, 0x9a);
        let third = mark.clone();
        // Version 1 has one without the root's id (34 bytes) and two times that are nil, and no root after it.
        let end = 16 + mark[12] as usize;
        mark.drain(end - 36..end + 4 + mark[end] as usize);
        (mark[8], mark[12], mark[16]) = (1, mark[12] - 36, 0x97);
        for mut mark in [third, mark] {
            mark.truncate(mark.len() - 32);
            mark.extend_from_slice(blake3::hash(&mark.clone()).as_bytes());
            fs::write(&path, mark).expect("written");
            assert!(world.pull("web", &target).await.expect("pulled").unchanged);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_noted_as_read_and_what_is_new_comes_all_the_same() {
    within(async {
        let world = World::start();
        let (tree, target) = (world.path("tree"), world.path("target"));
        some_tree(&tree, 1);
        world.push("web", &tree).await;
        let pull = async || world.pull("web", &target).await.expect("pulled").unchanged;
        assert!(!pull().await);
        let mark = world.path(".target.whit/pulled");
        let read = || fs::metadata(&mark).and_then(|mark| mark.modified()).expect("a mark");
        let set = |time| {
            let file = fs::File::options().write(true).open(&mark).expect("a mark");
            file.set_modified(time).expect("set");
        };
        let day = Duration::from_secs(24 * 3600);
        for days in [6, 8] {
            let before = SystemTime::now() - days * day;
            set(before);
            // It was written so lately that its times do not tell, so that it is read in any case.
            assert!(pull().await);
            assert!(read().elapsed().is_ok_and(|age| age < day));
        }
        // A file that somebody touches is read at each pull, which says nothing of the others.
        assert!(pull().await);
        let noted = read();
        fs::File::open(target.join("README"))
            .and_then(|file| file.set_modified(noted - day))
            .expect("touched");
        assert!(pull().await);
        assert_eq!(read(), noted);
        // What is new comes all the same.
        write(&tree, "new", noise(9, 5000));
        world.push("web", &tree).await;
        assert!(!pull().await);
        assert_same(&tree, &target);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_links_what_is_unchanged_and_the_next_pull_finds_all_as_it_was_put() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        write(&tree, "two", "names");
        fs::hard_link(tree.join("two"), tree.join("twoo")).expect("linked");
        world.push("app", &tree).await;
        let pull = async || world.pull("app", &copy).await.expect("pulled");
        pull().await;
        let inode = |name: &str| fs::metadata(copy.join(name)).expect("it is there").ino();
        for round in 0..3 {
            let before = ["bin/server", "bin/tool", "README", "two"].map(inode);
            change_byte(&tree.join("bin/server"), 300_000 + round);
            let mode = if round == 1 { 0o600 } else { 0o644 };
            fs::set_permissions(tree.join("README"), fs::Permissions::from_mode(mode)).expect("set");
            world.push("app", &tree).await;
            // So that the times of the first pull's files tell.
            tokio::time::sleep(Duration::from_millis(40)).await;
            let update = pull().await;
            assert_eq!((update.fetched_chunks, update.set_aside.count), (1, 0));
            let after = ["bin/server", "bin/tool", "README", "two"].map(inode);
            let same = [0, 1, 2, 3].map(|file| before[file] == after[file]);
            assert_eq!(same, [false, true, round == 0, false], "round {round}");
            assert_same(&tree, &copy);
            assert!(pull().await.unchanged);
        }
        // What somebody writes into a linked file is found.
        change_byte(&copy.join("bin/tool"), 3);
        let update = pull().await;
        assert_eq!((update.unchanged, update.set_aside.some), (false, vec!["bin/tool".to_owned()]));
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_had_a_second_name_for_a_while_are_read_once_and_linked() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        let pull = async || world.pull("app", &copy).await.expect("pulled");
        pull().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(pull().await.unchanged, "it is noted as read");
        let file = copy.join("bin/tool");
        // The file system's clock may lag behind.
        tokio::time::sleep(Duration::from_millis(40)).await;
        fs::hard_link(&file, world.path("backup")).expect("linked");
        fs::remove_file(world.path("backup")).expect("removed");
        let mark = world.path(".copy.whit/pulled");
        let mut written = Vec::new();
        for _ in 0..3 {
            written.push(state(&mark));
            assert!(pull().await.unchanged);
        }
        assert!(written[0] != written[1] && written[1] == written[2], "once: {written:?}");
        let before = state(&file);
        write(&tree, "new", noise(9, 5000));
        world.push("app", &tree).await;
        assert!(!pull().await.unchanged);
        assert_eq!(state(&file).0, before.0, "it was linked");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_a_disk_lost_unseen_is_fetched_again() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        let pull = async || world.pull("app", &copy).await.expect("pulled");
        pull().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        let (file, mark) = (copy.join("bin/server"), world.path(".copy.whit/pulled"));
        let modified = fs::metadata(&file).and_then(|file| file.modified()).expect("a file");
        let set = |path: &Path, time| {
            let file = fs::File::options().write(true).open(path).expect("a file");
            file.set_modified(time).expect("set");
        };
        // Nothing shows that the first chunk has other bytes: its change is earlier than the last reading.
        change_byte(&file, 10);
        set(&file, modified);
        set(&mark, SystemTime::now());
        assert!(pull().await.unchanged);
        // The changed file needs the chunk.
        change_byte(&tree.join("bin/server"), 500_000);
        world.push("app", &tree).await;
        let update = pull().await;
        assert_eq!(update.fetched_chunks, 1, "the damaged one, after the new one: {update:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_fetches_only_what_differs() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        world.pull("app", &copy).await.expect("pulled");
        change_byte(&tree.join("bin/server"), 300_000);
        fs::remove_file(tree.join("README")).expect("removed");
        fs::rename(tree.join("bin/tool"), tree.join("bin/renamed")).expect("renamed");
        write(&tree, "new/file", "new");
        world.push("app", &tree).await;
        let update = world.pull("app", &copy).await.expect("pulled");
        assert_eq!(update.fetched_chunks, 2, "{update:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_told_what_differs_inside_changed_chunks() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        // Incompressible, so whole chunks would be sent as they are.
        let old = noise(7, 3_000_000);
        write(&tree, "bin/server", &old);
        world.push("app", &tree).await;
        world.pull("app", &copy).await.expect("pulled");
        let mut new = old.clone();
        for at in (0..new.len()).step_by(20_000) {
            new[at] ^= 1;
        }
        new.splice(1_000_000..1_000_000, *b"inserted");
        write(&tree, "bin/server", &new);
        world.push("app", &tree).await;
        let update = world.pull("app", &copy).await.expect("pulled");
        assert!(update.fetched_bytes > 1_000_000, "{update:?}");
        assert!(update.wire.down < 60_000, "{update:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_told_by_the_segments_that_the_directory_has() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        // A manifest of some 100 KB, mostly of ids, which do not compress.
        for file in 0..1000 {
            write(&tree, &format!("{:02}/{file}", file % 40), noise(file, 5_000));
        }
        world.push("app", &tree).await;
        world.pull("app", &copy).await.expect("pulled");
        for file in (0..1000).step_by(20) {
            change_byte(&tree.join(format!("{:02}/{file}", file % 40)), 100);
        }
        world.push("app", &tree).await;
        let update = world.pull("app", &copy).await.expect("pulled");
        assert_eq!(update.fetched_chunks, 50, "{update:?}");
        // Half of the segments are new; in full they alone would take 20 KB.
        assert!(update.wire.down < 10_000, "{update:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_locally_is_repaired() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        world.pull("app", &copy).await.expect("pulled");
        change_byte(&copy.join("bin/server"), 10);
        fs::remove_file(copy.join("README")).expect("removed");
        fs::remove_file(copy.join("link")).expect("removed");
        fs::create_dir(copy.join("link")).expect("created");
        write(&copy, "stray/file", "left behind");
        fs::set_permissions(copy.join("bin/tool"), fs::Permissions::from_mode(0o600)).expect("changed");
        let repaired = pull_as(world.access(), "app", &copy, true).await.expect("pulled");
        assert_eq!(repaired.fetched_chunks, 2, "{repaired:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

/// Reports when chunks begin to arrive.
#[derive(Default)]
struct Arrivals {
    bytes: AtomicU64,
    enough: Notify,
}

impl Monitor for Arrivals {
    fn advance(&self, phase: Phase, bytes: u64) {
        if phase == Phase::Transfer && self.bytes.fetch_add(bytes, Ordering::Relaxed) > 6_000_000 {
            self.enough.notify_one();
        }
    }
}

/// Writes modules that import each other by names that are new in each build.
fn modules(tree: &Path, build: u64) {
    for module in 0..40 {
        let mut content = Vec::new();
        for import in 0..50 {
            let name = ChunkId::of(&noise(1000 * build + import % 25, 6)).to_string();
            content.extend(format!("import './chunk-{}.js';", &name[..8]).into_bytes());
            content.extend(text(100 * module + import, 1500));
        }
        write(tree, &format!("module-{module}.js"), content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_over_a_slow_link_is_told_by_patches_that_are_made_once() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        modules(&tree, 1);
        world.push("app", &tree).await;
        let links = [("fast", None), ("slow", Some(1e6)), ("slow too", Some(1e6))];
        for (name, _) in links {
            world.pull("app", &world.path(name)).await.expect("pulled");
        }
        modules(&tree, 2);
        world.push("app", &tree).await;
        let mut down = Vec::new();
        for (name, link_rate) in links {
            let options = PullOptions {
                delete: false,
                threads: 2,
                outside_links: OutsideLinks::Refuse,
                link_rate,
                keep: None,
            };
            let pulled = pull_with(world.access(), "app", &world.path(name), options).await.expect("pulled");
            assert!(
                pulled.fetched_bytes > 1_500_000,
                "more than is told by patches on every link: {pulled:?}"
            );
            assert_same(&tree, &world.path(name));
            down.push(pulled.wire.down);
        }
        assert!(down[1] * 3 < down[0] * 2 && down[2].abs_diff(down[1]) < 1000, "{down:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_pull_goes_on_where_it_was() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        for file in 0..24 {
            write(&tree, &format!("{file}"), noise(file, 1_000_000));
        }
        let pushed = world.push("app", &tree).await;
        let arrivals = Arc::new(Arrivals::default());
        let monitor: Arc<dyn Monitor> = Arc::clone(&arrivals) as _;
        let session = Session::open(world.access(), &link::Options::default()).await.expect("a session");
        let selector = "app".parse().expect("a selector");
        let options = PullOptions { delete: false, threads: 2, outside_links: OutsideLinks::Refuse, link_rate: None, keep: None };
        tokio::select! {
            biased;
            () = arrivals.enough.notified() => {}
            pulled = pull_tree(&session, &selector, &copy, options, &monitor) => panic!("too fast: {pulled:?}"),
        }
        drop(session);
        assert!(!copy.exists());
        // What came is in memory until the thread of the pull that was dropped leaves it beside the directory.
        let pulled = loop {
            match world.pull("app", &copy).await {
                Err(Error::Busy(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                pulled => break pulled.expect("pulled"),
            }
        };
        assert!(pulled.fetched_bytes + 5_000_000 < pushed.bytes.logical, "{pulled:?}");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_a_pull_left_moved_aside_is_put_back() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        world.pull("app", &copy).await.expect("pulled");
        let old = world.path(".copy.whit/old");
        // As if the file system cannot exchange two directories and the pull ended between its two renames.
        fs::rename(&copy, &old).expect("renamed");
        let pulled = world.pull("app", &copy).await.expect("pulled");
        assert_eq!(pulled.fetched_bytes, 0, "it has what was moved aside: {pulled:?}");
        assert!(!old.exists());
        assert_same(&tree, &copy);
        // Or after the second one.
        some_tree(&old, 2);
        world.pull("app", &copy).await.expect("pulled");
        assert!(!old.exists());
    })
    .await;
}

fn is_not_pulled(error: &Error) -> bool {
    matches!(error, Error::Place(PlaceError::NotPulled { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_no_pull_has_made_is_left_alone_unless_told_otherwise() {
    within(async {
        let world = World::start();
        let (tree, home) = (world.path("tree"), world.path("home"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        write(&home, "precious", "mine");
        let before = snapshot(&home);
        for _ in 0..2 {
            let error = world.pull("app", &home).await.expect_err("it is not ours");
            assert!(is_not_pulled(&error) && error.fault() == Fault::Input, "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("--delete")));
            assert_eq!(snapshot(&home), before);
        }
        let error = world.pull("app", &tree.join("README")).await.expect_err("a file");
        assert_eq!(error.fault(), Fault::Input, "{error}");
        // A replacement that fails leaves the old files, and no permission to replace them.
        let error = pull_as(world.access(), "app@v9", &home, true).await.expect_err("no such release");
        assert_eq!(error.fault(), Fault::Missing, "{error}");
        assert_eq!(snapshot(&home), before);
        assert!(world.pull("app", &home).await.is_err_and(|error| is_not_pulled(&error)));
        pull_as(world.access(), "app", &home, true).await.expect("replaced");
        assert_same(&tree, &home);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_found_by_label_and_by_its_first_digits() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        let mut releases = Vec::new();
        for version in ["v1", "v2"] {
            write(&tree, "version", version);
            let labels = vec![version.parse().expect("a label")];
            releases
                .push(world.push_with(&PushOptions { labels, ..push_options("app", &tree) }).await.release);
        }
        let copy = world.path("copy");
        let holds = |copy: &Path| fs::read_to_string(copy.join("version")).expect("a file");
        let first = releases[0].to_string();
        for (selector, expected) in [
            ("app".to_owned(), "v2"),
            ("app@v1".to_owned(), "v1"),
            (format!("app@{}", releases[1].short()), "v2"),
            (format!("app@{}", &first[..6]), "v1"),
            (format!("app@{}", first.to_uppercase()), "v1"),
        ] {
            world.pull(&selector, &copy).await.expect("pulled");
            assert_eq!(holds(&copy), expected, "{selector}");
        }
        for nothing in ["none", "app@v3", "app@ffffffffffff", &format!("app@{}", &first[..5])] {
            let error = world.pull(nothing, &copy).await.expect_err("nothing fits");
            assert_eq!(error.fault(), Fault::Missing, "{nothing}: {error}");
            assert!(error.hint().is_some(), "{nothing}");
        }
        assert_eq!(holds(&copy), "v1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_release_with_a_label_is_meant() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        for version in ["one", "two"] {
            write(&tree, "version", version);
            let labels = vec!["stable".parse().expect("a label")];
            world.push_with(&PushOptions { labels, moves: true, ..push_options("app", &tree) }).await;
        }
        world.pull("app@stable", &world.path("copy")).await.expect("pulled");
        assert_eq!(fs::read(world.path("copy/version")).expect("a file"), b"two");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_into_one_folder_do_not_meet() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        write(&tree, "a", noise(1, 8_000_000));
        world.push("app", &tree).await;
        let (first, second) = tokio::join!(world.pull("app", &copy), world.pull("app", &copy));
        let errors: Vec<Error> = [first, second].into_iter().filter_map(Result::err).collect();
        assert!(errors.len() < 2, "{errors:?}");
        assert!(errors.iter().all(|error| matches!(error, Error::Busy(_))), "{errors:?}");
        assert_same(&tree, &copy);
    })
    .await;
}
