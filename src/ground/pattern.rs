//! Patterns: one word that matches many names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::faults::{Fault, faulty};

/// A word that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pattern: use a name, in which * matches any characters")]
pub struct Error(String);

faulty! {
    Error;
    _ => Fault::Input;
}

/// A name in which each `*` stands for any run of characters, none included: `api`, `web-*`, `*`.
///
/// 1 to 64 of `A-Z a-z 0-9 . _ - *`, not beginning with `.` or `-`, like names.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Returns the pattern that every name matches.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Returns whether every name matches.
    pub fn is_any(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Returns whether it is one name: no `*` is in it.
    pub fn is_name(&self) -> bool {
        !self.0.contains('*')
    }

    /// Returns whether some name matches both patterns.
    ///
    /// Time and memory O(one × other).
    pub fn meets(&self, other: &Self) -> bool {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        // Whether the ends from these places have a name in common.
        let mut meets = vec![vec![false; other.len() + 1]; one.len() + 1];
        for at in (0..=one.len()).rev() {
            for to in (0..=other.len()).rev() {
                meets[at][to] = match (one.get(at), other.get(to)) {
                    (None, None) => true,
                    (Some(b'*'), _) => meets[at + 1][to] || (to < other.len() && meets[at][to + 1]),
                    (_, Some(b'*')) => meets[at][to + 1] || (at < one.len() && meets[at + 1][to]),
                    (Some(a), Some(b)) => a == b && meets[at + 1][to + 1],
                    _ => false,
                };
            }
        }
        meets[0][0]
    }

    /// Returns the pattern itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `name` matches, from its first character to its last.
    ///
    /// Time O(pattern × name), no memory.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // The place of the last star, and how much of the name it covers: only that one is ever tried again.
        let mut star = None;
        while seen < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(byte) if *byte == name[seen] => {
                    at += 1;
                    seen += 1;
                }
                _ => {
                    let Some((star_at, covered)) = star else { return false };
                    star = Some((star_at, covered + 1));
                    (at, seen) = (star_at + 1, covered + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'*');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_star_stands_for_any_run() {
        for (text, name, expected) in [
            ("api", "api", true),
            ("api", "api2", false),
            ("api", "ap", false),
            ("*", "anything", true),
            ("web-*", "web-", true),
            ("web-*", "web-front", true),
            ("web-*", "web", false),
            ("*-x", "a-x-x", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXcYb", false),
            ("**a", "a", true),
            ("*a*a*a*a*a*b", &"a".repeat(64), false),
        ] {
            assert_eq!(pattern(text).matches(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn patterns_meet_where_a_name_matches_both() {
        for (one, other, expected) in [
            ("web-*", "web-1", true),
            ("web-*", "*-1", true),
            ("web-*", "stg-*", false),
            ("a*b", "*c", false),
            ("a*", "*", true),
            ("web-1", "web-1", true),
            ("web-1", "web-2", false),
            ("web-**", "web-", true),
        ] {
            assert_eq!(pattern(one).meets(&pattern(other)), expected, "{one} {other}");
            assert_eq!(pattern(other).meets(&pattern(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn what_could_name_nothing_is_no_pattern() {
        for bad in ["", ".*", "-*", "a/*", "a b", "ä*", &"*".repeat(65)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_pattern_matches_what_it_was_cut_from(name in "[a-z]{1,20}", from in 0usize..20, to in 0usize..20) {
            let (from, to) = (from.min(name.len()), to.min(name.len()));
            let (from, to) = (from.min(to), from.max(to));
            let starred = pattern(&format!("{}*{}", &name[..from], &name[to..]));
            proptest::prop_assert!(starred.matches(&name));
        }
    }
}
