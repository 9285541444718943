//! Keeps the house in order: what the compiler and clippy do not check.
//!
//! - A module names only modules that its crate's `lib.rs` lists before it, so that imports have no circles.
//! - Files stay short, and are named for what they hold.
//! - Third-party crates stay in the room that wraps them; `unsafe` stays in `disk/mmap.rs`.
//! - Nothing unfinished and no path of anybody's machine is left in the source.
//!
//! The scanner knows just enough of Rust's grammar for this; its own tests are at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of one file, its tests included.
const LINES_MAX: usize = 450;
/// Names that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 5] = ["util", "common", "misc", "helper", "manager"];
/// Where a crate may be named: the path below `src` begins so.
const ROOMS: [(&str, &[&str]); 13] = [
    ("quinn", &["net/link/"]),
    ("rustls", &["net/link/"]),
    ("sled", &["store/index/"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("memmap2", &["disk/mmap.rs"]),
    ("rmp", &["format/manifest/item.rs"]),
    ("miniz_oxide", &["recode/deflate/inflater.rs", "recode/deflate/miniz.rs"]),
    ("zlib_rs", &["recode/deflate/rust.rs"]),
    ("liblzma", &["recode/codec/lzma.rs"]),
    ("plotters", &["bench/plot.rs"]),
    ("tun_rs", &["bench/wan/device.rs"]),
    ("wait4", &["bench/process.rs"]),
];
/// Signs of work that was left undone.
const UNFINISHED: [&str; 5] = ["todo", "unimplemented", "dbg", "FIXME", "XXX"];
/// Where a machine keeps what is nobody else's: a source that names such a path works there alone.
const PRIVATE_FOLDERS: [&str; 4] = ["/tmp/", "/home/", "/root/", "/Users/"];

/// A source file: its path below `src`, with `/` between its parts, and its text.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The modules from the crate's root to the file.
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

/// Fails with all violations at once.
fn none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// The crates: their folders below `src`, and the package's own.
const CRATES: [&str; 8] = ["ground/", "delta/", "recode/", "format/", "protocol/", "disk/", "bench/", ""];

/// The crate that a file belongs to, and the file's modules in it.
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

/// Examples are built with the feature `testing`, as all of the package's own targets are: their text says whether they
/// need it.
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

/// Where the kinds of destinations lie, each a module that is private there.
const DESTINATIONS: &str = "delivery/destination/";
/// The one file that makes a kind of a definition.
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

/// The files that choose a kind of ledger; all others know the trait alone.
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

/// The words and signs of a Rust source, without comments, literals and lifetimes. `::` is one sign.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut tokens = Vec::new();
    let mut place = 0;
    while place < chars.len() {
        let (this, next) = (at(place), at(place + 1));
        if this == '/' && next == '/' {
            while place < chars.len() && at(place) != '\n' {
                place += 1;
            }
        } else if this == '/' && next == '*' {
            place = after_comment(&chars, place);
        } else if let Some(end) = after_literal(&chars, place) {
            place = end;
        } else if is_word(this) {
            let begin = place;
            while is_word(at(place)) {
                place += 1;
            }
            tokens.push(chars[begin..place].iter().collect());
        } else if this == ':' && next == ':' {
            tokens.push("::".to_owned());
            place += 2;
        } else {
            if !this.is_whitespace() {
                tokens.push(this.to_string());
            }
            place += 1;
        }
    }
    tokens
}

/// The place after the block comment that begins at `place`; such comments nest.
fn after_comment(chars: &[char], mut place: usize) -> usize {
    let mut depth = 0;
    loop {
        match (chars.get(place), chars.get(place + 1)) {
            (Some('/'), Some('*')) => (depth, place) = (depth + 1, place + 2),
            (Some('*'), Some('/')) => (depth, place) = (depth - 1, place + 2),
            (Some(_), _) => place += 1,
            (None, _) => return place,
        }
        if depth == 0 {
            return place;
        }
    }
}

/// The place after the string, character or lifetime that begins at `place`, if one does.
fn after_literal(chars: &[char], place: usize) -> Option<usize> {
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    if place > 0 && is_word(at(place - 1)) && at(place) != '"' && at(place) != '\'' {
        return None;
    }
    // r"…", br#"…"#: the prefix is no word of its own.
    let prefix = (place..place + 3).take_while(|place| matches!(at(*place), 'b' | 'c' | 'r')).count();
    let raw = prefix > 0 && at(place + prefix - 1) == 'r';
    let hashes =
        if raw { (place + prefix..chars.len()).take_while(|place| at(*place) == '#').count() } else { 0 };
    let quote = place + prefix + hashes;
    if at(quote) == '"' {
        let mut end = quote + 1;
        while end < chars.len() {
            if raw && at(end) == '"' && (1..=hashes).all(|step| at(end + step) == '#') {
                return Some(end + 1 + hashes);
            }
            if !raw && at(end) == '"' {
                return Some(end + 1);
            }
            end += if !raw && at(end) == '\\' { 2 } else { 1 };
        }
        return Some(end);
    }
    if at(place) != '\'' && !(at(place) == 'b' && at(place + 1) == '\'') {
        return None;
    }
    let first = if at(place) == 'b' { place + 2 } else { place + 1 };
    if at(first) == '\\' {
        let end = (first + 2..chars.len()).find(|end| at(*end) == '\'')?;
        return Some(end + 1);
    }
    if at(first + 1) == '\'' {
        return Some(first + 2);
    }
    // A lifetime.
    Some((first..chars.len()).find(|end| !is_word(at(*end))).unwrap_or(chars.len()))
}

/// The modules that a file declares, in order.
fn declared(tokens: &[String]) -> Vec<String> {
    let declares = |three: &&[String]| three[0] == "mod" && three[2] == ";";
    tokens.windows(3).filter(declares).map(|three| three[1].clone()).collect()
}

/// The top-level modules named by `crate::` and `super::` in a file that lies `depth` modules below the root.
fn named_modules(tokens: &[String], depth: usize) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    // Which of the open braces are those of an inline module.
    let mut braces = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        let word = tokens[place].as_str();
        match word {
            "{" => {
                let is_module = place >= 2 && tokens[place - 2] == "mod";
                braces.push(is_module);
            }
            "}" => drop(braces.pop()),
            "crate" | "super" if tokens.get(place + 1).is_some_and(|next| next == "::") => {
                let inside = depth + braces.iter().filter(|is_module| **is_module).count();
                let mut left = if word == "crate" { 0 } else { inside.saturating_sub(1) };
                place += 2;
                while tokens.get(place).is_some_and(|word| word == "super") {
                    (left, place) = (left.saturating_sub(1), place + 2);
                }
                if left == 0 {
                    named.extend(heads(&tokens[place.min(tokens.len())..]));
                }
                continue;
            }
            _ => {}
        }
        place += 1;
    }
    named
}

