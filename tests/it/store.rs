//! A store after a crash, damage or a full disk, and how pushes heal it.

use std::fs;
use std::path::{Path, PathBuf};

use delta::compression::{Compressor, LEVEL_DEFAULT};
use disk::files::Durability;
use format::pack::{Frame, FrameKind, HEADER_BYTES, Scanner};
use format::recipe::ChunkRef;
use format::record::{DeliveryEvent, DeliveryState, Record};
use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;
use protocol::wire::{Answer, Operation};
use whit::agent::Receipt;
use whit::agent::push::PushOptions;
use whit::restore::ChunkSource;
use whit::store::{Options, Store};

use crate::trees::{assert_same, noise, snapshot, some_tree, text, write};
use crate::world::{World, ask_as, delivered, push_as, push_options, records, try_records, web, within};

const NO_RESERVE: Options =
    Options { reserve_bytes: 0, unindexed_chunks: 0, durability: Durability::Synced, ..Options::PASSING };

fn open(folder: &Path) -> Store {
    Store::open(folder, NO_RESERVE).expect("a store")
}

fn frame(seed: u64) -> Frame {
    let chunks = [noise(seed, 3000), text(seed, 5000)];
    Frame::compress(FrameKind::Content, chunks.iter().map(Vec::as_slice), &mut Compressor::new(LEVEL_DEFAULT))
}

/// Returns how many of the frames' chunks the store can read; the reader verifies them.
fn readable(store: &Store, frames: &[Frame]) -> usize {
    let mut reader = store.reader();
    let chunks = frames.iter().flat_map(|frame| &frame.chunks);
    chunks.filter(|chunk| reader.read(chunk, &mut Vec::new()).is_ok()).count()
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(status.expect("cp runs").success());
}

/// Returns the only file with that ending below a folder.
pub fn only(folder: &Path, ending: &str) -> PathBuf {
    let mut found = all(folder, ending);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

pub fn all(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let names = snapshot(folder);
    names
        .keys()
        .map(|name| folder.join(name))
        .filter(|path| path.extension().is_some_and(|end| end == ending))
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

/// Returns the ranges of the payloads of a pack's frames of one kind.
pub fn payloads(pack: &Path, kind: FrameKind) -> Vec<std::ops::Range<usize>> {
    let bytes = fs::read(pack).expect("a pack");
    let scanner = Scanner::new(&bytes).expect("a pack");
    let place = |(offset, frame): (u64, format::pack::FrameView<'_>)| {
        let begin = usize::try_from(offset).expect("small") + 16 + 36 * frame.chunks().len();
        begin..begin + frame.payload().len()
    };
    scanner.filter(|(_, frame)| frame.kind() == kind).map(place).collect()
}

#[test]
fn a_copy_of_an_open_store_has_every_synced_frame() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("space"));
    let frames: Vec<Frame> = (0..20).map(frame).collect();
    for (number, frame) in (1..).zip(&frames) {
        assert_eq!(store.append(frame).expect("appended"), number);
    }
    assert_eq!(store.sync().expect("synced"), 20);
    // As a crash leaves it: nothing is sealed, nothing closed.
    copy(&folder.path().join("space"), &folder.path().join("copy"));
    let copied = open(&folder.path().join("copy"));
    assert_eq!(readable(&copied, &frames), 40);
    assert!(copied.is_whole());
    assert_eq!(readable(&store, &frames), 40);
}

#[test]
fn a_torn_tail_is_cut_and_every_whole_frame_before_it_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("space"));
    let frames: Vec<Frame> = (0..3).map(frame).collect();
    for frame in &frames {
        store.append(frame).expect("appended");
    }
    let part = only(&folder.path().join("space/packs/open"), "part");
    let bytes = fs::read(&part).expect("an open pack");
    let mut ends = vec![HEADER_BYTES];
    for frame in &frames {
        let mut encoded = Vec::new();
        frame.encode(&mut encoded);
        ends.push(ends.last().expect("one") + encoded.len());
    }
    assert_eq!(*ends.last().expect("one"), bytes.len());
    let near = |end: &usize| end.saturating_sub(2)..(end + 3).min(bytes.len() + 1);
    let mut lengths: Vec<usize> =
        ends.iter().flat_map(near).chain([0, 1, 8, 31, ends[1] + 16, ends[2] + 60]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    for length in lengths {
        let torn = folder.path().join(format!("torn-{length}"));
        fs::create_dir_all(torn.join("packs/open")).expect("created");
        let path = torn.join("packs/open").join(part.file_name().expect("a name"));
        fs::write(&path, &bytes[..length]).expect("written");
        let store = open(&torn);
        let whole = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        assert_eq!(readable(&store, &frames), 2 * whole, "cut to {length}");
        assert!(!path.exists(), "cut to {length}");
        // The store continues after its last whole frame.
        store.append(&frames[2]).expect("appended");
        store.sync().expect("synced");
        assert!(readable(&store, &frames[2..]) == 2);
    }
}

