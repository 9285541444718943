//! Reads as much of Rust's grammar as the rules need.

use std::collections::BTreeSet;

/// Returns the words and signs of a Rust source, without comments, literals and lifetimes. `::` is one sign.
pub fn tokens(text: &str) -> Vec<String> {
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
            // The only literal that decides who sees an item: `cfg(feature = "testing")`.
            if chars[place..end].iter().collect::<String>() == "\"testing\"" {
                tokens.push("testing".to_owned());
            }
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

/// Returns the place after the block comment that begins at `place`; such comments nest.
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

/// Returns the place after the string, character or lifetime that begins at `place`, if one does.
fn after_literal(chars: &[char], place: usize) -> Option<usize> {
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    if place > 0 && is_word(at(place - 1)) && at(place) != '"' && at(place) != '\'' {
        return None;
    }
    // r"…", br#"…"#: the prefix is not a word of its own.
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

/// Returns the modules that a file declares, in order.
pub fn declared(tokens: &[String]) -> Vec<String> {
    let declares = |three: &&[String]| three[0] == "mod" && three[2] == ";";
    tokens.windows(3).filter(declares).map(|three| three[1].clone()).collect()
}

/// Returns the top-level modules named by `crate::` and `super::` in a file `depth` modules below the root.
pub fn named_modules(tokens: &[String], depth: usize) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    // For each open brace, whether it is that of an inline module.
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

/// Returns the first words of a path's rest: one word, or one for each branch of `{a, b::c, d::{e, f}}`.
pub fn heads(rest: &[String]) -> Vec<String> {
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

/// A path that a file names by `use` or in its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The path, from its first word.
    pub path: Vec<String>,
    /// The name by which the file knows it.
    pub name: String,
    /// True if the file re-exports it.
    pub is_public: bool,
    /// The words that follow the name and `::` in the file's code.
    pub parts: Vec<String>,
}

/// Returns the paths of a file that can lead to another file of the crate.
pub fn uses(tokens: &[String]) -> Vec<Use> {
    let (mut found, mut place) = (Vec::new(), 0);
    let mut in_code = Vec::new();
    while place < tokens.len() {
        let word = tokens[place].as_str();
        // `impl Trait + use<'_>` is no import.
        if word == "use" && tokens.get(place + 1).is_none_or(|next| next != "<") {
            let is_public = is_public(&tokens[..place]);
            let end = place + tokens[place..].iter().position(|token| token == ";").unwrap_or(0);
            for (path, name) in branches(&tokens[place + 1..end]) {
                found.push(Use { path, name, is_public, parts: Vec::new() });
            }
            place = end + 1;
            continue;
        }
        let begins = place == 0 || tokens[place - 1] != "::";
        if begins && tokens.get(place + 1).is_some_and(|next| next == "::") {
            let mut path = vec![word.to_owned()];
            while tokens.get(place + 1).is_some_and(|next| next == "::")
                && tokens
                    .get(place + 2)
                    .is_some_and(|next| next.starts_with(|c: char| c == '_' || c.is_alphabetic()))
            {
                path.push(tokens[place + 2].clone());
                place += 2;
            }
            in_code.push(path);
        }
        place += 1;
    }
    for path in in_code {
        if let Some(one) = found.iter_mut().find(|one| one.name == path[0]) {
            one.parts.extend(path.get(1).cloned());
        } else {
            let name = path[path.len() - 1].clone();
            found.push(Use { path, name, is_public: false, parts: Vec::new() });
        }
    }
    found
}

/// Returns whether `pub` or `pub(…)` comes last.
fn is_public(before: &[String]) -> bool {
    match before.last().map(String::as_str) {
        Some("pub") => true,
        Some(")") => before.iter().rev().take(5).any(|token| token == "pub"),
        _ => false,
    }
}

/// Returns the paths of a `use` and the names they introduce.
fn branches(tree: &[String]) -> Vec<(Vec<String>, String)> {
    let (mut paths, mut prefixes) = (Vec::new(), Vec::new());
    let mut path: Vec<String> = Vec::new();
    let mut name = None;
    let mut place = 0;
    while place < tree.len() {
        match tree[place].as_str() {
            "::" => {}
            "{" => prefixes.push(path.clone()),
            "," | "}" => {
                end_branch(&mut path, &mut name, &mut paths);
                if tree[place] == "}" {
                    prefixes.pop();
                }
                path = prefixes.last().cloned().unwrap_or_default();
            }
            "as" => {
                name = tree.get(place + 1).cloned();
                place += 1;
            }
            word => path.push(word.to_owned()),
        }
        place += 1;
    }
    end_branch(&mut path, &mut name, &mut paths);
    let mut seen = BTreeSet::new();
    paths.retain(|one| seen.insert(one.clone()));
    paths
}

fn end_branch(path: &mut Vec<String>, name: &mut Option<String>, paths: &mut Vec<(Vec<String>, String)>) {
    let last = path.iter().rev().find(|word| *word != "self").cloned();
    if let Some(last) = last {
        paths.push((std::mem::take(path), name.take().unwrap_or(last)));
    }
}

/// Returns the tokens without those of `#[cfg(test)]` modules and of items for the feature `testing`.
pub fn without_tests(tokens: &[String]) -> Vec<String> {
    let (mut left, mut place) = (Vec::new(), 0);
    while place < tokens.len() {
        let is_attribute = tokens[place] == "#" && tokens.get(place + 1).is_some_and(|next| next == "[");
        if !is_attribute {
            left.push(tokens[place].clone());
            place += 1;
            continue;
        }
        let end = place + tokens[place..].iter().position(|token| token == "]").unwrap_or(0) + 1;
        let words = &tokens[place..end];
        let is_test = words.iter().any(|word| word == "cfg")
            && words.iter().any(|word| word == "test" || word == "testing")
            && !words.iter().any(|word| word == "not");
        place = end;
        if !is_test {
            left.extend_from_slice(words);
            continue;
        }
        place = after_item(tokens, place);
    }
    left
}

/// Returns the place after the item that begins at `place`: after its `;`, `,` or its braces.
fn after_item(tokens: &[String], mut place: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(place) {
        place += 1;
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth < 0 {
                    return place - 1;
                }
                if depth == 0 && token == "}" {
                    return place;
                }
            }
            ";" | "," if depth == 0 => return place,
            _ => {}
        }
    }
    place
}

