//! Memories: what they give back, what is refused, what goes.

use std::fs::{self, FileTimes, OpenOptions};
use std::time::{Duration, SystemTime};

use super::*;
use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, SegmentIndex, Shape};
use format::recipe::{ChunkRef, Recipe};

/// Long before now.
const BEGAN: i64 = 1_700_000_000_000_000_000;

struct Release {
    root: Root,
    segments: Vec<NodeRef>,
    bytes: Vec<Vec<u8>>,
    files: Vec<(EntryPath, u64, Vec<ChunkRef>)>,
}

fn stat(number: u64) -> Stat {
    let time = i64::try_from(number).expect("small") * 1_000;
    Stat { modified: time, changed: time + 1, inode: number, device: 3 }
}

/// Returns a release of `count` files, each of some chunks.
fn release(count: u64) -> Release {
    let mut files = Vec::new();
    for number in 0..count {
        let path = EntryPath::new(format!("a-file-with-a-name-{number:08}.js")).expect("a plain path");
        let chunk = |part: u64| {
            let bytes = 100 + u32::try_from(part).expect("small");
            ChunkRef { id: ChunkId::of(format!("{number} {part}").as_bytes()), bytes }
        };
        let chunks: Vec<ChunkRef> = (0..number % 4).map(chunk).collect();
        files.push((path, chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(), chunks));
    }
    let mut builder = Builder::new(Profile::DEFAULT);
    let mut bytes = Vec::new();
    for (path, size, chunks) in &files {
        let file = Item::File { path: path.clone(), mode: 0o644, size: *size, recipe: Recipe::Chunks };
        let items = std::iter::once(file).chain(chunks.iter().copied().map(Item::Chunk));
        bytes.extend(items.filter_map(|item| builder.push(&item)).map(|segment| segment.bytes));
    }
    let (last, root, segments) = builder.finish(Shape::Tree).expect("within the limits");
    bytes.extend(last.map(|segment| segment.bytes));
    Release { root, segments, bytes, files }
}

fn key(app: &str) -> Key {
    Key::new(&Fingerprint::of_key(b"a key"), "a token", &app.parse().expect("a name"))
}

fn keep(folder: &Path, key: &Key, release: &Release, options: &WriteOptions) -> Result<()> {
    let mut stats = Stats::new();
    for number in 0..release.root.totals.files {
        stats.push(&stat(number)).expect("written");
    }
    let confirmed = Confirmed {
        sequence: 7,
        root: &release.root,
        segments: &release.segments,
        source: Path::new("/builds/web"),
        began: BEGAN,
    };
    let segment = |index: SegmentIndex| Ok(release.bytes[usize::from(index)].clone());
    write(folder, key, &confirmed, segment, &mut stats, options)
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("memory")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_release_of_many_blocks_is_given_back_whole() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let release = release(20_000);
    keep(state.path(), &key("web"), &release, &WriteOptions::default()).expect("written");
    let memory = Memory::open(state.path(), &key("web")).expect("a memory");
    assert!(memory.segment_blocks.len() > 2 && memory.stat_blocks.len() > 2, "several blocks of both");
    assert_eq!(memory.release(), release.root.release());
    assert_eq!((memory.sequence(), memory.source()), (7, Path::new("/builds/web")));
    assert_eq!((memory.root(), memory.segments()), (&release.root, release.segments.as_slice()));
    for (index, bytes) in SegmentIndex::enumerate(&release.bytes) {
        assert_eq!(memory.segment(index).expect("a segment"), *bytes);
    }
    assert!(memory.segment(SegmentIndex::new(u32::MAX)).is_err());
}

#[test]
fn files_are_recalled_in_order_whichever_are_asked_for() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let release = release(20_000);
    keep(state.path(), &key("web"), &release, &WriteOptions::default()).expect("written");
    let memory = Memory::open(state.path(), &key("web")).expect("a memory");
    for step in [1, 2, 7, 5_003] {
        let mut recall = memory.recall();
        assert!(recall.fits(Path::new("/builds/web"), Profile::DEFAULT));
        for (number, (path, size, chunks)) in (0..).zip(&release.files).step_by(step) {
            assert!(recall.find(path, *size, &stat(number)), "{path}");
            // Chunks that nobody asks for are passed over.
            if number % 3 > 0 {
                let recalled: Vec<ChunkRef> = std::iter::from_fn(|| recall.chunks()).flatten().collect();
                assert_eq!(recalled, *chunks, "{path}");
            }
        }
    }
}

