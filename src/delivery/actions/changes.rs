//! The paths in which two releases differ, as a list that stays short.

use std::collections::BTreeSet;

use super::event::Changed;
use crate::restore::{ChunkSource, Error, ReleaseEntry, each_path};
use format::manifest::{EntryPath, Root};
use ground::escape;

/// The most paths in a list: as many as a CDN takes in one invalidation, and few enough to send.
const PATHS_MAX: usize = 1000;
/// 32 KiB, half of what a value of the ledger may have: the most that the paths of a list take.
const BYTES_MAX: usize = 32 * 1024;

/// Returns the paths of files and links that `after` has and `before` has not, or has otherwise, or has not any more; of a first
/// release all. Both manifests are read. Memory: that of the list, and 36 B for each chunk of one file of each.
///
/// # Errors
/// A manifest cannot be read.
pub fn changes(before: Option<&Root>, after: &Root, source: &dyn ChunkSource) -> Result<Changed, Error> {
    let mut list = List::default();
    let counts = |entry: &ReleaseEntry| !matches!(entry, ReleaseEntry::Directory(_));
    each_path(before, after, source, &mut |old, new| {
        let (old, new) = (old.filter(counts), new.filter(counts));
        let is_same = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.is_like(new, |mode| mode));
        if let Some(entry) = new.or(old).filter(|_| !is_same) {
            list.add(entry.path());
        }
    })?;
    Ok(list.finish())
}

/// Paths, or, once there are too many, patterns of the folders that hold them, less and less deep.
#[derive(Default)]
struct List {
    paths: BTreeSet<String>,
    bytes: usize,
    /// The most folders of a path that are kept; none while paths are whole.
    depth: Option<usize>,
}

impl List {
    fn add(&mut self, path: &EntryPath) {
        self.insert(&escape::bytes(path.as_bytes()));
        while self.paths.len() > PATHS_MAX || self.bytes > BYTES_MAX {
            let folders = |path: &String| path.matches('/').count();
            let deepest = || self.paths.iter().map(folders).max().unwrap_or_default();
            self.depth = Some(self.depth.map_or_else(deepest, |depth| depth.saturating_sub(1)));
            self.bytes = 0;
            for path in std::mem::take(&mut self.paths) {
                self.insert(&path);
            }
        }
    }

    fn insert(&mut self, path: &str) {
        let path = self.depth.map_or_else(|| path.to_owned(), |depth| shortened(path, depth));
        let bytes = path.len();
        if self.paths.insert(path) {
            self.bytes += bytes;
        }
    }

    fn finish(self) -> Changed {
        Changed { paths: self.paths.into_iter().collect(), truncated: self.depth.is_some() }
    }
}

/// Returns a path of less than `depth` folders as it is, and otherwise the pattern of its folder at that depth; at depth 0 the
/// pattern of everything.
fn shortened(path: &str, depth: usize) -> String {
    if depth == 0 {
        return "*".to_owned();
    }
    match path.match_indices('/').nth(depth - 1) {
        Some((end, _)) => format!("{}/*", &path[..end]),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::{Entry, MemorySource};
    use format::manifest::Shape;

    #[test]
    fn what_was_added_changed_or_removed_is_listed_and_nothing_else() {
        let file = |path: &str, content: &str| Entry::file(path, 0o644, content);
        let kept = [Entry::directory("a", 0o755), file("a/same", "1"), Entry::symlink("link", "a/same")];
        let before =
            [file("gone", ""), file("z/content", "one"), file("z/mode", "x"), Entry::symlink("z/to", "1")];
        let after = [
            file("new", ""),
            file("z/content", "two"),
            Entry::symlink("z/to", "2"),
            Entry::directory("y", 0o700),
        ];
        let all = |extra: &[Entry]| [&kept[..], &[Entry::directory("z", 0o755)], extra].concat();
        let (old, mut source) = MemorySource::of(Shape::Tree, &all(&before));
        let mode = [Entry::file("z/mode", 0o755, "x")];
        let new = source.release(Shape::Tree, &all(&[&after[..], &mode].concat()));
        let expected = ["gone", "new", "z/content", "z/mode", "z/to"].map(str::to_owned).to_vec();
        let found = changes(Some(&old), &new, &source).expect("read");
        assert_eq!(found, Changed { paths: expected, truncated: false });
        assert_eq!(changes(Some(&new), &new, &source).expect("read"), Changed::default());
        let first = changes(None, &new, &source).expect("read").paths;
        assert_eq!(first, ["a/same", "link", "new", "z/content", "z/mode", "z/to"]);
    }

    #[test]
    fn a_long_list_becomes_patterns_of_folders() {
        let mut list = List::default();
        let path = |text: String| EntryPath::new(text.as_str()).expect("a plain path");
        list.add(&path("index.html".to_owned()));
        for number in 0..3000 {
            list.add(&path(format!("assets/{}/{number}.js", number % 10)));
        }
        let found = list.finish();
        let folders = (0..10).map(|number| format!("assets/{number}/*"));
        let expected: Vec<String> = folders.chain(["index.html".to_owned()]).collect();
        assert_eq!(found, Changed { paths: expected, truncated: true });
        let mut flat = List::default();
        (0..3000).for_each(|number| flat.add(&path(format!("{number}.js"))));
        assert_eq!(flat.finish().paths, ["*"]);
        let mut long = List::default();
        (0..900).for_each(|number| long.add(&path(format!("{}/{number}", "d".repeat(200)))));
        assert!(long.finish().truncated);
    }
}
