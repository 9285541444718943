//! Files that a pull or a delivery finds in its place and did not put there stay there, or are set aside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ground::faults::{Fault, Faulty};
use ground::limits::FOLDER_DEPTH_MAX;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use whit::agent::Error;
use whit::agent::pull::{PlaceError, Pulled};

use crate::trees::{assert_same, change_byte, snapshot, some_tree, write};
use crate::world::{World, pull_as, within};

/// Returns a proxy with a release of `tree`, pulled into `copy`.
async fn pulled_world() -> World {
    let world = World::start();
    some_tree(&world.path("tree"), 1);
    world.push("app", &world.path("tree")).await;
    world.pull("app", &world.path("copy")).await.expect("pulled");
    world
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn not_pulled(pulled: Result<Pulled, Error>) -> (u64, Vec<String>) {
    match pulled.expect_err("something is not whit's") {
        Error::Place(PlaceError::NotPulled { strangers, .. }) => (strangers.count, strangers.some),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pull_refuses_what_no_pull_has_put_there() {
    within(async {
        let world = pulled_world().await;
        let copy = world.path("copy");
        write(&copy, "bin/mine", "mine");
        write(&copy, "uploads/a/b", "mine");
        fs::create_dir(copy.join("var/empty/folder")).expect("created");
        symlink("/etc", copy.join("outside")).expect("linked");
        rustix::fs::mknodat(CWD, copy.join("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        let before = fs::read(copy.join("README")).expect("a file");
        for _ in 0..2 {
            let (count, some) = not_pulled(world.pull("app", &copy).await);
            assert_eq!(
                (count, some),
                (
                    5,
                    ["bin/mine", "outside", "pipe", "uploads", "var/empty/folder"]
                        .map(str::to_owned)
                        .to_vec()
                )
            );
        }
        assert_eq!(
            (fs::read(copy.join("README")).expect("a file"), copy.join("uploads/a/b").exists()),
            (before, true)
        );
        for number in 0..20 {
            write(&copy, &format!("more/{number}"), "mine");
            write(&copy, &format!("x{number}"), "mine");
        }
        let (count, some) = not_pulled(world.pull("app", &copy).await);
        assert_eq!((count, some.len()), (26, 10), "the list is bounded, the count is not");
        pull_as(world.access(), "app", &copy, true).await.expect("they may go");
        assert_same(&world.path("tree"), &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_edited_is_set_aside_and_the_release_wins() {
    within(async {
        let world = pulled_world().await;
        let copy = world.path("copy");
        change_byte(&copy.join("bin/server"), 10);
        let mine = fs::read(copy.join("bin/server")).expect("a file");
        fs::remove_file(copy.join("link")).expect("removed");
        symlink("README", copy.join("link")).expect("linked");
        fs::remove_file(copy.join("empty")).expect("removed");
        // A different time and inode with the same content: nothing was edited.
        fs::copy(copy.join("README"), copy.join("README.2")).expect("copied");
        fs::rename(copy.join("README.2"), copy.join("README")).expect("renamed");
        let pulled = world.pull("app", &copy).await.expect("pulled");
        assert_eq!(
            (pulled.set_aside.count, pulled.set_aside.some.join(" ")),
            (2, "bin/server link".to_owned())
        );
        let place = pulled.set_aside.place.expect("a folder");
        assert_eq!(fs::read(Path::new(&place).join("bin/server")).expect("it is there"), mine);
        assert_eq!(fs::read_link(Path::new(&place).join("link")).expect("it is there"), Path::new("README"));
        assert_eq!(snapshot(Path::new(&place)).len(), 3);
        assert_same(&world.path("tree"), &copy);
        let again = world.pull("app", &copy).await.expect("pulled");
        assert_eq!((again.set_aside.count, again.set_aside.place), (0, None));
        assert!(Path::new(&place).join("bin/server").exists(), "it stays until somebody removes it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_made_in_the_place_of_a_pulled_one_is_not_replaced() {
    within(async {
        let world = pulled_world().await;
        let copy = world.path("copy");
        fs::remove_dir_all(&copy).expect("removed");
        write(&copy, "README", "my own");
        assert_eq!(not_pulled(world.pull("app", &copy).await), (1, vec!["README".to_owned()]));
        assert_eq!(fs::read(copy.join("README")).expect("it is there"), b"my own");
        // As if restored from a backup: it has the release's files, and nothing else.
        fs::remove_dir_all(&copy).expect("removed");
        some_tree(&copy, 1);
        fs::remove_dir_all(world.path("tree")).expect("removed");
        some_tree(&world.path("tree"), 2);
        world.push("app", &world.path("tree")).await;
        world.pull("app", &copy).await.expect("pulled");
        assert_same(&world.path("tree"), &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mark_of_an_earlier_whit_is_believed_as_far_as_the_content_is_the_release() {
    within(async {
        let world = pulled_world().await;
        let copy = world.path("copy");
        let release = world.releases("app").await.expect("a list")[0].release.to_string();
        let mark = world.path(".copy.whit/pulled");
        fs::write(&mark, &release).expect("written");
        world.pull("app", &copy).await.expect("pulled");
        fs::write(&mark, &release).expect("written");
        write(&copy, "mine", "mine");
        assert!(not_pulled(world.pull("app", &copy).await).0 > 0);
        fs::remove_file(copy.join("mine")).expect("removed");
        // A damaged mark proves nothing.
        world.pull("app", &copy).await.expect("pulled");
        change_byte(&mark, 100);
        assert!(not_pulled(world.pull("app", &copy).await).0 > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_a_killed_pull_is_ended_is_set_aside() {
    within(async {
        let world = pulled_world().await;
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        // As if a pull was killed right after it exchanged the two: the mark of the new one was written.
        fs::remove_dir_all(&tree).expect("removed");
        some_tree(&tree, 2);
        world.push("app", &tree).await;
        world.pull("app", &world.path("other")).await.expect("pulled");
        change_byte(&copy.join("README"), 0);
        write(&copy, "late", "mine");
        let beside = world.path(".copy.whit");
        fs::rename(&copy, beside.join("ready")).expect("renamed");
        fs::rename(world.path("other"), &copy).expect("renamed");
        fs::rename(world.path(".other.whit/pulled"), beside.join("pulled-next")).expect("renamed");
        let pulled = world.pull("app", &copy).await.expect("pulled");
        assert_eq!((pulled.fetched_chunks, pulled.set_aside.count), (0, 0));
        assert_same(&tree, &copy);
        assert!(!beside.join("ready").exists() && !beside.join("pulled-next").exists());
        let edited =
            fs::read_dir(beside.join("edited")).expect("a folder").next().expect("one").expect("read");
        assert_eq!(fs::read(edited.path().join("late")).expect("it is there"), b"mine");
        assert!(edited.path().join("README").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_a_user_nested_very_deep_are_refused_and_left() {
    within(async {
        let world = pulled_world().await;
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        let mut deepest = fs::File::open(&copy).expect("opened");
        for _ in 0..FOLDER_DEPTH_MAX + 50 {
            rustix::fs::mkdirat(&deepest, "d", Mode::RWXU).expect("created");
            let opened = rustix::fs::openat(&deepest, "d", OFlags::DIRECTORY, Mode::empty());
            deepest = opened.expect("opened").into();
        }
        write(&tree, "new", "x");
        world.push("app", &tree).await;
        for delete in [false, true] {
            let error = pull_as(world.access(), "app", &copy, delete).await.expect_err("too deep");
            assert!(error.fault() == Fault::Input && error.to_string().contains("move them away"), "{error}");
            assert!(copy.join("d/d/d").is_dir());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_folder_beside_a_pull_is_refused() {
    within(async {
        let world = World::start();
        let (tree, copy) = (world.path("tree"), world.path("copy"));
        some_tree(&tree, 1);
        world.push("app", &tree).await;
        write(&copy, "precious", "mine");
        let (beside, bait) = (world.path(".copy.whit"), world.path("bait"));
        fs::create_dir(&bait).expect("created");
        let refused = async |what: &str| {
            let error = pull_as(world.access(), "app", &copy, true).await.expect_err(what);
            assert!(matches!(error, Error::Place(PlaceError::Beside { .. })), "{what}: {error}");
            assert!(error.hint().is_some() && copy.join("precious").exists(), "{what}");
        };
        symlink(&bait, &beside).expect("linked");
        refused("a link").await;
        assert_eq!(fs::read_dir(&bait).expect("a folder").count(), 0);
        fs::remove_file(&beside).expect("removed");
        fs::create_dir(&beside).expect("created");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o777)).expect("set");
        refused("open to all").await;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).expect("set");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&beside, Some(65534), Some(65534)).expect("given away");
            refused("another user's").await;
            std::os::unix::fs::chown(&beside, Some(0), Some(0)).expect("taken back");
        }
        symlink(bait.join("lock"), beside.join("lock")).expect("linked");
        pull_as(world.access(), "app", &copy, true).await.expect_err("a link where the lock goes");
        assert_eq!(fs::read_dir(&bait).expect("a folder").count(), 0, "nothing was made through it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_top_directory_keeps_its_mode_and_a_private_one_stays_private() {
    within(async {
        let world = World::start();
        let (tree, mine) = (world.path("tree"), world.path("mine"));
        some_tree(&tree, 1);
        let set =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        set(&tree, 0o700);
        world.push("app", &tree).await;
        world.pull("app", &world.path("new")).await.expect("pulled");
        assert_eq!(mode(&world.path("new")), 0o700);
        set(&tree, 0o755);
        fs::create_dir(&mine).expect("created");
        set(&mine, 0o710);
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            std::os::unix::fs::chown(&mine, Some(65534), Some(65533)).expect("given away");
        }
        world.push("app", &tree).await;
        let update = world.pull("app", &world.path("new")).await.expect("pulled");
        assert_eq!(
            (mode(&world.path("new")), update.fetched_chunks),
            (0o755, 0),
            "the release opens what it had closed"
        );
        for _ in 0..2 {
            let pulled = world.pull("app", &mine).await.expect("pulled");
            assert_eq!(mode(&mine), 0o710, "{pulled:?}");
            let owner = fs::metadata(&mine).expect("it is there");
            assert!(!is_root || (owner.uid(), owner.gid()) == (65534, 65533));
        }
        let again = world.pull("app", &mine).await.expect("pulled");
        assert!(again.wire.down < 3000, "it is known what it holds, whatever its mode: {again:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_and_a_file_in_the_place_are_refused_with_a_hint() {
    within(async {
        let world = pulled_world().await;
        let link = world.path("a-link");
        symlink(world.path("copy"), &link).expect("linked");
        for place in [link, world.path("tree/README")] {
            let error = world.pull("app", &place).await.expect_err("not a directory");
            assert_eq!(error.fault(), Fault::Input, "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    })
    .await;
}
