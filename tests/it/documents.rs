//! The documents agree with the program.
//!
//! README's console sessions run as written, with a crate that Cargo has unpacked for this build as `./build`, and as
//! over 20 Mbit/s, so that no machine's speed decides how hard is compressed. The outputs are compared: words, ids and
//! counts exactly, bytes within a tenth, times not at all: those in README are of the release build on an idle machine,
//! and stay. `WHIT_README=write` writes the outputs into README instead.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use format::record::{DeliveryReport, DeliveryState, Progress};
use ground::faults::Fault;
use whit::config::Config;

use crate::program::{Home, Served, finish};
use crate::trees::{noise, write};

fn project(name: &str) -> PathBuf {
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

/// Returns the latest unpacked release of `name` whose version begins with `major`.
fn unpacked(name: &str, major: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?.flatten();
    let folders = registries.filter_map(|registry| fs::read_dir(registry.path()).ok()).flatten().flatten();
    let begin = format!("{name}-{major}.");
    folders
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin)))
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("listed").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a kind").is_dir() {
            copy_tree(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}

/// More than the two seconds after which a file counts as settled.
const SETTLED: Duration = Duration::from_millis(2500);

/// README's folders and host, and where they are here.
struct Session {
    home: Home,
    proxy: Served,
    renamed: Vec<(String, String)>,
}

impl Session {
    fn start(build: &Path) -> Self {
        let home = Home::new();
        let path = |name: &str| home.path(name).display().to_string();
        copy_tree(build, &home.path("build"));
        let copied = SystemTime::now();
        fs::write(
            home.path("whit.toml"),
            format!("[destinations.production]\nkind = \"dir\"\npath = \"{}/{{app}}\"\n", path("srv")),
        )
        .expect("written");
        let proxy = home.serve(&["--data", "data", "--config", "whit.toml"]);
        let url = proxy.first_line.clone();
        let login = proxy.line(|line| line.contains("whit login"));
        let token = login.split_whitespace().last().expect("a token").to_owned();
        let renamed = vec![
            (url, "whit://proxy.example.com:9448#5499220e…".to_owned()),
            (token, "whit1.ksQIJ8iB…".to_owned()),
            (path("srv"), "/srv".to_owned()),
            (path("target"), "/home/me/target".to_owned()),
        ];
        // A file that was changed just now is read again at the next push.
        while copied.elapsed().is_ok_and(|passed| passed < SETTLED) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { home, proxy, renamed }
    }

    /// Returns the output of a README command here, in README's words.
    fn answer(&self, command: &str) -> String {
        let here =
            self.renamed.iter().fold(command.to_owned(), |text, (here, there)| text.replace(there, here));
        let mut words = here.split_whitespace();
        assert_eq!(words.next(), Some("whit"), "{command}");
        let mut arguments: Vec<&str> = words.collect();
        if arguments[0] == "push" {
            arguments.extend(["--link", "20mbit"]);
        }
        let out = finish(self.home.command(&arguments).spawn().expect("it starts")).good();
        let out = self.renamed.iter().fold(out, |text, (here, there)| text.replace(here, there));
        out.lines().map(|line| shortened(line) + "\n").collect()
    }
}

/// Shortens a whole release id in a line, as README does.
fn shortened(line: &str) -> String {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = line.split(|letter: char| !letter.is_ascii_alphanumeric()).find(|word| is_id(word));
    id.map_or_else(|| line.to_owned(), |id| line.replace(id, &format!("{}…", &id[..8])))
}

/// Returns whether two outputs agree: bytes may differ by the fraction `slack`, times by anything; `…` stands for any
/// lines.
fn same(said: &str, found: &str, slack: f64) -> bool {
    let same_line = |said: &str, found: &str| same_line(said, found, slack);
    let (said, found): (Vec<&str>, Vec<&str>) = (said.lines().collect(), found.lines().collect());
    let Some(gap) = said.iter().position(|line| line.trim() == "…") else {
        return said.len() == found.len()
            && said.iter().zip(&found).all(|(said, found)| same_line(said, found));
    };
    let (before, after) = (&said[..gap], &said[gap + 1..]);
    found.len() >= before.len() + after.len()
        && before.iter().zip(&found).all(|(said, found)| same_line(said, found))
        && after.iter().rev().zip(found.iter().rev()).all(|(said, found)| same_line(said, found))
}

