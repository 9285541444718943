//! What lives beside the releases and is linked into them.

use std::os::unix::fs::symlink;

use ground::monitor::Monitor;

use super::*;

/// Collects notes.
#[derive(Debug, Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl Monitor for Heard {
    fn note(&self, text: &str) {
        self.0.lock().expect("no panic").push(text.to_owned());
    }
}

fn sharing(bench: &Bench, paths: &[&str]) -> Directory {
    let paths = paths.iter().map(|path| SharedPath::try_from((*path).to_owned()).expect("a path"));
    Directory { shared: paths.collect(), ..bench.directory() }
}

fn at(directory: &Directory, path: &str) -> std::path::PathBuf {
    directory.path.as_path().join(path)
}

fn text(directory: &Directory, path: &str) -> String {
    fs::read_to_string(at(directory, path)).expect("a file")
}

/// A release whose version, upload and settings differ.
fn entries(version: u64) -> Vec<Entry> {
    let mut entries = Bench::entries(version);
    entries.push(Entry::directory("uploads", 0o755));
    entries.push(Entry::file("uploads/sample", 0o644, format!("sample {version}")));
    entries.push(Entry::directory("config", 0o755));
    entries.push(Entry::file("config/local.toml", 0o600, format!("settings {version}")));
    entries
}

#[test]
fn what_is_shared_lives_on_and_what_the_release_has_there_is_left_out() {
    let mut bench = Bench::new();
    let directory = sharing(&bench, &["uploads", "config/local.toml", "var/cache/"]);
    let (one, two) = (bench.release(&entries(1)), bench.release(&entries(2)));
    let first = bench.deliver(&directory, &one).expect("delivered");
    assert_eq!(first.files, one.totals.files);
    let link = fs::read_link(at(&directory, "current/config/local.toml")).expect("a link");
    assert_eq!(link, Path::new("../../../shared/config/local.toml"));
    assert_eq!(text(&directory, "current/config/local.toml"), "settings 1", "copied once as a start");
    let mode = |path: &str| fs::metadata(at(&directory, path)).expect("it is there").mode() & 0o777;
    assert_eq!((mode("shared/config/local.toml"), mode("shared/uploads")), (0o600, 0o755));
    assert_eq!(count(&at(&directory, "shared/uploads")), 0, "the release's own is not delivered");
    fs::write(at(&directory, "current/uploads/mine"), "mine").expect("written through the link");
    fs::write(at(&directory, "current/var/cache/x"), "cached").expect("written through the link");
    assert!(bench.deliver(&directory, &one).expect("delivered").already);

    let (heard, keep) = (Heard::default(), Directory { keep: 1, ..directory.clone() });
    keep.deliver(&Job { monitor: &heard, ..bench.job(&two) }).expect("delivered");
    let notes = heard.0.into_inner().expect("no panic");
    assert!(notes.iter().any(|note| note.contains("left out")), "{notes:?}");
    for version in 3..6 {
        let root = bench.release(&entries(version));
        bench.deliver(&keep, &root).expect("delivered");
    }
    assert_eq!(count(&at(&directory, "releases")), 2, "old copies were removed");
    assert_eq!(text(&directory, "shared/uploads/mine"), "mine");
    assert_eq!(text(&directory, "current/config/local.toml"), "settings 1");
    assert_eq!(text(&directory, "current/version"), "5");
    assert_eq!(count(&at(&directory, ".whit")), 3, "the lock, and what is known of two copies");
}

#[test]
fn a_shared_file_that_nobody_has_fails_the_delivery_and_a_folder_is_created() {
    let mut bench = Bench::new();
    let root = bench.root(1);
    let directory = sharing(&bench, &["local.toml", "data"]);
    let error = bench.deliver(&directory, &root).expect_err("a file is missing");
    assert!(matches!(&error, Error::SharedMissing(path) if path.ends_with("shared/local.toml")), "{error}");
    assert!(error.hint().is_some() && !at(&directory, "current").exists());
    fs::create_dir_all(at(&directory, "shared")).expect("created");
    fs::write(at(&directory, "shared/local.toml"), "mine").expect("written");
    bench.deliver(&directory, &root).expect("delivered");
    assert_eq!(text(&directory, "current/local.toml"), "mine");
    assert!(at(&directory, "current/data").is_dir() && at(&directory, "shared/data").is_dir());
    // What was changed in the link's place is replaced; what it led to is not.
    fs::remove_file(at(&directory, "current/local.toml")).expect("removed");
    fs::write(at(&directory, "current/local.toml"), "in the way").expect("written");
    assert!(!bench.deliver(&directory, &root).expect("delivered").already);
    assert_eq!(text(&directory, "current/local.toml"), "mine");
}

#[test]
fn a_release_that_has_no_directory_above_a_shared_path_is_refused() {
    let mut bench = Bench::new();
    let directory = sharing(&bench, &["README/x/", "bin/run/deep/"]);
    let root = bench.root(1);
    let error = bench.deliver(&directory, &root).expect_err("a file is above");
    assert_eq!((error.fault(), error.hint().is_some()), (Fault::Input, true), "{error}");
    assert_eq!(count(&at(&directory, "releases")) + count(&at(&directory, ".whit")), 1);
}

#[test]
fn a_shared_folder_that_is_a_link_is_left_to_who_made_it() {
    let mut bench = Bench::new();
    let (directory, root) = (sharing(&bench, &["uploads", "logs/"]), bench.root(1));
    let outside = bench.folder.path().join("outside");
    fs::create_dir_all(at(&directory, "shared")).expect("created");
    fs::create_dir(&outside).expect("created");
    symlink(&outside, at(&directory, "shared/uploads")).expect("linked");
    symlink("nowhere", at(&directory, "shared/logs")).expect("linked");
    bench.deliver(&directory, &root).expect("delivered");
    fs::write(at(&directory, "current/uploads/x"), "x").expect("written");
    assert!(outside.join("x").exists() && !at(&directory, "shared/nowhere").exists());
    let next = bench.root(2);
    bench.deliver(&Directory { keep: 1, ..directory.clone() }, &next).expect("delivered");
    assert_eq!((count(&outside), fs::read_dir(&outside).expect("a folder").count()), (1, 1));
}
