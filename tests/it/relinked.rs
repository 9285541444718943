//! Relinked executables, pushed by the program.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::archives::zip;
use crate::program::Home;
use crate::trees::{assert_same, text, write};
use delta::relink::linked::{Program, link};

const OLD: Program = Program { functions: 6000, changed: None, shift: 0 };
/// One function changed.
const ONE: Program = Program { functions: 6000, changed: Some(1234), shift: 777 };
/// Functions all over the program changed, and so nearly every chunk.
const MANY: Program = Program { functions: 6000, changed: Some(11), shift: 777 };

fn push(home: &Home, more: &[&str]) -> Value {
    let arguments = ["push", "app", "tree", "--json", "--explain", "--effort", "bytes"];
    home.run(&[&arguments, more].concat()).json()
}

/// Pushes the old program, then a new one; returns the receipt of the second push.
fn relink(new: Program, more: &[&str]) -> Value {
    relink_after(new, more, |_| ())
}

/// The same, with an action between the two.
fn relink_after(new: Program, more: &[&str], between: impl Fn(&Home)) -> Value {
    let home = Home::new();
    for name in ["lib/a.so", "read.me"] {
        write(&home.path("tree"), name, "a file beside it");
    }
    for program in [OLD, new] {
        let file = link(&program);
        assert!(file.len() > 1 << 20, "it fills segments of its own");
        fs::write(home.path("tree/program"), &file).expect("written");
        let receipt = push(&home, more);
        if program.changed.is_none() {
            between(&home);
        } else {
            home.run(&["pull", "app", "copy"]).good();
            assert_same(&home.path("tree"), &home.path("copy"));
            return receipt;
        }
    }
    unreachable!("the second program is the last")
}

fn reasons(receipt: &Value) -> Vec<&str> {
    let explained = receipt["explained"].as_array().expect("a list");
    explained.iter().filter_map(|file| file["reason"].as_str()).collect()
}

fn sent(receipt: &Value) -> u64 {
    receipt["bytes"]["sent"].as_u64().expect("a number")
}

#[test]
fn an_agent_with_the_older_program_sends_what_changed() {
    let (moved, raw) = (relink(ONE, &[]), relink(ONE, &["--raw"]));
    assert_eq!(reasons(&moved), ["moved-code"]);
    assert!(!reasons(&raw).contains(&"moved-code"));
    assert!(sent(&moved) < sent(&raw), "{} and {}", sent(&moved), sent(&raw));
    assert_eq!(moved["round_trips"], raw["round_trips"]);
}

#[test]
fn an_agent_without_it_sends_what_changed_too() {
    let (moved, raw) = (relink(MANY, &["--no-memory"]), relink(MANY, &["--no-memory", "--raw"]));
    assert_eq!(reasons(&moved), ["moved-code"]);
    assert!(!reasons(&raw).contains(&"moved-code"));
    let whole = moved["bytes"]["unseen"].as_u64().expect("a number");
    assert!(sent(&moved) * 10 < whole, "{} of {whole}", sent(&moved));
    assert_eq!(moved["round_trips"], raw["round_trips"]);
}

#[test]
fn a_machine_that_holds_the_older_program_pulls_what_changed_over_a_slow_link() {
    let home = Home::new();
    write(&home.path("tree"), "read.me", "a file beside it");
    fs::write(home.path("tree/program"), link(&OLD)).expect("written");
    push(&home, &[]);
    for copy in ["slow", "fast", "again"] {
        home.run(&["pull", "app", copy]).good();
    }
    fs::write(home.path("tree/program"), link(&MANY)).expect("written");
    push(&home, &[]);
    let pull = |copy: &str, more: &[&str]| {
        let pulled = home.run(&[&["pull", "app", copy, "--json"], more].concat()).json();
        assert_same(&home.path("tree"), &home.path(copy));
        pulled["wire"]["down"].as_u64().expect("a number")
    };
    let (slow, fast) = (pull("slow", &["--link", "20mbit"]), pull("fast", &[]));
    assert!(slow * 2 < fast, "{slow} and {fast}");
    // A directory that was changed: the program is sent as other files are.
    let mut edited = link(&OLD);
    edited.truncate(1 << 20);
    fs::write(home.path("again/program"), &edited).expect("written");
    pull("again", &["--link", "20mbit"]);
}

/// Returns all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_push_that_was_cut_goes_on_as_cheaply() {
    let whole = relink(ONE, &[]);
    let again = relink_after(ONE, &[], |home| {
        // The mark that a killed push leaves: new content may have arrived, and is not offered.
        let all = files(&home.path(""));
        let memory = all.iter().find(|path| path.extension().is_some_and(|extension| extension == "memory"));
        let memory = memory.expect("a memory");
        let state = memory.parent().and_then(Path::parent).expect("the folder of all state");
        let mark = state.join(memory.file_name().expect("a name")).with_extension("underway");
        fs::write(mark, b"").expect("written");
    });
    assert_eq!(reasons(&again), ["moved-code"]);
    assert_eq!(sent(&again), sent(&whole));
    assert_eq!(again["round_trips"], 3, "one more: the proxy says what has crossed");
}

/// Pushes an archive with the old program in it, then one with a new one, with its members in another order.
fn relink_packed(new: Program, more: &[&str]) -> Value {
    let home = Home::new();
    let beside = |name, seed| (name, text(seed, 400_000));
    let mut last = Value::Null;
    for program in [OLD, new] {
        let mut members = vec![beside("a.txt", 1), ("bin/program", link(&program)), beside("z.txt", 2)];
        if program.changed.is_some() {
            members.reverse();
            members.push(("new.txt", text(3, 3_000)));
        }
        write(&home.path("tree"), "app.zip", zip(&members, true));
        last = push(&home, more);
    }
    home.run(&["pull", "app", "copy"]).good();
    assert_same(&home.path("tree"), &home.path("copy"));
    last
}

#[test]
fn a_program_in_an_archive_is_told_by_what_changed() {
    for (new, memory) in [(ONE, &[][..]), (MANY, &["--no-memory"])] {
        let packed = relink_packed(new, memory);
        assert_eq!(packed["archives"]["files"], 1, "it was taken apart");
        assert!(reasons(&packed).contains(&"moved-code"), "{memory:?}: {:?}", packed["explained"]);
        let plain = sent(&relink(new, memory));
        assert!(sent(&packed) < plain + 8_000, "{} in the archive, {plain} without", sent(&packed));
        let shared = packed["bytes"]["unseen"].as_u64().expect("a number");
        assert!(shared < 2_000_000, "what lies beside the program stayed: {shared}");
    }
}
