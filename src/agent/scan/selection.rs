//! Selects the part of a tree that is pushed: by patterns, and by where links lead.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::OverrideBuilder;

use super::Error;
use ground::monitor::Monitor;

/// The file whose patterns, in gitignore syntax, keep paths out of a release.
pub(super) const IGNORE_FILE: &str = ".whitignore";

/// Selects the part of a tree that is pushed.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Patterns in gitignore syntax, relative to the top: what they match is left out. The last one that matches counts;
    /// with `!` before it, it brings back what one before it, or a `.whitignore`, leaves out.
    pub exclude: Vec<String>,
    /// True if `.whitignore` files are pushed as any other file; by default their patterns apply and they are left out.
    pub ignore_files_off: bool,
    /// How to treat symbolic links that lead outside the tree.
    pub links: Links,
    /// True if a tree without files is refused.
    pub needs_files: bool,
    /// Folders that must not be part of the tree, as pushing changes them, each with what it is.
    pub disjoint: Vec<(PathBuf, &'static str)>,
}

/// Says how a push treats symbolic links that lead outside the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// Lists them and pushes nothing.
    #[default]
    Refuse,
    /// Keeps them as they are.
    Keep,
    /// Pushes what they lead to instead.
    Follow,
    /// Leaves them out, with a note.
    Skip,
}

impl Selection {
    /// Everything that is there, as it is.
    pub fn everything() -> Self {
        Self { ignore_files_off: true, links: Links::Keep, ..Self::default() }
    }

    /// Compiles the patterns.
    ///
    /// # Errors
    /// The first that is no pattern.
    pub fn patterns(&self) -> Result<Patterns, Error> {
        let refused = |pattern: &str, source| Error::Pattern { pattern: pattern.to_owned(), source };
        let mut builder = GitignoreBuilder::new(TOP);
        for pattern in &self.exclude {
            // In a file this would be a comment.
            let escaped = if pattern.starts_with('#') { format!("\\{pattern}") } else { pattern.clone() };
            // In a file an unclosed bracket stands for itself; on the command line it is a mistake.
            let strict = OverrideBuilder::new(TOP).add(&escaped).map(drop);
            let added = strict.and_then(|()| builder.add_line(None, &escaped).map(drop));
            added.map_err(|source| refused(pattern, source))?;
        }
        let given = builder.build().map_err(|source| refused(&self.exclude.join(" "), source))?;
        Ok(Patterns { given, heeds_files: !self.ignore_files_off, folders: Vec::new() })
    }
}

/// The top, as paths below it are matched.
const TOP: &str = ".";

/// The patterns that apply in a folder: its own, and those of the folders above it.
#[derive(Debug)]
pub struct Patterns {
    given: Gitignore,
    heeds_files: bool,
    /// Those of the `.whitignore` of each open folder, the top first.
    folders: Vec<Option<Gitignore>>,
}

impl Patterns {
    /// Goes into the folder at `below` the top, which lies at `place` on this machine.
    pub(super) fn enter(&mut self, below: &Path, place: &Path, monitor: &dyn Monitor) {
        let path = place.join(IGNORE_FILE);
        let found = self.heeds_files && path.is_file();
        self.folders.push(found.then(|| {
            let mut builder =
                GitignoreBuilder::new(if below.as_os_str().is_empty() { Path::new(TOP) } else { below });
            if let Some(error) = builder.add(&path) {
                monitor.note(&format!("some patterns are ignored: {error}"));
            }
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        }));
    }

    /// Leaves the folder that was entered last.
    pub(super) fn leave(&mut self) {
        self.folders.pop();
    }

    /// Returns the pattern that excludes the entry at `below` the top, whose folder was entered; none where the entry is part
    /// of the release.
    pub fn left_out(&self, below: &Path, is_folder: bool) -> Option<String> {
        // Those of the command line come first, then those of the nearest folder.
        let near = self.folders.iter().rev().flatten();
        for patterns in std::iter::once(&self.given).chain(near) {
            match patterns.matched(below, is_folder) {
                Match::None => {}
                Match::Ignore(glob) => return Some(glob.original().to_owned()),
                Match::Whitelist(_) => return None,
            }
        }
        let is_ignore_file = !is_folder && below.file_name() == Some(OsStr::new(IGNORE_FILE));
        (self.heeds_files && is_ignore_file).then(|| IGNORE_FILE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(patterns: &[&str], path: &str) -> bool {
        let exclude = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let selection = Selection { exclude, ..Selection::default() };
        selection.patterns().expect("patterns").left_out(Path::new(path), false).is_some()
    }

    #[test]
    fn the_last_pattern_that_matches_counts() {
        for (patterns, path, expected) in [
            (&["*.o", "!keep.o"][..], "keep.o", false),
            (&["*.o", "!keep.o"], "d/keep.o", false),
            (&["*.o", "!keep.o"], "a.o", true),
            (&["!keep.o", "*.o"], "keep.o", true),
            (&["*", "!a"], "a", false),
            (&["*", "!a"], "b", true),
            (&["!a"], "b", false),
            (&["/d/*.o", "!d/x.o"], "d/x.o", false),
            (&["/a"], "d/a", false),
            (&["#a"], "#a", true),
        ] {
            assert_eq!(left_out(patterns, path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_named() {
        for pattern in ["a[", "{a,b", "!a["] {
            let selection =
                Selection { exclude: vec!["*.o".to_owned(), pattern.to_owned()], ..Selection::default() };
            let error = selection.patterns().expect_err("no pattern");
            assert!(error.to_string().starts_with(&format!("`{pattern}` ")), "{error}");
        }
    }

    #[test]
    fn patterns_of_the_command_line_come_before_those_of_files_and_near_ones_before_far_ones() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("d")).expect("created");
        std::fs::write(folder.path().join(IGNORE_FILE), "*.o\n!keep.o\n").expect("written");
        std::fs::write(folder.path().join("d").join(IGNORE_FILE), "!near.o\n").expect("written");
        let exclude = vec!["!given.o".to_owned(), "keep.o".to_owned()];
        let selection = Selection { exclude, ..Selection::default() };
        let mut patterns = selection.patterns().expect("patterns");
        patterns.enter(Path::new(""), folder.path(), &ground::monitor::Silent);
        patterns.enter(Path::new("d"), &folder.path().join("d"), &ground::monitor::Silent);
        let left_out = |path: &str| patterns.left_out(Path::new(path), false).is_some();
        let paths = ["d/a.o", "d/near.o", "d/given.o", "d/keep.o", "d/.whitignore", "d/a.c"];
        assert_eq!(paths.map(left_out), [true, false, false, true, true, false]);
        patterns.leave();
        assert!(patterns.left_out(Path::new("near.o"), false).is_some());
    }
}
