//! Verifying finds damage, a push sends what was lost, and the rest is healed from copies.

use std::fs;
use std::path::{Path, PathBuf};

use format::maintenance::{Collected, Verified};
use format::pack::FrameKind;
use format::record::{DeliveryEvent, DeliveryState};
use ground::faults::{Fault, Faulty};
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;

use crate::program::Home;
use crate::store::{all, only, payloads};
use crate::trees::{assert_same, change_byte, noise, write};
use crate::world::{World, ask_as, delivered, push_options, web, within};

pub async fn verify(world: &World, repair: bool) -> Verified {
    let question = Operation::Verify { repair, seconds_max: None };
    match ask_as(world.access(), &question).await.expect("verified").into_iter().next() {
        Some(Answer::Verified(verified)) => *verified,
        other => panic!("{other:?}"),
    }
}

async fn collect(world: &World) -> Collected {
    let question = Operation::Collect { dry_run: false };
    match ask_as(world.access(), &question).await.expect("collected").as_slice() {
        [Answer::Collected(collected)] => *collected,
        other => panic!("{other:?}"),
    }
}

fn some_files(tree: &Path, first: u64) {
    for file in first..first + 10 {
        write(tree, &format!("{file}"), noise(file, 60_000));
    }
}

/// Damages the payload of one of the content frames.
pub fn damage_content(pack: &Path, which: usize) {
    let payload = payloads(pack, FrameKind::Content)[which].clone();
    change_byte(pack, usize::midpoint(payload.start, payload.end));
}

