//! The times, owners and modes of copies.

use super::*;

/// Seconds, owner, group and mode of what is shown at a path.
fn attributes(directory: &Directory, path: &str) -> (i64, u32, u32, u32) {
    let found =
        fs::symlink_metadata(directory.path.as_path().join("current").join(path)).expect("it is there");
    (found.mtime(), found.uid(), found.gid(), found.mode() & 0o7777)
}

fn times(directory: &Directory, paths: &[&str]) -> Vec<i64> {
    paths.iter().map(|path| attributes(directory, path).0).collect()
}

const PATHS: [&str; 4] = ["README", "bin/app", "version", "bin"];

#[test]
fn what_is_new_has_its_releases_time_and_what_is_unchanged_keeps_its_own() {
    let mut bench = Bench::new();
    for reuse in [Reuse::Copy, Reuse::HardLink] {
        let path = Template::new(bench.folder.path().join(format!("{reuse:?}")));
        let directory = Directory { path, reuse, ..bench.directory() };
        let (one, two) = (bench.root(1), bench.root(2));
        bench.deliver_at(&directory, &one, 1000).expect("delivered");
        assert_eq!(times(&directory, &PATHS), [1000; 4], "{reuse:?}");
        assert_eq!(times(&directory, &["", "bin/run"]), [1000; 2], "the top and links too");
        bench.deliver_at(&directory, &two, 2000).expect("delivered");
        assert_eq!(times(&directory, &PATHS), [1000, 1000, 2000, 2000], "{reuse:?}");
        bench.deliver_at(&directory, &one, 1000).expect("delivered");
        assert_eq!(times(&directory, &PATHS), [1000; 4], "the kept copy's");
    }
}

#[test]
fn a_replaced_copy_has_the_times_of_the_one_before() {
    let mut bench = Bench::new();
    let (directory, one, two) = (bench.directory(), bench.root(1), bench.root(2));
    bench.deliver_at(&directory, &one, 1000).expect("delivered");
    let second = bench.deliver_at(&directory, &two, 2000).expect("delivered");
    fs::write(Path::new(&second.place).join("README"), "it is damaged").expect("written");
    let healed = bench.deliver_at(&directory, &two, 2000).expect("delivered");
    assert_eq!((healed.place, healed.already), (second.place, false));
    assert_eq!(times(&directory, &PATHS), [2000, 1000, 2000, 2000]);
}

#[test]
fn two_releases_of_one_second_differ_in_the_times_of_what_differs() {
    let mut bench = Bench::new();
    let directory = bench.directory();
    let mut seen = Vec::new();
    for version in 1..4 {
        let root = bench.root(version);
        bench.deliver_at(&directory, &root, 1000).expect("delivered");
        seen.push(times(&directory, &["version", "README"]));
    }
    assert_eq!(seen, [[1000, 1000], [1001, 1000], [1002, 1000]]);
}

#[test]
fn modes_are_mapped_and_executables_stay_executable() {
    let mut bench = Bench::new();
    let modes = |text: &str| Permissions::try_from(text.to_owned()).ok();
    let directory =
        Directory { file_mode: modes("640"), dir_mode: modes("550"), keep: 1, ..bench.directory() };
    for version in 1..4 {
        let root = bench.root(version);
        bench.deliver(&directory, &root).expect("delivered");
        let found: Vec<u32> = PATHS.iter().map(|path| attributes(&directory, path).3).collect();
        assert_eq!(found, [0o640, 0o750, 0o640, 0o550]);
        assert_eq!(attributes(&directory, "").3, 0o550);
        assert!(bench.deliver(&directory, &root).expect("delivered").already);
    }
    assert_eq!(count(&directory.path.as_path().join("releases")), 2, "closed folders are removed as well");
    let plain = Directory { file_mode: None, ..directory.clone() };
    let root = bench.root(3);
    assert!(!bench.deliver(&plain, &root).expect("delivered").already, "other modes are another copy");
    assert_ne!(plain.rules(), directory.rules());
    assert_eq!(bench.directory().rules(), [0; 32]);
}

#[test]
fn the_owner_is_mapped_where_the_process_may_and_refused_before_anything_is_written_elsewhere() {
    let mut bench = Bench::new();
    let root = bench.root(1);
    let owned = Directory {
        owner: Some(Account::Number(12345)),
        group: Some(Account::Name("23456".to_owned())),
        reuse: Reuse::HardLink,
        ..bench.directory()
    };
    if !rustix::process::geteuid().is_root() {
        let error = bench.deliver(&owned, &root).expect_err("another user's");
        assert_eq!((error.fault(), error.hint().is_some()), (Fault::Denied, true));
        assert!(tried(&owned).iter().any(|check| check.failure.is_some()));
        return;
    }
    bench.deliver_at(&owned, &root, 1000).expect("delivered");
    let owner = |path: &str| (attributes(&owned, path).1, attributes(&owned, path).2);
    for path in ["", "README", "bin", "bin/app", "bin/run", "sealed"] {
        assert_eq!(owner(path), (12345, 23456), "{path}");
    }
    assert!(bench.deliver(&owned, &root).expect("delivered").already);
    let inode = |directory: &Directory| {
        fs::metadata(directory.path.as_path().join("current/README")).expect("a file").ino()
    };
    let (before, next) = (inode(&owned), bench.root(2));
    bench.deliver_at(&owned, &next, 2000).expect("delivered");
    assert_eq!(
        (inode(&owned), owner("version"), times(&owned, &["README"])),
        (before, (12345, 23456), vec![1000])
    );
    // With another owner, what could be linked is copied, and its time stays.
    let other = Directory { owner: Some(Account::Number(1)), ..owned.clone() };
    bench.deliver_at(&other, &next, 2000).expect("delivered");
    assert_ne!(inode(&other), before);
    assert_eq!((owner("README"), times(&owned, &["README"])), ((1, 23456), vec![1000]));
}

