//! Tries at a place what a delivery does there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Gid, Timespec, Timestamps, Uid};

use crate::delivery::destination::{Check, Error};
use crate::restore::{Mapping, check_fits};
use disk::files::{self, Folder, OnPath};
use format::manifest::Totals;

/// The beginning of the names of folders and files that are made to try something.
pub(super) const TRIAL: &str = "trial-";

/// Fails if what this process creates cannot get the owner of `mapping`.
///
/// # Errors
/// [`Error::Owner`], or the file to try it with cannot be made in `private`.
pub(super) fn try_owner(private: &Folder, mapping: &Mapping<'_>) -> Result<(), Error> {
    if mapping.owner.is_none() && mapping.group.is_none() {
        return Ok(());
    }
    let name = format!("{TRIAL}owner");
    private.remove(&name)?;
    // A folder, as also its later removal has to be allowed.
    private.make(&name, 0o700)?;
    let folder = private.below(&name)?;
    folder.make("inside", 0o755)?;
    let inside = folder.below("inside")?;
    let (owner, group) = (mapping.owner.map(Uid::from_raw), mapping.group.map(Gid::from_raw));
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let given = rustix::fs::fchown(&inside, owner, group)
        .and_then(|()| rustix::fs::fchown(&folder, owner, group))
        .and_then(|()| rustix::fs::utimensat(&folder, "inside", &times, AtFlags::SYMLINK_NOFOLLOW));
    let removed = private.remove(&name);
    let denied = |source: std::io::Error| Error::Owner { owner: mapping.owner, group: mapping.group, source };
    given.map_err(|error| denied(error.into()))?;
    removed.map_err(|error| denied(error.source))
}

/// Tries one step after another until one fails, or `cancelled` is set.
pub(super) fn steps(
    place: &Path,
    is_template: bool,
    mapping: Result<Mapping<'_>, Error>,
    cancelled: &AtomicBool,
) -> Vec<Check> {
    let mut steps = Vec::new();
    let mut done = |step: &str, failure: Option<String>| {
        let failed = failure.is_some();
        steps.push(Check { step: step.to_owned(), failure });
        failed
    };
    let mapping = match mapping {
        Ok(mapping) => mapping,
        Err(error) => {
            done("find the owner and group", Some(error.to_string()));
            return steps;
        }
    };
    let existing = existing(place, is_template);
    let folder = Folder::open(&existing);
    if done(&format!("open {}", existing.display()), folder.as_ref().err().map(ToString::to_string)) {
        return steps;
    }
    let folder = folder.expect("it was opened");
    let name = format!(".whit-{TRIAL}{}", std::process::id());
    let tried = (|| {
        if !folder.make(&name, 0o700)? {
            folder.remove(&name)?;
            folder.make(&name, 0o700)?;
        }
        folder.below(&name)
    })();
    if done("create a folder in it", tried.as_ref().err().map(ToString::to_string)) {
        return steps;
    }
    let trial = tried.expect("it was made");
    let is_wanted = || !cancelled.load(Ordering::Relaxed);
    let mut go_on = !done("write, link and rename in it", write(&trial).err().map(|error| error.to_string()));
    if go_on && is_wanted() && (mapping.owner.is_some() || mapping.group.is_some()) {
        let given = try_owner(&trial, &mapping);
        go_on = !done("give files to the owner and group", given.err().map(|error| error.to_string()));
    }
    if go_on {
        let one = Totals { files: 1, bytes: 1, ..Totals::default() };
        let free = check_fits(&existing, one);
        go_on = !done("find free space", free.err().map(|error| error.to_string()));
    }
    let removed = folder.remove(&name);
    if go_on {
        done("remove what was tried", removed.err().map(|error| error.to_string()));
    }
    steps
}

/// Returns the folder that is there: the place itself, or where it would be created.
fn existing(place: &Path, is_template: bool) -> PathBuf {
    let parts = place.components();
    let fixed: PathBuf = parts.take_while(|part| !is_template || !is_placeholder(part.as_os_str())).collect();
    let found = fixed.ancestors().find(|folder| folder.exists());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn is_placeholder(part: &std::ffi::OsStr) -> bool {
    part.to_string_lossy().contains('{')
}

fn write(trial: &Folder) -> files::Result<()> {
    let mut file = trial.create_file("file", 0o644)?;
    file.write_all(b"whit").and_then(|()| file.sync_all()).on("write", &trial.at("file"))?;
    trial.link_to(Path::new("file"), "link")?;
    trial.rename("link", trial, "renamed")
}
