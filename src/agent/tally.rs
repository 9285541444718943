//! Counts the bytes of a folder of caches, so that not every push walks all of them.
//!
//! A file beside the folder has the count: what the last walk found, and what pushes have added since. It is a hint. Lost or
//! wrong, it is corrected by the next walk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use disk::clock;
use disk::files::{self, Lock};

/// The extension of the file, which is also the lock.
const EXTENSION: &str = "bytes";
/// A day in seconds. A folder is walked at least so often: others may have counted wrong or left files.
const WALKED_EVERY: u64 = 24 * 3600;
/// With more caches than this a walk makes room for several pushes ...
const MANY: usize = 256;
/// ... namely for this part of all bytes.
const ROOM_PART: u64 = 16;

/// Counts `added` bytes. Calls `walk` where all may be more than `bytes_max`, or were not walked for a day; it makes room and
/// returns the bytes that are left.
///
/// Does nothing while another push counts: the next walk finds what was added.
///
/// # Errors
/// The count cannot be written, or those of `walk`.
pub fn count(
    folder: &Path,
    added: u64,
    bytes_max: u64,
    walk: impl FnOnce() -> files::Result<u64>,
) -> files::Result<()> {
    let path = folder.with_extension(EXTENSION);
    let Some(mut lock) = Lock::take(&path, Duration::ZERO)? else { return Ok(()) };
    let text = fs::read_to_string(&path).unwrap_or_default();
    let now = clock::now();
    let known = read(&text).map(|(bytes, walked)| (bytes.saturating_add(added), walked));
    let is_enough = |(bytes, walked): &(u64, u64)| {
        *bytes <= bytes_max && now.checked_sub(*walked).is_some_and(|age| age < WALKED_EVERY)
    };
    let (bytes, walked) = match known.filter(is_enough) {
        Some(known) => known,
        None => (walk()?, now),
    };
    lock.describe(&format!("{bytes} {walked}"))
}

/// Returns how many bytes of `caches` caches to keep when all are more than `bytes_max`.
pub const fn kept_bytes(caches: usize, bytes_max: u64) -> u64 {
    if caches > MANY { bytes_max - bytes_max / ROOM_PART } else { bytes_max }
}

fn read(text: &str) -> Option<(u64, u64)> {
    let (bytes, walked) = text.split_once(' ')?;
    Some((bytes.parse().ok()?, walked.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_walked_when_it_may_be_full_and_once_a_day() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let folder = state.path().join("caches");
        let file = state.path().join("caches.bytes");
        let is_walked = |added, found| {
            let mut walked = false;
            let walk = || {
                walked = true;
                Ok(found)
            };
            count(&folder, added, 100, walk).expect("counted");
            walked
        };
        assert!(is_walked(0, 40), "nothing is known of it");
        assert!(!is_walked(30, 0) && !is_walked(30, 0), "up to 100");
        assert!(is_walked(1, 10));
        assert!(!is_walked(0, 0));
        // Of long ago, of the future, and damaged.
        for text in ["10 1000", "10 99999999999", "", "7", "x y", "1 2 3", "-1 2"] {
            fs::write(&file, text).expect("written");
            assert!(is_walked(0, 10), "{text}");
        }
        let other = Lock::take(&file, Duration::ZERO).expect("a lock").expect("free");
        assert!(!is_walked(1000, 0), "another push counts");
        drop(other);
        assert!(!is_walked(0, 10));
    }
}
