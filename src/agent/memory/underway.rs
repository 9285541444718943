//! A mark that a push is under way. After a push that broke off, the next one sends no chunks eagerly.

use std::fs;
use std::path::{Path, PathBuf};

use super::Key;

/// The mark of one push; it stays if the push breaks off.
#[derive(Debug)]
pub struct Underway {
    path: Option<PathBuf>,
    was_cut: bool,
}

impl Underway {
    /// Marks that a push begins.
    pub fn begin(folder: &Path, key: &Key) -> Self {
        let path = folder.join(format!("{key}.underway"));
        let was_cut = path.exists();
        // Without the mark the next push may send chunks again; nothing worse.
        let written = was_cut || fs::create_dir_all(folder).and_then(|()| fs::write(&path, b"")).is_ok();
        Self { path: written.then_some(path), was_cut }
    }

    /// Returns the mark of a push that stores nothing.
    pub fn nothing() -> Self {
        Self { path: None, was_cut: false }
    }

    /// Returns whether an earlier push broke off.
    pub fn was_cut(&self) -> bool {
        self.was_cut
    }

    /// Removes the mark: the push is committed.
    pub fn end(self) {
        if let Some(path) = self.path {
            drop(fs::remove_file(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::address::Fingerprint;

    #[test]
    fn a_push_that_did_not_end_is_noticed_by_the_next() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = Key::new(&Fingerprint::of_key(b"a key"), "a token", &"web".parse().expect("a name"));
        let state = folder.path().join("new");
        assert!(!Underway::begin(&state, &key).was_cut());
        let next = Underway::begin(&state, &key);
        assert!(next.was_cut());
        next.end();
        assert!(!Underway::begin(&state, &key).was_cut());
    }
}
