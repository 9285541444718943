//! The two layouts of a pulled directory: what is kept, what goes back, what is refused before anything is fetched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mounts::{Namespace, namespace};
use crate::program::Home;
use crate::trees::{assert_same, noise, walk_files, write};

/// A home with some releases of `app`, each in its own tree: `tree-1` and so on. Of twelve files one changes.
fn home(releases: u64) -> Home {
    let home = Home::new();
    for release in 1..=releases {
        let tree = home.path(&format!("tree-{release}"));
        for number in 0..11 {
            write(&tree, &format!("lib/{number}"), noise(number, 5000));
        }
        write(&tree, "version", release.to_string());
        home.run(&["push", "app", &format!("tree-{release}"), "--label", &format!("v{release}")]).good();
    }
    home
}

/// Lets the file system's clock tick, so that times tell who has written since.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

fn inodes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let inode = |path: PathBuf| {
        let number = fs::metadata(&path).expect("it is there").ino();
        (path.strip_prefix(folder).expect("it lies below").to_owned(), number)
    };
    walk_files(folder).into_iter().map(inode).collect()
}

#[test]
fn a_plain_directory_goes_back_to_the_copy_before_without_the_proxy() {
    let home = home(3);
    let (copy, previous) = (home.path("copy"), home.path(".copy.whit/previous/copy"));
    let pull = |label: &str| home.run(&["pull", &format!("app@{label}"), "copy", "--json"]).json();
    home.run(&["pull", "app@v1", "copy", "--keep", "2"]).good();
    for label in ["v2", "v3"] {
        settle();
        // So that times tell.
        home.run(&["pull", "app", "copy", "--rollback", "copy"]).failed(2, "cannot be used with");
        let pulled = pull(label);
        assert_eq!(pulled["kept"].as_array().map(Vec::len), Some(2), "{pulled}");
        assert!(previous.is_dir());
    }
    assert_same(&home.path("tree-2"), &previous);
    let (new, old) = (inodes(&copy), inodes(&previous));
    let shared = new.iter().filter(|(path, inode)| old.get(*path) == Some(inode)).count();
    assert_eq!(shared, 11, "all but one file are the same in both: {new:?} {old:?}");
    fs::write(copy.join("notes"), "mine").expect("written");
    fs::rename(home.path("tree-1/version"), copy.join("version")).expect("replaced");
    let back = home.run(&["pull", "--rollback", "copy", "--json", "--proxy", "whit://nowhere"]).json();
    assert_eq!(back["set_aside"]["count"], 2, "{back}");
    let aside = PathBuf::from(back["set_aside"]["place"].as_str().expect("a folder"));
    assert_eq!(fs::read_to_string(aside.join("version")).expect("set aside"), "1");
    assert_same(&home.path("tree-2"), &copy);
    assert!(!previous.exists());
    home.run(&["pull", "--rollback", "copy"]).failed(3, "no previous copy");
    assert!(home.run(&["pull", "app@v2", "copy", "--json"]).json()["unchanged"].as_bool().expect("a bool"));
    // It is kept on.
    assert_eq!(pull("v3")["kept"].as_array().map(Vec::len), Some(2));
    let once = home.run(&["pull", "app@v1", "copy", "--keep", "1", "--json"]).json();
    assert_eq!(once["kept"].as_array().map(Vec::len), Some(1), "{once}");
    assert!(!home.path(".copy.whit/previous").exists());
}

#[test]
fn what_a_user_changed_is_set_aside_and_stays_in_the_copy_that_is_kept() {
    let home = home(2);
    let (copy, previous) = (home.path("copy"), home.path(".copy.whit/previous/copy"));
    home.run(&["pull", "app@v1", "copy", "--keep", "2"]).good();
    settle();
    fs::write(home.path("mine"), "mine").expect("written");
    fs::rename(home.path("mine"), copy.join("lib/3")).expect("replaced");
    let pulled = home.run(&["pull", "app@v2", "copy", "--json"]).json();
    assert_eq!(pulled["set_aside"]["some"][0], "lib/3", "{pulled}");
    assert_same(&home.path("tree-2"), &copy);
    assert_eq!(fs::read_to_string(previous.join("lib/3")).expect("it is there"), "mine");
    home.run(&["pull", "--rollback", "copy"]).good();
    assert_eq!(fs::read_to_string(copy.join("lib/3")).expect("it is there"), "mine");
    assert_eq!(fs::read_to_string(copy.join("version")).expect("it is there"), "1");
}

