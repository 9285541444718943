//! Input that changes while it is pushed, or cannot be read at all.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ground::faults::{Fault, Faulty};
use ground::monitor::{Monitor, Phase};
use whit::agent::Error;
use whit::agent::push::PushOptions;
use whit::agent::scan::{Error as ScanError, Selection};

use crate::trees::{assert_same, noise, some_tree, write};
use crate::world::{World, push_as, push_heard, push_noted, push_options, within};

/// Appends to a file after each read.
struct Meddler {
    path: PathBuf,
    notes: Mutex<Vec<String>>,
}

impl Monitor for Meddler {
    fn advance(&self, phase: Phase, _bytes: u64) {
        if phase == Phase::Scan {
            let mut file = OpenOptions::new().append(true).open(&self.path).expect("a file");
            file.write_all(b"more").expect("written");
        }
    }

    fn note(&self, text: &str) {
        self.notes.lock().expect("no panic").push(text.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_never_stops_changing_is_named_after_one_more_reading() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        write(&tree, "steady", noise(1, 1_000_000));
        write(&tree, "growing", noise(2, 4_000_000));
        let meddler = Arc::new(Meddler { path: tree.join("growing"), notes: Mutex::default() });
        let result = push_heard(world.access(), &push_options("app", &tree), Arc::clone(&meddler) as _).await;
        let error = result.expect_err("it never stood still");
        assert!(
            matches!(&error, Error::Scan(ScanError::Changed(path)) if path.ends_with("growing")),
            "{error}"
        );
        assert_eq!(error.fault(), Fault::Retry);
        let notes = meddler.notes.lock().expect("no panic").clone();
        assert_eq!(
            notes.iter().filter(|note| note.contains("reading all files again")).count(),
            1,
            "{notes:?}"
        );
        assert!(world.releases("app").await.is_err(), "nothing is listed");
        world.push("app", &tree).await;
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_come_and_go_end_in_an_error_or_a_release_never_in_a_mixture() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        for file in 0..200 {
            write(&tree, &format!("steady/{file}"), noise(file, 20_000));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flickering = {
            let (stop, tree) = (Arc::clone(&stop), tree.clone());
            std::thread::spawn(move || {
                for seed in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    write(&tree, "z-flicker", noise(seed, 30_000));
                    fs::remove_file(tree.join("z-flicker")).expect("removed");
                }
            })
        };
        for _ in 0..5 {
            if let Err(error) = world.try_push("app", &tree).await {
                assert_eq!(error.fault(), Fault::Retry, "{error}");
                let Error::Scan(error) = error else { panic!("{error}") };
                assert!(error.is_passing(), "{error}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        flickering.join().expect("no panic");
        world.push("app", &tree).await;
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_neither_file_nor_folder_nor_link_is_skipped_with_a_note() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        some_tree(&tree, 1);
        let made = std::process::Command::new("mkfifo").arg(tree.join("pipe")).status();
        assert!(made.expect("mkfifo runs").success());
        let (receipt, notes) = push_noted(world.access(), &push_options("app", &tree)).await;
        assert_eq!(receipt.expect("pushed").files, 5);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("skipped") && notes[0].contains("pipe"), "{notes:?}");
        let error = world.try_push("app", &tree.join("pipe")).await.expect_err("no release");
        assert!(matches!(error, Error::Scan(ScanError::Kind(_))), "{error}");
        assert_eq!(error.fault(), Fault::Input);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_named_and_can_be_excluded() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        write(&tree, "open", "open");
        write(&tree, "secret", "secret");
        fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o000)).expect("changed");
        if fs::read(tree.join("secret")).is_ok() {
            eprintln!("skipped: this user may read everything");
            return;
        }
        let error = world.try_push("app", &tree).await.expect_err("it cannot be read");
        assert_eq!(error.fault(), Fault::Denied);
        assert!(error.to_string().contains("secret"), "{error}");
        let selection = Selection { exclude: vec!["secret".to_owned()], ..Selection::default() };
        push_as(world.access(), &PushOptions { selection, ..push_options("app", &tree) })
            .await
            .expect("pushed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_not_there_is_missing_and_a_link_that_leaves_is_refused() {
    within(async {
        let world = World::start();
        let error = world.try_push("app", &world.path("nothing")).await.expect_err("not there");
        assert_eq!(error.fault(), Fault::Missing, "{error}");
        let tree = world.path("tree");
        write(&tree, "a", "one");
        std::os::unix::fs::symlink("/etc/passwd", tree.join("out")).expect("linked");
        let error = world.try_push("app", &tree).await.expect_err("it leaves the release");
        assert_eq!(error.fault(), Fault::Input, "{error}");
        assert!(error.to_string().contains("out"), "{error}");
    })
    .await;
}
