//! Checks the rules that the compiler and clippy do not check.
//!
//! - A module names only modules that its crate's `lib.rs` lists before it, so that imports have no circles.
//! - Files of one crate name one another in one direction only; what a folder's `mod.rs` defines, its files may use.
//! - Nothing is public for tests alone, or unused.
//! - Files stay short, and their names say what they contain.
//! - Third-party crates are named only in the files that wrap them; `unsafe` stays in `disk/mmap.rs`.
//! - The source contains nothing unfinished, and no path of a particular machine.

mod graph;
mod scanner;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use graph::Graph;
use scanner::{
    declared, heads, named_modules, names_crate, public_items, tokens, without_handing_on, without_tests,
};

/// The most lines of a file, its tests included.
const LINES_MAX: usize = 450;
/// Names that do not say what a file contains.
const EMPTY_NAMES: [&str; 5] = ["util", "common", "misc", "helper", "manager"];
/// The paths below `src` whose files may name a crate; each is a prefix.
const ROOMS: [(&str, &[&str]); 13] = [
    ("quinn", &["net/link/"]),
    ("rustls", &["net/link/", "delivery/destination/web/certificates.rs"]),
    ("sled", &["store/index/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("memmap2", &["disk/mmap.rs"]),
    ("rmp", &["format/manifest/item.rs"]),
    ("miniz_oxide", &["recode/deflate/inflater.rs", "recode/deflate/miniz.rs"]),
    ("zlib_rs", &["recode/deflate/rust.rs"]),
    ("liblzma", &["recode/codec/lzma.rs"]),
    ("plotters", &["bench/plot/"]),
    ("tun_rs", &["bench/hosts/device.rs"]),
    ("wait4", &["bench/process.rs"]),
];
/// Marks of unfinished work.
const UNFINISHED: [&str; 5] = ["todo", "unimplemented", "dbg", "FIXME", "XXX"];
/// Private folders of a machine: a source that names one works there alone.
const PRIVATE_FOLDERS: [&str; 4] = ["/tmp/", "/home/", "/root/", "/Users/"];

/// A source file: its path below `src`, with `/` between its parts, and its text.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Returns the modules from the crate's root to the file.
    fn modules(&self) -> Vec<String> {
        let name = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        name.split('/').map(str::to_owned).filter(|part| part != "lib" && part != "main").collect()
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let top = source_folder();
    let mut sources = Vec::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the source") {
            let path = entry.expect("an entry of the source").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let name = path.strip_prefix(&top).expect("it lies below").to_str().expect("a plain name");
                sources.push(Source { name: name.replace('\\', "/"), text });
            }
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(sources.len() > 50, "the source was found");
    sources
}

/// Fails with a list of all violations.
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// The crates: their folders below `src`, and the package's own.
const CRATES: [&str; 8] = ["ground/", "delta/", "recode/", "format/", "protocol/", "disk/", "bench/", ""];

/// Returns the crate of a file, and the file's modules in it.
fn crate_and_modules(source: &Source) -> (&'static str, Vec<String>) {
    let folder =
        CRATES.into_iter().find(|folder| source.name.starts_with(folder)).expect("the last is empty");
    let parts = usize::from(!folder.is_empty());
    (folder, source.modules().split_off(parts))
}

#[test]
fn a_module_names_only_modules_listed_before_it() {
    let mut violations = Vec::new();
    for folder in CRATES {
        let lib = fs::read_to_string(source_folder().join(folder).join("lib.rs")).expect("a crate's root");
        let order = declared(&tokens(&lib));
        assert!(order.len() > 2, "the modules were found: {order:?}");
        let place = |module: &str| order.iter().position(|name| name == module);
        for source in sources() {
            let (own_folder, modules) = crate_and_modules(&source);
            let Some(own) = modules.first().filter(|_| own_folder == folder) else { continue };
            let Some(own_place) = place(own) else {
                violations.push(format!("{}: src/{folder}lib.rs does not list `{own}`", source.name));
                continue;
            };
            for named in named_modules(&tokens(&source.text), modules.len()) {
                if place(&named).is_some_and(|named_place| named_place > own_place) {
                    violations
                        .push(format!("{}: names `{named}`, which is listed after `{own}`", source.name));
                }
            }
        }
    }
    none(&violations);
}

#[test]
fn files_do_not_name_one_another_in_circles() {
    let mut violations = Vec::new();
    for folder in CRATES {
        let mut graph = Graph::default();
        for source in sources() {
            let (own_folder, modules) = crate_and_modules(&source);
            if own_folder == folder && !is_test(&source) {
                graph.add(modules, &without_tests(&tokens(&source.text)));
            }
        }
        for circle in graph.circles() {
            let names: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
            violations.push(format!("src/{folder}: {}", names.join(", ")));
        }
    }
    none(&violations);
}

/// Returns whether a file contains nothing but tests.
fn is_test(source: &Source) -> bool {
    source.name.ends_with("/tests.rs") || source.name == "main.rs"
}

/// The compiler reports unused items that are private to a crate; this test reports public ones.
#[test]
fn nothing_public_is_there_for_nobody() {
    let files: Vec<(String, Vec<String>)> = sources()
        .iter()
        .filter(|source| !is_test(source))
        .map(|source| (source.name.clone(), without_tests(&tokens(&source.text))))
        .collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    // What src/lib.rs re-exports is for programs that use the library.
    let is_face = |name: &str| name == "lib.rs";
    let used: Vec<Vec<String>> = files
        .iter()
        .map(|(name, tokens)| if is_face(name) { tokens.clone() } else { without_handing_on(tokens) })
        .collect();
    for word in used.iter().flatten() {
        *counts.entry(word).or_default() += 1;
    }
    let items: Vec<(&str, String)> = files
        .iter()
        .flat_map(|(name, tokens)| public_items(tokens).into_iter().map(|item| (name.as_str(), item)))
        .collect();
    let mut definitions: HashMap<&str, usize> = HashMap::new();
    for (_, item) in &items {
        *definitions.entry(item).or_default() += 1;
    }
    // serde calls it by a name inside a string.
    let is_unused = |item: &str| counts[item] <= definitions[item] && item != "serialize_path";
    let unused = items.iter().filter(|(_, item)| is_unused(item));
    none(&unused.map(|(file, item)| format!("{file}: nothing in src uses `{item}`")).collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut violations = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            violations.push(format!("{}: {lines} lines, expected at most {LINES_MAX}", source.name));
        }
        let modules = source.modules();
        let words = modules.iter().flat_map(|module| module.split('_'));
        for word in words.filter(|word| EMPTY_NAMES.contains(&word.trim_end_matches('s'))) {
            violations.push(format!("{}: `{word}` says nothing about what it holds", source.name));
        }
        if source.name != "main.rs" && !source.text.starts_with("//! ") {
            violations.push(format!("{}: does not begin by saying what it is", source.name));
        }
    }
    none(&violations);
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut violations = Vec::new();
    for source in sources() {
        let tokens = tokens(&source.text);
        for (name, rooms) in ROOMS {
            let at_home = rooms.iter().any(|room| source.name.starts_with(room));
            if !at_home && names_crate(&tokens, name) {
                violations.push(format!("{}: `{name}` belongs to {}", source.name, rooms.join(", ")));
            }
        }
    }
    none(&violations);
}