/// Changes a file in place, and gives it the time of modification that it had.
fn edit_unseen(path: &Path) {
    let before = fs::metadata(path).expect("it is there");
    let file = fs::File::options().write(true).open(path).expect("opened");
    file.write_all_at(b"mine", 0).expect("written");
    file.set_modified(before.modified().expect("a time")).expect("set");
}

#[test]
fn a_file_that_was_changed_and_got_its_time_back_is_set_aside_whatever_happened_to_the_mark() {
    let home = home(6);
    let copy = home.path("copy");
    let pull = |label: &str, more: &[&str]| {
        settle();
        home.run(&[&["pull", &format!("app@{label}"), "copy", "--json"], more].concat()).json()
    };
    // The third mark is whole, and its files have names in the directory before: the fourth pull makes a base of it.
    for label in ["v1", "v2", "v3"] {
        pull(label, &[]);
    }
    settle();
    edit_unseen(&copy.join("lib/3"));
    let pulled = pull("v4", &[]);
    assert_eq!(pulled["set_aside"]["some"][0], "lib/3", "{pulled}");
    pull("v5", &["--keep", "2"]);
    settle();
    edit_unseen(&copy.join("lib/4"));
    let pulled = pull("v6", &[]);
    assert_eq!(pulled["set_aside"]["some"][0], "lib/4", "{pulled}");
    settle();
    home.run(&["pull", "--rollback", "copy"]).good();
    let pulled = pull("v5", &[]);
    assert_eq!(pulled["set_aside"]["some"][0], "lib/4", "what came back was not as it was put: {pulled}");
    assert_same(&home.path("tree-5"), &copy);
}

/// Returns what changes where a file, folder or link is written: its number, and when it last changed.
fn states(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let (mut states, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder").flatten() {
            let found = entry.metadata().expect("it is there");
            if found.is_dir() {
                folders.push(entry.path());
            }
            states.insert(entry.path(), (found.ino(), found.ctime(), found.ctime_nsec()));
        }
    }
    states
}

fn pull(home: &Home, label: &str, more: &[&str]) -> serde_json::Value {
    let release = format!("app@{label}");
    home.run(&[&["pull", &release, "site", "--json"], more].concat()).json()
}

#[test]
fn a_directory_of_releases_shows_one_keeps_others_and_goes_back() {
    let home = home(4);
    let first = pull(&home, "v1", &["--layout", "releases", "--keep", "2"]);
    assert_eq!((first["layout"].as_str(), first["previous"].as_str()), (Some("releases"), None), "{first}");
    let site = home.path("site");
    let current = || fs::canonicalize(site.join("current")).expect("it leads somewhere");
    assert_eq!(Path::new(first["copy"].as_str().expect("a folder")), current());
    assert_same(&home.path("tree-1"), &current());
    for label in ["v2", "v3", "v4"] {
        settle();
        let old = inodes(&current());
        let pulled = pull(&home, label, &[]);
        assert_eq!(pulled["fetched_chunks"], 1, "{pulled}");
        assert_eq!(pulled["kept"].as_array().map(Vec::len), Some(2), "{pulled}");
        assert_eq!(fs::read_dir(site.join("releases")).expect("a folder").count(), 2);
        assert_same(&home.path(&label.replace('v', "tree-")), &current());
        let shared = inodes(&current()).iter().filter(|(path, inode)| old.get(*path) == Some(inode)).count();
        assert_eq!(shared, 11, "unchanged files are linked");
    }
    let three = fs::read_dir(site.join("releases")).expect("a folder").flatten().map(|entry| entry.path());
    let three: Vec<PathBuf> = three.filter(|path| *path != current()).collect();
    // Whoever is in the old copy keeps it.
    let inside = fs::File::open(current().join("version")).expect("opened");
    let back = home.run(&["pull", "--rollback", "site", "--json", "--proxy", "whit://nowhere"]).json();
    assert_eq!(vec![current()], three, "{back}");
    assert_same(&home.path("tree-3"), &current());
    assert_eq!(std::io::read_to_string(inside).expect("read"), "4");
    home.run(&["pull", "--rollback", "site"]).failed(3, "no previous copy");
    // A release whose copy is kept is shown again without writing it.
    let copies = || inodes(&site.join("releases"));
    let before = copies();
    let again = pull(&home, "v4", &[]);
    assert_eq!((again["fetched_chunks"].as_u64(), copies()), (Some(0), before), "{again}");
    assert_same(&home.path("tree-4"), &current());
}

