//! The documents agree with the program.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use format::record::{DeliveryReport, DeliveryState, Progress};
use ground::faults::Fault;
use whit::config::Config;

use crate::program::Home;
use crate::trees::{noise, write};

/// Returns a path of the project.
pub fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Collects the paths of all fields of a value; elements of an array have no number.
fn fields(value: &Value, above: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
                if !value.is_object() {
                    found.insert(path.clone());
                }
                fields(value, &path, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, above, found)),
        _ => {}
    }
}

/// Returns the words in backticks in the first cells of a section's tables.
fn documented(text: &str, section: &str) -> BTreeSet<String> {
    let start = text.find(section).expect("the section is there") + section.len();
    let end = text[start..].find("\n## ").map_or(text.len(), |length| start + length);
    let cells = text[start..end].lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Returns the rows of the table whose first line begins with `head`, as cells.
fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let start = text.find(&format!("\n{head}")).unwrap_or_else(|| panic!("there is a table {head}"));
    let rows = text[start + 1..].lines().skip(2).take_while(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// Returns the words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// Returns the first words of a table's rows.
fn keys(text: &str, head: &str) -> BTreeSet<String> {
    table(text, head).iter().flat_map(|row| quoted(row[0])).map(|key| key.replace(".NAME", "")).collect()
}

/// Returns the words that the configuration parser suggests instead of an unknown one.
fn known(text: &str) -> BTreeSet<String> {
    let error = Config::parse(text.as_bytes(), Path::new("whit.toml")).expect_err(text).to_string();
    quoted(error.split_once("expected").expect("it lists what it knows").1).collect()
}

#[test]
fn every_key_of_a_configuration_is_documented_and_no_other() {
    let text = fs::read_to_string(project("docs/CONFIG.md")).expect("it is there");
    let all = "| key | ";
    assert_eq!(keys(&text, all), known("unknown = 1"));
    assert_eq!(keys(&text, "| key of a `keep` rule"), known("[[keep]]\nunknown = 1"));
    let kinds = known("[destinations.web]\nkind = 'unknown'");
    let destination = "| key of a destination";
    // Of all kinds.
    assert_eq!(keys(&text, destination), BTreeSet::from(["kind", "latest_only"].map(str::to_owned)));
    for kind in &kinds {
        let said = keys(&text, &format!("| key of `kind = \"{kind}\"`"));
        assert_eq!(said, known(&format!("[destinations.web]\nkind = '{kind}'\nunknown = 1")), "{kind}");
    }
    assert_eq!(keys(&text, "| key of a group"), known("[groups.a]\nunknown = 1"));
    assert_eq!(keys(&text, "| key of a hook"), known("[hooks.a]\nunknown = 1"));
    assert_eq!(keys(&text, "| key of a webhook"), known("[webhooks.a]\nunknown = 1"));
    let meaning = |head, key: &str| table(&text, head).into_iter().find(|row| row[0] == key).expect("a key");
    assert!(kinds.iter().all(|kind| meaning(destination, "`kind`")[1].contains(&format!("`{kind}`"))));
    let defaults = Config::default();
    for (key, default) in [
        ("`reserve_mib`", defaults.reserve_mib),
        ("`rebuilt_mib`", defaults.rebuilt_mib),
        ("`collect_minutes`", defaults.collect_minutes),
        ("`verify_days`", defaults.verify_days),
        ("`idle_minutes`", defaults.idle_minutes),
        ("`improve_after_seconds`", defaults.improve_after_seconds),
    ] {
        assert_eq!(meaning(all, key)[2], default.to_string(), "{key}");
    }
}

/// Returns the words of each state of a delivery, as in JSON.
fn delivery_states() -> BTreeSet<String> {
    let (reason, fault) = ("full".to_owned(), Fault::Full);
    let report = DeliveryReport { notes: vec![reason.clone()], ..DeliveryReport::default() };
    let states = [
        DeliveryState::Queued,
        DeliveryState::Running(Progress::default()),
        DeliveryState::Delivered(report),
        DeliveryState::Retrying { reason: reason.clone(), seconds: 1, fault },
        DeliveryState::Failed { reason, fault },
        DeliveryState::Skipped { by: "5499220e-17".parse().expect("an id") },
        DeliveryState::Cancelled { by: "ada".parse().expect("a name") },
        DeliveryState::Stranded,
    ];
    let mut words = BTreeSet::new();
    for state in states {
        match serde_json::to_value(state).expect("JSON") {
            Value::String(word) => drop(words.insert(word)),
            Value::Object(map) => {
                for (word, inner) in map {
                    let inner =
                        inner.as_object().expect("an object").keys().map(|key| format!("{word}.{key}"));
                    words.extend(inner);
                    words.insert(word);
                }
            }
            other => panic!("{other}"),
        }
    }
    words
}

#[test]
fn every_state_of_a_delivery_is_documented_and_no_other() {
    let text = fs::read_to_string(project("docs/RECEIPT.md")).expect("it is there");
    let mut said = BTreeSet::new();
    for row in table(&text, "| state ") {
        let mut words = row[0].split('"').skip(1).step_by(2);
        let first = words.next().expect("a state");
        let is_object = row[0].starts_with("`{");
        said.extend(words.map(|word| if is_object { format!("{first}.{word}") } else { word.to_owned() }));
        if row[0].contains('…') {
            said.extend(quoted(row[1]).map(|word| format!("{first}.{word}")));
        }
        said.insert(first.to_owned());
    }
    assert_eq!(said, delivery_states(), "left: docs/RECEIPT.md, right: the types");
}

#[test]
fn every_field_of_a_receipt_is_documented_and_no_other() {
    let text = fs::read_to_string(project("docs/RECEIPT.md")).expect("it is there");
    let home = Home::new();
    write(&home.path("tree"), "a", noise(1, 100_000));
    // A choice: it looks like an archive.
    write(&home.path("tree"), "b.zip", [b"PK\x03\x04", noise(2, 20_000).as_slice()].concat());
    // A mode that is not stored, and reported so.
    fs::set_permissions(home.path("tree/a"), fs::Permissions::from_mode(0o1644)).expect("changed");
    let push = ["push", "app", "tree", "--explain", "--to", "dir:web", "--json"];
    let receipt = home.run(&push).json();
    let mut found = BTreeSet::new();
    fields(&receipt, "", &mut found);
    fields(&home.run(&["prime", "other", "tree", "--json"]).json(), "", &mut found);
    // Fields with tables of their own, and states in words.
    let nested = |name: &String| name.starts_with("explained.") || name.starts_with("delivered.");
    let mut expected: BTreeSet<String> = found.iter().filter(|name| !nested(name)).cloned().collect();
    let explained = found.iter().filter_map(|name| name.strip_prefix("explained."));
    expected.extend(explained.map(str::to_owned));
    let mut said = documented(&text, "## Push");
    said.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte)));
    assert_eq!(said, expected, "left: docs/RECEIPT.md, right: a receipt");
    let mut found = BTreeSet::new();
    fields(&home.run(&["pull", "app", "copy", "--json"]).json(), "", &mut found);
    let groups: BTreeSet<String> =
        found.iter().map(|name| name.split('.').next().expect("a name").to_owned()).collect();
    assert_eq!(documented(&text, "## Pull"), groups, "left: docs/RECEIPT.md, right: a pull");
}

