//! A release goes on from the store that it is in: without its files, as small as a push of them.

use std::path::Path;
use std::sync::Arc;

use ground::ids::ReleaseId;
use ground::monitor::{Monitor, Silent};
use whit::agent::push::{PushOptions, StoredRelease, push_stored};
use whit::agent::{Receipt, Session};
use whit::net::link;
use whit::restore::ChunkSource;
use whit::store::Store;

use crate::archives::zip;
use crate::trees::{assert_same, noise, text, write};
use crate::world::{World, push_options, within};

/// Writes a build: text, noise and an archive, of which a little depends on `build`.
fn tree(folder: &Path, build: u64) {
    write(folder, "site/app.js", [text(1, 400_000), text(100 + build, 300), text(2, 400_000)].concat());
    write(folder, "site/image.bin", noise(3, 500_000));
    let members = [
        ("core.js", text(4, 300_000)),
        ("version.js", text(200 + build, 2_000)),
        ("view.js", [text(5, 150_000), text(300 + build, 300), text(6, 150_000)].concat()),
    ];
    write(folder, "lib/app.jar", zip(&members, true));
    write(folder, "version", format!("{build}"));
}

/// Pushes a release of `store` over a link of 1 MB/s, for which content is encoded as small as it gets.
async fn push_on(
    to: &World,
    store: &Arc<Store>,
    release: &ReleaseId,
    base: Option<&ReleaseId>,
    was_cut: bool,
) -> Receipt {
    let root = |release: &ReleaseId| store.root(release).expect("it is stored");
    let (root, base) = (root(release), base.map(root));
    let source = store.shared().expect("a store is shared");
    let stored = Arc::new(StoredRelease { root, source, base, was_cut });
    let options = PushOptions { link_rate: Some(1e6), ..push_options("web", Path::new("")) };
    let session = Session::open(to.access(), &link::Options::default()).await.expect("a session");
    let monitor: Arc<dyn Monitor> = Arc::new(Silent);
    let receipt = Box::pin(push_stored(&session, &options, &stored, &monitor)).await.expect("pushed");
    session.finish().await;
    receipt
}

#[tokio::test]
async fn a_stored_release_goes_on_as_small_as_a_push_of_its_files() {
    within(async {
        let (mut office, region) = (World::start(), World::start());
        let state = office.path("state");
        let mut pushed = Vec::new();
        for build in [1, 2] {
            let folder = office.path(&format!("build{build}"));
            std::fs::create_dir(&folder).expect("a folder");
            tree(&folder, build);
            let options = PushOptions {
                state: Some(state.clone()),
                link_rate: Some(1e6),
                ..push_options("web", &folder)
            };
            pushed.push(office.push_with(&options).await);
        }
        office.stop().await;
        let store = Arc::new(office.store());
        let first = push_on(&region, &store, &pushed[0].release, None, false).await;
        let second = push_on(&region, &store, &pushed[1].release, Some(&first.release), false).await;
        for ((on, pushed), build) in [first, second].iter().zip(&pushed).zip(1..) {
            assert_eq!((on.release, on.archives.files), (pushed.release, 1));
            let (sent, before) = (on.bytes.sent, pushed.bytes.sent);
            assert!(sent <= before + before / 10, "{sent} B, the first push {before} B");
            let target = region.path(&format!("target{build}"));
            region.pull(&format!("web@{}", on.release), &target).await.expect("pulled");
            assert_same(&office.path(&format!("build{build}")), &target);
        }
        // What the proxy has is not sent again, whatever this side believes.
        let again = push_on(&region, &store, &pushed[1].release, None, true).await;
        assert_eq!((again.bytes.sent, again.unchanged), (0, true));
    })
    .await;
}
