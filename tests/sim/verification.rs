//! A repairing verify pass, while appends fill packs and collections remove them.

use std::sync::atomic::{AtomicBool, Ordering};

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::pack::{Frame, FrameKind};
use whit::restore::ChunkSource;
use whit::store::{Options, Pass, Store, collect, verify_packs};

use crate::content::{Build, Pool};
use crate::crash::new_folder;
use crate::random::Random;

#[test]
fn verifying_beside_sealing_and_collecting_finds_no_damage_and_loses_nothing() {
    let mut random = Random::new(1);
    let pool = Pool::new(&mut random, 400, 400);
    let (kept, dead) = pool.chunks.split_at(200);
    let build = Build::new(&[kept.to_vec()]);
    let folder = new_folder();
    let options = Options { reserve_bytes: 0, pack_bytes: 2000, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut compressor = Compressor::new(LEVEL_DEFAULT);
            let root = build.root.encode();
            let manifest = build.segments.iter().map(|(bytes, _)| bytes.as_slice()).chain([root.as_slice()]);
            store.append(&Frame::compress(FrameKind::Manifest, manifest, &mut compressor)).expect("appended");
            for (kept, dead) in kept.chunks(4).zip(dead.chunks(4)) {
                let frame = kept.iter().chain(dead).map(|chunk| pool.bytes(&chunk.id));
                store.append(&Frame::compress(FrameKind::Content, frame, &mut compressor)).expect("appended");
            }
            store.settle().expect("sealed");
            over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                collect(&store, &|| vec![build.release], false, &AtomicBool::new(false)).expect("collected");
            }
        });
        let pass = Pass { repair: true, duration_max: None, bytes_per_second: None };
        while !over.load(Ordering::Relaxed) {
            let verified = verify_packs(&store, pass, &AtomicBool::new(false)).expect("verified");
            assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
            assert_eq!(verified.indexed, 0, "the index had every pack, or was about to");
        }
    });
    drop(store);
    let store = Store::open(folder.path(), options).expect("a store");
    assert!(store.is_whole());
    let mut reader = store.reader();
    for chunk in kept {
        reader.read(chunk, &mut Vec::new()).expect("it is there");
    }
}

#[test]
fn a_release_can_be_read_at_every_moment_of_a_collection() {
    let mut random = Random::new(1);
    let pool = Pool::new(&mut random, 400, 400);
    let (kept, dead) = pool.chunks.split_at(40);
    let build = Build::new(&[kept.to_vec()]);
    let folder = new_folder();
    let options = Options { reserve_bytes: 0, pack_bytes: 1500, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let root = build.root.encode();
    let manifest = build.segments.iter().map(|(bytes, _)| bytes.as_slice()).chain([root.as_slice()]);
    store.append(&Frame::compress(FrameKind::Manifest, manifest, &mut compressor)).expect("appended");
    let mut append = |random: &mut Random| {
        for kept in kept.chunks(2) {
            let dead = (0..6).map(|_| &dead[random.below(dead.len())]);
            let frame = kept.iter().chain(dead).map(|chunk| pool.bytes(&chunk.id));
            store.append(&Frame::compress(FrameKind::Content, frame, &mut compressor)).expect("appended");
        }
    };
    append(&mut random);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                append(&mut random);
                collect(&store, &|| vec![build.release], false, &AtomicBool::new(false)).expect("collected");
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            for chunk in kept {
                let read = store.reader().read(chunk, &mut Vec::new());
                if let Err(error) = read {
                    over.store(true, Ordering::Relaxed);
                    panic!("{error}");
                }
                assert!(store.holds(chunk).expect("an index"), "it is held, wherever it lies");
            }
        }
    });
}
