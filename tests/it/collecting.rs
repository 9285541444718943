//! Collecting garbage in hard cases: on a full disk, and beside pushes that have stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::maintenance::Collected;
use format::pack::{Frame, FrameKind};
use protocol::wire::{Answer, Operation};
use whit::agent::push::PushOptions;
use whit::ledger::{LEASE_LIFE_MAX, LEASE_TIME};
use whit::restore::ChunkSource;
use whit::store::{Options, Store};

use crate::trees::{assert_same, noise, write};
use crate::walker::{Step, Walker};
use crate::world::{World, ask_as, push_options, within};

async fn collected(world: &World, dry_run: bool) -> Collected {
    match ask_as(world.access(), &Operation::Collect { dry_run }).await.expect("collected").as_slice() {
        [Answer::Collected(collected)] => *collected,
        other => panic!("{other:?}"),
    }
}

async fn remove(world: &World, selector: &str) {
    let remove =
        Operation::Remove { release: selector.parse().expect("a selector"), all_labels: true, force: true };
    ask_as(world.access(), &remove).await.expect("removed");
}

/// A mounted tmpfs, unmounted on drop.
pub struct Mounted(pub PathBuf);

impl Mounted {
    fn new(at: &Path, mebibytes: u32) -> Option<Self> {
        Self::with(at, &format!("size={mebibytes}m"))
    }

    /// Mounts it with these options; returns none where that is not allowed.
    pub fn with(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("created");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        mount.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("a file system");
        stat.f_bavail * stat.f_frsize
    }

    /// Fills all but `left` bytes.
    fn fill(&self, left: u64) {
        let file = File::create(self.0.join("ballast")).expect("created");
        let bytes = self.free().saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("filled");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["--lazy"]).arg(&self.0).status());
    }
}

const MIB: u64 = 1024 * 1024;