#[test]
fn noise_behind_the_last_frame_is_cut_and_a_flipped_frame_costs_only_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(&folder.path().join("space"));
    let frames: Vec<Frame> = (0..3).map(frame).collect();
    for frame in &frames {
        store.append(frame).expect("appended");
    }
    let part = only(&folder.path().join("space/packs/open"), "part");
    let bytes = fs::read(&part).expect("an open pack");
    let second = payloads(&part, FrameKind::Content)[1].start;
    let mut longer = bytes.clone();
    longer.extend(noise(9, 1000));
    let mut flipped = bytes.clone();
    flipped[second] ^= 1;
    for (name, bytes, expected) in [("longer", longer, 6), ("flipped", flipped, 4)] {
        let space = folder.path().join(name);
        fs::create_dir_all(space.join("packs/open")).expect("created");
        fs::write(space.join("packs/open").join(part.file_name().expect("a name")), bytes).expect("written");
        assert_eq!(readable(&open(&space), &frames), expected, "{name}");
    }
}

#[test]
fn an_index_that_is_gone_or_damaged_is_rebuilt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let space = folder.path().join("space");
    let frames: Vec<Frame> = (0..200).map(frame).collect();
    let store = open(&space);
    for frame in &frames {
        store.append(frame).expect("appended");
    }
    drop(store);
    let database = space.join("index/db");
    let good = fs::read(&database).expect("an index");
    let damages: [(&str, &dyn Fn()); 5] = [
        ("gone", &|| fs::remove_dir_all(space.join("index")).expect("removed")),
        ("emptied", &|| fs::write(&database, b"").expect("written")),
        ("cut in half", &|| fs::write(&database, &good[..good.len() / 2]).expect("written")),
        ("overwritten", &|| fs::write(&database, noise(1, good.len())).expect("written")),
        ("flipped often", &|| {
            let length = fs::read(&database).expect("an index").len();
            (0..length).step_by(4099).for_each(|at| flip(&database, at));
        }),
    ];
    for (what, damage) in damages {
        damage();
        let store = open(&space);
        assert_eq!(readable(&store, &frames), 400, "{what}");
        assert!(store.is_whole(), "{what}");
    }
}

/// Returns a world whose space has one sealed pack with one release, `app`, of `tree`; its proxy is stopped.
async fn one_release() -> (World, PathBuf) {
    let mut world = World::start();
    some_tree(&world.path("tree"), 1);
    world.push("app", &world.path("tree")).await;
    world.stop().await;
    let pack = only(&world.space().join("packs"), "pack");
    (world, pack)
}

