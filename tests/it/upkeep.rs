//! Removing releases, collecting garbage beside pushes, verifying and healing.

use std::fs;

use whit::agent::push::Order;
use whit::faults::{Fault, Faulty};
use whit::token::Action;
use whit::upkeep::{Collected, Verified};
use whit::wire::{Answer, Operation};

use crate::trees::{assert_same, change_byte, noise, write};
use crate::walker::{Step, Walker};
use crate::world::{World, ask_as, delivered, order, web, within};

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
    ask_as(world.access(), &Operation::Remove(selector.parse().expect("a selector"))).await
}

/// Pushes three trees that share one file, as releases `v0`, `v1`, `v2`, and seals their packs.
async fn three_releases(world: &mut World) {
    for number in 0..3 {
        let tree = world.path(&format!("tree{number}"));
        write(&tree, "shared", noise(99, 100_000));
        write(&tree, "own", noise(number, 400_000));
        let label = format!("v{number}").parse().expect("a label");
        world.push_order(&Order { labels: vec![label], ..order("app", &tree) }).await;
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
        // What was evicted just costs its bytes again.
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
        // A push that counts on the chunks of v1, which are then removed under its feet.
        write(&world.path("tree1"), "more", noise(7, 50_000));
        let mut walker = Walker::begin(world.access(), "other", &world.path("tree1")).await.expect("begun");
        while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        remove(&world, "app@v1").await.expect("removed");
        let collected = collect(&world).await;
        assert!(collected.waits_for_pushes, "{collected:?}");
        assert_eq!(collected.packs_removed, 0, "{collected:?}");
        // One that comes later is not told of what is condemned, and brings it itself.
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
        // Numbers are never given twice.
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
            Operation::Remove("app@v1".parse().expect("a selector")),
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
        let order = Order { destinations: vec![web()], ..order("app", &tree) };
        let receipt = world.push_order(&order).await;
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

/// All files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
