//! An index that lacks entries is rebuilt, and then has each pack once.

use std::fs;
use std::sync::atomic::AtomicBool;

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::pack::{Frame, FrameKind, HEADER_BYTES};
use whit::restore::ChunkSource;
use whit::store::{Options, Store, collect};

use crate::content::{Build, Pool};
use crate::crash::{files_below, new_folder};
use crate::random::Random;

/// The size of the segments in the catalogue's files, as the store sets it.
const SEGMENT_BYTES: usize = 64 * 1024;

#[test]
fn a_collection_after_the_index_was_rebuilt_keeps_every_live_chunk() {
    let pool = Pool::new(&mut Random::new(1), 60, 400);
    let build = Build::new(std::slice::from_ref(&pool.chunks));
    let folder = new_folder();
    let options = Options { reserve_bytes: 0, pack_bytes: 2000, ..Options::default() };
    let store = Store::open(folder.path(), options).expect("a store");
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let dead = Random::new(2).bytes(3000);
    let dead = Frame::compress(FrameKind::Content, [dead.as_slice()], &mut compressor);
    // The first numbers are removed, so that a rebuilt index gives all packs other numbers.
    for _ in 0..10 {
        store.append(&dead).expect("appended");
    }
    store.settle().expect("sealed");
    collect(&store, &Vec::new, false, &AtomicBool::new(false)).expect("collected");
    let root = build.root.encode();
    let manifest = build.segments.iter().map(|(bytes, _)| bytes.as_slice()).chain([root.as_slice()]);
    store.append(&Frame::compress(FrameKind::Manifest, manifest, &mut compressor)).expect("appended");
    for chunks in pool.chunks.chunks(6) {
        let frame = chunks.iter().map(|chunk| pool.bytes(&chunk.id));
        store.append(&Frame::compress(FrameKind::Content, frame, &mut compressor)).expect("appended");
    }
    drop(store);
    // The last pack to be checked lacks an entry; those before it are correct.
    let packs = files_below(&folder.path().join("packs"));
    let last = fs::read(packs.last().expect("packs")).expect("a pack");
    // sled ends on its own threads, some time after it is dropped.
    let index = loop {
        match sled::Config::new().path(folder.path().join("index")).segment_size(SEGMENT_BYTES).open() {
            Ok(index) => break index,
            Err(sled::Error::Io(_)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let catalogue = index.open_tree("packs").expect("its catalogue");
    let name = format::pack::read_header(&last[..HEADER_BYTES]).expect("a header");
    let is_last = |(_, value): &(sled::IVec, sled::IVec)| value[..16] == name.as_bytes()[..];
    let entry = catalogue.iter().map(|entry| entry.expect("readable")).find(is_last);
    let (number, mut value) = entry.expect("it was taken in");
    value[16] += 1;
    catalogue.insert(number, value).expect("written");
    drop((catalogue, index));
    let store = Store::open(folder.path(), options).expect("a store");
    // A dead chunk, so that the collector has something to look for.
    store.append(&dead).expect("appended");
    store.settle().expect("sealed");
    collect(&store, &|| vec![build.release], false, &AtomicBool::new(false)).expect("collected");
    drop(store);
    let store = Store::open(folder.path(), options).expect("a store");
    let mut reader = store.reader();
    for chunk in &pool.chunks {
        reader.read(chunk, &mut Vec::new()).expect("it is alive");
    }
}
