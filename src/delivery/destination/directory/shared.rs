//! What lives beside the releases and is linked into each of them: uploads, a database, the settings of this place.
//!
//! As in Capistrano, `shared/PATH` beside `releases` has the content, and a relative link at `PATH` of each copy leads
//! there. A missing folder is created. A missing file is copied once from the release, if that has one; else the delivery
//! fails. What is there is never changed, and no link there is followed: where one is on the way, somebody else looks
//! after what it leads to. Folders on the way are held open; a file is written in `.whit` and gets its name as one step.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Gid, Mode, Uid};
use serde::Deserialize;

use super::content::Content;
use crate::delivery::destination::{Error, Mistake};
use crate::restore::{Items, Linked, Mapping, write_file};
use disk::files::{Folder, OnPath};
use format::manifest::{EntryPath, Item};

/// The folder of all that is shared.
const SHARED: &str = "shared";
/// The beginning of the name in `.whit` of a file before it is shared.
pub(super) const SEED: &str = "seed-";
/// Shared paths of one destination: each entry of a release is compared with all.
const SHARED_PATHS_MAX: usize = 64;

/// A path that is shared by all copies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SharedPath {
    path: EntryPath,
    /// True if it was written with a slash at its end.
    is_folder: bool,
}

impl TryFrom<String> for SharedPath {
    type Error = Mistake;

    fn try_from(text: String) -> Result<Self, Mistake> {
        let (name, is_folder) = text.strip_suffix('/').map_or((&*text, false), |name| (name, true));
        let is_own = name.split('/').next() == Some(".whit");
        match EntryPath::new(name) {
            Ok(path) if !is_own => Ok(Self { path, is_folder }),
            _ => Err(Mistake::Shared(text)),
        }
    }
}

impl SharedPath {
    /// Returns the link at this path of a copy.
    fn linked(&self) -> Linked {
        // From the folder that has the link up to the copy, to the releases, to what has both.
        let mut target = b"../".repeat(self.path.depth() + 1);
        target.extend_from_slice(SHARED.as_bytes());
        target.push(b'/');
        target.extend_from_slice(self.path.as_bytes());
        Linked { path: self.path.clone(), target }
    }

    /// Returns the names from the destination's folder down to what is shared.
    fn names(&self) -> Vec<&str> {
        let path = str::from_utf8(self.path.as_bytes()).expect("it was made of text");
        [SHARED].into_iter().chain(path.split('/')).collect()
    }

    /// Returns whether there is something, or somebody else looks after it.
    fn is_there(&self, folder: &Folder) -> Result<bool, Error> {
        let names = self.names();
        let (last, above) = names.split_last().expect("it has two names at least");
        let mut below: Option<Folder> = None;
        for name in above {
            let at = below.as_ref().unwrap_or(folder);
            match at.examine(name)?.map(|found| FileType::from_raw_mode(found.st_mode)) {
                None => return Ok(false),
                Some(FileType::Symlink) => return Ok(true),
                Some(FileType::Directory) => below = Some(at.below(name)?),
                Some(_) => return Err(Error::NotAFolder(at.at(name))),
            }
        }
        Ok(below.as_ref().unwrap_or(folder).examine(last)?.is_some())
    }
}

/// Checks that paths can be shared together.
///
/// # Errors
/// There are too many, or one lies in another.
pub fn check(paths: &[SharedPath]) -> Result<(), Mistake> {
    if paths.len() > SHARED_PATHS_MAX {
        return Err(Mistake::Many(SHARED_PATHS_MAX));
    }
    overlap(paths).map_or(Ok(()), |path| Err(Mistake::Overlap(path.to_string())))
}

/// Returns the first path that is another one, or lies in another one.
fn overlap(paths: &[SharedPath]) -> Option<&SharedPath> {
    let linked = links(paths);
    paths.iter().enumerate().find_map(|(place, path)| {
        let others = [&linked[..place], &linked[place + 1..]].concat();
        let mapping = Mapping { linked: &others, ..Mapping::default() };
        mapping.leaves_out(&path.path).then_some(path)
    })
}

impl std::fmt::Display for SharedPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.path, if self.is_folder { "/" } else { "" })
    }
}

/// Returns the links of a copy.
pub(super) fn links(paths: &[SharedPath]) -> Vec<Linked> {
    paths.iter().map(SharedPath::linked).collect()
}

/// Returns whether all that is shared is there, or somebody else looks after it.
///
/// # Errors
/// Something is in the way.
pub(super) fn is_all_there(paths: &[SharedPath], folder: &Folder) -> Result<bool, Error> {
    for path in paths {
        if !path.is_there(folder)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Something shared that is not there yet.
#[derive(Debug)]
pub(super) struct Missing<'a> {
    path: &'a SharedPath,
    /// The permission bits of the file that the release has; none for a folder.
    file_mode: Option<u16>,
}

/// Returns what is not there yet and is to be created; `folder` is the destination's, if there is one already.
///
/// # Errors
/// [`Error::SharedMissing`] for a file that the release does not have either, or something is in the way.
pub(super) fn missing<'a>(
    paths: &'a [SharedPath],
    folder: Option<&Folder>,
    content: &Content<'_>,
) -> Result<Vec<Missing<'a>>, Error> {
    let mut absent = Vec::new();
    for path in paths {
        if !folder.map_or(Ok(false), |folder| path.is_there(folder))? {
            absent.push(Missing { path, file_mode: None });
        }
    }
    if absent.iter().all(|missing| missing.path.is_folder) {
        return Ok(absent);
    }
    let mut undecided: Vec<&mut Missing<'_>> =
        absent.iter_mut().filter(|missing| !missing.path.is_folder).collect();
    for item in Items::new(content.root, &mut *content.source.reader()) {
        let item = item?;
        let Some(place) = item.path().and_then(|at| undecided.iter().position(|one| one.path.path == *at))
        else {
            continue;
        };
        match item {
            Item::File { mode, .. } => undecided.swap_remove(place).file_mode = Some(mode),
            // The mode is at another of its names.
            Item::HardLink { .. } => undecided.swap_remove(place).file_mode = Some(0o600),
            Item::Directory { .. } => drop(undecided.swap_remove(place)),
            _ => {}
        }
    }
    let names_a_file =
        |one: &&mut Missing<'_>| one.path.names().last().is_some_and(|name| name.contains('.'));
    match undecided.into_iter().find(|one| names_a_file(one)) {
        Some(one) => {
            let above = folder.map_or_else(PathBuf::new, |folder| folder.path().to_owned());
            Err(Error::SharedMissing(one.path.names().iter().fold(above, |path, name| path.join(name))))
        }
        None => Ok(absent),
    }
}