/// Asserts that a push sends what is missing, and that the release is then whole.
async fn assert_heals(world: &World) -> Receipt {
    let receipt = world.push("app", &world.path("tree")).await;
    let target = tempfile::tempdir().expect("a temporary folder");
    world.pull("app", &target.path().join("copy")).await.expect("pulled");
    assert_same(&world.path("tree"), &target.path().join("copy"));
    receipt
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_gone_or_damaged_is_noticed_and_the_next_push_brings_it_again() {
    within(async {
        for (what, damage) in [
            ("gone", (|pack| fs::remove_file(pack).expect("removed")) as fn(&Path)),
            ("no header", |pack| flip(pack, 3)),
            ("another footer", |pack| flip(pack, fs::read(pack).expect("a pack").len() - 100)),
            ("another trailer", |pack| flip(pack, fs::read(pack).expect("a pack").len() - 5)),
            ("cut short", |pack| {
                let bytes = fs::read(pack).expect("a pack");
                fs::write(pack, &bytes[..bytes.len() / 2]).expect("written");
            }),
            ("empty", |pack| fs::write(pack, b"").expect("written")),
        ] {
            let (mut world, pack) = one_release().await;
            damage(&pack);
            assert!(!world.store().is_whole(), "{what}");
            world.again();
            assert_eq!(world.releases("app").await.expect("a list").len(), 1, "{what}");
            let error = world.pull("app", &world.path("copy")).await.expect_err("it is not whole");
            assert_eq!(error.fault(), Fault::Corrupt, "{what}: {error}");
            let receipt = assert_heals(&world).await;
            assert_eq!(receipt.chunks.unseen, receipt.chunks.total, "{what}");
            world.stop().await;
            world.again();
            assert_eq!(assert_heals(&world).await.chunks.unseen, 0, "{what}");
        }
    })
    .await;
}

/// Flips a byte in one of the content frames, and asserts that it is never delivered and is healed.
async fn flip_and_heal(which: usize) {
    let (mut world, pack) = one_release().await;
    let payload = payloads(&pack, FrameKind::Content)[which].clone();
    flip(&pack, usize::midpoint(payload.start, payload.end));
    world.again();
    let deliver = Operation::Deliver {
        release: "app".parse().expect("a selector"),
        destinations: vec![web()],
        then: Vec::new(),
    };
    let answers = ask_as(world.access(), &deliver).await.expect("told");
    let failed = |answer: &Answer| {
        matches!(answer, Answer::Delivery(DeliveryEvent { state: DeliveryState::Retrying { .. }, .. }))
    };
    assert!(answers.iter().any(failed), "{answers:?}");
    assert!(!world.path("web/current").exists());
    let error = world.pull("app", &world.path("copy")).await.expect_err("damaged");
    assert_eq!(error.fault(), Fault::Corrupt, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("push")), "{error}");
    assert!(!world.path("copy").exists());

    let receipt = assert_heals(&world).await;
    assert!(receipt.chunks.unseen > 0 && receipt.chunks.unseen < receipt.chunks.total, "{receipt:?}");
    let to_web = PushOptions { destinations: vec![web()], ..push_options("app", &world.path("tree")) };
    let healed = push_as(world.access(), &to_web).await.expect("pushed");
    delivered(&healed.delivered);
    assert_same(&world.path("tree"), &fs::canonicalize(world.path("web/current")).expect("a copy"));
    // Nothing is missing either once the new content is sealed.
    world.stop().await;
    world.again();
    assert_eq!(assert_heals(&world).await.chunks.unseen, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_never_delivered_or_pulled_and_the_next_push_heals_it() {
    // The first frame is raw, the last compressed, so that one flip there spoils all its chunks.
    within(async {
        flip_and_heal(0).await;
        flip_and_heal(3).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_healed_stays_healed_when_its_pack_is_sealed() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let good = frame(1);
        let store = open(folder.path());
        store.append(&good).expect("appended");
        drop(store);
        let pack = only(&folder.path().join("packs"), "pack");
        flip(&pack, payloads(&pack, FrameKind::Content)[0].start + 100);
        let store = open(folder.path());
        assert!(readable(&store, std::slice::from_ref(&good)) < 2);
        assert_eq!(store.find(&good.chunks[0].id).expect("an answer"), None);
        store.append(&good).expect("appended");
        assert_eq!(readable(&store, std::slice::from_ref(&good)), 2);
        store.close();
        assert_eq!(readable(&store, std::slice::from_ref(&good)), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_is_healed_by_the_second_push_at_the_latest() {
    within(async {
        // The first frame holds the segments, the second the root.
        for (damaged, pulled_first) in
            [(0..1, false), (1..2, false), (0..2, false), (0..1, true), (1..2, true)]
        {
            let (mut world, pack) = one_release().await;
            for payload in &payloads(&pack, FrameKind::Manifest)[damaged.clone()] {
                flip(&pack, usize::midpoint(payload.start, payload.end));
            }
            world.again();
            if pulled_first {
                let error = world.pull("app", &world.path("copy")).await.expect_err("damaged");
                assert_eq!(error.fault(), Fault::Corrupt, "{error}");
            }
            write(&world.path("tree"), "README", "Read this.");
            if let Err(error) = world.try_push("app", &world.path("tree")).await {
                assert_eq!(error.fault(), Fault::Corrupt, "{error}");
            }
            assert_heals(&world).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_set_aside_and_the_others_stay() {
    within(async {
        let mut world = World::start();
        for version in ["one", "two", "three"] {
            write(&world.path("tree"), "a", version);
            world.push("app", &world.path("tree")).await;
        }
        world.stop().await;
        let folder = world.space().join("releases/app");
        let good = fs::read(folder.join("0000000003.record")).expect("a record");
        // The history would repair them.
        fs::remove_file(folder.join("history")).expect("removed");
        flip(&folder.join("0000000002.record"), 20);
        fs::write(folder.join("0000000003.record"), b"").expect("written");
        world.again();
        let records = world.releases("app").await.expect("a list");
        assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1]);
        assert!(folder.join("0000000002.damaged").exists() && folder.join("0000000003.damaged").exists());
        let receipt = world.push("app", &world.path("tree")).await;
        assert_eq!((receipt.chunks.unseen, receipt.unchanged), (0, false));
        world.stop().await;

        // A record of a newer version is not damaged: the proxy reports it and touches nothing.
        let mut newer = good[..good.len() - 16].to_vec();
        newer[0] = 2;
        newer.extend_from_slice(&blake3::hash(&newer).as_bytes()[..16]);
        fs::write(folder.join("0000000009.record"), newer).expect("written");
        world.again();
        let error = world.releases("app").await.expect_err("of a newer version");
        assert_eq!(error.fault(), Fault::Version, "{error}");
        assert!(folder.join("0000000009.record").exists());
    })
    .await;
}

#[tokio::test]
async fn every_truncation_and_every_flip_of_a_record_is_noticed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (world, _) = one_release().await;
    let good = fs::read(world.space().join("releases/app/0000000001.record")).expect("a record");
    let app = folder.path().join("releases/app");
    fs::create_dir_all(&app).expect("created");
    let read = |bytes: &[u8]| {
        fs::write(app.join("0000000001.record"), bytes).expect("written");
        // It would repair the record.
        drop(fs::remove_file(app.join("history")));
        try_records(folder.path()).map(|records| records.apps().len())
    };
    assert!(matches!(read(&good), Ok(1)));
    for length in 0..good.len() {
        assert!(matches!(read(&good[..length]), Ok(0)), "cut to {length}");
    }
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x40;
        assert!(matches!(read(&flipped), Ok(0)), "flipped at {at}");
    }
}

/// A file system of a few MiB, unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: PathBuf, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(&place).expect("created");
        let size = format!("size={mebibytes}m");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&place)
            .output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(place))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_a_push_loses_nothing_and_works_again_with_room() {
    within(async {
        // With a reserve the refusal comes before the disk is full; without one the disk itself fails.
        for reserve in [2 << 20, 0] {
            let place = tempfile::tempdir().expect("a temporary folder");
            let Some(disk) = SmallDisk::mount(place.path().join("disk"), 12) else {
                eprintln!("skipped: this user may not mount a small file system");
                return;
            };
            let mut world = World::start_with(|options| {
                options.data = disk.0.join("data");
                options.store.reserve_bytes = reserve;
            });
            some_tree(&world.path("tree"), 1);
            world.push("app", &world.path("tree")).await;
            let ballast = disk.0.join("ballast");
            fs::write(&ballast, noise(3, 5 << 20)).expect("written");
            write(&world.path("large"), "a", noise(4, 16 << 20));
            let error = world.try_push("large", &world.path("large")).await.expect_err("no room");
            assert_eq!(error.fault(), Fault::Full, "{error}");
            assert_eq!(world.releases("large").await.expect_err("not listed").fault(), Fault::Missing);
            world.pull("app", &world.path("copy")).await.expect("what was there still is");
            assert_same(&world.path("tree"), &world.path("copy"));
            fs::remove_file(&ballast).expect("removed");
            write(&world.path("tree"), "more", noise(5, 500_000));
            world.push("app", &world.path("tree")).await;
            world.stop().await;
            world.again();
            assert!(world.push("app", &world.path("tree")).await.unchanged);
            world.pull("app", &world.path("copy")).await.expect("pulled");
            assert_same(&world.path("tree"), &world.path("copy"));
            world.stop().await;
        }
    })
    .await;
}

#[test]
fn a_chunk_that_nobody_stored_is_unknown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(folder.path());
    let chunk = ChunkRef { id: ChunkId::of(b"nobody's"), bytes: 8 };
    let error = store.reader().read(&chunk, &mut Vec::new()).expect_err("unknown");
    assert_eq!(error.fault(), Fault::Corrupt);
}

#[test]
fn digits_that_two_releases_share_are_ambiguous_and_more_digits_are_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let records = records(folder.path());
    for last in [1, 2] {
        let mut id = [0xab; 32];
        id[20..].fill(last);
        let release = ground::ids::ReleaseId::from_bytes(id);
        let record = Record {
            app: "app".parse().expect("a name"),
            release,
            sequence: 0,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: Vec::new(),
            totals: format::manifest::Totals::default(),
            cost: format::record::Cost::default(),
            behalf: Vec::new(),
        };
        records.add(record).expect("written");
    }
    let select = |at: &str| records.select(&format!("app@{at}").parse().expect("a selector"));
    let error = select(&"ab".repeat(4)).expect_err("two fit");
    assert_eq!(error.fault(), Fault::Input, "{error}");
    assert_eq!(select(&format!("{}02", "ab".repeat(20))).expect("one fits").sequence, 2);
    assert_eq!(select("abab").expect_err("too few digits").fault(), Fault::Missing);
}