#[test]
fn a_file_that_looks_different_is_not_recalled() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let release = release(4);
    keep(state.path(), &key("web"), &release, &WriteOptions::default()).expect("written");
    let memory = Memory::open(state.path(), &key("web")).expect("a memory");
    let (path, size, chunks) = &release.files[2];
    let same = stat(2);
    let later = Stat { modified: same.modified + 1, ..same };
    let changed = Stat { changed: same.changed + 1, ..same };
    let (inode, device) = (Stat { inode: 9, ..same }, Stat { device: 9, ..same });
    let mut recall = memory.recall();
    for other in [later, changed, inode, device] {
        assert!(!recall.find(path, *size, &other), "{other:?}");
        assert!(recall.chunks().is_none());
    }
    assert!(!recall.find(path, size + 1, &same));
    assert!(!recall.find(&EntryPath::new("Z").expect("a path"), *size, &same));
    assert!(recall.find(path, *size, &same), "others asked for in between do not matter");
    assert_eq!(recall.chunks().expect("its chunks"), *chunks);
    assert!(recall.chunks().is_none());
    assert!(!recall.fits(Path::new("/builds/web2"), Profile::DEFAULT));
    assert!(!recall.fits(Path::new("/builds/web"), Profile { average: 8192, ..Profile::DEFAULT }));
}

#[test]
fn a_file_is_settled_two_seconds_after_its_last_change() {
    let stat = |modified, changed| Stat { modified, changed, ..Stat::default() };
    let second = 1_000_000_000;
    assert!(stat(BEGAN - 2 * second - 1, 0).is_settled(BEGAN));
    assert!(!stat(BEGAN - 2 * second, 0).is_settled(BEGAN));
    assert!(!stat(0, BEGAN - second).is_settled(BEGAN), "its time was set back");
    assert!(!stat(BEGAN + 3600 * second, 0).is_settled(BEGAN), "its time lies in the future");
    assert!(!stat(i64::MIN, i64::MIN).is_settled(i64::MIN));
}

#[test]
fn a_damaged_memory_is_none() {
    let state = tempfile::tempdir().expect("a temporary folder");
    keep(state.path(), &key("web"), &release(200), &WriteOptions::default()).expect("written");
    let path = kept(state.path()).remove(0);
    let whole = fs::read(&path).expect("a file");
    for place in (0..whole.len()).step_by(97).chain(whole.len() - 40..whole.len()) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        fs::write(&path, &bytes).expect("written");
        assert!(Memory::open(state.path(), &key("web")).is_none(), "byte {place}");
        fs::write(&path, &whole[..place]).expect("written");
        assert!(Memory::open(state.path(), &key("web")).is_none(), "cut short at {place}");
    }
    // A newer version, whole.
    let mut bytes = whole[..whole.len() - 16].to_vec();
    bytes[8] = 3;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(&check.as_bytes()[..16]);
    fs::write(&path, &bytes).expect("written");
    assert!(Memory::open(state.path(), &key("web")).is_none());
    // The memory of another application under this one's name.
    keep(state.path(), &key("other"), &release(200), &WriteOptions::default()).expect("written");
    fs::rename(state.path().join("memory").join(format!("{}.memory", key("other"))), &path).expect("renamed");
    assert!(Memory::open(state.path(), &key("web")).is_none());
    fs::write(&path, &whole).expect("written");
    assert!(Memory::open(state.path(), &key("web")).is_some());
}

#[test]
fn a_memory_that_is_damaged_while_it_is_open_tells() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let release = release(20_000);
    keep(state.path(), &key("web"), &release, &WriteOptions::default()).expect("written");
    let memory = Memory::open(state.path(), &key("web")).expect("a memory");
    let path = kept(state.path()).remove(0);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file")
        .set_len(memory.segment_blocks[1].offset)
        .expect("cut short");
    let last = SegmentIndex::of(release.segments.len() - 1);
    assert!(memory.segment(SegmentIndex::new(0)).is_ok());
    assert!(matches!(memory.segment(last), Err(Error::File(_))));
    let (path, size, _) = release.files.last().expect("a file");
    assert!(!memory.recall().find(path, *size, &stat(19_999)));
}

