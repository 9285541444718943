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

/// Bytes of the check at the end of the catalogue (FORMAT 7).
const CHECK_BYTES: usize = 16;

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
    let name = format::pack::read_header(&last[..HEADER_BYTES]).expect("a header");
    let file = folder.path().join("index/catalogue");
    let mut catalogue = fs::read(&file).expect("its catalogue");
    catalogue.truncate(catalogue.len() - CHECK_BYTES);
    let at = catalogue.windows(16).position(|bytes| bytes == name.as_bytes()).expect("it was taken in");
    catalogue[at + 16] += 1;
    let check = blake3::hash(&catalogue);
    catalogue.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    fs::write(&file, catalogue).expect("written");
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