/// Creates what is missing, with the owner and modes of `mapping`. What somebody else creates meanwhile stays.
///
/// # Errors
/// A folder or file cannot be created, or a link is on the way by now.
pub(super) fn create(
    missing: &[Missing<'_>],
    folder: &Folder,
    private: &Folder,
    content: &Content<'_>,
    mapping: &Mapping<'_>,
) -> Result<(), Error> {
    for Missing { path, file_mode } in missing {
        let names = path.names();
        let (last, above) = names.split_last().expect("it has two names at least");
        let mut below: Option<Folder> = None;
        for name in above {
            below = Some(make(below.as_ref().unwrap_or(folder), name, mapping)?);
        }
        let below = below.as_ref().unwrap_or(folder);
        match file_mode {
            None => drop(make(below, last, mapping)?),
            Some(mode) => seed(path, *mode, (below, last), private, content, mapping)?,
        }
    }
    Ok(())
}

fn make(above: &Folder, name: &str, mapping: &Mapping<'_>) -> Result<Folder, Error> {
    let made = above.make(name, 0o700)?;
    let folder = above.below(name)?;
    if made {
        give(&folder, mapping.mode_of_directory(0o755), mapping)
            .on("set the mode or owner of", folder.path())?;
        above.sync()?;
    }
    Ok(folder)
}

/// Writes the release's file to the private folder and gives it its name once it is complete.
fn seed(
    shared: &SharedPath,
    mode: u16,
    (above, name): (&Folder, &str),
    private: &Folder,
    content: &Content<'_>,
    mapping: &Mapping<'_>,
) -> Result<(), Error> {
    let aside = format!("{SEED}{}", content.release());
    private.remove(&aside)?;
    let file = private.create_file(&aside, 0o600)?;
    let mut output = Output { file: &file, cancelled: content.cancelled };
    write_file(content.root, content.source, Some(&shared.path), &mut output)?;
    give(&file, mapping.mode_of_file(mode), mapping).on("set the mode or owner of", &private.at(&aside))?;
    file.sync_all().on("sync", &private.at(&aside))?;
    let linked = private.link(&aside, above, name);
    private.remove(&aside)?;
    linked?;
    Ok(())
}

fn give(entry: impl std::os::fd::AsFd, mode: u16, mapping: &Mapping<'_>) -> rustix::io::Result<()> {
    rustix::fs::fchmod(&entry, Mode::from_raw_mode(mode.into()))?;
    if mapping.owner.is_none() && mapping.group.is_none() {
        return Ok(());
    }
    rustix::fs::fchown(&entry, mapping.owner.map(Uid::from_raw), mapping.group.map(Gid::from_raw))
}

/// A file that takes nothing more once the delivery is cancelled.
struct Output<'a> {
    file: &'a File,
    cancelled: &'a AtomicBool,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            // `Interrupted` would be tried again.
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the delivery was cancelled"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(text: &str) -> Option<SharedPath> {
        SharedPath::try_from(text.to_owned()).ok()
    }

    #[test]
    fn shared_paths_stay_inside_and_link_to_what_lies_beside_the_releases() {
        for wrong in ["", "/", "/etc", "a/../b", "..", "./a", "a//b", ".whit", ".whit/x", "a\0"] {
            assert_eq!(shared(wrong), None, "{wrong:?}");
        }
        for (text, target) in [
            ("uploads", "../../shared/uploads"),
            ("uploads/", "../../shared/uploads"),
            ("config/local.toml", "../../../shared/config/local.toml"),
            ("a/b/c/", "../../../../shared/a/b/c"),
        ] {
            let linked = shared(text).expect("a path").linked();
            assert_eq!(linked.target, target.as_bytes(), "{text}");
        }
    }

    #[test]
    fn one_shared_path_lies_in_no_other() {
        let overlap = |texts: &[&str]| {
            let paths: Vec<SharedPath> = texts.iter().filter_map(|text| shared(text)).collect();
            super::overlap(&paths).map(ToString::to_string)
        };
        assert_eq!(overlap(&["a", "b/c", "ab", "b/d/"]), None);
        assert_eq!(overlap(&["a", "b", "a/c/"]).as_deref(), Some("a/c/"));
        assert_eq!(overlap(&["a/c", "a"]).as_deref(), Some("a/c"));
        assert_eq!(overlap(&["a", "a/"]).as_deref(), Some("a"));
    }
}
