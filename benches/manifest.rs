//! How fast the manifest of 100,000 files is made and read, beside copying its bytes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use format::manifest::{Builder, EntryPath, Item, Profile, Reader, Root, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::ChunkId;

const DIRECTORIES: usize = 500;
const FILES_EACH: usize = 200;
/// 4 to 12 KiB, one chunk each: as many entries as sources and bundles have.
const FILE_BYTES: u32 = 4096;

fn path(text: String) -> EntryPath {
    EntryPath::new(text).expect("a plain path")
}

fn items() -> Vec<Item> {
    let mut items = Vec::new();
    for directory in 0..DIRECTORIES {
        items.push(Item::Directory { path: path(format!("package-{directory:04}")), mode: 0o755 });
        for file in 0..FILES_EACH {
            let path = path(format!("package-{directory:04}/module-{file:04}.js"));
            let bytes = FILE_BYTES + u32::try_from(file * 41).expect("a small number");
            let id = ChunkId::of(path.as_bytes());
            let size = u64::from(bytes);
            items.push(Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks });
            items.push(Item::Chunk(ChunkRef { id, bytes }));
        }
    }
    items
}

fn build(items: &[Item], mut keep: impl FnMut(Vec<u8>)) -> Root {
    let mut builder = Builder::new(Profile::DEFAULT);
    for item in items {
        if let Some(segment) = builder.push(item) {
            keep(segment.bytes);
        }
    }
    let (last, root, _) = builder.finish(Shape::Tree).expect("within the limits");
    if let Some(segment) = last {
        keep(segment.bytes);
    }
    root
}

fn manifest(criterion: &mut Criterion) {
    let items = items();
    let mut segments = Vec::new();
    let root = build(&items, |segment| segments.push(segment));
    let bytes = segments.concat();

    let mut group = criterion.benchmark_group("manifest of 100,000 files");
    group.throughput(Throughput::Bytes(bytes.len() as u64)).sample_size(10);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.bench_function("Builder", |bench| {
        bench.iter(|| build(black_box(&items), |segment| drop(black_box(segment))));
    });
    group.bench_function("Reader", |bench| {
        bench.iter(|| {
            let mut reader = Reader::new();
            for segment in &segments {
                black_box(reader.segment(black_box(segment)).expect("an honest segment"));
            }
            reader.finish(&root).expect("an honest manifest");
        });
    });
    group.bench_function("memcpy", |bench| {
        let mut copy = vec![0; bytes.len()];
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(&bytes)));
    });
    group.finish();
}

criterion_group!(benches, manifest);
criterion_main!(benches);
