//! Finds hard links: the files that have several names in a tree.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Error;
use super::entries::{FileId, below, child, examine, id_of, names_in};
use super::selection::Patterns;

use format::manifest::EntryPath;
use ground::limits::LINKS_MAX;
use ground::monitor::Silent;

/// The files that have several names in a tree. Memory: one path for each file with several names anywhere.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<FileId, Named>);

#[derive(Debug)]
struct Named {
    first: EntryPath,
    count: u64,
    /// How many of its names have been listed.
    listed: u64,
}

/// The place of an entry among the names of its file.
pub(super) enum Name {
    /// The only one in the tree.
    Only,
    /// The first of several.
    First,
    /// A further one; the first is given.
    Further(EntryPath),
}

/// Counts the names of all files below `base` that have several, excluded ones aside.
pub(super) fn count(base: &Path, patterns: &mut Patterns) -> Result<Names, Error> {
    let mut names = Names::default();
    count_in(base, None, patterns, &mut names)?;
    Ok(names)
}

fn count_in(
    place: &Path,
    path: Option<&EntryPath>,
    patterns: &mut Patterns,
    names: &mut Names,
) -> Result<(), Error> {
    patterns.enter(below(path), place, &Silent);
    for name in names_in(place)? {
        let (place, path) = (place.join(&name), child(path, &name)?);
        let metadata = examine(&place)?;
        if patterns.left_out(below(Some(&path)), metadata.is_dir()).is_some() {
            continue;
        }
        if metadata.is_dir() {
            count_in(&place, Some(&path), patterns, names)?;
        } else if metadata.is_file() && metadata.nlink() > 1 {
            names.count(&metadata, &path);
        }
    }
    patterns.leave();
    Ok(())
}

impl Names {
    /// Counts an entry. Beyond the bound, each name counts as a file of its own.
    fn count(&mut self, metadata: &Metadata, path: &EntryPath) {
        let is_full = self.0.len() >= LINKS_MAX;
        match self.0.get_mut(&id_of(metadata)) {
            Some(named) => named.count += 1,
            None if is_full => {}
            None => {
                let named = Named { first: path.clone(), count: 1, listed: 0 };
                self.0.insert(id_of(metadata), named);
            }
        }
    }

    /// Returns the place of the next entry among its file's names; entries must come in the order in which they were counted.
    pub fn name(&mut self, metadata: &Metadata, path: &EntryPath) -> Name {
        let Some(named) = self.0.get_mut(&id_of(metadata)).filter(|named| named.count > 1) else {
            return Name::Only;
        };
        match (named.first == *path, named.listed) {
            (true, _) => {
                named.listed = 1;
                Name::First
            }
            // The tree has changed: its first name is gone.
            (false, 0) => Name::Only,
            (false, _) => {
                named.listed += 1;
                Name::Further(named.first.clone())
            }
        }
    }

    /// Returns a file that was listed as the first of several names without another name following.
    pub fn contradiction(&self) -> Option<&EntryPath> {
        self.0.values().find(|named| named.listed == 1).map(|named| &named.first)
    }
}