/// Returns the tokens without those of `pub use`: a re-export is not a use.
pub fn without_handing_on(tokens: &[String]) -> Vec<String> {
    let (mut left, mut place) = (Vec::new(), 0);
    while place < tokens.len() {
        if tokens[place] == "use" && is_public(&tokens[..place]) {
            place += tokens[place..].iter().position(|token| token == ";").unwrap_or(0);
        }
        left.push(tokens[place].clone());
        place += 1;
    }
    left
}

/// Returns the names of a file's public items, with the word that declares each.
pub fn public_items(tokens: &[String]) -> Vec<String> {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "trait", "const", "static", "type", "union"];
    let mut items = Vec::new();
    for place in 0..tokens.len() {
        if tokens[place] != "pub" || tokens.get(place + 1).is_some_and(|next| next == "(") {
            continue;
        }
        let mut after = place + 1;
        while tokens.get(after).is_some_and(|word| ["async", "unsafe"].contains(&word.as_str()))
            || (tokens.get(after).is_some_and(|word| word == "const")
                && tokens.get(after + 1).is_some_and(|word| word == "fn"))
        {
            after += 1;
        }
        if tokens.get(after).is_some_and(|word| KINDS.contains(&word.as_str())) {
            items.extend(tokens.get(after + 1).cloned());
        }
    }
    items
}

/// Returns whether a path begins with the crate, or one of its attributes or macros is used.
pub fn names_crate(tokens: &[String], name: &str) -> bool {
    (0..tokens.len()).any(|place| {
        let before = if place == 0 { "" } else { tokens[place - 1].as_str() };
        let after = tokens.get(place + 1).map_or("", String::as_str);
        let begins =
            before != "::" || (place >= 2 && matches!(tokens[place - 2].as_str(), "{" | "," | "use"));
        tokens[place] == name && begins && (after == "::" || before == "use")
    })
}

#[cfg(test)]
mod tests {
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
