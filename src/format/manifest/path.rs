//! Paths of entries: bytes, relative, safe to create below any folder.

use std::cmp::Ordering;
use std::fmt;

use super::Error;
use ground::escape;
use ground::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// A relative path whose components are plain names, separated by `/`; not necessarily UTF-8.
///
/// Ordered component by component, as in a walk: `a`, `a/b`, `a.b`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`Error::Path`] for an absolute, empty or over-long path, or a component that is empty, `.`,
    /// `..`, too long, or holds a NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let path = bytes.into();
        match objection(&path) {
            None => Ok(Self(path)),
            Some(why) => {
                let shown = path.len().min(PATH_BYTES_MAX);
                Err(Error::Path { path: path[..shown].to_vec(), why })
            }
        }
    }

    /// Returns the path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path without its last component; none at the top.
    pub fn parent(&self) -> Option<&[u8]> {
        self.0.iter().rposition(|byte| *byte == b'/').map(|slash| &self.0[..slash])
    }

    /// Returns how many components the path has, at least one.
    pub fn depth(&self) -> usize {
        self.0.split(|byte| *byte == b'/').count()
    }
}

fn objection(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return Some("it is longer than 4096 bytes");
    }
    if path.contains(&0) {
        return Some("it holds a NUL byte");
    }
    if path[0] == b'/' {
        return Some("it is absolute");
    }
    let mut depth = 0;
    for component in path.split(|byte| *byte == b'/') {
        depth += 1;
        match component {
            b"" => return Some("it has an empty component"),
            b"." | b".." => return Some("it has a `.` or `..` component"),
            _ if component.len() > NAME_BYTES_MAX => return Some("a component is longer than 255 bytes"),
            _ => {}
        }
    }
    (depth > PATH_DEPTH_MAX).then_some("it is deeper than 256 directories")
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split(|byte| *byte == b'/').cmp(other.0.split(|byte| *byte == b'/'))
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::bytes(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).expect("a plain path")
    }

    #[test]
    fn hostile_paths_are_refused() {
        for bad in ["", "/etc", "a//b", "a/", "./a", "a/../b", "..", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'x'; 256]).is_err());
        assert!(EntryPath::new(vec![0xff, 0xfe]).is_ok(), "names need not be UTF-8");
    }

    #[test]
    fn a_directory_sorts_right_before_its_content() {
        let mut paths = [path("a.b"), path("a/b"), path("a"), path("a/b/c"), path("b")];
        paths.sort();
        assert_eq!(paths.map(|path| path.to_string()), ["a", "a/b", "a/b/c", "a.b", "b"]);
    }
}
