//! The folder of all memories: their names, last use and total size.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{Builder, NamedTempFile};

use super::{Key, MEMORY_BYTES_MAX, Result};
use crate::agent::tally;
use disk::files::{self, OnPath};

/// 512 MiB: all memories of a user together.
pub const TOTAL_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;
/// The folder below the state folder.
const FOLDER: &str = "memory";
const EXTENSION: &str = "memory";
/// Of packed streams.
const STREAMS_EXTENSION: &str = "streams";
/// The suffix of files that are being written. The writer of an old one was killed.
const ASIDE_EXTENSION: &str = "part";
const ASIDE_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The sizes that memories may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Bytes of all memories and packed streams together; beyond, the least recently used go.
    pub total_bytes_max: u64,
    /// Bytes of one memory, at most [`MEMORY_BYTES_MAX`]; a larger one is not written.
    pub memory_bytes_max: u64,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { total_bytes_max: TOTAL_BYTES_DEFAULT, memory_bytes_max: MEMORY_BYTES_MAX }
    }
}

/// Returns where the memory of `key` is.
pub(super) fn path(folder: &Path, key: &Key) -> PathBuf {
    folder.join(FOLDER).join(format!("{key}.{EXTENSION}"))
}

/// Returns where the packed streams of `key` are.
pub(super) fn streams_path(folder: &Path, key: &Key) -> PathBuf {
    folder.join(FOLDER).join(format!("{key}.{STREAMS_EXTENSION}"))
}

/// Sets the file's modification time to now, as its last use. If that fails, it is removed earlier than others.
pub(super) fn mark_used(file: &File) {
    drop(file.set_times(FileTimes::new().set_modified(SystemTime::now())));
}

/// Creates the file to write to.
pub(super) fn create_aside(folder: &Path) -> Result<NamedTempFile> {
    let folder = folder.join(FOLDER);
    files::create_folder(&folder)?;
    let aside = Builder::new().prefix("").suffix(&format!(".{ASIDE_EXTENSION}")).tempfile_in(&folder);
    Ok(aside.on("create a file in", &folder)?)
}

/// Gives a written file its name, and makes room. Looks at other memories only now and then.
pub(super) fn publish(
    folder: &Path,
    path: &Path,
    aside: NamedTempFile,
    options: &WriteOptions,
) -> Result<()> {
    let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let added = length(aside.path()).saturating_sub(length(path));
    aside.persist(path).map_err(|error| error.error).on("rename to", path)?;
    let (folder, bytes_max) = (folder.join(FOLDER), options.total_bytes_max);
    Ok(tally::count(&folder, added, bytes_max, || make_room(&folder, path, bytes_max))?)
}

/// Removes the least recently used memories where all take more than `total_bytes_max`; `latest` stays. Returns the bytes left.
fn make_room(folder: &Path, latest: &Path, total_bytes_max: u64) -> files::Result<u64> {
    let (mut memories, mut total) = (Vec::new(), 0);
    let now = SystemTime::now();
    for entry in fs::read_dir(folder).on("list", folder)? {
        let path = entry.on("list", folder)?.path();
        // Another push may have replaced or removed it.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let used = metadata.modified().on("examine", &path)?;
        let has = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if has(ASIDE_EXTENSION) && now.duration_since(used).is_ok_and(|age| age > ASIDE_AGE_MAX) {
            gone(&path);
        } else if has(EXTENSION) || has(STREAMS_EXTENSION) {
            total += metadata.len();
            if path != latest {
                memories.push((used, metadata.len(), path));
            }
        }
    }
    memories.sort_unstable();
    let kept =
        if total > total_bytes_max { tally::kept_bytes(memories.len(), total_bytes_max) } else { total };
    for (_, length, path) in memories {
        if total <= kept {
            break;
        }
        if gone(&path) {
            total -= length;
        }
    }
    Ok(total)
}

/// Removes a file, unless another push has done so.
fn gone(path: &Path) -> bool {
    fs::remove_file(path).is_ok() || !path.exists()
}
