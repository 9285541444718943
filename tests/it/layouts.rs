//! The two layouts of a pulled directory: what is kept, what goes back, what is refused before anything is fetched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
