//! Pulls that die at each point, and go on: in both layouts, forwards and back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::points::{SOON, died, release_of};
use crate::trees;
use crate::world::{APP, World};

pub fn pull_dies_and_goes_on(world: &mut World, crash: &str) -> bool {
    let _served = world.serve(None);
    let target = world.path("target");
    let shown = target.display().to_string();
    let release = |version: u64| format!("{APP}@{}", release_of(world, version));
    let inode = |path: PathBuf| (fs::metadata(&path).expect("it is there").ino(), path);
    let inodes = || trees::walk_files(&target).into_iter().map(inode).collect::<BTreeSet<_>>();
    for _ in 0..2 {
        let old = world.run(&["pull", &release(2), &shown]);
        assert!(old.is_good(), "{old:?}");
        // So that the second pull finds that times tell, and the next one links what is unchanged.
        std::thread::sleep(Duration::from_millis(50));
    }
    let old = inodes();
    let mut pull = world.begin(&["pull", &release(3), &shown], Some(crash));
    if !died(pull.ended(SOON)) {
        return false;
    }
    let is = |version: u64, target: &Path| trees::is_same(&world.tree(version), target);
    assert!(is(2, &target) || is(3, &target), "half a tree");
    let again = world.run(&["pull", &release(3), &shown]);
    assert!(again.is_good(), "{again:?}");
    assert!(is(3, &target));
    assert!(inodes().intersection(&old).next().is_some(), "it linked no file");
    let left = fs::read_dir(world.path(".target.whit")).expect("a folder").flatten();
    let (bases, left): (Vec<_>, Vec<_>) =
        left.map(|entry| entry.path()).partition(|path| path.extension().is_some_and(|end| end == "base"));
    assert_eq!(left.len(), 2, "more than a mark, its base and a lock is left: {left:?}");
    assert!(bases.len() < 2, "{bases:?}");
    true
}

/// Pulls two releases, kept, and dies at a third one or on the way back from it; afterwards the same succeeds.
pub fn back_dies_and_goes_on(world: &mut World, crash: &str, layout: &str) -> bool {
    let served = world.serve(None);
    let target = world.path("target");
    let at = target.display().to_string();
    let release = |version: u64| format!("{APP}@{}", release_of(world, version));
    let shown = || if layout == "plain" { target.clone() } else { target.join("current/.") };
    let is = |version: u64| trees::is_same(&world.tree(version), &shown());
    for version in [1, 2] {
        let release = release(version);
        let mut pull = vec!["pull", &release, &at, "--layout", layout, "--keep", "2"];
        // What an earlier pull was allowed is not allowed later.
        pull.extend((layout == "plain").then_some("--delete"));
        let old = world.run(&pull);
        assert!(old.is_good(), "{old:?}");
        // So that times tell, and the next one links what is unchanged.
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut pull = world.begin(&["pull", &release(3), &at], Some(crash));
    let dies = died(pull.ended(SOON));
    assert!(is(2) || is(3), "half a tree");
    let again = world.run(&["pull", &release(3), &at]);
    assert!(again.is_good(), "{again:?}");
    assert!(is(3));
    drop(served);
    // The proxy is gone, and what runs there has written a file.
    fs::write(shown().join("uploaded"), "by a user").expect("written");
    let back = ["pull", "--rollback", &at];
    let mut went = world.begin(&back, Some(crash));
    let dies_going_back = died(went.ended(SOON));
    let has_gone_back = is(2);
    assert!(has_gone_back || shown().join("uploaded").exists(), "half a tree");
    let again = world.run(&back);
    // There is one copy to go back to, once.
    assert_eq!(again.is_good(), !has_gone_back, "{again:?}");
    assert!(is(2), "{again:?}");
    let left = |folder: &Path, kept: &[&str]| {
        let names = fs::read_dir(folder).expect("a folder").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !kept.iter().any(|kept| name.ends_with(kept))).collect::<Vec<_>>()
    };
    let left = match layout {
        "plain" => {
            let files = trees::walk_files(&world.path(".target.whit/edited"));
            assert!(files.iter().any(|file| file.ends_with("uploaded")), "it is gone: {files:?}");
            left(&world.path(".target.whit"), &["lock", "pulled", ".base", "previous", "edited"])
        }
        _ => left(&target.join(".whit"), &["lock", "layout", ".pulled", ".base"]),
    };
    assert_eq!(left, Vec::<String>::new());
    dies || dies_going_back
}