#[test]
fn a_trial_names_each_step_and_leaves_nothing() {
    let bench = Bench::new();
    let directory = bench.directory();
    let checks = tried(&directory);
    assert!(checks.len() >= 4 && checks.iter().all(|check| check.failure.is_none()), "{checks:?}");
    assert_eq!(count(bench.folder.path()), 0);
    let template =
        Directory { path: Template::new(bench.folder.path().join("{app}/x")), ..directory.clone() };
    assert!(tried(&template).iter().all(|check| check.failure.is_none()));
    let file = bench.folder.path().join("file");
    fs::write(&file, "mine").expect("written");
    let blocked = Directory { path: Template::new(file), ..directory };
    assert!(tried(&blocked).last().is_some_and(|check| check.failure.is_some()));
    let unknown = Directory { owner: Some(Account::Name("no such user".to_owned())), ..template };
    assert!(tried(&unknown).last().is_some_and(|check| check.failure.is_some()));
    assert!(matches!(unknown.check(), Err(("owner", Mistake::Account { .. }))));
    assert_eq!(count(bench.folder.path()), 1);
}

#[test]
fn a_plan_lists_what_would_change_and_changes_nothing() {
    let mut bench = Bench::new();
    let directory = bench.directory();
    let (old, mut entries) = (bench.root(1), Bench::entries(2));
    entries.retain(|entry| entry.path().to_string() != "README");
    entries.push(Entry::file("added", 0o644, "12345"));
    let new = bench.release(&entries);
    let roots = bench.roots.lock().expect("no panic").clone();
    let known = |id: &ReleaseId| roots.iter().find(|root| root.release() == *id).cloned();
    let plan = |root: &Root| directory.plan(&Job { root_of: &known, ..bench.job(root) }).expect("a plan");
    let first = plan(&old);
    assert_eq!((first.keep.len(), first.delete.len(), directory.path.as_path().exists()), (0, 0, false));
    assert!(first.put.contains(&("version".to_owned(), 1)));
    bench.deliver(&directory, &old).expect("delivered");
    let next = plan(&new);
    assert_eq!(next.put, [("added".to_owned(), 5), ("version".to_owned(), 1)]);
    assert_eq!(next.delete, ["README"]);
    assert_eq!(next.keep.len() + 1, first.put.len() - 1);
    assert_eq!(plan(&old).put, []);
    assert_eq!(current(&directory).expect("a link"), Some(old.release()));
}

#[test]
fn a_copy_that_was_set_aside_when_the_process_was_killed_is_replaced() {
    let mut bench = Bench::new();
    let (directory, root) = (bench.directory(), bench.root(1));
    let first = bench.deliver(&directory, &root).expect("delivered");
    // Killed after the better copy had got its first name.
    fs::rename(&first.place, format!("{}.1", first.place)).expect("renamed");
    fs::create_dir_all(Path::new(&first.place).join("bin")).expect("created");
    let second = bench.deliver(&directory, &root).expect("delivered");
    assert_eq!(second.place, first.place);
    assert_eq!(shown(&directory), sorted(&Bench::entries(1)));
    assert_eq!(second.kept, [root.release()]);
}

/// A change of a copy, whether the copy is whole after it, and how it is made.
type Change<'a> = (&'a str, bool, &'a dyn Fn(&Path));

#[test]
fn going_back_to_a_kept_copy_that_nobody_changed_writes_and_reads_no_file() {
    let mut bench = Bench::new();
    let directory = Directory { keep: 10, ..sharing_a_folder(&bench) };
    let (one, two) = (bench.root(1), bench.root(2));
    let changes: [Change<'_>; 6] = [
        ("nothing", true, &|_| {}),
        ("one file, with its size and time", false, &|copy| {
            let file = fs::File::options().write(true).open(copy.join("README")).expect("opened");
            let time = file.metadata().expect("a file").modified().expect("a time");
            std::os::unix::fs::FileExt::write_all_at(&file, b"R", 0).expect("written");
            file.set_modified(time).expect("set");
        }),
        ("a new file", false, &|copy| fs::write(copy.join("bin/cache"), "x").expect("written")),
        ("a new file at the top", false, &|copy| fs::write(copy.join("cache"), "x").expect("written")),
        ("a new file beside a link", false, &|copy| fs::write(copy.join("var/x"), "x").expect("written")),
        ("what is shared", true, &|copy| fs::write(copy.join("var/data/x"), "x").expect("written")),
    ];
    for (name, is_kept, change) in changes {
        let first = bench.deliver_at(&directory, &one, 1000).expect("delivered");
        let inode = || fs::metadata(directory.path.as_path().join("current")).expect("a copy").ino();
        let before = inode();
        bench.deliver_at(&directory, &two, 2000).expect("delivered");
        change(Path::new(&first.place));
        let back = bench.deliver_at(&directory, &one, 1000).expect("delivered");
        assert_eq!((inode() == before, &back.place, back.already), (is_kept, &first.place, false), "{name}");
        let shown = |name: &str| directory.path.as_path().join("current").join(name);
        assert_eq!(fs::read_to_string(shown("README")).expect("a file"), "read me", "{name}");
        assert!(
            !shown("cache").exists() && !shown("bin/cache").exists() && !shown("var/x").exists(),
            "{name}"
        );
    }
}

fn sharing_a_folder(bench: &Bench) -> Directory {
    let shared = SharedPath::try_from("var/data/".to_owned()).expect("a path");
    Directory { shared: vec![shared], ..bench.directory() }
}

/// Tries a destination to the end.
fn tried(directory: &Directory) -> Vec<Check> {
    Destination::check(directory, &AtomicBool::new(false))
}