fn sealed(world: &World) -> PathBuf {
    only(&world.space().join("packs"), "pack")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_an_open_pack_is_named_and_healed_by_the_next_push_without_a_restart() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        some_files(&tree, 0);
        world.push("app", &tree).await;
        damage_content(&only(&world.space().join("packs/open"), "part"), 1);
        let found = verify(&world, false).await;
        assert_eq!(found.damaged.len(), 1, "{found:?}");
        assert!(found.damaged[0].chunks > 0, "{found:?}");
        assert_eq!(found.incomplete.len(), 1, "{found:?}");
        assert_eq!(found.incomplete[0].missing_chunks, Some(found.damaged[0].chunks));
        let receipt = world.push("app", &tree).await;
        assert_eq!(receipt.chunks.unseen, found.damaged[0].chunks, "just what was lost");
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
        let mended = verify(&world, true).await;
        assert!(mended.incomplete.is_empty(), "{mended:?}");
        assert_eq!(mended.set_aside, 1, "{mended:?}");
        let after = verify(&world, false).await;
        assert!(after.damaged.is_empty() && after.incomplete.is_empty(), "{after:?}");
        assert!(world.push("app", &tree).await.unchanged);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_pack_is_mended_without_a_push_too() {
    within(async {
        let world = World::start();
        let tree = world.path("tree");
        some_files(&tree, 0);
        let options = PushOptions { destinations: vec![web()], ..push_options("app", &tree) };
        delivered(&world.push_with(&options).await.delivered);
        damage_content(&only(&world.space().join("packs/open"), "part"), 0);
        let mended = verify(&world, true).await;
        assert_eq!((mended.set_aside, mended.incomplete.len()), (1, 0), "{mended:?}");
        assert!(mended.healed_chunks > 0, "{mended:?}");
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_verify_found_the_next_push_is_asked_for_whoever_pushes_and_after_a_restart() {
    within(async {
        let mut world = World::start();
        let (tree, state) = (world.path("tree"), world.path("state"));
        some_files(&tree, 0);
        let remembering = || PushOptions { state: Some(state.clone()), ..push_options("app", &tree) };
        world.push_with(&remembering()).await;
        world.stop().await;
        damage_content(&sealed(&world), 1);
        world.again();
        let found = verify(&world, false).await;
        let lost = found.damaged[0].chunks;
        assert_eq!(found.incomplete[0].missing_chunks, Some(lost), "{found:?}");
        world.stop().await;
        world.again();
        // The agent builds on the release that it remembers as confirmed.
        write(&tree, "more", noise(99, 3_000));
        let receipt = world.push_with(&remembering()).await;
        assert_eq!(receipt.chunks.unseen, lost + 1, "{receipt:?}");
        let mended = verify(&world, true).await;
        assert!(mended.incomplete.is_empty(), "{mended:?}");
        assert_eq!(verify(&world, false).await.damaged, []);
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_no_release_needs_is_not_built_on_by_a_later_push() {
    within(async {
        let mut world = World::start();
        let (tree, other) = (world.path("tree"), world.path("other"));
        some_files(&tree, 0);
        some_files(&other, 50);
        world.push("app", &tree).await;
        world.push("other", &other).await;
        world.stop().await;
        damage_content(&sealed(&world), 1);
        world.again();
        let remove =
            Operation::Remove { release: "app".parse().expect("a selector"), all_labels: true, force: true };
        ask_as(world.access(), &remove).await.expect("removed");
        let found = verify(&world, false).await;
        assert_eq!((found.damaged.len(), found.incomplete.len()), (1, 0), "{found:?}");
        let receipt = world.push("app", &tree).await;
        assert_eq!(receipt.chunks.unseen, found.damaged[0].chunks, "{receipt:?}");
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_corrupt_to_every_request_that_meets_it() {
    within(async {
        for kind in [FrameKind::Content, FrameKind::Manifest] {
            let mut world = World::start();
            let tree = world.path("tree");
            some_files(&tree, 0);
            world.push("app", &tree).await;
            some_files(&tree, 20);
            world.push("app", &tree).await;
            world.stop().await;
            let pack = sealed(&world);
            for payload in payloads(&pack, kind) {
                change_byte(&pack, usize::midpoint(payload.start, payload.end));
            }
            world.again();
            let error = world.pull("app", &world.path("copy")).await.expect_err("damaged");
            assert_eq!(error.fault(), Fault::Corrupt, "{error}");
            let (release, destinations) = ("app".parse().expect("a selector"), vec![web()]);
            let deliver = Operation::Deliver { release, destinations, then: Vec::new() };
            let told = ask_as(world.access(), &deliver).await.expect("told");
            let failed = |answer: &Answer| match answer {
                Answer::Delivery(DeliveryEvent { state, .. }) => {
                    matches!(
                        state,
                        DeliveryState::Retrying { fault: Fault::Corrupt, .. }
                            | DeliveryState::Failed { fault: Fault::Corrupt, .. }
                    )
                }
                _ => false,
            };
            assert!(told.iter().any(failed), "{told:?}");
            if kind == FrameKind::Manifest {
                let records = world.releases("app").await.expect("listed");
                let at = |at: usize| format!("app@{}", records[at].release).parse().expect("a selector");
                let compare = Operation::Difference { from: at(1), to: at(0) };
                let error = ask_as(world.access(), &compare).await.expect_err("damaged");
                assert_eq!(error.fault(), Fault::Corrupt, "{error}");
            }
            let found = verify(&world, false).await;
            assert!(!found.incomplete.is_empty(), "{found:?}");
            assert_eq!(found.incomplete[0].missing_chunks.is_none(), kind == FrameKind::Manifest);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_cut_while_the_proxy_runs_is_damage() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        some_files(&tree, 0);
        world.push("app", &tree).await;
        world.stop().await;
        world.again();
        world.releases("app").await.expect("listed");
        fs::File::options()
            .write(true)
            .open(sealed(&world))
            .and_then(|pack| pack.set_len(5000))
            .expect("cut");
        let error = world.pull("app", &world.path("copy")).await.expect_err("cut");
        assert_eq!(error.fault(), Fault::Corrupt, "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_and_keeps_its_release_until_an_admin_knows() {
    within(async {
        let mut world = World::start();
        for name in ["one", "two"] {
            let tree = world.path(name);
            write(&tree, "file", noise(u64::from(name.as_bytes()[0]), 300_000));
            world.push(name, &tree).await;
            world.stop().await;
            world.again();
        }
        // A record that is damaged while its content is in memory is rewritten.
        let record = only(&world.space().join("releases/one"), "record");
        let right = fs::read(&record).expect("a record");
        world.releases("one").await.expect("listed");
        change_byte(&record, 9);
        assert_eq!(verify(&world, false).await.damaged[0].file, record.display().to_string());
        assert_eq!(verify(&world, true).await.damaged.len(), 1);
        assert_eq!(fs::read(&record).expect("a record"), right);
        assert_eq!(verify(&world, false).await.damaged, []);
        world.stop().await;
        // Nothing knows its content any more.
        fs::remove_file(record.with_file_name("history")).expect("removed");
        change_byte(&record, 9);
        world.again();
        for _ in 0..2 {
            let found = verify(&world, false).await;
            assert!(found.damaged[0].file.ends_with(".damaged"), "{found:?}");
        }
        let collected = collect(&world).await;
        assert_eq!((collected.unreadable, collected.packs_removed), (1, 0), "{collected:?}");
        assert_eq!(verify(&world, true).await.records_let_go, 1);
        assert_eq!(verify(&world, false).await.damaged, []);
        assert_eq!(collect(&world).await.packs_removed, 1);
        world.pull("two", &world.path("copy")).await.expect("pulled");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_took_the_place_of_a_changed_one_is_healed_from() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        some_files(&tree, 0);
        let options = PushOptions { destinations: vec![web()], ..push_options("app", &tree) };
        let first = delivered(&world.push_with(&options).await.delivered).clone();
        // Every file of the first copy is cut; the next delivery puts another copy in its place, and it aside.
        for name in fs::read_dir(&first.place).expect("a copy") {
            fs::write(name.expect("a file").path(), "changed").expect("written");
        }
        let second = delivered(&world.push_with(&options).await.delivered).clone();
        assert_eq!(first.place, second.place);
        world.stop().await;
        let pack = sealed(&world);
        for payload in payloads(&pack, FrameKind::Content) {
            change_byte(&pack, usize::midpoint(payload.start, payload.end));
        }
        world.again();
        let mended = verify(&world, true).await;
        assert!(mended.healed_chunks > 0 && mended.incomplete.is_empty(), "{mended:?}");
    })
    .await;
}

#[test]
fn what_a_command_delivered_to_a_folder_is_healed_from_by_a_later_command() {
    let home = Home::new();
    let tree = home.path("tree");
    for file in 0..5 {
        write(&tree, &format!("{file}"), noise(file, 300_000));
    }
    let folder = home.path("somewhere");
    home.run(&["push", "app", "tree", "--to", &format!("dir:{}", folder.display())]).good();
    let packs = home.path("home").join(".local/share/whit");
    let pack = all(&packs, "pack").remove(0);
    damage_content(&pack, 2);
    let found = home.run(&["verify"]).failed(5, "damaged or missing");
    assert!(found.out.contains("damaged: ") && found.out.contains("incomplete: app@"), "{found:?}");
    assert!(!found.out.contains("every chunk of every release is present"), "{found:?}");
    home.run(&["verify", "--repair"]).good();
    let after = home.run(&["verify"]).good();
    assert!(after.contains("every chunk of every release is present"), "{after}");
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&tree, &home.path("copy"));
}