#[test]
fn memories_used_longest_ago_make_room() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let release = release(500);
    for (app, age) in [("a", 300), ("b", 200), ("c", 100)] {
        keep(state.path(), &key(app), &release, &WriteOptions::default()).expect("written");
        let path = state.path().join("memory").join(format!("{}.memory", key(app)));
        let used = SystemTime::now() - Duration::from_secs(age);
        let file = OpenOptions::new().write(true).open(path).expect("a file");
        file.set_times(FileTimes::new().set_modified(used)).expect("set");
    }
    assert!(Memory::open(state.path(), &key("a")).is_some(), "now it is the one used last");
    let length = fs::metadata(kept(state.path()).remove(0)).expect("a file").len();
    let options = WriteOptions { total_bytes_max: 3 * length, ..WriteOptions::default() };
    keep(state.path(), &key("d"), &release, &options).expect("written");
    let there = |app| Memory::open(state.path(), &key(app)).is_some();
    assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
    let options = WriteOptions { total_bytes_max: 0, ..options };
    keep(state.path(), &key("e"), &release, &options).expect("written");
    assert_eq!(kept(state.path()).len(), 1, "the latest stays");
}

#[test]
fn what_is_too_large_is_not_written_and_leaves_nothing() {
    let state = tempfile::tempdir().expect("a temporary folder");
    keep(state.path(), &key("web"), &release(3), &WriteOptions::default()).expect("written");
    let options = WriteOptions { memory_bytes_max: 10_000, ..WriteOptions::default() };
    let error = keep(state.path(), &key("web"), &release(20_000), &options).expect_err("too large");
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
    assert_eq!(kept(state.path()).len(), 1);
    let memory = Memory::open(state.path(), &key("web")).expect("the one before");
    assert_eq!(memory.root().totals.files, 3);
}

#[test]
fn what_a_killed_writer_left_goes_after_a_day() {
    let state = tempfile::tempdir().expect("a temporary folder");
    keep(state.path(), &key("web"), &release(3), &WriteOptions::default()).expect("written");
    for (name, hours) in [("old.part", 25), ("new.part", 1)] {
        let path = state.path().join("memory").join(name);
        fs::write(&path, "half").expect("written");
        let written = SystemTime::now() - Duration::from_secs(hours * 3600);
        let file = OpenOptions::new().write(true).open(path).expect("a file");
        file.set_times(FileTimes::new().set_modified(written)).expect("set");
    }
    // Without a count the folder is walked, as once a day.
    fs::remove_file(state.path().join("memory.bytes")).expect("removed");
    keep(state.path(), &key("web"), &release(3), &WriteOptions::default()).expect("written");
    let names: Vec<_> = kept(state.path()).into_iter().filter(|path| path.ends_with("new.part")).collect();
    assert_eq!((kept(state.path()).len(), names.len()), (2, 1));
}

#[test]
fn an_empty_release_can_be_remembered() {
    let state = tempfile::tempdir().expect("a temporary folder");
    keep(state.path(), &key("web"), &release(0), &WriteOptions::default()).expect("written");
    let memory = Memory::open(state.path(), &key("web")).expect("a memory");
    assert!(memory.segments().is_empty());
    assert!(!memory.recall().find(&EntryPath::new("a").expect("a path"), 0, &stat(0)));
}

#[test]
fn each_proxy_space_and_application_has_its_own() {
    let (one, other) = (Fingerprint::of_key(b"one"), Fingerprint::of_key(b"other"));
    let (web, shop) = ("web".parse().expect("a name"), "shop".parse().expect("a name"));
    let keys = [
        Key::new(&one, "a token", &web),
        Key::new(&other, "a token", &web),
        Key::new(&one, "another token", &web),
        Key::new(&one, "a token", &shop),
    ];
    for (place, key) in keys.iter().enumerate() {
        assert!(keys[place + 1..].iter().all(|other| other != key));
    }
    assert_eq!(keys[0], Key::new(&one, "a token", &web));
}
