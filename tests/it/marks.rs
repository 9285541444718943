//! The marks of pulls: where little changed little is written, and nothing goes that a mark needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::program::Home;
use crate::trees::{assert_same, noise, write};

/// A directory in each layout: its layout, its path, where the release is, and whit's own folder.
const PLACES: [(&str, &str, &str, &str); 2] =
    [("plain", "copy", "copy", ".copy.whit"), ("releases", "site", "site/current", "site/.whit")];
const FILES: u64 = 800;

/// Returns the files in a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(end)).collect()
}

fn bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

/// Gives one file of the tree other content, and pushes it.
fn update(home: &Home, turn: u64) {
    write(&home.path("tree"), "00/0", noise(10_000 + turn, 300));
    home.run(&["push", "app", "tree"]).good();
    // So that times tell who has written since.
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn an_update_notes_what_differs_from_an_earlier_pull_and_needs_no_store() {
    let home = Home::new();
    for file in 0..FILES {
        write(&home.path("tree"), &format!("{:02}/{file}", file % 20), noise(file, 300));
    }
    home.run(&["push", "app", "tree"]).good();
    for (layout, place, _, own) in PLACES {
        home.run(&["pull", "app", place, "--layout", layout, "--keep", "2"]).good();
        assert!(files(&home.path(own), ".base").is_empty(), "the first mark is whole");
    }
    for turn in 0..2 {
        update(&home, turn);
        for (_, place, shown, own) in PLACES {
            let pulled = home.run(&["pull", "app", place, "--json"]).json();
            assert_eq!(pulled["fetched_chunks"], 1, "{pulled}");
            assert_same(&home.path("tree"), &fs::canonicalize(home.path(shown)).expect("it is there"));
            let own = home.path(own);
            let base = files(&own, ".base");
            assert_eq!(base.len(), 1, "{turn}: {base:?}");
            let release = pulled["release"].as_str().expect("an id");
            let mark = [own.join("pulled"), own.join(format!("{release}.pulled"))];
            let mark = mark.iter().find(|mark| mark.exists()).expect("a mark");
            assert!(bytes(mark) <= 4096 && bytes(&base[0]) > FILES * 60, "{turn}: {mark:?}");
            assert!(!own.join("store").exists());
            let again = home.run(&["pull", "app", place, "--json"]).json();
            assert_eq!(again["unchanged"], true, "{again}");
        }
    }
    // The copy before has its own mark, of the same base.
    for (_, place, shown, _) in PLACES {
        home.run(&["pull", "--rollback", place]).good();
        let pulled = home.run(&["pull", "app", place, "--json"]).json();
        assert_eq!(
            (&pulled["unchanged"], pulled["fetched_chunks"].as_u64() < Some(2)),
            (&false.into(), true)
        );
        assert_same(&home.path("tree"), &fs::canonicalize(home.path(shown)).expect("it is there"));
    }
    // Without it nobody knows what a pull had put there.
    for (_, _, _, own) in PLACES {
        fs::remove_file(&files(&home.path(own), ".base")[0]).expect("removed");
    }
    update(&home, 9);
    home.run(&["pull", "app", "copy"]).failed(2, "no pull has put there");
    home.run(&["pull", "app", "copy", "--delete"]).good();
    let pulled = home.run(&["pull", "app", "site", "--json"]).json();
    assert_eq!(pulled["fetched_chunks"], 1, "what is there is read, not fetched: {pulled}");
    for (_, _, shown, _) in PLACES {
        assert_same(&home.path("tree"), &fs::canonicalize(home.path(shown)).expect("it is there"));
    }
}