fn same_line(said: &str, found: &str, slack: f64) -> bool {
    let (said, found) = (words(said), words(found));
    said.len() == found.len()
        && said.iter().zip(&found).enumerate().all(|(place, (one, other))| {
            let unit = said.get(place + 1).map_or("", |unit| unit.trim_matches([',', ':', ')']));
            let number =
                |text: &str| text.trim_start_matches("1/").trim_matches(['(', ',']).parse::<f64>().ok();
            match (number(one), number(other), unit) {
                (Some(_), Some(_), "s") => true,
                // Slower reading may save a round trip.
                (Some(one), Some(other), "round") => (one - other).abs() <= 1.0,
                (Some(one), Some(other), "B" | "kB" | "MB" | "x" | "of") => {
                    (one - other).abs() <= slack * one.max(other) + 0.3
                }
                _ => one == other,
            }
        })
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Returns README's `console` blocks, as ranges of its text.
fn console_blocks(text: &str) -> Vec<std::ops::Range<usize>> {
    const BEGIN: &str = "```console\n";
    let starts = text.match_indices(BEGIN).map(|(place, _)| place + BEGIN.len());
    starts.map(|start| start..start + text[start..].find("```").expect("a block ends")).collect()
}

#[test]
fn readmes_session_runs_as_it_stands() {
    let (Some(build), Some(later)) = (unpacked("syn", "2"), unpacked("syn", "3")) else {
        println!("skipped: Cargo has not unpacked syn 2 and 3, which README pushes");
        return;
    };
    let is_writing = std::env::var_os("WHIT_README").is_some_and(|value| value == "write");
    let path = project("README.md");
    let text = fs::read_to_string(&path).expect("it is there");
    let session = Session::start(&build);
    let (mut written, mut end, mut differing) = (String::new(), 0, Vec::new());
    for block in console_blocks(&text) {
        written.push_str(&text[end..block.start]);
        end = block.end;
        for part in text[block].split_inclusive("\n\n$ ") {
            let (part, next) = part.strip_suffix("\n\n$ ").map_or((part, ""), |part| (part, "\n$ "));
            let (command, said) =
                part.trim_start_matches("$ ").split_once('\n').expect("a command has an answer");
            // The file was written and the proxy started above.
            let answer = if command.starts_with("cat ") || command.starts_with("whit serve") {
                said.to_owned()
            } else {
                if command.ends_with("--to production") && command.contains("push") {
                    change_a_line(&session.home.path("build/src/lib.rs"));
                }
                session.answer(command)
            };
            if !same(said.trim_end(), answer.trim_end(), 0.1) {
                differing.push(format!("$ {command}\n{}\nis now\n{answer}", said.trim_end()));
            }
            let answer = with_times_of(said, &answer);
            let told =
                if said.lines().any(|line| line.trim() == "…") { with_gap(said, &answer) } else { answer };
            let prompt = if part.starts_with("$ ") { "$ " } else { "" };
            written = format!("{written}{prompt}{command}\n{}\n{next}", told.trim_end());
        }
    }
    written.push_str(&text[end..]);
    session.proxy.stop(Signal::TERM);
    let (written, of_demo) = with_demo(&written, &build, &later);
    differing.extend(of_demo);
    if is_writing {
        fs::write(&path, written).expect("written");
    } else {
        let hint = "WHIT_README=write writes what is so";
        assert!(differing.is_empty(), "README.md: {hint}\n{}", differing.join("\n"));
    }
}

/// Returns the output with README's times.
fn with_times_of(said: &str, answer: &str) -> String {
    let is_time = |line: &&str| line.trim_start().starts_with("time ");
    let mut times = said.lines().filter(is_time);
    let lines = answer.lines().map(|line| if is_time(&line) { times.next().unwrap_or(line) } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces README's block by the output of the demo of two releases; also returns how the two differ.
fn with_demo(text: &str, old: &Path, new: &Path) -> (String, Option<String>) {
    const BEGIN: &str = "```text\n";
    let block = text.find(BEGIN).expect("a block") + BEGIN.len();
    // Standard error names what is pushed.
    let start = block + text[block..].find("\n\n").expect("what is pushed, and how it went") + 2;
    let end = start + text[start..].find("```").expect("a block ends");
    let said = &text[start..end];
    let home = Home::new();
    let (old, new) = (old.to_str().expect("text"), new.to_str().expect("text"));
    let told = home.run(&["demo", old, new, "--dir", "work"]).good();
    let told = told.replace(&home.path("work").display().to_string(), "…");
    let told: String = told.lines().map(|line| shortened(line) + "\n").collect();
    let told = with_times_of(said, &told) + "\n";
    let differs = !same(said.trim_end(), told.trim_end(), 0.1);
    let differing = differs.then(|| format!("the demo\n{said}is now\n{told}"));
    (format!("{}{told}{}", &text[..start], &text[end..]), differing)
}

/// Returns the output without the lines that README leaves out.
fn with_gap(said: &str, answer: &str) -> String {
    let (said, answer): (Vec<&str>, Vec<&str>) =
        (said.trim_end().lines().collect(), answer.lines().collect());
    let gap = said.iter().position(|line| line.trim() == "…").expect("it has one");
    let after = said.len() - gap - 1;
    let mut lines = answer[..gap].to_vec();
    lines.push(said[gap]);
    lines.extend(&answer[answer.len() - after..]);
    lines.join("\n")
}

/// Changes a line in the middle of a file.
fn change_a_line(path: &Path) {
    let text = fs::read_to_string(path).expect("text");
    let place = text.len() / 2 + text[text.len() / 2..].find('\n').expect("it has lines");
    fs::write(path, format!("{}\n// Changed.{}", &text[..place], &text[place..])).expect("written");
}
