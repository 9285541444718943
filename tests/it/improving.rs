//! Archives that crossed packed are unpacked while nobody uses the proxy.

use std::path::Path;
use std::time::Duration;

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::manifest::{Builder, EntryPath, Item, Profile, Root, Shape};
use format::pack::{Frame, FrameKind};
use format::recipe::{ChunkRef, Recipe};
use format::record::{Cost, Record};
use format::release_manifests::ReleaseManifests;
use ground::ids::ReleaseId;
use recode::codec::{Check, Method, Xz};
use whit::agent::Effort;
use whit::agent::pull::PullOptions;
use whit::agent::push::PushOptions;
use whit::store::{ArchiveForm, Pass, Store};

use crate::archives::zip;
use crate::codec::pack;
use crate::trees::{assert_same, noise, text, write};
use crate::world::{World, pull_with, push_options, within};

/// Starts a proxy that improves at once.
fn start() -> World {
    World::start_with(|options| {
        options.maintenance.improve_after = Some(Duration::from_millis(50));
        options.maintenance.look_every = Duration::from_millis(20);
    })
}

fn tree(folder: &Path, build: u64) {
    let members = vec![
        ("core.js", text(1, 300_000)),
        ("data.bin", noise(2, 60_000)),
        ("view.js", [text(3, 150_000), text(100 + build, 500), text(4, 150_000)].concat()),
    ];
    write(folder, "app.jar", zip(&members, true));
    // Of this one nothing can be unpacked.
    write(folder, "stored.zip", zip(&[("noise", noise(build + 7, 40_000))], false));
    write(folder, "README", format!("Build {build}."));
}

fn raw(app: &str, source: &Path) -> PushOptions {
    PushOptions { raw: true, ..push_options(app, source) }
}

fn unpacking(app: &str, source: &Path) -> PushOptions {
    PushOptions { effort: Effort::Bytes, ..push_options(app, source) }
}

