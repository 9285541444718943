//! How fast a tree is scanned: read whole, and not read as it looks as remembered, beside a plain walk.
//!
//! The tree is 20,000 small files; `WHIT_BENCH_TREE` names another.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use format::chunking::Profile;
use ground::monitor::Silent;
use protocol::address::Fingerprint;
use whit::agent::memory::{Key, Memory};
use whit::agent::scan::{Reader, Scan, Selection};

const FOLDERS: usize = 200;
const FILES_EACH: usize = 100;

fn make(top: &Path) {
    for folder in 0..FOLDERS {
        let folder = top.join(format!("package-{:02}/module-{:02}", folder / 20, folder % 20));
        fs::create_dir_all(&folder).expect("created");
        for file in 0..FILES_EACH {
            let bytes = blake3::hash(folder.join(file.to_string()).as_os_str().as_encoded_bytes());
            fs::write(folder.join(format!("source-{file:03}.js")), bytes.as_bytes().repeat(32))
                .expect("written");
        }
    }
}

fn scanned(top: &Path, memory: Option<&Memory>) -> Scan {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let (selection, profile, monitor) = (&Selection::default(), Profile::DEFAULT, &Silent);
    let reader = Reader { selection, profile, threads, memory, archives: None, on_segment: None, monitor };
    reader.scan(top).expect("a scan")
}

fn walk(folder: &Path) -> u64 {
    let mut entries = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        entries += 1;
        if black_box(entry.metadata().expect("examined")).is_dir() {
            entries += walk(&entry.path());
        }
    }
    entries
}

fn scan(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let given = std::env::var_os("WHIT_BENCH_TREE").map(PathBuf::from);
    let top = given.unwrap_or_else(|| {
        make(folder.path());
        folder.path().to_owned()
    });
    let state = tempfile::tempdir().expect("a temporary folder");
    let key = Key::new(&Fingerprint::of_key(b"a key"), "a token", &"bench".parse().expect("a name"));

    let mut group = criterion.benchmark_group("scan");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.bench_function("everything", |bench| bench.iter(|| scanned(&top, None)));
    let Scan { root, segments, spool, mut seen, .. } = scanned(&top, None);
    // As if the scan had begun an hour later: the files have just been written.
    seen.began += 3_600_000_000_000;
    seen.remember(state.path(), &key, 1, (&root, &segments), &spool).expect("written");
    group.bench_function("open the memory", |bench| {
        bench.iter(|| Memory::open(state.path(), &key).expect("a memory"));
    });
    let memory = Memory::open(state.path(), &key).expect("a memory");
    group.bench_function("nothing changed", |bench| bench.iter(|| scanned(&top, Some(&memory))));
    group.bench_function("read_dir and lstat", |bench| bench.iter(|| walk(&top)));
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
