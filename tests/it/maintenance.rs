//! Removing releases, collecting garbage beside pushes, verifying and healing.

use std::fs;
use std::path::{Path, PathBuf};

use format::maintenance::{Collected, Verified};
use format::pack::Scanner;
use ground::faults::{Fault, Faulty};
use protocol::token::Action;
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;

use crate::trees::{assert_same, change_byte, noise, write};
use crate::walker::{Step, Walker};
use crate::world::{World, ask_as, delivered, push_options, web, within};

async fn collect(world: &World) -> Collected {
    let answers = ask_as(world.access(), &Operation::Collect { dry_run: false }).await.expect("collected");
    match answers.as_slice() {
        [Answer::Collected(collected)] => *collected,
        other => panic!("{other:?}"),
    }
}

async fn verify(world: &World, repair: bool) -> Verified {
    let question = Operation::Verify { repair, seconds_max: None };
    let answers = ask_as(world.access(), &question).await.expect("verified");
    match answers.into_iter().next() {
        Some(Answer::Verified(verified)) => *verified,
        other => panic!("{other:?}"),
    }
}

async fn remove(world: &World, selector: &str) -> whit::agent::Result<Vec<Answer>> {
    ask_as(world.access(), &removing(selector, false)).await
}

fn removing(selector: &str, all_labels: bool) -> Operation {
    Operation::Remove { release: selector.parse().expect("a selector"), all_labels, force: true }
}

