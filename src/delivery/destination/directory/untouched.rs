//! Tells that nobody has changed a kept copy, so that going back to its release needs no writing and no reading of files.
//!
//! The system sets the time of change of a file or folder at each change of its content, attributes or names, and nobody
//! else can. `.whit/whole-ID` holds the last such time of a copy when it was complete, and which folder it is: the copy
//! gets its name only when the clock is past that time. A clock that was set back meanwhile can hide a change.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::fs::{Stat, Timespec};

use crate::delivery::destination::Error;
use crate::restore::{ChunkSource, Mapping, looks_complete};
use disk::files::{Folder, OnPath};
use format::manifest::Root;
use ground::ids::ReleaseId;

/// The beginning of the names of what is known of complete copies.
pub(super) const WHOLE: &str = "whole-";
/// Four numbers and spaces.
const NOTE_BYTES_MAX: u64 = 128;
/// The clock of files moves every 1 to 10 ms.
const TICKS_MAX: u32 = 20;

/// Returns the name of what is known of a release's copy.
pub(super) fn name(release: ReleaseId) -> String {
    format!("{WHOLE}{release}")
}

/// Notes that `copy` is complete now, and that nobody else has reached it yet. Takes some 10 ms at most.
///
/// # Errors
/// It cannot be noted.
pub(super) fn note(private: &Folder, copy: &Folder, release: ReleaseId) -> Result<(), Error> {
    let name = name(release);
    let found = copy.examine_self()?;
    for _ in 0..TICKS_MAX {
        private.remove(&name)?;
        let mut file = private.create_file(&name, 0o600)?;
        let text = text(&found, changed(&found));
        file.write_all(text.as_bytes()).on("write", &private.at(&name))?;
        let now = rustix::fs::fstat(&file).on("examine", &private.at(&name))?;
        if changed(&now) > changed(&found) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(private.remove(&name)?)
}

/// Returns whether `copy` is the one of the note, looks complete, and was not changed since.
///
/// # Errors
/// The manifest cannot be read.
pub(super) fn is_untouched(
    private: &Folder,
    copy: &Folder,
    root: &Root,
    source: &dyn ChunkSource,
    mapping: &Mapping<'_>,
) -> Result<bool, Error> {
    let Ok(file) = private.open_file(name(root.release()).as_bytes()) else { return Ok(false) };
    let mut known = String::new();
    if file.take(NOTE_BYTES_MAX).read_to_string(&mut known).is_err() {
        return Ok(false);
    }
    let numbers: Vec<i64> =
        known.split_whitespace().rev().take(2).filter_map(|word| word.parse().ok()).collect();
    let &[tv_nsec, tv_sec] = numbers.as_slice() else { return Ok(false) };
    // Its new name has changed the folder itself: what is in it is told by the time of its content.
    if text(&copy.examine_self()?, (tv_sec, tv_nsec)) != known {
        return Ok(false);
    }
    let until = Timespec { tv_sec, tv_nsec };
    Ok(looks_complete(root, source, copy, mapping, Some(until))?)
}

fn text(folder: &Stat, (seconds, nanos): (i64, i64)) -> String {
    let Stat { st_dev, st_ino, st_mtime, st_mtime_nsec, .. } = folder;
    format!("{st_dev} {st_ino} {st_mtime} {st_mtime_nsec} {seconds} {nanos}\n")
}

/// Returns when a file or folder was changed last.
fn changed(found: &Stat) -> (i64, i64) {
    (found.st_ctime, i64::try_from(found.st_ctime_nsec).unwrap_or(i64::MAX))
}
