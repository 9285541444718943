//! A scan with a memory gives what a scan without one gives, whatever was done to the tree in between.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use format::manifest::SegmentIndex;
use ground::ids::ChunkId;
use ground::monitor::{Counter, Silent};
use protocol::address::Fingerprint;

/// Long enough that nothing written before is younger.
const LATER: i64 = 3_600_000_000_000;
const NAMES: [&str; 6] = ["a", "a.b", "d/a", "d/e/large", "d.x", "z"];

fn key() -> Key {
    Key::new(&Fingerprint::of_key(b"a key"), "a token", &"web".parse().expect("a name"))
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns a tree of six files, one of many chunks and one empty, and a folder for the state.
fn tree() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let top = folder.path().join("tree");
    fs::create_dir_all(top.join("d/e")).expect("created");
    for (seed, name) in (0..).zip(NAMES) {
        let length =
            if name.ends_with("large") { 300_000 } else { usize::try_from(seed).expect("small") * 700 };
        fs::write(top.join(name), noise(seed, length)).expect("written");
    }
    std::os::unix::fs::symlink("d/a", top.join("link")).expect("linked");
    (folder, top)
}

fn plain(top: &Path) -> Scan {
    scan(top, &Selection::default(), Profile::DEFAULT, 2, &Silent).expect("a scan")
}

fn remembering<'a>(
    memory: Option<&'a Memory>,
    selection: &'a Selection,
    monitor: &'a dyn Monitor,
) -> Reader<'a> {
    Reader {
        selection,
        profile: Profile::DEFAULT,
        threads: 2,
        memory,
        archives: None,
        on_segment: None,
        monitor,
    }
}

fn with(top: &Path, memory: &Memory) -> Scan {
    remembering(Some(memory), &Selection::default(), &Silent).scan(top).expect("a scan")
}

/// Remembers the tree as if the scan had begun `later` nanoseconds later.
fn remembered(state: &Path, top: &Path, later: i64) -> Memory {
    let Scan { root, segments, spool, mut seen, .. } = plain(top);
    seen.began += later;
    seen.remember(state, &key(), 1, (&root, &segments), &spool).expect("written");
    Memory::open(state, &key()).expect("a memory")
}

fn assert_equal(one: &mut Scan, other: &mut Scan) {
    assert_eq!(one.root, other.root);
    assert_eq!(one.segments, other.segments);
    for index in SegmentIndex::range(0..one.segments.len()) {
        assert_eq!(one.spool.segment(index).expect("read"), other.spool.segment(index).expect("read"));
        assert_eq!(one.spool.chunks(index).expect("read"), other.spool.chunks(index).expect("read"));
    }
}

