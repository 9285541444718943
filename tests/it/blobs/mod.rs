//! Blobs: every kind passes one suite, and a store works over any of them.

mod memory;
mod suite;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use delta::compression::{Compressor, LEVEL_DEFAULT};
use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, Root, Segment, Shape};
use format::pack::{Frame, FrameKind};
use format::recipe::{ChunkRef, Recipe};
use format::record::{Cost, Record};
use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;
use whit::restore::ChunkSource;
use whit::store::blobs::{Blobs, LocalBlobs};
use whit::store::{Backend, Options, Pass, Store, collect, heal, verify_packs, verify_releases};

use self::memory::MemoryBlobs;
use self::suite::{Subject, name};
use crate::collecting::Mounted;
use crate::trees::noise;

/// Returns a local kind below `folder`, and the folder for the files to put.
fn local(folder: &Path) -> (LocalBlobs, std::path::PathBuf) {
    let staging = folder.join("staging");
    fs::create_dir_all(&staging).expect("created");
    (LocalBlobs::new(folder.join("blobs")), staging)
}

#[test]
fn a_local_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (blobs, staging) = local(folder.path());
    suite::run(&Subject { blobs: &blobs, staging: &staging });
}

#[test]
fn memory_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    suite::run(&Subject { blobs: &MemoryBlobs::default(), staging: folder.path() });
}

#[test]
fn a_local_folder_has_its_blobs_when_it_is_opened_again_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (blobs, staging) = local(folder.path());
    Subject { blobs: &blobs, staging: &staging }.put(name(1), b"content").expect("put");
    // Files beside the blobs, and files that only look like blobs.
    for other in ["unsynced", "open/x.part", "ab/readme", "zz/00000000000000000000000000000000.pack"] {
        let path = folder.path().join("blobs").join(other);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, "").expect("written");
    }
    let (again, _) = local(folder.path());
    assert_eq!(again.list().expect("listed"), [name(1)]);
    assert_eq!(Subject { blobs: &again, staging: &staging }.content(name(1)), b"content");
}

#[test]
fn a_local_folder_that_cannot_take_a_blob_says_which_and_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (blobs, staging) = local(folder.path());
    fs::write(folder.path().join("blobs"), "no folder").expect("written");
    let error = Subject { blobs: &blobs, staging: &staging }.put(name(1), b"content").expect_err("no folder");
    assert!(error.to_string().contains(&name(1).to_string()), "{error}");

    let Some(disk) = Mounted::with(&folder.path().join("disk"), "size=1m,nr_inodes=8") else {
        println!("skipped: only root can mount a disk to fill");
        return;
    };
    let (blobs, staging) = local(&disk.0);
    let full = Subject { blobs: &blobs, staging: &staging };
    let errors = (0..8).filter_map(|seed| Some((seed, full.put(name(seed), b"content").err()?)));
    let (seed, error) = { errors }.next().expect("8 blobs in 8 folders do not fit");
    assert_eq!(error.fault(), Fault::Full, "{error}");
    assert!(error.to_string().contains(&name(seed).to_string()), "{error}");
    assert!(!full.blobs.list().expect("listed").contains(&name(seed)));
}

/// Returns a release of one file: its chunks, its root, and the frame of its manifest.
fn release(contents: &[Vec<u8>]) -> (Vec<ChunkRef>, Root, Frame) {
    let chunk =
        |bytes: &Vec<u8>| ChunkRef { id: ChunkId::of(bytes), bytes: bytes.len().try_into().expect("few") };
    let chunks: Vec<ChunkRef> = contents.iter().map(chunk).collect();
    let size = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
    let path = EntryPath::new("file".to_owned()).expect("a path");
    let file = Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks };
    let mut builder = Builder::new(Profile::DEFAULT);
    let items = [file].into_iter().chain(chunks.iter().copied().map(Item::Chunk));
    let mut segments: Vec<Segment> = items.filter_map(|item| builder.push(&item)).collect();
    let (last, root, _) = builder.finish(Shape::Tree).expect("it is within the limits");
    segments.extend(last);
    let encoded = root.encode();
    let manifest = segments.iter().map(|segment| segment.bytes.as_slice()).chain([encoded.as_slice()]);
    let frame = Frame::compress(FrameKind::Manifest, manifest, &mut Compressor::new(LEVEL_DEFAULT));
    (chunks, root, frame)
}