#[test]
fn a_pull_of_what_a_directory_of_releases_shows_writes_nothing() {
    let home = home(2);
    pull(&home, "v1", &["--layout", "releases"]);
    settle();
    pull(&home, "v2", &[]);
    settle();
    // Once more files are read whose times do not tell, which is noted.
    assert!(pull(&home, "v2", &[])["unchanged"].as_bool().expect("a bool"));
    let before = states(&home.path("site"));
    let pulled = pull(&home, "v2", &[]);
    assert!(pulled["unchanged"].as_bool().expect("a bool"), "{pulled}");
    let after = states(&home.path("site"));
    for (path, state) in &before {
        assert_eq!(after.get(path), Some(state), "{}", path.display());
    }
    assert_eq!(after.len(), before.len());
    // An edited file is put right, and what was added counts for nothing.
    let current = fs::canonicalize(home.path("site/current")).expect("a copy");
    fs::write(current.join("log"), "started").expect("written");
    assert!(pull(&home, "v2", &[])["unchanged"].as_bool().expect("a bool"));
    fs::write(home.path("mine"), "mine!").expect("written");
    fs::rename(home.path("mine"), current.join("version")).expect("replaced");
    assert!(!pull(&home, "v2", &[])["unchanged"].as_bool().expect("a bool"));
    assert_same(&home.path("tree-2"), &home.path("site/current/."));
    assert_eq!(fs::read_to_string(current.join("version")).expect("the new copy has the name"), "2");
}

#[test]
fn what_is_shared_lies_beside_the_releases_and_is_remembered() {
    let home = home(1);
    for release in 2..=3 {
        let tree = home.path(&format!("tree-{release}"));
        write(&tree, "version", release.to_string());
        write(&tree, "config/local.toml", "port = 1");
        write(&tree, "config/other.toml", "a = 2");
        write(&tree, "uploads/.keep", "");
        home.run(&["push", "app", &format!("tree-{release}"), "--label", &format!("v{release}")]).good();
    }
    let shared = ["--layout", "releases", "--shared", "uploads/", "--shared", "config/local.toml"];
    pull(&home, "v2", &shared);
    let at = |path: &str| home.path("site").join(path);
    write(&at("shared"), "uploads/picture", "mine");
    fs::write(at("current/config/local.toml"), "port = 2").expect("written");
    settle();
    for label in ["v2", "v3", "v3"] {
        pull(&home, label, &[]);
        assert_eq!(fs::read_to_string(at("current/uploads/picture")).expect("it is there"), "mine");
        assert_eq!(fs::read_to_string(at("current/config/local.toml")).expect("it is there"), "port = 2");
        assert_eq!(fs::read_to_string(at("current/config/other.toml")).expect("it is there"), "a = 2");
    }
    assert!(pull(&home, "v3", &[])["unchanged"].as_bool().expect("a bool"));
    fs::remove_dir_all(at("shared/uploads")).expect("removed");
    pull(&home, "v3", &[]);
    assert!(at("shared/uploads").is_dir(), "what is missing is created again");
    let ran = home.run(&["pull", "app@v3", "site", "--shared", "uploads/"]);
    assert!(ran.err.contains("config/local.toml is not shared any more"), "{ran:?}");
    ran.good();
    home.run(&["pull", "app@v3", "site", "--shared", "../x"]).failed(2, "cannot be shared");
    home.run(&["pull", "app@v3", "plain", "--shared", "uploads"]).failed(2, "nothing is shared");
}

