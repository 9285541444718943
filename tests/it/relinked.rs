//! Executables linked anew, pushed by the program.

use std::fs;

use serde_json::Value;

use crate::linked::{Program, link};
use crate::program::Home;
use crate::trees::{assert_same, write};

const OLD: Program = Program { functions: 6000, changed: None, shift: 0 };
/// One function changed.
const ONE: Program = Program { functions: 6000, changed: Some(1234), shift: 777 };
/// Functions all over the program changed, and so nearly every chunk.
const MANY: Program = Program { functions: 6000, changed: Some(11), shift: 777 };

fn push(home: &Home, more: &[&str]) -> Value {
    let order = ["push", "app", "tree", "--json", "--explain", "--link", "20mbit"];
    home.run(&[&order, more].concat()).json()
}

/// Pushes the old program, then a new one; gives the receipt of the second push.
fn relink(new: Program, more: &[&str]) -> Value {
    let home = Home::new();
    for name in ["lib/a.so", "read.me"] {
        write(&home.path("tree"), name, "a file beside it");
    }
    for program in [OLD, new] {
        let file = link(&program);
        assert!(file.len() > 1 << 20, "it fills segments of its own");
        fs::write(home.path("tree/program"), &file).expect("written");
        let receipt = push(&home, more);
        if program.changed.is_some() {
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
