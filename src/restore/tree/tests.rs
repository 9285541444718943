//! Whole releases, written to real folders and read back.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::restore::sample::{Entry, MemorySource, noise, one_of_each, place, read_tree, sorted};
use format::manifest::{self, EntryPath, Item, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::faults::{Fault, Faulty};
use ground::ids::ChunkId;
use ground::monitor::{Counter, Silent};

fn write(root: &Root, source: &MemorySource, folder: &Path) -> Result<Written, Error> {
    write_tree(root, source, folder, &TreeOptions { sync: false, ..TreeOptions::default() }, &Silent)
}

/// Writes `old`, lets `change` at the copy, then writes `new` with the copy's help as `next`.
fn write_after(
    reuse: Reuse,
    old: &[Entry],
    new: &[Entry],
    change: impl FnOnce(&Path),
) -> (tempfile::TempDir, Written, u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (old_root, mut source) = MemorySource::of(Shape::Tree, old);
    let new_root = source.release(Shape::Tree, new);
    let copy = folder.path().join("old");
    write(&old_root, &source, &copy).expect("written");
    change(&copy);
    source.content_reads();
    let earlier = Folder::open(&copy).expect("opened");
    let previous = Some(Previous { folder: &earlier, root: &old_root, linkable: None });
    let options = TreeOptions { previous, reuse, sync: false, ..TreeOptions::default() };
    let next = folder.path().join("next");
    let written = write_tree(&new_root, &source, &next, &options, &Silent).expect("written");
    assert_eq!(read_tree(&next), sorted(new));
    (folder, written, source.content_reads())
}

#[test]
fn a_release_is_written_with_every_kind_of_entry() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
    let (target, heard) = (folder.path().join("copy"), Counter::default());
    let written =
        write_tree(&root, &source, &target, &TreeOptions::default(), &heard).expect("an honest release");
    assert_eq!(read_tree(&target), sorted(&one_of_each()));
    let expected = Written { files: 5, bytes: 5_130_007, directories: 4, symlinks: 3, ..Written::default() };
    assert_eq!((written, heard.bytes()), (expected, expected.bytes));
    assert_eq!(fs::metadata(&target).expect("it is there").mode() & 0o7777, 0o755);
}

#[test]
fn runs_of_zeros_become_holes_and_changed_ones_are_right_again() {
    const MIB: usize = 1024 * 1024;
    let mut image = vec![0; 24 * MIB + 5];
    image[..3000].copy_from_slice(&noise(1, 3000));
    image[10 * MIB + 7..10 * MIB + 200_007].copy_from_slice(&noise(2, 200_000));
    let mut changed = image.clone();
    changed[10 * MIB + 100_000..10 * MIB + 200_007].fill(0);
    changed[20 * MIB] = 1;
    let tree = |image: &[u8]| {
        let small = [noise(3, 1000), vec![0; 700_000]].concat();
        vec![
            Entry::file("all", 0o600, vec![0; 9 * MIB]),
            Entry::file("image", 0o644, image),
            Entry::file("small", 0o644, small),
            Entry::file("zeros", 0o644, vec![0; 200_000]),
        ]
    };
    let spoil = |copy: &Path| {
        let file = fs::OpenOptions::new().write(true).open(copy.join("image")).expect("opened");
        file.write_all_at(b"not zero", 5 * MIB as u64).expect("written");
    };
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let (folder, ..) = write_after(reuse, &tree(&image), &tree(&changed), spoil);
        let room = |name: &str| fs::metadata(folder.path().join(name)).expect("it is there").blocks() * 512;
        assert!(room("old/all") < 200_000, "{} B", room("old/all"));
        assert!(room("old/small") < 300_000, "{} B", room("old/small"));
        for image in ["old/image", "next/image"] {
            assert!(room(image) < MIB as u64, "{image} takes {} B", room(image));
        }
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).expect("a plain path")
}

