//! Whole releases, written to real folders and read back.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::faults::{Fault, Faulty};
use crate::ids::ChunkId;
use crate::manifest::{self, EntryPath, Item, Shape};
use crate::monitor::{Counter, Silent};
use crate::reassembly::sample::{Entry, MemorySource, noise, one_of_each, place, read_tree, sorted};
use crate::recipe::{ChunkRef, Recipe};

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
    let previous = Some(Previous { folder: &copy, root: &old_root });
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
    for (at, earlier) in [(folder.path(), &damaged), (Path::new("/nowhere"), &root)] {
        let previous = Some(Previous { folder: at, root: earlier });
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
        options.previous = Some(Previous { folder: &copy, root: &old_root });
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
