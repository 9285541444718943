//! How fast content is cut and hashed on one thread, beside copying it.

mod sample;

use std::hint::black_box;
use std::io;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use format::chunking::Profile;
use ground::ids::ChunkId;

fn chunking(criterion: &mut Criterion) {
    let content = sample::content();
    let chunks = sample::chunks(&content);
    let mut buffer = Vec::new();

    let mut group = criterion.benchmark_group("chunking");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(10);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.bench_function("memcpy", |bench| {
        let mut copy = vec![0; content.len()];
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(&content)));
    });
    group.bench_function("cut", |bench| {
        bench.iter(|| {
            let mut count = 0_usize;
            let cut = Profile::DEFAULT.cut_all::<io::Error>(content.as_slice(), &mut buffer, |_| {
                count += 1;
                Ok(())
            });
            cut.expect("a slice can be read");
            count
        });
    });
    group.bench_function("hash", |bench| {
        bench.iter(|| {
            for chunk in &chunks {
                black_box(ChunkId::of(chunk));
            }
        });
    });
    group.bench_function("cut and hash", |bench| {
        bench.iter(|| {
            let cut = Profile::DEFAULT.cut_all::<io::Error>(content.as_slice(), &mut buffer, |chunk| {
                black_box(ChunkId::of(chunk));
                Ok(())
            });
            cut.expect("a slice can be read")
        });
    });
    group.finish();
}

criterion_group!(benches, chunking);
criterion_main!(benches);