#[test]
fn hard_links_are_linked_again() {
    let mut source = MemorySource::default();
    let chunk = source.add(noise(1, 100));
    let file = |name: &str| Item::File { path: path(name), mode: 0o640, size: 100, recipe: Recipe::Chunks };
    let chunk = Item::Chunk(ChunkRef { id: chunk.id, bytes: chunk.bytes });
    let hard = |name: &str, target: &str| Item::HardLink { path: path(name), target: path(target) };
    let items = [
        file("a"),
        chunk.clone(),
        Item::Linked,
        Item::Directory { path: path("d"), mode: 0o555 },
        file("d/b"),
        chunk.clone(),
        hard("d/c", "a"),
        hard("e", "a"),
    ];
    let root = source.manifest(Shape::Tree, &items);
    assert_eq!(root.totals.files, 2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("copy");
    write(&root, &source, &copy).expect("written");
    let inode = |name: &str| fs::metadata(copy.join(name)).expect("it is there").ino();
    assert_eq!([inode("d/c"), inode("e")], [inode("a"); 2]);
    assert_ne!(inode("d/b"), inode("a"));
    let held = Folder::open(&copy).expect("opened");
    assert!(crate::restore::looks_complete(&root, &source, &held, &Mapping::default(), None).expect("read"));
    let mut found = Vec::new();
    crate::restore::write_file(&root, &source, Some(&path("e")), &mut found).expect("written");
    assert_eq!(found, noise(1, 100));
    // From an earlier copy they are linked, too.
    let earlier = Folder::open(&copy).expect("opened");
    let previous = Some(Previous { folder: &earlier, root: &root, linkable: None });
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let next = folder.path().join(format!("{reuse:?}"));
        let options = TreeOptions { previous, reuse, sync: false, ..TreeOptions::default() };
        let written = write_tree(&root, &source, &next, &options, &Silent).expect("written");
        assert_eq!(written.reused_files, 2);
        let inode = |name: &str| fs::metadata(next.join(name)).expect("it is there").ino();
        assert_eq!([inode("d/c"), inode("e")], [inode("a"); 2]);
    }
    for (what, items) in [
        ("nothing before it", vec![hard("a", "b")]),
        ("what comes later", vec![hard("a", "b"), file("b"), chunk.clone(), Item::Linked]),
        ("a file that does not say so", vec![file("a"), chunk.clone(), hard("b", "a")]),
        ("a folder", vec![Item::Directory { path: path("a"), mode: 0o755 }, hard("b", "a")]),
        ("a link", vec![Item::Symlink { path: path("a"), target: b"x".to_vec() }, hard("b", "a")]),
        (
            "what lies below a link",
            vec![Item::OutsideLink { path: path("a"), target: b"/etc".to_vec() }, hard("b", "a/passwd")],
        ),
        ("another name", vec![file("a"), chunk.clone(), Item::Linked, hard("b", "a"), hard("c", "b")]),
        ("a file without names", vec![file("a"), chunk.clone(), Item::Linked]),
        ("a file twice", vec![file("a"), chunk.clone(), Item::Linked, Item::Linked, hard("b", "a")]),
        ("half a file", vec![file("a"), Item::Linked, chunk.clone(), hard("b", "a")]),
    ] {
        let root = source.manifest(Shape::Tree, &items);
        let place = folder.path().join("refused");
        assert!(write(&root, &source, &place).is_err(), "a hard link to {what}");
        assert!(!place.exists());
    }
}