/// Pushes trees and removes their releases; most of them share content with one that stays.
async fn mostly_garbage(world: &mut World, dead: u64, partly: u64) {
    let kept = world.path("kept");
    for number in 0..dead + partly {
        let tree = world.path(&format!("tree{number}"));
        write(&tree, "own", noise(number, 1_800_000));
        if number >= dead {
            let shared = noise(1000 + number, 200_000);
            write(&tree, "shared", &shared);
            write(&kept, &format!("{number}"), &shared);
        }
        let label = format!("v{number}").parse().expect("a label");
        world.push_with(&PushOptions { labels: vec![label], ..push_options("app", &tree) }).await;
        // A restart seals the open pack, so that each release has its own.
        world.stop().await;
        world.again();
    }
    world.push("kept", &kept).await;
    world.stop().await;
    world.again();
    for number in 0..dead + partly {
        remove(world, &format!("app@v{number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_packs_are_gathered_though_nothing_is_dead() {
    within(async {
        let mut world = World::start();
        let tree = world.path("tree");
        for number in 0..20 {
            write(&tree, &format!("{number}"), noise(number, 5_000));
            world.push("app", &tree).await;
            // A restart seals the open pack.
            world.stop().await;
            world.again();
        }
        let promised = collected(&world, true).await;
        assert_eq!((promised.packs_removed, promised.removed_chunks), (20, 0), "{promised:?}");
        assert_eq!(collected(&world, false).await, promised);
        let again = collected(&world, false).await;
        assert_eq!((again.packs, again.packs_removed), (1, 0), "{again:?}");
        world.stop().await;
        world.again();
        world.pull("app", &world.path("copy")).await.expect("pulled");
        assert_same(&tree, &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_promises_what_a_run_does() {
    within(async {
        let mut world = World::start();
        mostly_garbage(&mut world, 1, 2).await;
        let promised = collected(&world, true).await;
        assert_eq!(promised.packs_removed, 3, "{promised:?}");
        assert_eq!(collected(&world, false).await, promised);
        let promised = collected(&world, true).await;
        assert_eq!(promised.packs_removed, 0, "{promised:?}");
        assert_eq!(collected(&world, false).await, promised);
        world.pull("kept", &world.path("copy")).await.expect("pulled");
        assert_same(&world.path("kept"), &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_goes_though_its_pack_is_still_written_to() {
    within(async {
        let world = World::start();
        for (number, bytes) in [(0, 3_000_000), (1, 300_000)] {
            let tree = world.path(&format!("tree{number}"));
            write(&tree, "file", noise(number, bytes));
            let label = format!("v{number}").parse().expect("a label");
            world.push_with(&PushOptions { labels: vec![label], ..push_options("app", &tree) }).await;
        }
        remove(&world, "app@v0").await;
        let promised = collected(&world, true).await;
        assert!(promised.reclaimed_bytes > 2_900_000 && promised.removed_chunks > 100, "{promised:?}");
        assert_eq!(collected(&world, false).await, promised);
        assert_eq!(collected(&world, true).await.removed_chunks, 0);
        world.pull("app@v1", &world.path("copy")).await.expect("pulled");
        assert_same(&world.path("tree1"), &world.path("copy"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_collected_and_no_run_takes_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = Mounted::new(&folder.path().join("m"), 48) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    within(async {
        // With a reserve that is large enough, and without any and with a completely full disk.
        for (reserve_bytes, left) in [(8 * MIB, 8 * MIB), (8 * MIB, 0), (0, 0)] {
            let data = disk.0.join("data");
            let mut world = World::start_with(|options| {
                options.data.clone_from(&data);
                options.store.reserve_bytes = reserve_bytes;
            });
            mostly_garbage(&mut world, 3, 4).await;
            disk.fill(left);
            let begin = disk.free();
            let mut free = begin;
            loop {
                let promised = collected(&world, true).await;
                let found = collected(&world, false).await;
                assert_eq!(found, promised, "reserve {reserve_bytes}, {left} B left");
                println!("reserve {reserve_bytes}: {free} B free, then {}: {found:?}", disk.free());
                assert!(disk.free() >= free, "a run took room: {free} B, then {} B", disk.free());
                free = disk.free();
                if found.packs_removed == 0 {
                    break;
                }
            }
            assert!(free >= begin + 11 * MIB, "{} B were freed", free - begin);
            world.pull("kept", &world.path("copy")).await.expect("pulled");
            assert_same(&world.path("kept"), &world.path("copy"));
            fs::remove_file(disk.0.join("ballast")).expect("removed");
            world.stop().await;
            world.again();
            assert_eq!(collected(&world, false).await.packs_removed, 0, "nothing was left over");
            world.stop().await;
            fs::remove_dir_all(&data).expect("removed");
        }
    })
    .await;
}

#[test]
fn a_store_that_was_killed_opens_on_a_full_disk_and_is_sealed_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = Mounted::new(&folder.path().join("m"), 24) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let options = Options { reserve_bytes: 0, ..Options::default() };
    // A footer that does not fit on the full disk, and one that fits into the pack's last page.
    for (count, bytes) in [(400, 3_000), (40, 30_000)] {
        let space = disk.0.join(format!("space{count}"));
        let alive = folder.path().join(format!("alive{count}"));
        let parts: Vec<Vec<u8>> = (0..count).map(|seed| noise(seed, bytes)).collect();
        let store = Store::open(&alive, options).expect("a store");
        let mut compressor = Compressor::new(LEVEL_DEFAULT);
        let frames: Vec<Frame> = parts
            .chunks(4)
            .map(|some| Frame::compress(FrameKind::Content, some.iter().map(Vec::as_slice), &mut compressor))
            .collect();
        for frame in &frames {
            store.append(frame).expect("appended");
        }
        // As `kill -9` leaves it.
        let copied = Command::new("cp").arg("-r").arg(&alive).arg(&space).status();
        assert!(copied.expect("cp runs").success());
        drop(store);
        let readable = |store: &Store| {
            let mut reader = store.reader();
            let chunks = frames.iter().flat_map(|frame| &frame.chunks);
            chunks.filter(|chunk| reader.read(chunk, &mut Vec::new()).is_ok()).count()
        };
        let open = || fs::read_dir(space.join("packs/open")).expect("a folder").count();
        disk.fill(0);
        let store = Store::open(&space, options).expect("a store on a full disk");
        assert_eq!((readable(&store), open()), (parts.len(), usize::from(count == 400)));
        drop(store);
        fs::remove_file(disk.0.join("ballast")).expect("removed");
        let store = Store::open(&space, options).expect("a store");
        assert_eq!((readable(&store), open()), (parts.len(), 0), "it is sealed, and all is there");
    }
}

/// Seconds added to the clock of these tests' stores.
static LATE: AtomicU64 = AtomicU64::new(0);

fn late() -> Instant {
    Instant::now() + Duration::from_secs(LATE.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_does_not_go_on_keeps_no_garbage_for_longer_than_its_lease() {
    within(async {
        let mut world = World::start_with(|options| options.store.now = late);
        for number in 0..2 {
            let tree = world.path(&format!("tree{number}"));
            write(&tree, "own", noise(number, 400_000));
            let label = format!("v{number}").parse().expect("a label");
            world.push_with(&PushOptions { labels: vec![label], ..push_options("app", &tree) }).await;
            world.stop().await;
            world.again();
        }
        // A push that relies on the chunks of v0, and stops.
        write(&world.path("tree0"), "more", noise(7, 200_000));
        let mut walker = Walker::begin(world.access(), "other", &world.path("tree0")).await.expect("begun");
        while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        remove(&world, "app@v0").await;
        assert!(collected(&world, true).await.waits_for_pushes);
        for _ in 0..2 {
            let found = collected(&world, false).await;
            assert!(found.waits_for_pushes && found.packs_removed == 0, "{found:?}");
        }
        LATE.fetch_add(LEASE_TIME.as_secs(), Ordering::Relaxed);
        let found = collected(&world, false).await;
        assert_eq!(found.packs_removed, 1, "{found:?}");
        drop(walker);
        // A push that continues, a little at a time, as long as it likes.
        write(&world.path("tree1"), "more", noise(8, 2_000_000));
        let mut walker = Walker::begin(world.access(), "other", &world.path("tree1")).await.expect("begun");
        while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        remove(&world, "app@v1").await;
        let mut passed = Duration::ZERO;
        loop {
            let found = collected(&world, false).await;
            if found.packs_removed > 0 {
                break;
            }
            assert!(passed < LEASE_LIFE_MAX + LEASE_TIME, "{found:?}");
            let step = LEASE_TIME / 2;
            LATE.fetch_add(step.as_secs(), Ordering::Relaxed);
            passed += step;
            while !matches!(walker.step().await.expect("a step"), Step::Sent) {}
        }
    })
    .await;
}