/// Waits until a release of a running proxy has so many manifests.
async fn wait_for_manifests(world: &World, release: ReleaseId, count: usize) {
    let file = world.space().join("manifests").join(format!("{release}.manifests"));
    let counted = || {
        let value = std::fs::read(&file).ok().and_then(|bytes| ReleaseManifests::decode(&bytes).ok());
        value.map_or(0, |manifests| manifests.roots().count())
    };
    while counted() != count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crossed_as_it_is_is_built_on_by_pushes_that_unpack() {
    within(async {
        let mut world = start();
        let source = world.path("tree");
        tree(&source, 0);
        let first = world.push_with(&raw("app", &source)).await;
        wait_for_manifests(&world, first.release, 2).await;
        // The same release, without a byte.
        let again = world.push_with(&unpacking("app", &source)).await;
        assert!(again.unchanged && again.release == first.release && again.archives.files == 1, "{again:?}");
        assert_eq!(again.bytes.sent, 0);
        // An agent without memory sends what changed inside.
        tree(&source, 1);
        let second = world.push_with(&unpacking("app", &source)).await;
        assert!(second.bytes.sent < 60_000, "{second:?}");
        let copy = world.path("copy");
        world.pull("app", &copy).await.expect("pulled");
        assert_same(&source, &copy);
        world.pull(&format!("app@{}", first.release), &world.path("first")).await.expect("pulled");
        world.stop().await;
        let store = world.store();
        assert!(whit::store::verify_releases(&store).expect("verified").is_empty());
        let pass = Pass { repair: false, duration_max: None, bytes_per_second: None };
        let verified = whit::store::verify_packs(&store, pass, &false.into()).expect("verified");
        assert!(verified.damaged.is_empty(), "{verified:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_bytes_of_earlier_releases_go_and_their_archives_come_out_bit_for_bit() {
    within(async {
        let mut world = start();
        let source = world.path("tree");
        let mut pushed = Vec::new();
        for build in 0..4 {
            tree(&source, build);
            let receipt = world.push_with(&raw("app", &source)).await;
            wait_for_manifests(&world, receipt.release, 2).await;
            pushed.push(receipt.release);
        }
        for release in &pushed[..2] {
            wait_for_manifests(&world, *release, 1).await;
        }
        // The third is the one before the current one; the first two are stored unpacked alone.
        world.stop().await;
        let store = world.store();
        let packed: Vec<bool> =
            pushed.iter().map(|release| store.records().roots(release).expect("listed").len() == 2).collect();
        assert_eq!(packed, [false, false, true, true]);
        drop(store);
        world.again();
        for (build, release) in pushed.iter().enumerate() {
            tree(&source, build as u64);
            let copy = world.path(&format!("copy {build}"));
            world.pull(&format!("app@{release}"), &copy).await.expect("pulled");
            assert_same(&source, &copy);
        }
        world.stop().await;
        let store = world.store();
        let [first, last] = [(); 2]
            .map(|()| whit::store::collect(&store, &Vec::new, false, &false.into()).expect("collected"));
        // No manifest names the packed bytes that only the first two had.
        let dead = first.removed_chunks + last.removed_chunks + last.dead_chunks_left;
        assert!(dead > 0, "{first:?} {last:?}");
        assert!(whit::store::verify_releases(&store).expect("verified").is_empty());
    })
    .await;
}

/// Stores a release of one archive that is cut every 10,000 bytes, which no honest agent does.
fn push_cut_otherwise(store: &Store, app: &str, archive: &[u8]) -> Root {
    let parts: Vec<&[u8]> = archive.chunks(10_000).collect();
    let mut builder = Builder::new(Profile::DEFAULT);
    let path = EntryPath::new(b"app.jar".to_vec()).expect("a path");
    let file = Item::File { path, mode: 0o644, size: archive.len() as u64, recipe: Recipe::Packed };
    let items = std::iter::once(file).chain(parts.iter().map(|part| Item::Chunk(ChunkRef::of(part))));
    let mut manifest: Vec<Vec<u8>> =
        items.filter_map(|item| builder.push(&item)).map(|segment| segment.bytes).collect();
    let (last, root, _) = builder.finish(Shape::Tree).expect("small");
    manifest.extend(last.map(|last| last.bytes));
    manifest.push(root.encode());
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    for (kind, parts) in
        [(FrameKind::Content, parts), (FrameKind::Manifest, manifest.iter().map(Vec::as_slice).collect())]
    {
        store.append(&Frame::compress(kind, parts, &mut compressor)).expect("appended");
    }
    store.sync().expect("synced");
    store.keep_root(&root, ArchiveForm::Packed).expect("kept");
    let record = Record {
        app: app.parse().expect("a name"),
        release: root.release(),
        sequence: 0,
        created: 1,
        user: "mallory".parse().expect("a name"),
        labels: Vec::new(),
        totals: root.totals,
        cost: Cost::default(),
        behalf: Vec::new(),
    };
    store.records().add(record).expect("recorded");
    root
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_was_cut_otherwise_stays_as_it_is_and_others_do_not_wait_for_it() {
    within(async {
        let mut world = start();
        world.stop().await;
        let archive = zip(&[("core.js", text(1, 300_000))], true);
        // Its application comes first.
        let odd = push_cut_otherwise(&world.store(), "a", &archive);
        world.again();
        let source = world.path("tree");
        tree(&source, 0);
        let pushed = world.push_with(&raw("b", &source)).await;
        wait_for_manifests(&world, pushed.release, 2).await;
        // Nothing can be done with the other one; it is not tried again.
        let file = world.space().join("manifests").join(format!("{}.manifests", odd.release()));
        let both = ReleaseManifests { packed: Some(odd.id()), unpacked: Some(odd.id()) };
        assert_eq!(std::fs::read(file).expect("written"), both.encode());
        world.pull("a", &world.path("copy")).await.expect("pulled");
        assert!(std::fs::read(world.path("copy/app.jar")).expect("written") == archive);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_crossed_unpacked_is_packed_for_those_who_pull_it_and_comes_unpacked_over_slow_links() {
    within(async {
        let mut world = start();
        let source = world.path("tree");
        let (near, far) = (world.path("near"), world.path("far"));
        let slow = PullOptions { link_rate: Some(100_000.0), ..PullOptions::default() };
        let mut changed = Vec::new();
        for build in 0..2 {
            tree(&source, build);
            let pushed = world.push_with(&unpacking("app", &source)).await;
            assert_eq!(pushed.archives.files, 1);
            wait_for_manifests(&world, pushed.release, 2).await;
            world.pull("app", &near).await.expect("pulled");
            assert_same(&source, &near);
            let pulled = pull_with(world.access(), "app", &far, slow).await.expect("pulled");
            assert_same(&source, &far);
            changed.push(pulled.wire.down);
        }
        // Of the second build it fetched what changed inside, and `stored.zip`.
        assert!(changed[1] < changed[0] / 2 && changed[1] < 60_000, "{changed:?}");
        world.stop().await;
        assert!(whit::store::verify_releases(&world.store()).expect("verified").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_that_spares_bytes_sends_more_than_one_that_leaves_archives_as_they_are() {
    within(async {
        let late = || {
            World::start_with(|options| options.maintenance.improve_after = Some(Duration::from_secs(3600)))
        };
        // Of what crosses as it is, one proxy never hears otherwise, one has unpacked nothing as yet, one improves at once.
        let (as_it_is, late, soon) = (late(), late(), start());
        let source = as_it_is.path("tree");
        let mut sent = Vec::new();
        for build in 0..3 {
            tree(&source, build);
            let plain = [text(1, 900_000), text(10 + build, 2_000), text(2, 900_000)].concat();
            write(&source, "data.xz", pack(&plain, Method::Xz(Xz::threaded(6, Check::Crc64))));
            let left = as_it_is.push_with(&raw("app", &source)).await.bytes.sent;
            let spared = late.push_with(&unpacking("app", &source)).await.bytes.sent;
            let improved = soon.push_with(&unpacking("app", &source)).await;
            wait_for_manifests(&soon, improved.release, 2).await;
            assert!(spared.max(improved.bytes.sent) <= left * 101 / 100, "{left} {spared} {improved:?}");
            sent.push(improved.bytes.sent);
        }
        // Once all is unpacked, what changed inside crosses.
        assert!(sent[1].max(sent[2]) < 60_000, "{sent:?}");
    })
    .await;
}
