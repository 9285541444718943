//! Releases with archives whose manifests are damaged, gone, or left over.

use std::fs;
use std::path::{Path, PathBuf};

use ground::ids::ReleaseId;
use whit::agent::Effort;
use whit::agent::push::PushOptions;
use whit::store::{FaultInjection, Store, collect, verify_releases};

use crate::archives::zip;
use crate::damage::verify;
use crate::trees::{assert_same, text, write};
use crate::world::{World, push_options, within};

fn tree(folder: &Path, build: u64) {
    let members = vec![
        ("core.js", text(1, 300_000)),
        ("view.js", [text(3, 150_000), text(100 + build, 500), text(4, 150_000)].concat()),
    ];
    write(folder, "app.jar", zip(&members, true));
    write(folder, "README", format!("Build {build}."));
}

fn raw(source: &Path) -> PushOptions {
    PushOptions { raw: true, ..push_options("app", source) }
}

fn unpacking(source: &Path) -> PushOptions {
    PushOptions { effort: Effort::Bytes, ..push_options("app", source) }
}

fn manifests(world: &World, release: ReleaseId) -> PathBuf {
    world.space().join("manifests").join(format!("{release}.manifests"))
}

fn assert_whole(store: &Store) {
    let incomplete = verify_releases(store).expect("verified");
    assert!(incomplete.is_empty(), "{incomplete:?}");
    let collected = collect(store, &Vec::new, false, &false.into()).expect("collected");
    assert_eq!(collected.unreadable, 0);
}

async fn assert_pulled(world: &World, selector: &str, source: &Path) {
    let copy = tempfile::tempdir().expect("a temporary folder");
    world.pull(selector, &copy.path().join("copy")).await.expect("pulled");
    assert_same(source, &copy.path().join("copy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_was_removed_is_pushed_again_in_the_other_form() {
    within(async {
        let mut world = World::start();
        let source = world.path("tree");
        tree(&source, 0);
        let first = world.push_with(&raw(&source)).await;
        // The next one goes to another pack.
        world.stop().await;
        world.again();
        tree(&source, 1);
        world.push_with(&unpacking(&source)).await;
        world.stop().await;
        // Removed and collected, up to the last step: a crash left the names of its roots.
        let file = manifests(&world, first.release);
        let left = fs::read(&file).expect("written");
        let store = world.store();
        store.records().remove_held(&"app".parse().expect("a name"), &first.release).expect("removed");
        for _ in 0..2 {
            collect(&store, &Vec::new, false, &false.into()).expect("collected");
        }
        assert!(!file.exists());
        drop(store);
        fs::write(&file, left).expect("written");
        world.again();
        tree(&source, 0);
        let again = world.push_with(&unpacking(&source)).await;
        assert_eq!((again.release, again.archives.files), (first.release, 1));
        assert_pulled(&world, "app", &source).await;
        world.stop().await;
        assert_whole(&world.store());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_replaces_a_damaged_list_of_manifests() {
    within(async {
        for damage in [Some(&b"damaged"[..]), None] {
            let mut world = World::start();
            let source = world.path("tree");
            tree(&source, 0);
            let first = world.push_with(&raw(&source)).await;
            world.stop().await;
            let file = manifests(&world, first.release);
            match damage {
                Some(bytes) => fs::write(&file, bytes).expect("written"),
                None => fs::remove_file(&file).expect("removed"),
            }
            world.again();
            // Whoever pulls it finds out.
            world.pull("app", &world.path("copy")).await.expect_err("damaged");
            let again = world.push_with(&unpacking(&source)).await;
            assert_eq!(again.release, first.release);
            assert_pulled(&world, "app", &source).await;
            world.stop().await;
            assert_whole(&world.store());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_finds_the_manifests_of_a_list_that_is_gone_and_proves_them() {
    within(async {
        for (fault, found) in [(None, 1), (Some(FaultInjection::OtherArchives), 0)] {
            let mut world = World::start_with(|options| options.store.fault_injection = fault);
            let source = world.path("tree");
            for build in 0..2 {
                tree(&source, build);
                let pushed = world.push_with(&unpacking(&source)).await;
                assert_eq!(pushed.archives.files, found, "{pushed:?}");
                let file = manifests(&world, pushed.release);
                let before = fs::read(&file).expect("written");
                world.stop().await;
                fs::write(&file, b"damaged").expect("written");
                world.again();
                let [seen, mended] = [verify(&world, false).await, verify(&world, true).await];
                assert_eq!((seen.incomplete.len(), mended.incomplete.len()), (1, 0));
                // What was refused is in the packs too, and is refused again.
                assert_eq!(fs::read(&file).expect("written"), before);
                assert_pulled(&world, "app", &source).await;
            }
        }
    })
    .await;
}
