//! The reasons why a directory cannot be pulled into.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::agent::Result;
use disk::files::OnPath as _;
use ground::escape;
use ground::faults::{Fault, faulty};

/// The way out where a directory cannot be exchanged.
const INSIDE: &str = "pull with --layout releases, which changes nothing but what is in the directory: the release is then \
    at `current` in it";
/// An error or a report names this many paths, and counts the others.
const NAMED_MAX: usize = 10;

/// A directory that cannot be pulled into. Nothing was fetched, and nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Entries that no pull has put there.
    #[error("{} holds {strangers}, which no pull has put there", .place.display())]
    NotPulled {
        /// The directory.
        place: PathBuf,
        /// The entries.
        strangers: Named,
    },
    /// Something is mounted inside the directory, and would no longer be seen in a new one.
    #[error("{} cannot be replaced: something is mounted inside it, at {mounts}", .place.display())]
    Mounted {
        /// The directory.
        place: PathBuf,
        /// The mount points.
        mounts: Named,
    },
    /// The directory is a mount point itself.
    #[error("{} is a mount point and cannot be replaced", .0.display())]
    MountPoint(PathBuf),
    /// A link is where the directory goes.
    #[error("{} is a symbolic link", .0.display())]
    Link(PathBuf),
    /// Something else is where the directory goes, or it has no name.
    #[error("a pull cannot create the directory {}", .0.display())]
    Target(PathBuf),
    /// No copy is kept that was shown before.
    #[error("{} has no previous copy to go back to", .0.display())]
    NoPrevious(PathBuf),
    /// The system does not let the directory be exchanged.
    #[error("{} cannot be exchanged with a new one: {source}", .place.display())]
    Fixed {
        /// The directory.
        place: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder beside the directory is not the puller's own.
    #[error("{} cannot be used: {why}", .folder.display())]
    Beside {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder beside the directory cannot be made.
    #[error("could not create {} beside {}: permission denied", .folder.display(), .place.display())]
    Closed {
        /// The folder.
        folder: PathBuf,
        /// The directory.
        place: PathBuf,
    },
}

faulty! {
    PlaceError;
    Self::NotPulled { .. } => Fault::Input,
        "move it out of the directory, pull into another one, or remove it with --delete";
    Self::Mounted { .. } => Fault::Input,
        "unmount it, or mount it outside the directory and put a link to it into the release";
    Self::NoPrevious(_) => Fault::Missing, "pull the release that is wanted; with --keep 2 a pull keeps the copy before";
    Self::MountPoint(_) => Fault::Input, INSIDE;
    Self::Fixed { source, .. } => Fault::of_io(source), INSIDE;
    Self::Link(place) => Fault::Input, match std::fs::canonicalize(place) {
        Ok(to) => format!("pull into its target: {}", to.display()),
        Err(_) => "create its target, or remove the link".to_owned(),
    };
    Self::Target(_) => Fault::Input, "name a directory inside an existing one; a pull creates it";
    Self::Beside { .. } => Fault::Input,
        "pull as the user who pulled before, or remove that folder if nobody did";
    Self::Closed { place, .. } => Fault::Denied,
        format!("{INSIDE}; or let the pull write to {}", place.parent().unwrap_or(place).display());
}

/// Returns the absolute path of a directory; `DIR/.` and `DIR/` are DIR.
///
/// # Errors
/// The process has no working directory.
pub fn absolute(directory: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(directory).on("find", directory)?.components().collect())
}

/// The number of some paths, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first of them, escaped.
    pub some: Vec<String>,
}

impl Named {
    /// Names the first of `paths`.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let mut named = Self::default();
        for path in paths {
            named.count += 1;
            if named.some.len() < NAMED_MAX {
                named.some.push(escape::path(path));
            }
        }
        named
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<String> = self.some.iter().map(|path| format!("`{path}`")).collect();
        f.write_str(&escape::list(&quoted, self.count))
    }
}
