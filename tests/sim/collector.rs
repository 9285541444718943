//! A collector waits until other copies are durable, and for the pushes that rely on chunks it condemned.

use std::sync::atomic::AtomicBool;

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::pack::{Frame, FrameKind};
use format::record::{Cost, Record};
use whit::restore::ChunkSource;
use whit::store::{FaultInjection, Options, Store, collect};

use crate::content::{Build, Pool};
use crate::crash::{image, new_folder};
use crate::random::Random;

/// Stores a release's chunks in a sealed pack and again in the open one, as an interrupted second push of the same
/// build leaves them. Returns whether they are readable after a collection and a power loss.
fn survives(mistake: Option<FaultInjection>) -> bool {
    let mut random = Random::new(1);
    let pool = Pool::new(&mut random, 80, 400);
    let (live, dead) = pool.chunks.split_at(20);
    let build = Build::new(&[live.to_vec()]);
    let folder = new_folder();
    let options =
        Options { reserve_bytes: 0, pack_bytes: 12_000, fault_injection: mistake, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let all = live.iter().chain(dead).map(|chunk| pool.bytes(&chunk.id));
    store.append(&Frame::compress(FrameKind::Content, all, &mut compressor)).expect("appended");
    store.settle().expect("sealed");
    let root = build.root.encode();
    let manifest = build.segments.iter().map(|(bytes, _)| bytes.as_slice()).chain([root.as_slice()]);
    store.append(&Frame::compress(FrameKind::Manifest, manifest, &mut compressor)).expect("appended");
    store.sync().expect("synced");
    let record = Record {
        app: "app".parse().expect("a name"),
        release: build.release,
        sequence: 0,
        created: 1,
        user: "user".parse().expect("a name"),
        labels: Vec::new(),
        totals: build.root.totals,
        cost: Cost::default(),
        behalf: Vec::new(),
    };
    store.records().add(record).expect("recorded");
    let again = live.iter().map(|chunk| pool.bytes(&chunk.id));
    store.append(&Frame::compress(FrameKind::Content, again, &mut compressor)).expect("appended");
    let collected = collect(&store, &Vec::new, false, &AtomicBool::new(false)).expect("collected");
    assert_eq!(collected.packs_removed, 1);
    (0..20).all(|_| {
        let left = image(folder.path(), &store, &mut random);
        let reopened = Store::open(left.path(), options).expect("a store");
        let mut reader = reopened.reader();
        live.iter().all(|chunk| reader.read(chunk, &mut Vec::new()).is_ok())
    })
}

#[test]
fn a_pack_goes_only_when_the_other_copies_are_durable() {
    assert!(survives(None));
}

#[test]
fn a_pack_that_goes_before_the_other_copies_are_durable_is_caught() {
    assert!(!survives(Some(FaultInjection::EmptiedUnsynced)));
}

#[test]
fn a_collector_waits_for_the_pushes_of_its_time_and_no_others() {
    let pool = Pool::new(&mut Random::new(1), 20, 400);
    let folder = new_folder();
    let options = Options { reserve_bytes: 0, pack_bytes: 1000, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let dead = pool.chunks.iter().map(|chunk| pool.bytes(&chunk.id));
    let frame = Frame::compress(FrameKind::Content, dead, &mut Compressor::new(LEVEL_DEFAULT));
    store.append(&frame).expect("appended");
    store.settle().expect("sealed");
    let collect = || collect(&store, &Vec::new, false, &AtomicBool::new(false)).expect("collected");
    let mut push = store.lease().expect("a lease");
    for _ in 0..3 {
        assert!(collect().waits_for_pushes);
        // Some push is always under way; each ends after the next has begun.
        let next = store.lease().expect("a lease");
        assert!(collect().waits_for_pushes);
        drop(std::mem::replace(&mut push, next));
        if collect().packs_removed == 1 {
            return;
        }
    }
    panic!("the collector waits for pushes that began after it had condemned");
}
