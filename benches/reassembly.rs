//! How fast a release of 256 MiB is rebuilt from chunks in memory, beside `cp -r` of the same tree.
//!
//! The chunks are raw, so this measures verifying and writing, not decompression. Both are measured in
//! the page cache and with a sync at the end.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disk::files::{self, Folder};
use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, Root, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::ChunkId;
use ground::monitor::Silent;
use whit::restore::{ChunkReader, ChunkSource, Previous, SourceError, TreeOptions, write_tree};

/// Half in 2,048 files of 64 KiB, half in 4 of 32 MiB.
const FILES: [(usize, usize); 2] = [(2048, 64 * 1024), (4, 32 * 1024 * 1024)];

#[derive(Default)]
struct Memory(HashMap<ChunkId, Vec<u8>>);

impl ChunkSource for Memory {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(self)
    }
}

impl ChunkReader for &Memory {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        let bytes = self.0.get(&chunk.id).ok_or(SourceError::Unknown(chunk.id))?;
        if ChunkId::of(bytes) != chunk.id {
            return Err(SourceError::Damaged { id: chunk.id, location: "memory".to_owned() });
        }
        out.extend_from_slice(bytes);
        Ok(())
    }
}

impl Memory {
    fn add(&mut self, bytes: Vec<u8>) -> ChunkRef {
        let chunk = ChunkRef { id: ChunkId::of(&bytes), bytes: u32::try_from(bytes.len()).expect("a chunk") };
        self.0.insert(chunk.id, bytes);
        chunk
    }

    fn add_file(&mut self, builder: &mut Builder, name: &str, content: &[u8]) {
        let mut chunks = Vec::new();
        let cut = Profile::DEFAULT.cut_all::<io::Error>(content, &mut Vec::new(), |chunk| {
            chunks.push(self.add(chunk.to_vec()));
            Ok(())
        });
        let path = EntryPath::new(name).expect("a plain path");
        let size = cut.expect("a slice can be read");
        let file = Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks };
        for item in [file].into_iter().chain(chunks.into_iter().map(Item::Chunk)) {
            if let Some(segment) = builder.push(&item) {
                self.add(segment.bytes);
            }
        }
    }

    fn release() -> (Root, Self) {
        let (mut memory, mut builder) = (Self::default(), Builder::new(Profile::DEFAULT));
        for (kind, (count, length)) in FILES.into_iter().enumerate() {
            for number in 0..count {
                let name = format!("{kind}-{number:04}");
                let mut content = vec![0; length];
                blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut content);
                memory.add_file(&mut builder, &name, &content);
            }
        }
        let totals = builder.totals();
        let (last, _, segments) = builder.finish(Shape::Tree).expect("a small release");
        let mut parts: Vec<Vec<u8>> = last.into_iter().map(|segment| segment.bytes).collect();
        let root =
            Root::above(Profile::DEFAULT, Shape::Tree, totals, segments, |node| parts.push(node.bytes));
        for part in parts {
            memory.add(part);
        }
        (root.expect("a small release"), memory)
    }
}

/// The time that `work` takes to make `made`, again and again; removing it is not counted.
fn timed(rounds: u64, made: &Path, work: impl Fn()) -> Duration {
    (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            let elapsed = start.elapsed();
            files::remove(made).expect("removed");
            elapsed
        })
        .sum()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().expect("cp is installed").success());
}

fn rebuild(criterion: &mut Criterion) {
    let (root, memory) = Memory::release();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (original, made) = (folder.path().join("original"), folder.path().join("made"));
    let plain = TreeOptions { sync: false, ..TreeOptions::default() };
    let earlier = Folder::open(&original).expect("opened");
    let previous = Some(Previous { folder: &earlier, root: &root, linkable: None });
    let write = |options: &TreeOptions<'_>| {
        write_tree(&root, &memory, &made, options, &Silent).expect("written");
    };
    write_tree(&root, &memory, &original, &TreeOptions::default(), &Silent).expect("written");

    let mut group = criterion.benchmark_group("rebuild");
    group.throughput(Throughput::Bytes(root.totals.bytes)).sample_size(10);
    group.bench_function("write_tree", |bench| {
        bench.iter_custom(|rounds| timed(rounds, &made, || write(&plain)));
    });
    group.bench_function("write_tree, all reused", |bench| {
        bench.iter_custom(|rounds| timed(rounds, &made, || write(&TreeOptions { previous, ..plain })));
    });
    group.bench_function("cp -r", |bench| {
        bench.iter_custom(|rounds| timed(rounds, &made, || copy(&original, &made)));
    });
    group.bench_function("write_tree, synced", |bench| {
        bench.iter_custom(|rounds| timed(rounds, &made, || write(&TreeOptions::default())));
    });
    group.bench_function("cp -r, synced", |bench| {
        bench.iter_custom(|rounds| {
            timed(rounds, &made, || {
                copy(&original, &made);
                files::sync_file_system(&made).expect("synced");
            })
        });
    });
    group.finish();
}

criterion_group!(benches, rebuild);
criterion_main!(benches);
