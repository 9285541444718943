//! Everything that people type: ids, names, selectors, addresses, patterns.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use format::manifest::{EntryPath, Leads, leads};
use format::pack::PackId;
use ground::ids::{AppName, ChunkId, DestinationName, Label, ReleaseId, Selector, SpaceName, UserName};
use ground::pattern::Pattern;
use protocol::address::{Fingerprint, ProxyUrl};
use protocol::token::{Action, TokenId};

pub fn run(bytes: &[u8]) {
    path(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    word::<AppName>(text);
    word::<SpaceName>(text);
    word::<UserName>(text);
    word::<Label>(text);
    word::<DestinationName>(text);
    same::<ChunkId>(text);
    same::<ReleaseId>(text);
    same::<Selector>(text);
    same::<Fingerprint>(text);
    same::<ProxyUrl>(text);
    same::<TokenId>(text);
    same::<Action>(text);
    same::<Pattern>(text);
    if let Some(id) = PackId::from_hex(text) {
        assert_eq!(id.to_string(), text);
    }
    if let Some((pattern, name)) = text.split_once(' ')
        && let (Ok(pattern), true) = (pattern.parse::<Pattern>(), name.len() <= 64)
    {
        let expected = matches(pattern.as_str().as_bytes(), name.as_bytes());
        assert_eq!(pattern.matches(name), expected, "{pattern} {name}");
    }
}

/// Checks that accepted text survives its text form, and that an error is not too long.
fn same<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value));
            Some(value)
        }
        Err(error) => {
            assert!(error.to_string().len() <= 4 * 120 + 200, "an error repeats {} B", text.len());
            None
        }
    }
}

/// Checks that a word is one component of a path, whatever its text.
fn word<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    if same::<T>(text).is_some() {
        assert!(EntryPath::new(text).expect("a word is a path").depth() == 1 && text.len() <= 64);
    }
}

fn path(bytes: &[u8]) {
    let (path, target) = bytes.split_at(bytes.iter().position(|byte| *byte == b'>').unwrap_or(bytes.len()));
    let path = match EntryPath::new(path) {
        Ok(path) => path,
        Err(error) => return drop(error.to_string()),
    };
    assert!(!path.to_string().chars().any(char::is_control));
    assert_eq!(path.parent().is_none(), path.depth() == 1);
    if let Some(target) = target.get(1..).filter(|target| leads(&path, target) != Leads::Outside) {
        // Followed component by component, it never rises above the top.
        let mut depth = path.depth() - 1;
        for component in target.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => depth = depth.checked_sub(1).expect("the link stays inside"),
                _ => depth += 1,
            }
        }
    }
}

/// Returns whether a name matches a pattern, by a slow reference.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for byte in pattern {
        if *byte == b'*' {
            let first = reached.iter().position(|at| *at).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            for at in (1..reached.len()).rev() {
                reached[at] = reached[at - 1] && name[at - 1] == *byte;
            }
            reached[0] = false;
        }
    }
    reached[name.len()]
}

pub fn seeds() -> Vec<Vec<u8>> {
    let key = Fingerprint::of_key(b"a key");
    let id = ChunkId::of(b"whit");
    let texts = [
        "web-1.2_x",
        "web@v1.2.3",
        "web-*",
        "*a*b web-a-b",
        "push",
        "00010203fcfdfeff",
        "000102030405060708090a0b0c0d0e0f",
        "lib/a/link>../../bin/run",
        "a/../b>/etc/passwd",
        &id.to_string(),
        &format!("web@{}", id.short()),
        &format!("whit://proxy.example.com:4433#{key}"),
        &format!("whit://[2001:db8::7]:4433#{key}"),
    ]
    .map(|text| text.as_bytes().to_vec());
    texts.to_vec()
}
