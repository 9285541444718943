//! Similar content is found in any file, release or application.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Home, Served, finish};
use crate::trees::{noise, write};

/// Returns 300,000 bytes that compress to half, cut into some 20 chunks.
fn content(seed: u64) -> Vec<u8> {
    noise(seed, 150_000).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// Returns the same content with an edit in about every 30,000 bytes.
fn edited(seed: u64) -> Vec<u8> {
    let mut bytes = content(seed);
    for at in (1..10).rev() {
        bytes.splice(at * 30_000..at * 30_000 + 5, *b"an edit, longer");
    }
    bytes
}

/// Pushes `tree` as the `space`'s own user; returns the receipt.
fn push(home: &Home, proxy: &Served, space: &str, app: &str, tree: &Path) -> Value {
    let create = ["token", "create", "--user", "eve", "--space", space, "--data", "data"];
    let token = home.run(&create).good();
    let tree = tree.to_str().expect("text");
    let mut command = home.command(&["push", app, tree, "--json", "--explain", "--effort", "bytes"]);
    command.env("WHIT_PROXY", &proxy.first_line).env("WHIT_TOKEN", token.trim());
    finish(command.spawn().expect("it starts")).json()
}

/// Returns the reasons why content was sent, each once.
fn reasons(receipt: &Value) -> Vec<&str> {
    let all = receipt["explained"].as_array().expect("a list").iter();
    let mut reasons: Vec<&str> = all.map(|file| file["reason"].as_str().expect("a word")).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

fn sent(receipt: &Value) -> u64 {
    receipt["bytes"]["sent"].as_u64().expect("a number")
}

#[test]
fn the_first_push_of_an_application_is_told_by_what_another_of_the_space_has() {
    let home = Home::new();
    let (old, new) = (home.path("old"), home.path("new"));
    write(&old, "lib/engine.dat", content(1));
    write(&new, "moved/elsewhere.bin", edited(1));
    let proxy = home.serve(&["--data", "data"]);
    push(&home, &proxy, "default", "one", &old);
    let there = push(&home, &proxy, "default", "two", &new);
    assert_eq!(reasons(&there), ["similar-content"]);
    assert!(sent(&there) < 10_000, "of 150,000: {there}");
    // Another space has none of it.
    let elsewhere = push(&home, &proxy, "other", "two", &new);
    assert_eq!(reasons(&elsewhere), ["new"]);
    assert!(sent(&elsewhere) > 140_000, "{elsewhere}");
    // The pulled copy equals the tree.
    let copy = home.path("copy");
    let create = ["token", "create", "--user", "eve", "--data", "data"];
    let token = home.run(&create).good();
    let mut command = home.command(&["pull", "two", copy.to_str().expect("text")]);
    command.env("WHIT_PROXY", &proxy.first_line).env("WHIT_TOKEN", token.trim());
    finish(command.spawn().expect("it starts")).good();
    assert!(fs::read(copy.join("moved/elsewhere.bin")).expect("pulled") == edited(1));
}

#[test]
fn content_that_moved_between_files_of_a_release_is_found() {
    let home = Home::new();
    let tree = home.path("tree");
    write(&tree, "lib/engine.dat", content(1));
    write(&tree, "lib/other.dat", content(2));
    let proxy = home.serve(&["--data", "data"]);
    push(&home, &proxy, "default", "one", &tree);
    fs::remove_file(tree.join("lib/engine.dat")).expect("removed");
    write(&tree, "assets/a/picture", edited(1));
    // Another machine, which remembers nothing.
    fs::remove_dir_all(home.path("home")).expect("removed");
    let receipt = push(&home, &proxy, "default", "one", &tree);
    assert!(sent(&receipt) < 10_000, "{receipt}");
}

#[test]
fn verifying_sketches_what_a_space_has_of_which_the_sketches_are_gone() {
    let home = Home::new();
    let (old, new) = (home.path("old"), home.path("new"));
    write(&old, "lib/engine.dat", content(1));
    write(&new, "moved/elsewhere.bin", edited(1));
    let proxy = home.serve(&["--data", "data"]);
    push(&home, &proxy, "default", "one", &old);
    drop(proxy);
    fs::remove_file(home.path("data/spaces/default/sketches")).expect("removed");
    home.run(&["verify", "--data", "data"]).good();
    let proxy = home.serve(&["--data", "data"]);
    let receipt = push(&home, &proxy, "default", "two", &new);
    assert_eq!(reasons(&receipt), ["similar-content"]);
}

#[test]
fn who_goes_back_to_another_branch_sends_what_changed_on_it() {
    let home = Home::new();
    let tree = home.path("tree");
    let proxy = home.serve(&["--data", "data"]);
    let branch = |from: u64| {
        drop(fs::remove_dir_all(&tree));
        for seed in from..from + 3 {
            write(&tree, &format!("lib/{seed}.dat"), content(seed));
        }
    };
    for from in [1, 11] {
        branch(from);
        push(&home, &proxy, "default", "one", &tree);
    }
    branch(1);
    write(&tree, "lib/2.dat", edited(2));
    write(&tree, "lib/3.dat", edited(3));
    let receipt = push(&home, &proxy, "default", "one", &tree);
    assert!(sent(&receipt) < 10_000, "the same machine: {receipt}");
    branch(11);
    push(&home, &proxy, "default", "one", &tree);
    branch(1);
    write(&tree, "lib/1.dat", edited(1));
    // Another machine, which remembers nothing: the base is the release there that the pushed one continues.
    fs::remove_dir_all(home.path("home")).expect("removed");
    let receipt = push(&home, &proxy, "default", "one", &tree);
    assert!(sent(&receipt) < 10_000, "{receipt}");
    assert_eq!(reasons(&receipt), ["changed-in-place"]);
}

#[test]
fn a_changed_file_of_one_compressed_stream_is_not_compared_over_a_fast_link() {
    let home = Home::new();
    let proxy = home.serve(&["--data", "data"]);
    let token = home.run(&["token", "create", "--user", "eve", "--data", "data"]).good();
    for (app, seed, magic, is_compared) in
        [("zip", 1, b"PK\x03\x04", true), ("tgz", 2, b"\x1f\x8b\x08\0", false)]
    {
        let (mut kept, mut last) = (noise(seed, 2_000_000), Value::Null);
        let edits = (0..kept.len()).step_by(5000);
        for byte in 0..2 {
            kept[..4].copy_from_slice(magic);
            edits.clone().skip(1).for_each(|at| kept[at] = byte);
            write(&home.path("tree"), "release", &kept);
            let mut command = home.command(&["push", app, "tree", "--raw", "--json"]);
            command
                .env("WHIT_PROXY", &proxy.first_line)
                .env("WHIT_TOKEN", token.trim())
                .env("WHIT_STATE", "");
            last = finish(command.spawn().expect("it starts")).json();
        }
        assert_eq!(sent(&last) < 1_000_000, is_compared, "{last}");
        assert_eq!(last["wire"]["down"].as_u64().expect("a number") > 20_000, is_compared, "{last}");
    }
}
