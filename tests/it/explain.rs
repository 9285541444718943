//! `whit push --explain` gives the reason for the bytes that were sent.

use std::fs;

use serde_json::Value;

use crate::program::Home;
use crate::trees::{noise, write};

/// Returns text of `bytes` that zstd makes smaller, different for each seed.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    noise(seed, bytes / 2).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn push(home: &Home, more: &[&str]) -> Value {
    let arguments = ["push", "app", "tree", "--json", "--explain", "--effort", "bytes"];
    home.run(&[&arguments, more].concat()).json()
}

/// Returns the reasons given for a file, and the file's own advice.
fn of<'a>(receipt: &'a Value, name: &str) -> Vec<(&'a str, Option<&'a str>)> {
    let all = receipt["explained"].as_array().expect("a list").iter();
    let of = all.filter(|file| file["path"].as_str().is_some_and(|path| path.ends_with(name)));
    of.map(|file| (file["reason"].as_str().expect("a word"), file["advice"].as_str())).collect()
}

#[test]
fn each_file_is_said_to_have_crossed_for_its_own_reason() {
    let home = Home::new();
    let (tree, page) = (home.path("tree"), text(1, 200_000));
    write(&tree, "page.html", &page);
    write(&tree, "small.txt", "first");
    write(&tree, "web/main.3f2a1b09.js", text(2, 6_000));
    write(&tree, "version.txt", text(3, 3_000).as_slice());
    push(&home, &[]);

    let mut changed = page.clone();
    changed[100_000] = b'!';
    write(&tree, "page.html", &changed);
    write(&tree, "small.txt", "second");
    fs::remove_file(tree.join("web/main.3f2a1b09.js")).expect("removed");
    let mut renamed = text(2, 6_000);
    renamed[3_000] = b'!';
    write(&tree, "web/main.98fe12aa.js", renamed);
    write(&tree, "picture", noise(4, 300_000));
    write(&tree, "other/thing.0123abcd.map", text(5, 4_000));
    let receipt = push(&home, &[]);
    assert_eq!(of(&receipt, "page.html"), [("changed-in-place", None)]);
    assert_eq!(of(&receipt, "small.txt"), [("changed-file", None)]);
    assert_eq!(of(&receipt, "main.98fe12aa.js"), [("similar-name", None)]);
    let [("incompressible", Some(advice))] = of(&receipt, "picture")[..] else { panic!("{receipt}") };
    assert!(advice.contains("uncompressed"));
    let [("new", Some(advice))] = of(&receipt, "thing.0123abcd.map")[..] else { panic!("{receipt}") };
    assert!(advice.contains("hashed name"));
    assert_eq!(of(&receipt, "version.txt"), [], "it did not cross");
    let regions =
        receipt["explained"].as_array().expect("a list").iter().map(|file| file["regions"].as_u64());
    assert!(regions.into_iter().all(|regions| regions == Some(1)), "{receipt}");
}

#[test]
fn a_time_inside_is_seen_where_the_older_content_is_kept() {
    let home = Home::new();
    for time in ["2025-01-02", "2025-11-30"] {
        let page = [text(1, 4_000), format!("built {time} here").into_bytes(), text(2, 4_000)].concat();
        write(&home.path("tree"), "page.html", page);
        let receipt = push(&home, &[]);
        if time == "2025-11-30" {
            let [("changed-file", Some(advice))] = of(&receipt, "page.html")[..] else { panic!("{receipt}") };
            assert!(advice.contains("SOURCE_DATE_EPOCH"), "{advice}");
        }
    }
}

#[test]
fn what_the_proxy_let_go_is_said_to_be_evicted() {
    let home = Home::new();
    let tree = home.path("tree");
    write(&tree, "kept.txt", text(1, 100_000));
    write(&tree, "changed.txt", text(2, 5_000));
    push(&home, &[]);
    let releases = home.run(&["releases", "app", "--json"]).json().to_string();
    let digits = releases.split("\"release\":\"").nth(1).and_then(|rest| rest.get(..12)).expect("a release");
    home.run(&["rm", &format!("app@{digits}"), "--force"]).good();
    home.run(&["gc"]).good();
    write(&tree, "changed.txt", text(3, 5_000));
    let receipt = push(&home, &[]);
    let [("evicted", Some(advice))] = of(&receipt, "kept.txt")[..] else { panic!("{receipt}") };
    assert!(advice.contains("keep more releases"), "{advice}");
    let changed = of(&receipt, "changed.txt");
    assert!(!changed.is_empty() && changed.iter().all(|(reason, _)| *reason != "evicted"), "{changed:?}");
    let told = home.run(&["push", "app", "tree", "--explain"]).good();
    assert!(!told.contains("evicted"), "{told}");
}
