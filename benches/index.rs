//! How fast the index takes chunks in and finds them, per chunk, beside structures that are held in memory.

mod sample;

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use disk::files::Durability;
use format::pack::PackId;
use ground::ids::ChunkId;
use tempfile::TempDir;
use whit::store::{Index, Place};

const ENTRIES: u32 = 100_000;
/// About what a full pack of 16 KiB chunks holds.
const PACK_ENTRIES: usize = 4000;

fn place(number: u32) -> Place {
    Place { pack: number / 4000, frame_offset: number, plain_offset: 0, bytes: 16 * 1024 }
}

fn entries() -> Vec<(ChunkId, Place)> {
    (0..ENTRIES).map(|number| (ChunkId::of(&number.to_le_bytes()), place(number))).collect()
}

fn new() -> (Index, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (Index::open(folder.path(), Durability::Synced).expect("a new index"), folder)
}

/// Takes the entries in, so many to a pack and a run, each of which ends in three syncs; then merges the runs.
fn take_in(index: &Index, entries: &[(ChunkId, Place)], pack_entries: usize) {
    for (number, pack) in (0..).zip(entries.chunks(pack_entries)) {
        let id = PackId::from_bytes(u128::from(number).to_be_bytes());
        let mut sorted: Vec<_> =
            pack.iter().map(|(id, place)| (*id, Place { pack: number, ..*place })).collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        let run = index.write(sorted.into_iter(), pack.len() as u64).expect("written");
        let count = u32::try_from(pack.len()).expect("few");
        index.add(run, &[(number, id, count)]).expect("taken in");
    }
    index.merge(&AtomicBool::new(false)).expect("merged");
}

fn configure(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
}

fn fill(criterion: &mut Criterion) {
    let entries = entries();
    let mut group = criterion.benchmark_group("index take_in");
    configure(&mut group);
    group.throughput(Throughput::Elements(u64::from(ENTRIES))).sampling_mode(SamplingMode::Flat);
    for (name, pack_entries) in [("one pack", entries.len()), ("packs of 4,000", PACK_ENTRIES)] {
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                sample::timed(rounds, new, |(index, _)| take_in(index, &entries, pack_entries))
            });
        });
    }
    group.bench_function("HashMap", |bench| {
        bench.iter(|| entries.iter().copied().collect::<HashMap<_, _>>());
    });
    group.bench_function("BTreeMap", |bench| {
        bench.iter(|| {
            let mut map = BTreeMap::new();
            for (id, place) in &entries {
                map.insert(*id, *place);
            }
            map
        });
    });
    group.bench_function("sorted Vec", |bench| {
        bench.iter(|| {
            let mut sorted = entries.clone();
            sorted.sort_unstable_by_key(|(id, _)| *id);
            sorted
        });
    });
    group.finish();
}

fn find(criterion: &mut Criterion) {
    let entries = entries();
    let (index, _folder) = new();
    take_in(&index, &entries, PACK_ENTRIES);
    let hash: HashMap<ChunkId, Place> = entries.iter().copied().collect();
    let tree: BTreeMap<ChunkId, Place> = entries.iter().copied().collect();
    let mut sorted = entries;
    sorted.sort_unstable_by_key(|(id, _)| *id);

    // The numbers step through all entries out of order; a hash's order is no order anyway.
    let asked = |first: u32| (0..ENTRIES).map(move |number| ChunkId::of(&(first + number).to_le_bytes()));
    let kinds: [(&str, Vec<ChunkId>); 2] = [("hit", asked(0).collect()), ("miss", asked(ENTRIES).collect())];
    for (kind, ids) in &kinds {
        let mut group = criterion.benchmark_group(format!("index find, {kind}"));
        configure(&mut group);
        group.throughput(Throughput::Elements(1));
        let mut bench = |name: &str, find: &dyn Fn(&ChunkId) -> Option<Place>| {
            let mut next = ids.iter().cycle();
            group.bench_function(name, |bench| {
                bench.iter(|| black_box(find(next.next().expect("a cycle has no end"))));
            });
        };
        bench("index", &|id| index.find(id).expect("readable"));
        bench("HashMap", &|id| hash.get(id).copied());
        bench("BTreeMap", &|id| tree.get(id).copied());
        bench("sorted Vec", &|id| {
            let at = sorted.binary_search_by_key(id, |(id, _)| *id).ok()?;
            Some(sorted[at].1)
        });
        group.finish();
    }
}

criterion_group!(benches, fill, find);
criterion_main!(benches);