/// Pushes three trees that share one file, as releases `v0`, `v1`, `v2`, and seals their packs.
async fn three_releases(world: &mut World) {
    for number in 0..3 {
        let tree = world.path(&format!("tree{number}"));
        write(&tree, "shared", noise(99, 100_000));
        write(&tree, "own", noise(number, 400_000));
        let label = format!("v{number}").parse().expect("a label");
        world.push_with(&PushOptions { labels: vec![label], ..push_options("app", &tree) }).await;
        // A restart seals the open pack, so that each release has its own.
        world.stop().await;
        world.again();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_takes_what_no_release_names_and_nothing_else() {
    within(async {
        let mut world = World::start();
        three_releases(&mut world).await;
        assert_eq!(collect(&world).await.packs_removed, 0, "every pack is in use");
        remove(&world, "app@v1").await.expect("removed");
        let collected = collect(&world).await;
        assert_eq!(collected.packs_removed, 1, "{collected:?}");
        assert!(collected.reclaimed_bytes > 390_000, "{collected:?}");
        assert_eq!(collect(&world).await.packs_removed, 0, "there is nothing left to take");
        for number in [0, 2] {
            let copy = world.path(&format!("copy{number}"));
            world.pull(&format!("app@v{number}"), &copy).await.expect("pulled");
            assert_same(&world.path(&format!("tree{number}")), &copy);
        }
        // Evicted content only costs its bytes again.
        let again = world.push("app", &world.path("tree1")).await;
        assert_eq!(again.bytes.unseen, 400_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_under_way_keeps_what_it_was_told_is_known() {
    within(async {
        let mut world = World::start();
        three_releases(&mut world).await;
        // A push that relies on the chunks of v1, which is then removed.
        write(&world.path("tree1"), "more", noise(7, 50_000));
        let mut walker = Walker::begin(world.access(), "other", &world.path("tree1")).await.expect("begun");
        while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        remove(&world, "app@v1").await.expect("removed");
        let collected = collect(&world).await;
        assert!(collected.waits_for_pushes, "{collected:?}");
        assert_eq!(collected.packs_removed, 0, "{collected:?}");
        // A later push is not told that condemned chunks are there, and sends them itself.
        let later = world.push("late", &world.path("tree1")).await;
        assert!(later.bytes.unseen >= 400_000, "{later:?}");
        let record = walker.finish().await.expect("committed");
        drop(walker);
        collect(&world).await;
        collect(&world).await;
        let copy = world.path("copy");
        world.pull(&format!("other@{}", &record.release.to_string()[..12]), &copy).await.expect("pulled");
        assert_same(&world.path("tree1"), &copy);
        assert!(verify(&world, false).await.incomplete.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_release_cannot_be_removed() {
    within(async {
        let mut world = World::start();
        three_releases(&mut world).await;
        let pin = |pinned| Operation::Pin { release: "app@v0".parse().expect("a selector"), pinned };
        ask_as(world.access(), &pin(true)).await.expect("pinned");
        assert_eq!(remove(&world, "app@v0").await.expect_err("it is pinned").fault(), Fault::Input);
        ask_as(world.access(), &pin(false)).await.expect("unpinned");
        remove(&world, "app@v0").await.expect("removed");
        assert_eq!(world.releases("app").await.expect("listed").len(), 2);
        // Numbers are never reused.
        remove(&world, "app@v2").await.expect("removed");
        let receipt = world.push("app", &world.path("tree2")).await;
        assert_eq!(receipt.sequence, Some(4));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_needs_a_token_for_it() {
    within(async {
        let world = World::start();
        let agent = world.access_with(|grant| grant.actions = Action::USUAL.to_vec());
        for question in [
            Operation::Collect { dry_run: true },
            Operation::Verify { repair: false, seconds_max: None },
            removing("app@v1", true),
        ] {
            let refusal = ask_as(&agent, &question).await.expect_err("no admin");
            assert_eq!(refusal.fault(), Fault::Denied);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_pack_is_named_set_aside_and_healed_from_a_delivered_copy() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        for file in 0..20 {
            write(&tree, &format!("{file}"), noise(file, 60_000));
        }
        let options = PushOptions { destinations: vec![web()], ..push_options("app", &tree) };
        let receipt = world.push_with(&options).await;
        delivered(&receipt.delivered);
        world.stop().await;
        let packs = world.space().join("packs");
        let pack = walk(&packs).into_iter().find(|path| path.extension().is_some_and(|end| end == "pack"));
        change_byte(&pack.expect("a sealed pack"), 300_000);
        world.again();
        let found = verify(&world, false).await;
        assert_eq!(found.damaged.len(), 1, "{found:?}");
        assert_eq!(found.set_aside, 0, "nothing was to be mended");
        let mended = verify(&world, true).await;
        assert_eq!(mended.set_aside, 1, "{mended:?}");
        assert!(mended.healed_chunks >= 1, "{mended:?}");
        assert!(mended.incomplete.is_empty(), "{mended:?}");
        let after = verify(&world, false).await;
        assert!(after.damaged.is_empty() && after.incomplete.is_empty(), "{after:?}");
        let copy = world.path("copy");
        world.pull("app", &copy).await.expect("pulled");
        assert_same(&tree, &copy);
        assert!(world.push("app", &tree).await.unchanged, "the store is whole again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_healed_is_asked_for_by_the_next_push() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        write(&tree, "file", noise(1, 500_000));
        world.push("app", &tree).await;
        world.stop().await;
        for pack in walk(&world.space().join("packs")) {
            fs::remove_file(pack).expect("removed");
        }
        world.again();
        let found = verify(&world, true).await;
        assert_eq!(found.incomplete.len(), 1, "{found:?}");
        let receipt = world.push("app", &tree).await;
        assert_eq!(receipt.bytes.unseen, 500_000);
        let healed = verify(&world, true).await;
        assert!(healed.incomplete.is_empty(), "{healed:?}");
        assert!(world.push("app", &tree).await.unchanged);
    })
    .await;
}

/// Returns all files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_damaged_before_what_is_alive_is_not_collected() {
    within(async {
        let mut world = World::start();
        let (all, last) = (world.path("all"), world.path("last"));
        for (number, name) in (0..).zip(["a", "b", "c"]) {
            write(&all, name, noise(number, 700_000));
        }
        write(&last, "c", noise(2, 700_000));
        world.push("app", &all).await;
        world.push("other", &last).await;
        world.stop().await;
        let pack = files_below(&world.space().join("packs")).remove(0);
        let bytes = fs::read(&pack).expect("a pack");
        // A frame of the release to be removed, before those of the releases that stay.
        let (second, _) = Scanner::new(&bytes).expect("a pack").nth(1).expect("several frames");
        change_byte(&pack, usize::try_from(second).expect("small"));
        world.again();
        remove(&world, "app").await.expect("removed");
        for _ in 0..2 {
            collect(&world).await;
        }
        let copy = world.path("copy");
        world.pull("other", &copy).await.expect("pulled");
        assert_same(&last, &copy);
        // Once the damage is repaired, the rest is collected.
        verify(&world, true).await;
        world.stop().await;
        world.again();
        assert!(collect(&world).await.packs_removed > 0);
        let again = world.path("again");
        world.pull("other", &again).await.expect("pulled");
        assert_same(&last, &again);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_lives_as_long_as_a_command_mends_at_its_end() {
    within(async {
        let mut world = World::start_with(|options| {
            options.maintenance.mend_at_end = Some(std::time::Duration::from_secs(10));
        });
        let tree = world.path("tree");
        write(&tree, "file", noise(1, 700_000));
        world.push("app", &tree).await;
        world.stop().await;
        // The frame that was cut off was never acknowledged: no release lacks it.
        let doubt = world.space().join("incomplete");
        fs::write(&doubt, "").expect("written");
        world.again();
        world.releases("app").await.expect("listed");
        world.stop().await;
        assert!(!doubt.exists(), "every later push would be negotiated in full");
        // A pack without its end is not read; its whole frames come back.
        let pack = files_below(&world.space().join("packs")).remove(0);
        let bytes = fs::read(&pack).expect("a pack");
        fs::write(&pack, &bytes[..bytes.len() - 1]).expect("cut");
        world.again();
        world.releases("app").await.expect("listed");
        world.stop().await;
        assert!(!doubt.exists() && !pack.exists());
        world.again();
        let copy = world.path("copy");
        world.pull("app", &copy).await.expect("pulled");
        assert_same(&tree, &copy);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_the_indexs_place_is_set_aside() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        write(&tree, "file", noise(1, 300_000));
        world.push("app", &tree).await;
        world.stop().await;
        let index = world.space().join("index");
        fs::remove_dir_all(&index).expect("removed");
        fs::write(&index, "no folder").expect("written");
        world.again();
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
        assert_eq!(world.push("app", &tree).await.bytes.unseen, 0);
        assert_eq!(fs::read(index.with_extension("damaged")).expect("set aside"), b"no folder");
    })
    .await;
}

/// Returns all sealed packs.
fn files_below(packs: &Path) -> Vec<PathBuf> {
    let shelves = fs::read_dir(packs).expect("a folder").map(|entry| entry.expect("an entry").path());
    let shelves =
        shelves.filter(|path| path.is_dir() && !path.ends_with("open") && !path.ends_with("damaged"));
    shelves
        .flat_map(|view| fs::read_dir(view).expect("a folder"))
        .map(|pack| pack.expect("an entry").path())
        .collect()
}
