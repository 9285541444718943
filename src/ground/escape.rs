//! Makes text from elsewhere safe to show: names, paths and reasons that a peer or a file system gives.
//!
//! A terminal obeys control characters: they move the cursor, rename the window, overwrite lines. Marks of writing
//! direction make a text look like another. All text from elsewhere that reaches a terminal or a log goes through here,
//! which replaces both by their numbers.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const WRITES: &str = "a String takes every write";

/// Returns whether a character changes the look of its neighbours.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        // Marks of direction, and ends of lines and paragraphs.
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push(out: &mut String, character: char) {
    match character {
        '\n' | '\r' | '\t' => out.extend(character.escape_default()),
        _ if !is_unsafe(character) => out.push(character),
        _ if character.is_ascii() => write!(out, "\\x{:02x}", u32::from(character)).expect(WRITES),
        _ => out.extend(character.escape_unicode()),
    }
}

/// Escapes one line of text, including ends of lines.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|character| push(&mut out, character));
    out
}

/// Returns the last boundary of characters at or before `most` bytes of a text, at which it may be cut.
pub fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// Escapes whit's own text with names in it, as [`text`], but keeps its lines.
pub fn lines(lines: &str) -> String {
    lines.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

/// Escapes a name in bytes; shows bytes that are not UTF-8 as numbers.
pub fn bytes(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        chunk.valid().chars().for_each(|character| push(&mut out, character));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect(WRITES);
        }
    }
    out
}

/// Escapes a path, as [`bytes`].
pub fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_bytes())
}

/// Joins the first names of a list of `count`, and adds how many more there are: `a, b and 3 more`.
pub fn list(first: &[String], count: u64) -> String {
    let names = first.join(", ");
    match count.saturating_sub(first.len() as u64) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// Escapes unsafe characters in a JSON document in JSON's own way, so that its meaning stays.
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for character in document.chars() {
        if is_unsafe(character) {
            write!(out, "\\u{:04x}", u32::from(character)).expect(WRITES);
        } else {
            out.push(character);
        }
    }
    out
}

/// Returns a path for JSON: unchanged where it is UTF-8, else as [`bytes`]; [`hex`] then gives its bytes.
pub fn json_path(path: &[u8]) -> String {
    std::str::from_utf8(path).map_or_else(|_| bytes(path), str::to_owned)
}

/// Returns bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(out, "{byte:02x}").expect(WRITES);
    }
    out
}

/// Serializes a path of this machine for a report, as [`json_path`].
///
/// # Errors
/// The serializer's.
pub fn serialize_path<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&json_path(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_by_its_number() {
        for (given, shown) in [
            ("plain ünïcode, back\\slash", "plain ünïcode, back\\slash"),
            ("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07"),
            ("two\nlines\r\t", "two\\nlines\\r\\t"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{7f}\0", "\\x7f\\x00"),
            ("exe\u{202e}txt\u{2066}\u{200f}", "exe\\u{202e}txt\\u{2066}\\u{200f}"),
        ] {
            assert_eq!(text(given), shown);
            assert_eq!(bytes(given.as_bytes()), shown);
            assert!(!json(&serde_json::to_string(given).expect("a text")).chars().any(is_unsafe));
        }
        assert_eq!(bytes(b"not \xff utf-8"), "not \\xff utf-8");
        assert_eq!(lines("own\n\u{1b}name"), "own\n\\x1bname");
    }

    #[test]
    fn a_list_names_the_first_and_counts_the_rest() {
        let first = ["a".to_owned(), "b".to_owned()];
        assert_eq!((list(&first, 2), list(&first, 5)), ("a, b".to_owned(), "a, b and 3 more".to_owned()));
    }

    #[test]
    fn escaped_json_means_what_it_meant() {
        let given = "a\u{9b}\u{202e}\u{7f}\n\"b\\";
        let document = serde_json::to_string(given).expect("a text");
        assert_eq!(serde_json::from_str::<String>(&json(&document)).expect("it is JSON"), given);
    }
}
