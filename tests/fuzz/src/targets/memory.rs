//! An agent's memory of its last push, as its own disk returns it.
//!
//! The first byte says whether the checksum is corrected.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, SegmentIndex, Shape, decode_segment};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::ChunkId;
use protocol::address::Fingerprint;
use whit::agent::memory::{Confirmed, Key, Memory, Stat, Stats, WriteOptions, write};

thread_local! {
    /// One file without a name, overwritten each time.
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

fn key() -> Key {
    Key::new(&Fingerprint::of_key(b"a key"), "a token", &"web".parse().expect("a name"))
}

pub fn run(bytes: &[u8]) {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let check = blake3::hash(bytes);
    let check = if mode % 2 == 0 { &[][..] } else { &check.as_bytes()[..16] };
    let Some(memory) = Memory::read(file(&[bytes, check].concat()), Path::new("a.memory"), &key()) else {
        return;
    };
    let mut recall = memory.recall();
    let mut files = 0;
    for index in SegmentIndex::range(0..memory.segments().len()) {
        let Ok(segment) = memory.segment(index) else { break };
        assert_eq!(ChunkId::of(&segment), memory.segments()[usize::from(index)].id);
        for item in decode_segment(&segment).unwrap_or_default() {
            if let Item::File { path, size, .. } = item {
                files += 1;
                if recall.find(&path, size, &stat(files)) {
                    while recall.chunks().is_some() {}
                }
            }
        }
    }
}

fn file(bytes: &[u8]) -> File {
    FILE.with_borrow_mut(|kept| {
        let file = kept.get_or_insert_with(|| {
            let path = std::env::temp_dir().join(format!(
                "whit-fuzz-memory-{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            ));
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
            fs::remove_file(&path).expect("removed");
            file
        });
        file.set_len(0).expect("emptied");
        file.write_all_at(bytes, 0).expect("written");
        file.try_clone().expect("another handle")
    })
}

fn stat(number: i64) -> Stat {
    Stat { modified: number, changed: number, inode: 7, device: 1 }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [0, 1, 40]
        .into_iter()
        .flat_map(|files| {
            let memory = memory(files);
            let without_check = memory[..memory.len() - 16].to_vec();
            [[vec![0], memory].concat(), [vec![1], without_check].concat()]
        })
        .collect()
}

/// Returns the memory of a release of this many files.
fn memory(files: i64) -> Vec<u8> {
    let mut builder = Builder::new(Profile::DEFAULT);
    let (mut bytes, mut stats) = (Vec::new(), Stats::new());
    for number in 1..=files {
        let path = EntryPath::new(format!("file-{number:03}")).expect("a path");
        let file = Item::File { path, mode: 0o644, size: 10, recipe: Recipe::Chunks };
        let chunk = Item::Chunk(ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes: 10 });
        bytes.extend([file, chunk].iter().filter_map(|item| builder.push(item)));
        stats.push(&stat(number)).expect("kept in memory");
    }
    let (last, root, segments) = builder.finish(Shape::Tree).expect("within the limits");
    bytes.extend(last);
    let confirmed = Confirmed {
        sequence: 3,
        root: &root,
        segments: &segments,
        source: Path::new("/builds/web"),
        began: 1_700_000_000_000_000_000,
    };
    let state = std::env::temp_dir().join(format!(
        "whit-fuzz-state-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let segment = |index: SegmentIndex| Ok(bytes[usize::from(index)].bytes.clone());
    write(&state, &key(), &confirmed, segment, &mut stats, &WriteOptions::default()).expect("written");
    let written = fs::read(state.join(format!("memory/{}.memory", key()))).expect("read");
    fs::remove_dir_all(&state).expect("removed");
    written
}