#[test]
fn the_layout_is_remembered_and_another_one_refused() {
    let home = home(2);
    home.run(&["pull", "app@v1", "copy"]).good();
    let ran = home.run(&["pull", "app@v2", "copy", "--layout", "releases"]).failed(2, "has the layout plain");
    assert!(ran.err.contains("hint: "), "{ran:?}");
    pull(&home, "v1", &["--layout", "releases"]);
    home.run(&["pull", "app@v2", "site", "--layout", "plain"]).failed(2, "has the layout releases");
    assert_eq!(pull(&home, "v2", &[])["layout"], "releases");
    // Another directory may be laid out anew.
    fs::remove_dir_all(home.path("copy")).expect("removed");
    home.run(&["pull", "app@v2", "copy", "--layout", "releases"]).good();
    assert_same(&home.path("tree-2"), &home.path("copy/current/."));
    assert!(home.run(&["pull", "app@v2", "copy", "--json"]).json()["unchanged"].as_bool().expect("a bool"));
}

#[test]
fn what_a_person_did_to_a_directory_of_releases_meanwhile_is_respected() {
    let home = home(3);
    pull(&home, "v1", &["--layout", "releases"]);
    let site = home.path("site");
    let current = || fs::canonicalize(site.join("current")).expect("it leads somewhere");
    let one = current();
    // Files and folders of other names stay.
    write(&site, "releases/v0/file", "mine");
    write(&site, "notes", "mine");
    fs::remove_file(site.join("current")).expect("removed");
    settle();
    pull(&home, "v2", &[]);
    assert_same(&home.path("tree-2"), &current());
    assert_eq!(fs::read_to_string(site.join("releases/v0/file")).expect("it is there"), "mine");
    // Nothing was shown before, so that nobody knows what to go back to.
    home.run(&["pull", "--rollback", "site"]).failed(3, "no previous copy");
    pull(&home, "v3", &[]);
    // A kept copy that was edited is not shown again as it is.
    fs::write(home.path("mine"), "9").expect("written");
    fs::rename(home.path("mine"), one.join("version")).expect("replaced");
    pull(&home, "v1", &[]);
    assert_same(&home.path("tree-1"), &current());
    // Another link in the place of whit's: going back leaves it alone, and so does a pull that is not told to remove it.
    fs::remove_file(site.join("current")).expect("removed");
    std::os::unix::fs::symlink("releases/v0", site.join("current")).expect("linked");
    home.run(&["pull", "--rollback", "site"]).failed(3, "shows no release");
    let ran = home.run(&["pull", "app@v2", "site"]).failed(2, "holds `current -> releases/v0`");
    assert!(ran.err.contains("--delete"), "{ran:?}");
    assert_eq!(fs::read_link(site.join("current")).expect("a link"), Path::new("releases/v0"));
    pull(&home, "v2", &["--delete"]);
    assert_same(&home.path("tree-2"), &current());
    fs::remove_file(site.join("current")).expect("removed");
    write(&site, "current/file", "mine");
    home.run(&["pull", "app@v3", "site"]).failed(2, "is not a symbolic link");
    assert_eq!(fs::read_to_string(site.join("current/file")).expect("it is there"), "mine");
}

#[test]
fn the_first_pull_leaves_a_link_that_others_made() {
    let home = home(1);
    write(&home.path("site"), "releases/20260101/index", "mine");
    std::os::unix::fs::symlink("releases/20260101", home.path("site/current")).expect("linked");
    home.run(&["pull", "app@v1", "site", "--layout", "releases"]).failed(2, "`current -> releases/20260101`");
    assert_eq!(fs::read_to_string(home.path("site/current/index")).expect("it is shown"), "mine");
}

#[test]
fn fewer_copies_are_kept_at_once() {
    let home = home(4);
    for label in ["v1", "v2", "v3", "v4"] {
        pull(&home, label, &["--layout", "releases", "--keep", "4"]);
        settle();
    }
    let copies = || fs::read_dir(home.path("site/releases")).expect("a folder").count();
    pull(&home, "v4", &[]);
    assert_eq!(copies(), 4);
    let pulled = pull(&home, "v4", &["--keep", "1"]);
    assert!(pulled["unchanged"].as_bool().expect("a bool"), "{pulled}");
    assert_eq!(copies(), 2, "the shown one, and the one to go back to");
    home.run(&["pull", "--rollback", "site"]).good();
    assert_same(&home.path("tree-3"), &home.path("site/current/."));
}