#[test]
fn links_that_lead_outside_are_written_only_where_that_is_wanted() {
    let mut source = MemorySource::default();
    let outside = |target: &str| Item::OutsideLink { path: path("python"), target: target.into() };
    let root = source.manifest(Shape::Tree, &[outside("/usr/bin/python3")]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = write(&root, &source, &folder.path().join("refused")).expect_err("not wanted");
    assert!(matches!(&refused, Error::OutsideLink { .. }), "{refused}");
    let options = TreeOptions { outside_links: OutsideLinks::Keep, sync: false, ..TreeOptions::default() };
    let copy = folder.path().join("copy");
    write_tree(&root, &source, &copy, &options, &Silent).expect("written");
    assert_eq!(fs::read_link(copy.join("python")).expect("a link"), Path::new("/usr/bin/python3"));
    // Nothing is written through one, and one that leads inside has another form.
    let file = Item::File { path: path("python/x"), mode: 0o644, size: 0, recipe: Recipe::Chunks };
    for items in [vec![outside("/tmp"), file], vec![outside("inside")], vec![outside("")]] {
        let root = source.manifest(Shape::Tree, &items);
        assert!(write_tree(&root, &source, &folder.path().join("bad"), &options, &Silent).is_err());
    }
}

#[test]
fn a_folder_that_exists_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("mine"), "mine").expect("written");
    let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
    let error = write(&root, &source, folder.path()).expect_err("it exists");
    assert_eq!(error.fault(), Fault::Input);
    assert!(folder.path().join("mine").exists());
}

#[test]
fn a_missing_chunk_ends_in_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, mut source) = MemorySource::of(Shape::Tree, &one_of_each());
    source.lose(&noise(2, 100_000));
    let error = write(&root, &source, &folder.path().join("copy")).expect_err("a chunk is missing");
    assert!(matches!(error, Error::Source(_)), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn an_error_among_many_jobs_ends_all_threads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut entries = vec![Entry::file("a", 0o644, noise(9, 70_000))];
    entries.extend((0..40).map(|n| Entry::file(format!("b{n}"), 0o644, noise(n, 6_000_000 / 10))));
    let (root, mut source) = MemorySource::of(Shape::Tree, &entries);
    source.lose(&noise(9, 70_000));
    assert!(write(&root, &source, &folder.path().join("copy")).is_err());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_cancelled_tree_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
    let cancelled = AtomicBool::new(false);
    cancelled.store(true, Ordering::Relaxed);
    let options = TreeOptions { cancelled: Some(&cancelled), ..TreeOptions::default() };
    let error = write_tree(&root, &source, &folder.path().join("copy"), &options, &Silent);
    assert_eq!(error.expect_err("cancelled").fault(), Fault::Interrupted);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn twenty_thousand_small_files_are_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut entries: Vec<Entry> = (0..20).map(|n| Entry::directory(format!("d{n:02}"), 0o755)).collect();
    let name = |n: usize| format!("d{:02}/{n:05}", n % 20);
    entries.extend((0..20_000).map(|n| Entry::file(name(n), 0o644, n.to_string())));
    let (root, source) = MemorySource::of(Shape::Tree, &entries);
    let copy = folder.path().join("copy");
    assert_eq!(write(&root, &source, &copy).expect("written").files, 20_000);
    assert_eq!(read_tree(&copy), sorted(&entries));
}

#[test]
fn an_unchanged_release_is_reused_without_reading_a_chunk() {
    let entries = one_of_each();
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let (_folder, written, reads) = write_after(reuse, &entries, &entries, |_| {});
        let found = (written.reused_files, written.reused_bytes, reads);
        assert_eq!(found, (written.files, written.bytes, 0), "{reuse:?}");
    }
}

#[test]
fn only_what_changed_is_read() {
    let mut new = one_of_each();
    new.retain(|entry| !entry.path().to_string().starts_with("sealed"));
    new.push(Entry::file("added", 0o644, noise(77, 3000)));
    new.push(Entry::file("bin/app.old", 0o644, noise(1, 5_000_000)));
    let (_folder, written, reads) = write_after(Reuse::Copy, &one_of_each(), &new, |_| {});
    let all = written.bytes - 3000 - 5_000_000;
    assert_eq!((written.files, written.reused_files, written.reused_bytes), (6, 4, all));
    assert!(reads > 1, "the added files come from chunks");
}