/// Returns README, CONTRIBUTING and the documents in docs, without the decisions, which describe their own time.
fn documents() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(project("docs")).expect("a folder").flatten() {
        let name = entry.file_name().into_string().expect("a plain name");
        if Path::new(&name).extension().is_some_and(|end| end == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.into_iter().map(|name| (fs::read_to_string(project(&name)).expect("it is there"), name)).collect()
}

/// Returns whether the module path `floor::module::item` exists: as a file or folder, or as a word in the last of
/// these.
fn is_in_the_source(path: &str) -> bool {
    let mut place = project("src");
    for part in path.split("::") {
        let (folder, file) = (place.join(part), place.join(format!("{part}.rs")));
        if folder.is_dir() {
            place = folder;
        } else if file.is_file() {
            place = file;
        } else {
            let files = if place.is_dir() {
                ["mod.rs", "lib.rs"].map(|file| place.join(file)).to_vec()
            } else {
                vec![place]
            };
            let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
            return text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == part);
        }
    }
    true
}

#[test]
fn every_path_that_a_document_names_exists() {
    let floors: Vec<String> = fs::read_dir(project("src"))
        .expect("a folder")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("{}::", entry.file_name().to_string_lossy()))
        .collect();
    let mut missing = Vec::new();
    for (text, name) in documents() {
        let here = project(&name).parent().expect("a folder").to_owned();
        // Links, as `](path)` or `](path#section)`.
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(['#', ')']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            if !here.join(link).exists() {
                missing.push(format!("{name}: the link {link}"));
            }
        }
        let words =
            text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).flat_map(str::split_whitespace);
        for word in words {
            let is_path = ["src/", "tests/", "benches/", "docs/"].iter().any(|top| word.starts_with(top));
            // A part in capitals stands for any name.
            let is_any = |part: &&str| part.bytes().all(|byte| byte.is_ascii_uppercase()) && !part.is_empty();
            let known: Vec<&str> = word.split('/').take_while(|part| !is_any(part)).collect();
            let known = known.join("/");
            let exists = || project(&known).exists() || project(&format!("{known}.rs")).exists();
            let is_module = floors.iter().any(|floor| word.starts_with(floor.as_str()));
            let is_named = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
            if (is_path && !exists()) || (is_module && is_named && !is_in_the_source(word)) {
                missing.push(format!("{name}: `{word}`"));
            }
        }
    }
    assert!(missing.is_empty(), "these are named and not there:\n{}", missing.join("\n"));
}

#[test]
fn every_fuzz_target_is_documented_and_no_other() {
    let text = fs::read_to_string(project("docs/FUZZING.md")).expect("it is there");
    let run = fs::read_to_string(project("tests/fuzz/run")).expect("it is there");
    let all =
        run.lines().find_map(|line| line.strip_prefix("all=(")?.strip_suffix(')')).expect("the targets");
    let all: BTreeSet<String> = all.split_whitespace().map(str::to_owned).collect();
    assert_eq!(documented(&text, "# Fuzzing"), all, "left: docs/FUZZING.md, right: tests/fuzz/run");
}

#[test]
fn the_tree_of_a_store_in_format_is_the_layout() {
    let text = fs::read_to_string(project("docs/FORMAT.md")).expect("it is there");
    let lines = text.lines().filter_map(|line| line.strip_prefix("DATA/spaces/SPACE/"));
    let shown: BTreeSet<String> =
        lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    let layout = whit::store::layout::LAYOUT.map(|parts| parts.join("/"));
    assert_eq!(shown, BTreeSet::from(layout), "left: docs/FORMAT.md 7, right: src/store/layout.rs");
}