#[test]
fn a_directory_that_cannot_be_exchanged_is_told_before_anything_is_fetched() {
    let Namespace::Inside =
        namespace("layouts::a_directory_that_cannot_be_exchanged_is_told_before_anything_is_fetched")
    else {
        return;
    };
    let home = home(2);
    let volume = home.path("site");
    fs::create_dir(&volume).expect("created");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&volume).status();
    assert!(mounted.is_ok_and(|mounted| mounted.success()));
    let ran = home.run(&["pull", "app@v1", "site"]).failed(2, "is a mount point");
    assert!(ran.err.contains("--layout releases"), "{ran:?}");
    // As root, nothing but a flag of the file system keeps a directory in its place.
    home.run(&["pull", "app@v1", "copy"]).good();
    let flag = |flag: &str| Command::new("chattr").arg(flag).arg(home.path("copy")).status();
    if flag("+i").is_ok_and(|done| done.success()) {
        let ran = home.run(&["pull", "app@v2", "copy"]);
        flag("-i").expect("it ran");
        let ran = ran.failed(4, "cannot be exchanged");
        assert!(ran.err.contains("--layout releases"), "{ran:?}");
        assert!(!home.path(".copy.whit/store").exists() && !home.path(".copy.whit/trial").exists());
    }
    // Nor is a pull that has switched a failed one because a base cannot be removed.
    let base = home.path(".copy.whit/0123456789abcdef.base");
    fs::write(&base, "").expect("written");
    let flag = |flag: &str| Command::new("chattr").arg(flag).arg(&base).status();
    if flag("+i").is_ok_and(|done| done.success()) {
        let ran = home.run(&["pull", "app@v2", "copy"]);
        flag("-i").expect("it ran");
        ran.good();
        assert_same(&home.path("tree-2"), &home.path("copy"));
    }
    for label in ["v1", "v2", "v2"] {
        pull(&home, label, &["--layout", "releases"]);
    }
    assert_same(&home.path("tree-2"), &home.path("site/current/."));
    home.run(&["pull", "--rollback", "site"]).good();
    assert_same(&home.path("tree-1"), &home.path("site/current/."));
    assert!(!home.path(".site.whit").exists(), "nothing is beside it");
    assert!(Command::new("umount").arg(&volume).status().is_ok_and(|done| done.success()));
}

#[test]
fn a_release_that_does_not_fit_leaves_the_one_that_is_shown() {
    let Namespace::Inside = namespace("layouts::a_release_that_does_not_fit_leaves_the_one_that_is_shown")
    else {
        return;
    };
    let home = home(2);
    write(&home.path("tree-3"), "large", noise(3, 8_000_000));
    home.run(&["push", "app", "tree-3", "--label", "v3"]).good();
    let volume = home.path("site");
    fs::create_dir(&volume).expect("created");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&volume).status();
    assert!(mounted.is_ok_and(|mounted| mounted.success()));
    for label in ["v1", "v2"] {
        pull(&home, label, &["--layout", "releases"]);
    }
    home.run(&["pull", "app@v3", "site"]).failed(7, "no room");
    assert_same(&home.path("tree-2"), &home.path("site/current/."));
    home.run(&["pull", "--rollback", "site"]).good();
    // Somebody fills the disk: what is shown already needs no room.
    let filled =
        Command::new("sh").arg("-c").arg("cat /dev/zero >site/fill").current_dir(home.path(".")).output();
    assert!(!filled.expect("it ran").status.success());
    assert!(pull(&home, "v1", &[])["unchanged"].as_bool().expect("a bool"));
    home.run(&["pull", "app@v3", "site"]).failed(7, "no room");
    assert_same(&home.path("tree-1"), &home.path("site/current/."));
    assert!(Command::new("umount").arg(&volume).status().is_ok_and(|done| done.success()));
}
