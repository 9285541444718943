//! Pushes that build on an earlier one: whatever agent or proxy have lost, the release is the same.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::wire::Operation;
use whit::agent::push::PushOptions;
use whit::agent::{Access, Receipt};

use crate::program::{Home, finish};
use crate::trees::{assert_same, change_byte, noise, text, write};
use crate::world::{World, ask_as, push_as, push_noted, push_options, within};

/// Returns the options of an agent that remembers, on a link on which every byte counts.
fn remembering(world: &World, app: &str, tree: &Path) -> PushOptions {
    PushOptions { state: Some(world.path("state")), link_rate: Some(1e6), ..push_options(app, tree) }
}

/// Writes files of text and of noise.
fn make_tree(tree: &Path) {
    for file in 0..40 {
        write(tree, &format!("text/{file:02}"), text(file, 60_000));
    }
    write(tree, "noise", noise(7, 1_500_000));
}

/// Makes small changes in many places.
fn edit(tree: &Path, round: usize) {
    for file in 0..20 {
        change_byte(&tree.join(format!("text/{file:02}")), 1000 * (round + 1));
    }
    for at in 0..10 {
        change_byte(&tree.join("noise"), 100_000 + 120_000 * at + round);
    }
}

/// Returns all files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Asserts that the application's latest release equals the tree, and that a fresh agent finds it unchanged.
async fn assert_pushed(world: &World, access: &Access, tree: &Path, receipt: &Receipt) {
    let copy = tempfile::tempdir().expect("a temporary folder");
    world.pull("app", &copy.path().join("copy")).await.expect("pulled");
    assert_same(tree, &copy.path().join("copy"));
    let again = push_as(access, &push_options("app", tree)).await.expect("pushed");
    assert!(again.unchanged && again.release == receipt.release, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_builds_on_the_last_one_costs_one_exchange_and_little() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        let first = world.push_with(&remembering(&world, "app", &tree)).await;
        assert!(!first.unchanged && first.chunks.unseen == first.chunks.total, "{first:?}");
        for round in 0..3 {
            edit(&tree, round);
            let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
            // The handshake, and everything else in one flight.
            assert_eq!(receipt.round_trips, 2, "{receipt:?}");
            assert!(
                receipt.chunks.unseen >= 20 && receipt.chunks.unseen < receipt.chunks.total,
                "{receipt:?}"
            );
            assert!(receipt.bytes.sent * 5 < receipt.bytes.unseen, "the older content helps: {receipt:?}");
            assert_pushed(&world, world.access(), &tree, &receipt).await;
        }
        let same = world.push_with(&remembering(&world, "app", &tree)).await;
        assert!(same.unchanged && same.round_trips == 2 && same.bytes.sent == 0, "{same:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_remembers_nothing_is_told_what_its_chunks_resemble() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        world.push("app", &tree).await;
        edit(&tree, 0);
        let receipt =
            world.push_with(&PushOptions { link_rate: Some(1e6), ..push_options("app", &tree) }).await;
        assert!(receipt.bytes.sent * 5 < receipt.bytes.unseen, "{receipt:?}");
        assert_pushed(&world, world.access(), &tree, &receipt).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_keeps_may_be_lost_or_damaged() {
    within(async {
        let world = World::start();
        let (tree, state) = (world.path("tree"), world.path("state"));
        make_tree(&tree);
        world.push_with(&remembering(&world, "app", &tree)).await;
        let memory = |state: &Path| files_below(&state.join("memory"));
        let kept = |state: &Path| files_below(&state.join("kept"));
        assert!(!memory(&state).is_empty() && !kept(&state).is_empty(), "something is remembered");
        for (round, part) in ["memory", "kept", "memory", "kept", "memory", "kept", ""].iter().enumerate() {
            let folder = state.join(part);
            match round / 2 {
                0 => fs::remove_dir_all(&folder).expect("removed"),
                1 => {
                    for file in files_below(&folder) {
                        let length =
                            usize::try_from(fs::metadata(&file).expect("a file").len()).expect("small");
                        (1..8)
                            .map(|at| length * at / 8)
                            .filter(|at| *at < length)
                            .for_each(|at| change_byte(&file, at));
                    }
                }
                _ => {
                    for file in files_below(&folder) {
                        let length = fs::metadata(&file).expect("a file").len();
                        let file = fs::File::options().write(true).open(&file).expect("a file");
                        file.set_len(length / 2).expect("cut");
                    }
                }
            }
            edit(&tree, round);
            let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
            assert_pushed(&world, world.access(), &tree, &receipt).await;
        }
        edit(&tree, 9);
        let mended = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_eq!(mended.round_trips, 2, "it remembers again: {mended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_of_what_was_pushed_last_does_not_open_what_is_kept() {
    within(async {
        let world = World::start();
        let (tree, state) = (world.path("tree"), world.path("state"));
        make_tree(&tree);
        world.push_with(&remembering(&world, "app", &tree)).await;
        let mut kept = fs::read_dir(state.join("kept")).expect("a folder");
        let content = kept.next().expect("a cache").expect("an entry").path().join("content");
        // A store that is opened removes what another left half written.
        let half = content.join("half.part");
        fs::write(&half, "half").expect("written");
        let same = world.push_with(&remembering(&world, "app", &tree)).await;
        assert!(same.unchanged && half.exists(), "{same:?}");
        edit(&tree, 1);
        let other = world.push_with(&remembering(&world, "app", &tree)).await;
        assert!(!other.unchanged && !half.exists(), "{other:?}");
        // Where it is gone, it is filled again.
        fs::remove_dir_all(&content).expect("removed");
        world.push_with(&remembering(&world, "app", &tree)).await;
        assert!(content.join("packs").is_dir());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_content_that_was_lost_is_kept_again_and_meanwhile_the_proxy_tells_what_it_has() {
    within(async {
        let world = World::start();
        let (tree, state) = (world.path("tree"), world.path("state"));
        // Noise: without older content, changed chunks would be sent whole.
        let mut bytes = noise(3, 2_000_000);
        let mut push = async |at: usize| {
            bytes[at] ^= 1;
            write(&tree, "data", &bytes);
            world.push_with(&remembering(&world, "app", &tree)).await
        };
        push(0).await;
        let kept = push(100_000).await;
        fs::remove_dir_all(state.join("kept")).expect("removed");
        let signed = push(200_000).await;
        let again = push(300_000).await;
        assert_eq!((kept.round_trips, signed.round_trips, again.round_trips), (2, 4, 2));
        for receipt in [kept, signed, again] {
            assert_eq!(receipt.chunks.unseen, 1);
            assert!(receipt.bytes.sent < 2_000, "{receipt:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_may_have_lost_all_or_the_base() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        world.push_with(&remembering(&world, "app", &tree)).await;
        // The proxy has lost everything.
        world.stop().await;
        fs::remove_dir_all(world.path("data/spaces")).expect("removed");
        world.again();
        edit(&tree, 0);
        let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_eq!(receipt.chunks.unseen, receipt.chunks.total, "{receipt:?}");
        assert_pushed(&world, world.access(), &tree, &receipt).await;
        // The base is removed; another agent has pushed a release since.
        edit(&tree, 1);
        push_as(world.access(), &push_options("app", &tree)).await.expect("pushed");
        let base = format!("app@{}", &receipt.release.to_string()[..12]);
        let release = base.parse().expect("a selector");
        let remove = Operation::Remove { release, all_labels: false, force: true };
        ask_as(world.access(), &remove).await.expect("removed");
        for _ in 0..2 {
            ask_as(world.access(), &Operation::Collect { dry_run: false }).await.expect("collected");
        }
        edit(&tree, 2);
        let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_pushed(&world, world.access(), &tree, &receipt).await;
        assert!(receipt.round_trips > 2, "the base was not known: {receipt:?}");
        // An empty release, with an unknown base.
        for entry in fs::read_dir(&tree).expect("the tree") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
        world.stop().await;
        fs::remove_dir_all(world.path("data/spaces")).expect("removed");
        world.again();
        let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_eq!((receipt.files, receipt.sequence), (0, Some(1)), "{receipt:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_came_from_elsewhere_meanwhile_ends_the_push_early() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        world.push_with(&remembering(&world, "app", &tree)).await;
        // Far more than is buffered on a loopback link.
        for file in 0..20 {
            write(&tree, &format!("new/{file}"), noise(100 + file, 2_000_000));
        }
        let other = push_as(world.access(), &push_options("app", &tree)).await.expect("pushed");
        let fast = PushOptions { link_rate: None, ..remembering(&world, "app", &tree) };
        let (receipt, notes) = push_noted(world.access(), &fast).await;
        let receipt = receipt.expect("it is there already");
        assert!(receipt.unchanged && receipt.release == other.release, "{receipt:?}");
        assert!(notes.iter().all(|note| !note.contains("again")), "{notes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_by_an_agent_that_remembers_says_what_would_cross() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        let dry = |options: PushOptions| PushOptions { dry_run: true, ..options };
        world.push_with(&remembering(&world, "app", &tree)).await;
        let same = world.push_with(&dry(remembering(&world, "app", &tree))).await;
        assert!(same.unchanged && same.dry_run && same.chunks.unseen == 0, "{same:?}");
        edit(&tree, 0);
        let would = world.push_with(&dry(remembering(&world, "app", &tree))).await;
        let did = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_eq!((would.release, would.chunks.unseen), (did.release, did.chunks.unseen), "{would:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_what_did_not_change_is_not_sent() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        make_tree(&tree);
        world.push_with(&remembering(&world, "app", &tree)).await;
        fs::copy(tree.join("noise"), tree.join("zcopy")).expect("copied");
        let receipt = world.push_with(&remembering(&world, "app", &tree)).await;
        assert_eq!((receipt.chunks.unseen, receipt.bytes.sent), (0, 0), "{receipt:?}");
        assert_pushed(&world, world.access(), &tree, &receipt).await;
    })
    .await;
}

#[test]
fn the_program_remembers_where_it_can_and_is_told_to() {
    let home = Home::new();
    let (tree, state) = (home.path("tree"), home.path("state"));
    make_tree(&tree);
    let push = |state: &Path, more: &[&str]| {
        let mut command = home.command(&[&["push", "app", "tree", "--json"], more].concat());
        command.env("WHIT_STATE", state);
        finish(command.spawn().expect("it starts"))
    };
    push(&state, &["--no-memory"]).json();
    assert!(files_below(&state).is_empty(), "nothing is remembered");
    edit(&tree, 0);
    push(&state, &[]).json();
    assert!(!files_below(&state).is_empty(), "it is remembered");
    for (round, more) in
        [["--checksum"].as_slice(), &["--no-memory"], &["--link", "2mbit"], &["--link", "1gbit"]]
            .iter()
            .enumerate()
    {
        edit(&tree, round + 1);
        let receipt = push(&state, more).json();
        assert_eq!(receipt["sequence"], round + 3, "{more:?}: {receipt}");
        if more[0] == "--checksum" || more[0] == "--no-memory" {
            assert_eq!(receipt["files_remembered"], 0, "{more:?}: {receipt}");
        }
    }
    push(&state, &["--link", "fast"]).failed(2, "`fast`");
    // A folder that cannot be created: a file is in its way.
    edit(&tree, 7);
    let receipt = push(&home.path("tree/noise/state"), &[]).json();
    assert_eq!(receipt["sequence"], 7, "{receipt}");
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&tree, &home.path("copy"));
}