#[test]
fn what_an_application_changed_in_place_is_not_carried_over() {
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let (_folder, written, reads) = write_after(reuse, &one_of_each(), &one_of_each(), |old| {
            let app = fs::OpenOptions::new().write(true).open(old.join("bin/app")).expect("opened");
            app.write_all_at(b"changed", 4_500_000).expect("written");
            fs::write(old.join("README"), "read it").expect("written");
            fs::remove_file(old.join("nothing")).expect("removed");
            std::os::unix::fs::symlink("README", old.join("nothing")).expect("linked");
        });
        assert!((2..10).contains(&reads), "{reads} chunks came from the source");
        assert_eq!(written.reused_files, 2, "{reuse:?}");
    }
}

#[test]
fn a_hard_link_is_made_only_where_it_was_asked_for_and_the_mode_is_the_same() {
    let old = [Entry::file("kept", 0o644, noise(1, 50_000)), Entry::file("mode", 0o644, noise(2, 50_000))];
    let new = [Entry::file("kept", 0o644, noise(1, 50_000)), Entry::file("mode", 0o755, noise(2, 50_000))];
    let inode = |folder: &Path, name| fs::metadata(folder.join(name)).expect("it is there").ino();
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let (folder, written, _) = write_after(reuse, &old, &new, |_| {});
        let (old, next) = (folder.path().join("old"), folder.path().join("next"));
        assert_eq!(written.reused_files, 2);
        let linked = inode(&old, "kept") == inode(&next, "kept");
        // Where the temporary folder can reflink, that is preferred.
        assert!(reuse == Reuse::HardLink || !linked);
        assert_ne!(inode(&old, "mode"), inode(&next, "mode"));
        assert_eq!(fs::metadata(old.join("mode")).expect("it is there").mode() & 0o777, 0o644);
    }
}

#[test]
fn an_earlier_copy_or_manifest_that_is_gone_is_no_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, source) = MemorySource::of(Shape::Tree, &one_of_each());
    let lost = manifest::NodeRef { id: ChunkId::of(b"lost"), bytes: 4 };
    let damaged = Root { children: vec![lost], ..root.clone() };
    let empty = Folder::open(folder.path()).expect("opened");
    for earlier in [&damaged, &root] {
        let previous = Some(Previous { folder: &empty, root: earlier, linkable: None });
        let options = TreeOptions { previous, sync: false, ..TreeOptions::default() };
        let copy = folder.path().join("copy");
        let written = write_tree(&root, &source, &copy, &options, &Silent).expect("written");
        assert_eq!(written.reused_files, 0);
        files::remove(&copy).expect("removed");
    }
}

/// A manifest of `items` must fail and leave nothing.
fn refused(source: &mut MemorySource, items: &[Item], adjust: impl FnOnce(&mut Root)) -> Error {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut root = source.manifest(Shape::Tree, items);
    adjust(&mut root);
    let error = write(&root, source, &folder.path().join("copy")).expect_err("a hostile manifest");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    error
}

#[test]
fn a_hostile_manifest_writes_nothing_outside_and_leaves_nothing() {
    let path = |text: &str| EntryPath::new(text).expect("a plain path");
    let file = |text, size| Item::File { path: path(text), mode: 0o644, size, recipe: Recipe::Chunks };
    let mut source = MemorySource::default();
    let chunk = source.add(noise(5, 1000));
    let chunk = Item::Chunk(ChunkRef { id: chunk.id, bytes: chunk.bytes });
    let Item::Chunk(mut short) = chunk.clone() else { unreachable!("it was just made") };
    short.bytes = 10;
    let link = |target: &[u8]| Item::Symlink { path: path("a"), target: target.to_vec() };

    refused(&mut source, &[link(b"sub"), file("a/b", 0)], |_| {});
    refused(&mut source, &[link(b"/etc")], |_| {});
    refused(&mut source, &[file("a", 2000), chunk.clone(), file("b", 0)], |_| {});
    refused(&mut source, &[file("a", 0), file("a", 0)], |_| {});
    refused(&mut source, &[file("a", 1000), chunk.clone()], |root| root.totals.bytes = 999);
    let lie = refused(&mut source, &[file("a", 10), Item::Chunk(short)], |_| {});
    assert!(matches!(lie, Error::Length { expected: 10, found: 1000, .. }), "{lie}");
    // 8 EiB fit nowhere, so that each file is counted: what the chunks make is found before anything is written.
    let parts = vec![chunk; 6000];
    let size = i64::MAX as u64;
    let huge: Vec<Item> = [file("a", size)].into_iter().chain(parts).collect();
    assert_eq!(refused(&mut source, &huge, |_| {}).fault(), Fault::Input);
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    }
    let many: Vec<Entry> = (0..40).map(|n| Entry::file(format!("{n}"), 0o644, noise(n, 100_000))).collect();
    let results = [one_of_each(), many].map(|entries| {
        let (root, source) = MemorySource::of(Shape::Tree, &entries);
        let error = write(&root, &source, &folder.path().join("copy")).err().map(|error| error.fault());
        (error, fs::read_dir(folder.path()).map(Iterator::count).ok())
    });
    let unmounted = std::process::Command::new("umount").arg(folder.path()).status();
    assert_eq!(results, [(Some(Fault::Full), Some(0)); 2]);
    assert!(unmounted.is_ok_and(|status| status.success()));
}

