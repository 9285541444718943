//! How fast packs are written and read, beside a plain file, a memory map and a copy.
//!
//! Rates are of plain bytes. Reading verifies every chunk, as it always does.

mod sample;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use delta::compression::{Codec, Compressor, LEVEL_DEFAULT};
use disk::mmap::Mapping;
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::FRAME_PLAIN_TARGET;
use tempfile::TempDir;
use whit::restore::ChunkReader;
use whit::store::{Options, Store, StoreReader};

/// 48 MiB: the open pack is not filled, so that no round waits for the sealing of the one before.
const WRITTEN_BYTES: usize = 48 * 1024 * 1024;

fn reference(chunk: &[u8]) -> ChunkRef {
    ChunkRef { id: ChunkId::of(chunk), bytes: u32::try_from(chunk.len()).expect("a chunk") }
}

fn raw(run: &[&[u8]]) -> Frame {
    let chunks = run.iter().map(|chunk| reference(chunk)).collect();
    Frame { kind: FrameKind::Content, codec: Codec::Raw, chunks, payload: run.concat() }
}

fn compressed(runs: &[Vec<&[u8]>]) -> Vec<Frame> {
    let mut compressor = Compressor::new(LEVEL_DEFAULT);
    let frame = |run: &Vec<&[u8]>| Frame::compress(FrameKind::Content, run.iter().copied(), &mut compressor);
    runs.iter().map(frame).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(folder: &Path) -> Store {
    Store::open(folder, Options::default()).expect("a store")
}

fn append(store: &Store, frames: &[Frame]) {
    for frame in frames {
        store.append(frame).expect("appended");
    }
}

fn configure(group: &mut BenchmarkGroup<'_, WallTime>, bytes: usize) {
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
}

fn write(criterion: &mut Criterion) {
    let content = &sample::content()[..WRITTEN_BYTES];
    let chunks = sample::chunks(content);
    let runs = sample::runs(&chunks, FRAME_PLAIN_TARGET);
    let raw: Vec<Frame> = runs.iter().map(|run| raw(run)).collect();
    // The store lies above its folder's guard, so that it is closed before the folder goes.
    let store = || {
        let folder = folder();
        (open(folder.path()), folder)
    };
    let file = || {
        let folder = folder();
        (File::create(folder.path().join("plain")).expect("created"), folder)
    };
    let plain = |file: &mut File| {
        content.chunks(FRAME_PLAIN_TARGET).for_each(|part| file.write_all(part).expect("written"));
    };

    let mut group = criterion.benchmark_group("pack write");
    configure(&mut group, content.len());
    group.bench_function("append", |bench| {
        bench.iter_custom(|rounds| sample::timed(rounds, store, |(store, _)| append(store, &raw)));
    });
    group.bench_function("file", |bench| {
        bench.iter_custom(|rounds| sample::timed(rounds, file, |(file, _)| plain(file)));
    });
    group.bench_function("append, synced", |bench| {
        bench.iter_custom(|rounds| {
            sample::timed(rounds, store, |(store, _)| {
                append(store, &raw);
                store.sync().expect("synced");
            })
        });
    });
    group.bench_function("file, synced", |bench| {
        bench.iter_custom(|rounds| {
            sample::timed(rounds, file, |(file, _)| {
                plain(file);
                file.sync_data().expect("synced");
            })
        });
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let content = sample::content();
    let chunks = sample::chunks(&content);
    let runs = sample::runs(&chunks, FRAME_PLAIN_TARGET);
    let references: Vec<ChunkRef> = chunks.iter().map(|chunk| reference(chunk)).collect();
    let folder = folder();
    let plain = folder.path().join("plain");
    fs::write(&plain, &content).expect("written");
    let codecs = [("raw", runs.iter().map(|run| raw(run)).collect()), ("zstd", compressed(&runs))];

    let mut group = criterion.benchmark_group("pack read");
    configure(&mut group, content.len());
    let mut copy = vec![0; content.len()];
    group.bench_function("memcpy", |bench| {
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(&content)));
    });
    group.bench_function("map", |bench| {
        bench.iter(|| {
            let map = Mapping::open(&plain).expect("mapped");
            black_box(&mut copy).copy_from_slice(&map);
        });
    });
    for (name, frames) in codecs {
        let path = folder.path().join(name);
        append(&open(&path), &frames);
        let store = open(&path);
        group.bench_function(name, |bench| {
            let mut out = Vec::new();
            bench.iter(|| {
                let mut reader = StoreReader::new(&store);
                for chunk in &references {
                    out.clear();
                    reader.read(chunk, &mut out).expect("read");
                    black_box(&out);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, write, read);
criterion_main!(benches);