#[test]
fn a_store_works_over_blobs_in_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let blobs = Arc::new(MemoryBlobs::default());
    let options = Options { reserve_bytes: 0, pack_bytes: 100_000, ..Options::default() };
    let open = || {
        let blobs: Arc<dyn Blobs> = Arc::<MemoryBlobs>::clone(&blobs);
        let backend = Backend { blobs, ..Backend::in_folder(folder.path(), options.now) };
        Store::open_over(folder.path(), backend, options).expect("a store")
    };
    let store = open();
    let contents: Vec<Vec<u8>> = (0..80).map(|seed| noise(seed, 10_000)).collect();
    let (live, dead) = contents.split_at(30);
    let (chunks, root, manifest) = release(live);
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    // Each pack has some chunks that the release names and some that it does not.
    for number in 0..20 {
        let parts = live.iter().skip(number).step_by(20).chain(dead.iter().skip(number).step_by(20));
        let frame = Frame::compress(FrameKind::Content, parts.map(Vec::as_slice), &mut compressor);
        store.append(&frame).expect("appended");
    }
    store.append(&manifest).expect("appended");
    store.sync().expect("synced");
    let record = Record {
        app: "app".parse().expect("a name"),
        release: root.release(),
        sequence: 0,
        created: 1,
        user: "user".parse().expect("a name"),
        labels: Vec::new(),
        totals: root.totals,
        cost: Cost::default(),
        behalf: Vec::new(),
    };
    store.records().add(record).expect("recorded");
    store.settle().expect("sealed");
    let sealed = blobs.list().expect("listed").len();
    assert!(sealed > 3, "{sealed} packs are blobs");

    let readable = |store: &Store| {
        let mut reader = store.reader();
        chunks.iter().filter(|chunk| reader.read(chunk, &mut Vec::new()).is_ok()).count()
    };
    let never = AtomicBool::new(false);
    assert_eq!(readable(&store), chunks.len());
    let collected = collect(&store, &Vec::new, false, &never).expect("collected");
    assert_eq!((collected.packs_removed > 3, collected.removed_chunks > 40), (true, true), "{collected:?}");
    assert_eq!(readable(&store), chunks.len());
    drop(store);

    let store = open();
    assert_eq!(readable(&store), chunks.len());
    let pass = Pass { repair: true, duration_max: None, bytes_per_second: None };
    let verified = verify_packs(&store, pass, &never).expect("verified");
    assert!(verified.damaged.is_empty() && verified.packs > 0, "{verified:?}");
    assert!(verify_releases(&store).expect("verified").is_empty());

    // Damage is found, set aside, and healed.
    let largest =
        *blobs.list().expect("listed").iter().max_by_key(|name| blobs.bytes(**name).ok()).expect("a pack");
    blobs.damage(largest, 50_000);
    drop(store);
    let store = open();
    let verified = verify_packs(&store, pass, &never).expect("verified");
    assert_eq!((verified.set_aside, blobs.aside()), (1, 1), "{verified:?}");
    assert!(!blobs.list().expect("listed").contains(&largest));
    assert!(readable(&store) < chunks.len());
    let whole: Vec<(ChunkId, Vec<u8>)> =
        live.iter().map(|bytes| (ChunkId::of(bytes), bytes.clone())).collect();
    heal(&store, &whole).expect("healed");
    assert_eq!(readable(&store), chunks.len());
    assert!(verify_releases(&store).expect("verified").is_empty());

    // A deleted index is rebuilt from the blobs.
    drop(store);
    fs::remove_dir_all(folder.path().join("index")).expect("removed");
    assert_eq!(readable(&open()), chunks.len());
    assert!(!folder.path().join("packs/open").read_dir().expect("a folder").any(|_| true));
}
