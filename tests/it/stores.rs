//! Stores of earlier versions, checked in as those left them (`tests/stores/make`): each is opened, updated, verified,
//! pulled from and pushed to.
//!
//! If this fails, users cannot read their data with the new version. A changed format needs a new version that reads
//! the old one (FORMAT, *Versions*); no store here is ever regenerated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use format::maintenance::Verified;
use ground::faults::{Fault, Faulty};
use protocol::wire::{Answer, Operation};
use whit::agent::Access;
use whit::delivery::destination;
use whit::proxy::{Options, Proxy};
use whit::restore::OutsideLinks;

use crate::trees::assert_same;
use crate::world::{World, ask_as, pull_as, push_as, push_options, releases_as, web, within};

/// Returns every checked-in store.
fn stores() -> Vec<PathBuf> {
    let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores")).expect("a folder");
    let paths = all.map(|entry| entry.expect("an entry").path());
    let mut stores: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    stores.sort();
    stores
}

/// A proxy on a copy of a store's data, as `serve` would run it.
struct Old {
    folder: tempfile::TempDir,
    proxy: Option<Proxy>,
    access: Access,
    revoked: Access,
    trees: PathBuf,
}

impl Old {
    fn open(store: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copied = Command::new("cp").arg("-a").arg(store.join("data")).arg(folder.path()).status();
        assert!(copied.expect("cp").success());
        let mut options = Options::new(&folder.path().join("data"), ([127, 0, 0, 1], 0).into());
        options.store.reserve_bytes = 0;
        let local = destination::local(folder.path().join("web"), OutsideLinks::Refuse);
        options.destinations = BTreeMap::from([(web(), local)]);
        let proxy = Proxy::start(&options).expect("the old data is served");
        assert!(!proxy.is_first_start(), "the old keys are used");
        let text = |name: &str| fs::read_to_string(store.join(name)).expect("a token").trim().to_owned();
        let access = |name: &str| Access { url: proxy.url().clone(), token: text(name) };
        let (access, revoked) = (access("token"), access("revoked-token"));
        Self { trees: store.join("trees"), folder, proxy: Some(proxy), access, revoked }
    }

    async fn verify(&self, repair: bool) -> Verified {
        let question = Operation::Verify { repair, seconds_max: None };
        match ask_as(&self.access, &question).await.expect("verified").into_iter().next() {
            Some(Answer::Verified(verified)) => *verified,
            other => panic!("{other:?}"),
        }
    }

    /// Pulls a release and compares it with what was pushed.
    async fn pulls(&self, selector: &str, tree: &str) {
        let copy = self.folder.path().join(format!("copy-{tree}"));
        pull_as(&self.access, selector, &copy, false).await.expect("pulled");
        assert_same(&self.trees.join(tree), &copy);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_every_format_are_opened_verified_and_pulled_from() {
    let stores = stores();
    assert!(!stores.is_empty());
    for store in stores {
        println!("{}", store.display());
        within(async {
            let mut old = Old::open(&store);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running =
                tokio::spawn(old.proxy.take().expect("it was started").run(async { drop(stopped.await) }));
            let records = releases_as(&old.access, "app").await.expect("the old token is accepted");
            let labels: Vec<_> =
                records.iter().flat_map(|record| &record.labels).map(ground::ids::Label::as_str).collect();
            assert_eq!(labels, ["v4", "v2", "v1"]);
            let refused = releases_as(&old.revoked, "app").await.expect_err("it was revoked");
            assert_eq!(refused.fault(), Fault::Denied);

            let verified = old.verify(false).await;
            assert!(verified.damaged.is_empty() && verified.incomplete.is_empty(), "{verified:?}");
            assert!(verified.packs >= 2 && verified.chunks > 10, "{verified:?}");
            for (selector, tree) in [("app@v1", "1"), ("app@v2", "2"), ("app@v4", "4")] {
                old.pulls(selector, tree).await;
            }
            // The delivery recorded then is made now.
            let current = old.folder.path().join("web/current");
            while !current.exists() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            assert_same(&old.trees.join("4"), &fs::canonicalize(&current).expect("a copy"));

            // A pinned release stays; a removed one is collected; one that is pushed again is known.
            let remove = |selector: &str| {
                let release = selector.parse().expect("a selector");
                Operation::Remove { release, all_labels: true, force: true }
            };
            assert_eq!(
                ask_as(&old.access, &remove("app@v1")).await.expect_err("pinned").fault(),
                Fault::Input
            );
            let again =
                push_as(&old.access, &push_options("app", &old.trees.join("2"))).await.expect("pushed");
            assert_eq!((again.bytes.unseen, again.sequence), (0, Some(5)));
            ask_as(&old.access, &Operation::Collect { dry_run: false }).await.expect("collected");
            let verified = old.verify(true).await;
            assert!(verified.damaged.is_empty() && verified.incomplete.is_empty(), "{verified:?}");
            drop(stop);
            running.await.expect("the proxy ends well");
        })
        .await;
    }
}

/// A content has one id for ever: otherwise no stored release would match a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_today_gets_the_id_that_it_got_then() {
    within(async {
        let world = World::start();
        for store in stores() {
            let mut old = Old::open(&store);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running =
                tokio::spawn(old.proxy.take().expect("it was started").run(async { drop(stopped.await) }));
            let records = releases_as(&old.access, "app").await.expect("listed");
            for (record, tree) in records.iter().zip(["4", "2", "1"]) {
                let receipt = world.push("new", &old.trees.join(tree)).await;
                assert_eq!(receipt.release, record.release, "{}: tree {tree}", store.display());
            }
            drop(stop);
            running.await.expect("the proxy ends well");
        }
    })
    .await;
}
