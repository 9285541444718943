//! The agent's memory of its pushes, as the installed program stores it.

use std::fs;
use std::path::Path;

use crate::program::Home;
use crate::trees::{change_byte, some_tree, write};

const MEMORY: &str = "home/.local/state/whit/memory";

fn memories(folder: &Path) -> usize {
    let is_one = |entry: &std::io::Result<fs::DirEntry>| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "memory"))
    };
    fs::read_dir(folder).map_or(0, |entries| entries.filter(is_one).count())
}

#[test]
fn a_push_is_remembered_unless_that_is_not_wanted() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    home.run(&["push", "app", "tree", "--no-memory"]).good();
    home.run(&["push", "app", "tree", "--dry-run"]).good();
    assert_eq!(memories(&home.path(MEMORY)), 0);
    for _ in 0..2 {
        home.run(&["push", "app", "tree"]).good();
        assert_eq!(
            memories(&home.path(MEMORY)),
            1,
            "each command has a token of its own, and the same memory"
        );
    }
    home.run(&["push", "other", "tree"]).good();
    assert_eq!(memories(&home.path(MEMORY)), 2);
    let mut command = home.command(&["push", "third", "tree"]);
    assert!(command.env("WHIT_STATE", "").status().expect("it runs").success());
    let mut command = home.command(&["push", "third", "tree"]);
    assert!(command.env("WHIT_STATE", home.path("elsewhere")).status().expect("it runs").success());
    assert_eq!((memories(&home.path(MEMORY)), memories(&home.path("elsewhere/memory"))), (2, 1));
}

#[test]
fn a_state_folder_that_cannot_be_used_is_no_error() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    for state in ["tree/README", "tree/README/below"] {
        let mut command = home.command(&["push", "app", "tree"]);
        let output = command.env("WHIT_STATE", home.path(state)).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("could not") && !told.contains("error: "), "{told}");
    }
}

#[test]
fn a_damaged_memory_changes_nothing_and_is_replaced() {
    let home = Home::new();
    some_tree(&home.path("tree"), 1);
    home.run(&["push", "app", "tree"]).good();
    assert_eq!(memories(&home.path(MEMORY)), 1);
    let mut entries = fs::read_dir(home.path(MEMORY)).expect("a folder").flatten().map(|entry| entry.path());
    let path = entries.find(|path| path.extension().is_some_and(|extension| extension == "memory"));
    let path = path.expect("a memory");
    let length = fs::read(&path).expect("a file").len();
    change_byte(&path, length / 2);
    let damaged = fs::read(&path).expect("a file");
    write(&home.path("tree"), "new", "new");
    let receipt = home.run(&["push", "app", "tree", "--json"]).json();
    assert_eq!((&receipt["sequence"], &receipt["files_remembered"]), (&2.into(), &0.into()));
    assert_ne!(fs::read(&path).expect("a file"), damaged);
    home.run(&["pull", "app", "copy"]).good();
    crate::trees::assert_same(&home.path("tree"), &home.path("copy"));
}