/// Random content: short, or long enough for several parts, compressible or not.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        2 => (any::<u64>(), 0..200_000usize).prop_map(|(seed, length)| noise(seed, length)),
        1 => (any::<u8>(), 0..6_000_000usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => (0..3u64, 4_000_000..9_000_000usize).prop_map(|(seed, length)| noise(seed, length)),
    ]
}

/// Random trees: names from a few bytes, so that they collide, nest and sort in interesting ways.
fn tree() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop::collection::vec(prop::sample::select(b"ab.-\xff \n".to_vec()), 1..4)
        .prop_filter("no walking up", |name| name != b"." && name != b"..");
    let entry = (name, any::<prop::sample::Index>(), 0u8..10, 0u16..=0o777, content());
    prop::collection::vec(entry, 0..24).prop_map(|drawn| {
        let mut folders = vec![Vec::new()];
        let mut entries: Vec<Entry> = Vec::new();
        for (name, above, kind, mode, content) in drawn {
            let mut path: Vec<u8> = above.get(&folders).clone();
            path.extend_from_slice(&name);
            let entry = match kind {
                0..3 => Entry::directory(path.clone(), mode),
                3 => Entry::symlink(path.clone(), name),
                _ => Entry::file(path.clone(), mode, content),
            };
            if entries.iter().any(|other| other.path() == entry.path()) {
                continue;
            }
            if matches!(entry, Entry::Directory(..)) {
                path.push(b'/');
                folders.push(path);
            }
            entries.push(entry);
        }
        entries
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_out_as_it_went_in(old in tree(), new in tree(), threads in 1usize..4) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (old_root, mut source) = MemorySource::of(Shape::Tree, &old);
        let new_root = source.release(Shape::Tree, &new);
        let (copy, next) = (folder.path().join("old"), folder.path().join("new"));
        let threads = NonZeroUsize::new(threads).expect("at least one");
        let mut options = TreeOptions { threads, sync: false, ..TreeOptions::default() };
        write_tree(&old_root, &source, &copy, &options, &Silent).expect("written");
        let earlier = Folder::open(&copy).expect("opened");
        options.previous = Some(Previous { folder: &earlier, root: &old_root, linkable: None });
        write_tree(&new_root, &source, &next, &options, &Silent).expect("written");
        let readable = rustix::process::geteuid().is_root();
        if readable {
            prop_assert_eq!(read_tree(&copy), sorted(&old));
            prop_assert_eq!(read_tree(&next), sorted(&new));
        }
        files::remove(&copy).expect("removed");
    }
}

#[test]
fn a_file_is_found_below_its_folder() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let (root, source) = MemorySource::of(Shape::File, &[Entry::file("app", 0o755, noise(1, 9_000_000))]);
    let copy = folder.path().join("copy");
    write(&root, &source, &copy).expect("written");
    let path = EntryPath::new("app").expect("a plain path");
    assert_eq!(fs::read(place(&copy, &path))?, noise(1, 9_000_000));
    Ok(())
}