/// Waits until the file system's clock has moved on from the changes made so far.
fn pass_a_tick(folder: &Path) {
    let now = || {
        let file = tempfile::tempfile_in(folder).expect("a file");
        let metadata = file.metadata().expect("examined");
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let begin = now();
    while now() == begin {}
}

/// Does something to a file of the tree; nothing where it is not there any more.
fn edit(top: &Path, operation: u8, name: &str, seed: u64) {
    let path = top.join(name);
    let Ok(metadata) = fs::metadata(&path) else { return };
    let length = usize::try_from(metadata.len()).expect("small");
    let times = FileTimes::new().set_modified(metadata.modified().expect("a time"));
    let restore = || File::open(&path).expect("opened").set_times(times).expect("set");
    match operation {
        // Another content of the same size and time, in place or as another file.
        0 => {
            fs::write(&path, noise(seed, length)).expect("written");
            restore();
        }
        1 => {
            let aside = top.join("aside");
            fs::write(&aside, noise(seed, length)).expect("written");
            fs::rename(&aside, &path).expect("renamed");
            restore();
        }
        2 => {
            let file = OpenOptions::new().write(true).open(&path).expect("opened");
            let at = seed % metadata.len().max(1);
            file.write_all_at(b"!", at).expect("written");
            restore();
        }
        3 => File::open(&path).expect("opened").set_modified(std::time::SystemTime::now()).expect("set"),
        4 => fs::rename(&path, top.join(NAMES[usize::try_from(seed % 6).expect("small")])).expect("renamed"),
        5 => drop(fs::hard_link(&path, top.join(format!("hard-{}", seed % 3)))),
        6 => fs::set_permissions(
            &path,
            Permissions::from_mode(0o600 + u32::try_from(seed % 2).expect("small") * 0o50),
        )
        .expect("changed"),
        7 => {
            let file = OpenOptions::new().write(true).open(&path).expect("opened");
            file.set_len(metadata.len() / 2).expect("cut short");
            restore();
        }
        8 => fs::remove_file(&path).expect("removed"),
        _ => fs::write(top.join(format!("new-{}", seed % 3)), noise(seed, 500)).expect("written"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_manifest_is_that_of_a_scan_that_reads_everything(
        edits in prop::collection::vec((0u8..10, 0usize..6, any::<u64>()), 0..6),
        exclude in prop::option::of(prop::sample::select(vec!["d/", "a*", "*.x"])),
    ) {
        let (folder, top) = tree();
        let memory = remembered(folder.path(), &top, LATER);
        pass_a_tick(folder.path());
        for (operation, file, seed) in &edits {
            edit(&top, *operation, NAMES[*file], *seed);
        }
        let selection = Selection { exclude: exclude.map(str::to_owned).into_iter().collect(), ..Selection::default() };
        let scanned = |memory| remembering(memory, &selection, &Silent).scan(&top).expect("a scan");
        let (mut with, mut without) = (scanned(Some(&memory)), scanned(None));
        assert_equal(&mut with, &mut without);
        prop_assert_eq!(without.seen.remembered, 0);
        if edits.is_empty() {
            prop_assert_eq!(with.seen.remembered, with.root.totals.files);
        }
        // What a scan with a memory leaves is as good as the memory that it had.
        let files = with.root.totals.files;
        with.seen.began += LATER;
        with.seen.remember(folder.path(), &key(), 2, (&with.root, &with.segments), &with.spool).expect("written");
        let memory = Memory::open(folder.path(), &key()).expect("a memory");
        let mut again = scanned(Some(&memory));
        assert_equal(&mut again, &mut without);
        prop_assert_eq!(again.seen.remembered, files);
    }
}

#[test]
fn an_unchanged_tree_is_not_read_and_its_memory_not_written_again() {
    let (folder, top) = tree();
    let memory = remembered(folder.path(), &top, LATER);
    let monitor = Counter::default();
    let scan = remembering(Some(&memory), &Selection::default(), &monitor).scan(&top);
    let Scan { root, segments, spool, seen, .. } = scan.expect("a scan");
    assert_eq!((seen.remembered, root.totals.files), (6, 6));
    assert_eq!(monitor.bytes(), root.totals.bytes, "progress counts what was not read");
    assert_eq!(seen.same_as, Some(1));
    fs::remove_dir_all(folder.path().join("memory")).expect("removed");
    seen.remember(folder.path(), &key(), 1, (&root, &segments), &spool).expect("nothing to do");
    assert!(!folder.path().join("memory").exists());
    // Under another number the proxy has confirmed something else.
    let Scan { root, segments, spool, seen, .. } = with(&top, &memory);
    seen.remember(folder.path(), &key(), 2, (&root, &segments), &spool).expect("written");
    assert_eq!(Memory::open(folder.path(), &key()).expect("a memory").sequence(), 2);
}

#[test]
fn files_written_just_before_the_scan_are_read_again() {
    let (folder, top) = tree();
    // Their times of change are now, whatever time they were given.
    for name in NAMES {
        let times = FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
        File::open(top.join(name)).expect("opened").set_times(times).expect("set");
    }
    let memory = remembered(folder.path(), &top, 0);
    let mut scan = with(&top, &memory);
    assert_eq!(scan.seen.remembered, 0);
    assert_eq!(scan.seen.same_as, None, "the memory is written anew, and then they are settled");
    assert_equal(&mut scan, &mut plain(&top));
}

#[test]
fn a_single_file_is_remembered() {
    let (folder, top) = tree();
    let memory = remembered(folder.path(), &top.join("d/e/large"), LATER);
    let mut scan = with(&top.join("d/e/large"), &memory);
    assert_eq!(scan.seen.remembered, 1);
    assert_equal(&mut scan, &mut plain(&top.join("d/e/large")));
    assert_eq!(with(&top.join("d"), &memory).seen.remembered, 0, "the memory is of another path");
}

#[test]
fn another_tree_at_the_same_path_is_read() {
    let (folder, top) = tree();
    let memory = remembered(folder.path(), &top, LATER);
    let copy = folder.path().join("copy");
    fs::create_dir_all(copy.join("d/e")).expect("created");
    for name in NAMES {
        fs::copy(top.join(name), copy.join(name)).expect("copied");
    }
    fs::rename(&top, folder.path().join("before")).expect("renamed");
    fs::rename(&copy, &top).expect("renamed");
    let mut scan = with(&top, &memory);
    assert_eq!(scan.seen.remembered, 0);
    assert_equal(&mut scan, &mut plain(&top));
}

/// Returns a memory whose files look as those of `top`, and whose manifest is of `items`.
fn lie(state: &Path, top: &Path, items: &[Item]) -> Memory {
    let mut builder = Builder::new(Profile::DEFAULT);
    let mut bytes: Vec<_> = items.iter().filter_map(|item| builder.push(item)).collect();
    let (last, root, segments) = builder.finish(Shape::Tree).expect("within the limits");
    bytes.extend(last);
    let mut seen = plain(top).seen;
    let confirmed = memory::Confirmed {
        sequence: 1,
        root: &root,
        segments: &segments,
        source: top,
        began: seen.began + LATER,
    };
    let segment = |index: SegmentIndex| Ok(bytes[usize::from(index)].bytes.clone());
    memory::write(state, &key(), &confirmed, segment, &mut seen.stats, &WriteOptions::default())
        .expect("written");
    Memory::open(state, &key()).expect("a memory")
}

#[test]
fn a_memory_that_contradicts_itself_is_passed_over() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let top = folder.path().join("tree");
    fs::create_dir(&top).expect("created");
    fs::write(top.join("a"), "ten bytes.").expect("written");
    let path = EntryPath::new("a").expect("a path");
    let file = Item::File { path, mode: 0o644, size: 10, recipe: Recipe::Chunks };
    for bytes in [9, 11] {
        let chunk = Item::Chunk(ChunkRef { id: ChunkId::of(b"another"), bytes });
        let memory = lie(folder.path(), &top, &[file.clone(), chunk]);
        let mut scan = with(&top, &memory);
        assert_equal(&mut scan, &mut plain(&top));
    }
    // One that is merely wrong is believed until the proxy asks for what is not there; whoever pushes then scans
    // without it.
    let wrong = ChunkRef { id: ChunkId::of(b"another"), bytes: 10 };
    let memory = lie(folder.path(), &top, &[file, Item::Chunk(wrong)]);
    let scan = with(&top, &memory);
    assert_eq!(scan.spool.chunks(SegmentIndex::new(0)).expect("read")[0].chunk, wrong);
}

#[test]
fn a_tree_that_no_release_can_hold_is_refused_with_a_memory_too() {
    let (folder, top) = tree();
    let memory = remembered(folder.path(), &top, LATER);
    std::os::unix::fs::symlink("/etc/passwd", top.join("out")).expect("linked");
    let scan = remembering(Some(&memory), &Selection::default(), &Silent).scan(&top);
    assert!(matches!(scan, Err(Error::OutsideLinks(links)) if links.count == 1));
}