#[test]
fn unsafe_code_is_in_the_memory_map_alone() {
    let has_unsafe = |source: &Source| tokens(&source.text).iter().any(|token| token == "unsafe");
    let found: Vec<String> = sources().into_iter().filter(has_unsafe).map(|source| source.name).collect();
    assert_eq!(found, ["disk/mmap.rs"]);
}

#[test]
fn nothing_is_left_undone() {
    let mut violations = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let words = || line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in UNFINISHED.iter().filter(|mark| words().any(|word| word == **mark)) {
                let is_macro = word.starts_with(char::is_lowercase);
                if !is_macro || line.contains(&format!("{word}!")) {
                    violations.push(format!("{}:{number}: {word}", source.name));
                }
            }
        }
    }
    none(&violations);
}

/// Examples are built with the feature `testing`, as all targets of the package are; so this test looks in their text
/// for whether they need it.
#[test]
fn examples_need_only_what_is_public() {
    let lib = fs::read_to_string(source_folder().join("lib.rs")).expect("the library's root");
    let modules = declared(&tokens(&lib));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut violations = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of examples").flatten() {
        let tokens = tokens(&fs::read_to_string(entry.path()).expect("an example is text"));
        for (place, _) in tokens.iter().enumerate().filter(|(_, token)| *token == "whit") {
            let named = heads(tokens.get(place + 2..).unwrap_or_default());
            let hidden = named.iter().filter(|name| modules.contains(name));
            violations.extend(hidden.map(|name| format!("{}: names whit::{name}", entry.path().display())));
        }
    }
    none(&violations);
}

/// The folder of the kinds of destinations, each a private module there.
const DESTINATIONS: &str = "delivery/destination/";
/// The one file that creates a kind from a definition.
const DEFINITIONS: &str = "delivery/destination/definition.rs";

#[test]
fn one_file_names_the_kinds_of_destinations() {
    let sources = sources();
    let is_kind = |source: &&Source| source.text.contains("\nimpl Destination for ");
    let kinds: BTreeSet<String> =
        sources.iter().filter(is_kind).map(|source| source.modules().remove(2)).collect();
    assert!(!kinds.is_empty(), "the kinds were found");
    let mut violations = Vec::new();
    for source in &sources {
        let tokens = tokens(&source.text);
        for kind in &kinds {
            let is_own =
                source.name.starts_with(&format!("{DESTINATIONS}{kind}")) || source.name == DEFINITIONS;
            let names = tokens.windows(2).any(|two| two[0] == *kind && two[1] == "::");
            let is_near =
                source.name.starts_with(DESTINATIONS) || tokens.iter().any(|word| word == "destination");
            if names && is_near && !is_own {
                violations.push(format!("{}: names the kind `{kind}`", source.name));
            }
        }
    }
    none(&violations);
}

/// The files that choose a kind of ledger; all others know only the trait.
const LEDGERS_CHOSEN: [&str; 4] = ["ledger/", "net/identity.rs", "proxy/mod.rs", "store/backend.rs"];

#[test]
fn few_files_choose_the_kind_of_ledger() {
    let mut violations = Vec::new();
    for source in sources() {
        let chooses = LEDGERS_CHOSEN.iter().any(|chosen| source.name.starts_with(chosen));
        let text = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        if !chooses && tokens(text).iter().any(|word| word == "FileLedger") {
            violations.push(format!("{}: names `FileLedger`", source.name));
        }
    }
    none(&violations);
}

#[test]
fn no_path_of_a_single_machine_is_named() {
    let mut violations = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            if let Some(folder) = PRIVATE_FOLDERS.iter().find(|folder| line.contains(**folder)) {
                violations.push(format!("{}:{number}: names a path below {folder}", source.name));
            }
        }
    }
    none(&violations);
}