/// The first words of a path's rest: one word, or one for each branch of `{a, b::c, d::{e, f}}`.
fn heads(rest: &[String]) -> Vec<String> {
    let Some(first) = rest.first() else { return Vec::new() };
    if first != "{" {
        return vec![first.clone()];
    }
    let (mut heads, mut depth, mut begins) = (Vec::new(), 0, true);
    for token in rest {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => begins = begins || depth == 1,
            word => {
                if begins && depth == 1 {
                    heads.push(word.to_owned());
                }
                begins = false;
            }
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Returns whether a path begins with the crate, or an attribute or macro of it is used.
fn names_crate(tokens: &[String], name: &str) -> bool {
    (0..tokens.len()).any(|place| {
        let before = if place == 0 { "" } else { tokens[place - 1].as_str() };
        let after = tokens.get(place + 1).map_or("", String::as_str);
        let begins =
            before != "::" || (place >= 2 && matches!(tokens[place - 2].as_str(), "{" | "," | "use"));
        tokens[place] == name && begins && (after == "::" || before == "use")
    })
}

mod scanner {
    use super::{declared, named_modules, names_crate, tokens};

    fn named(text: &str, depth: usize) -> Vec<String> {
        named_modules(&tokens(text), depth).into_iter().collect()
    }

    #[test]
    fn comments_literals_and_lifetimes_are_no_words() {
        let text = r##"// crate::a
            /* crate::b /* crate::c */ crate::d */
            let x = "crate::e \" crate::f"; let y = r#"crate::g " crate::h"#; let z = 'c';
            let w = '\''; let q = b'"'; fn f<'crate_>(x: &'crate_ str) {} "##;
        assert!(
            !tokens(text).iter().any(|token| token == "crate" || token == "crate_"),
            "{:?}",
            tokens(text)
        );
        assert!(tokens(text).iter().any(|token| token == "fn"));
    }

    #[test]
    fn uses_are_found_in_every_form() {
        assert_eq!(named("use crate::wire::Open;", 1), ["wire"]);
        assert_eq!(named("use crate::{a, b::{c, d}, e as f};", 1), ["a", "b", "e"]);
        assert_eq!(named("fn f() -> crate::store::Result<crate::link::Error> {}", 2), ["link", "store"]);
        assert_eq!(named("pub(crate) fn f() {}", 1), [""; 0]);
    }

    #[test]
    fn super_counts_only_where_it_reaches_the_root() {
        assert_eq!(named("use super::push;", 1), ["push"]);
        assert_eq!(named("use super::push;", 2), [""; 0]);
        assert_eq!(named("use super::super::push;", 2), ["push"]);
        assert_eq!(named("use super::super::{Error, Result};", 3), [""; 0]);
        assert_eq!(named("mod tests { use super::inner; fn f() { super::super::outer() } }", 1), ["outer"]);
        assert_eq!(named("mod tests { fn f() {} } use super::outer;", 1), ["outer"]);
    }

    #[test]
    fn modules_are_found_in_order() {
        assert_eq!(declared(&tokens("pub mod b; // mod x;\nmod a;\nmod c { mod d; }")), ["b", "a", "d"]);
    }

    #[test]
    fn crates_are_told_from_words_of_the_same_name() {
        let names = |text: &str| names_crate(&tokens(text), "sled");
        assert!(names("use sled::Db;") && names("fn f(x: &sled::Db) {}") && names("use ::sled::Db;"));
        assert!(names("use sled;"));
        assert!(!names("use crate::sled::Db;") && !names("let sled = 1;") && !names("rmp_sled::x()"));
    }
}
