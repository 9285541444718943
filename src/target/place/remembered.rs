//! What a place of releases remembers: `DIR/.whit/layout` (FORMAT 9.2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::agent::pull::Layout;
use crate::delivery::destination::{KEEP_DEFAULT, SharedPath};
use disk::files;
use ground::ids::ReleaseId;

const NAME: &str = "layout";
/// 64 shared paths of 4 KiB, and the releases of the copies that are kept.
const BYTES_MAX: u64 = 1024 * 1024;

/// The layout and its options, and which release was shown before which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    layout: Layout,
    pub(super) keep: usize,
    pub(super) shared: Vec<String>,
    /// The release that was shown before each.
    before: BTreeMap<ReleaseId, ReleaseId>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { layout: Layout::Releases, keep: KEEP_DEFAULT, shared: Vec::new(), before: BTreeMap::new() }
    }
}

/// Returns where the file of a place at `dir` is.
fn path_in(dir: &Path) -> PathBuf {
    dir.join(".whit").join(NAME)
}

impl Remembered {
    /// Reads what the place at `dir` remembers, if it is one of releases.
    ///
    /// # Errors
    /// The file cannot be read, or [`Error::Damaged`].
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = path_in(dir);
        let bytes = match files::read_if_there(&path, BYTES_MAX) {
            // A file where a folder would be is no place of ours.
            Err(error) if error.source.kind() == std::io::ErrorKind::NotADirectory => None,
            bytes => bytes.map_err(crate::agent::Error::from)?,
        };
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|_| Error::Damaged(path))).transpose()
    }

    /// Replaces what is remembered, durably.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(&self, dir: &Path) -> files::Result<()> {
        let text = serde_json::to_vec(self).expect("a Vec takes every write");
        files::publish(&path_in(dir), &text, 0o600)
    }

    /// Returns it with other options, where they are given.
    pub(super) fn with(&self, keep: Option<usize>, shared: Option<&[SharedPath]>) -> Self {
        Self {
            keep: keep.unwrap_or(self.keep),
            shared: shared.map_or_else(
                || self.shared.clone(),
                |shared| shared.iter().map(ToString::to_string).collect(),
            ),
            ..self.clone()
        }
    }

    /// Returns it with `left` as the release before `release`; of others only what is kept.
    pub(super) fn after(&self, left: ReleaseId, release: ReleaseId, kept: &[ReleaseId]) -> Self {
        let mut after = self.clone();
        after.before.retain(|one, _| kept.contains(one));
        after.before.insert(release, left);
        after
    }

    /// Returns the release that was shown before `release`.
    pub(super) fn before(&self, release: &ReleaseId) -> Option<ReleaseId> {
        self.before.get(release).copied()
    }

    /// Returns the paths that are shared.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub(super) fn shared(&self, dir: &Path) -> Result<Vec<SharedPath>> {
        let shared = self.shared.iter().cloned().map(SharedPath::try_from);
        shared.collect::<Result<_, _>>().map_err(|_| Error::Damaged(path_in(dir)))
    }
}
