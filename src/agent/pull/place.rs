//! Why a directory cannot be pulled into as it is.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::faults::{Fault, Faulty};

/// Paths that an error or a report names; it counts the others.
const NAMED_MAX: usize = 10;

/// What is in the way of a pull. Nothing was fetched, and nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Entries that no pull has put there.
    #[error("{} holds {strangers}, which no pull has put there", .place.display())]
    NotPulled {
        /// The directory.
        place: PathBuf,
        /// What it holds.
        strangers: Named,
    },
    /// Something is mounted inside the directory, and would be out of sight behind a new one.
    #[error("{} cannot be exchanged: something is mounted at {mounts} in it", .place.display())]
    Mounted {
        /// The directory.
        place: PathBuf,
        /// Where.
        mounts: Named,
    },
    /// The directory is a mount point itself.
    #[error("{} is a mount point, which cannot be exchanged for another directory", .0.display())]
    MountPoint(PathBuf),
    /// A link is where the directory goes.
    #[error("{} is a symbolic link", .0.display())]
    Link(PathBuf),
    /// Something else is where the directory goes, or it has no name.
    #[error("{} is not a directory that a pull can make", .0.display())]
    Target(PathBuf),
    /// The folder beside the directory is not the puller's own.
    #[error("{} cannot be used: {why}", .folder.display())]
    Beside {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder beside the directory cannot be made.
    #[error("could not make {} beside {}: permission denied", .folder.display(), .place.display())]
    Closed {
        /// The folder.
        folder: PathBuf,
        /// The directory.
        place: PathBuf,
    },
}

impl Faulty for PlaceError {
    fn fault(&self) -> Fault {
        if matches!(self, Self::Closed { .. }) { Fault::Denied } else { Fault::Input }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotPulled { .. } => {
                "move it out of the directory, pull into another one, or remove it with --delete".to_owned()
            }
            Self::Mounted { .. } => {
                "unmount it, or mount it outside and let a link in the release lead there".to_owned()
            }
            Self::MountPoint(place) => {
                format!("pull into a directory inside it, as {}", place.join("current").display())
            }
            Self::Link(place) => match std::fs::canonicalize(place) {
                Ok(to) => format!("pull into what it leads to: {}", to.display()),
                Err(_) => "make the folder that it leads to, or remove the link".to_owned(),
            },
            Self::Target(_) => "name a directory inside an existing one; a pull makes it".to_owned(),
            Self::Beside { .. } => {
                "pull as the user who pulled before, or, where nobody did, remove that folder".to_owned()
            }
            Self::Closed { place, .. } => format!(
                "a pull makes its folders beside the directory: it must be allowed to write to {}",
                place.parent().unwrap_or(place).display()
            ),
        })
    }
}

/// Some paths, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// All.
    pub count: u64,
    /// The first of them.
    pub some: Vec<String>,
}

impl Named {
    /// Names the first of `paths`.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let mut named = Self::default();
        for path in paths {
            named.count += 1;
            if named.some.len() < NAMED_MAX {
                named.some.push(shown(path));
            }
        }
        named
    }
}

/// A path as text that breaks no line.
fn shown(path: &Path) -> String {
    let is_plain = |text: &&str| !text.chars().any(char::is_control);
    match path.to_str().filter(is_plain) {
        Some(text) => text.to_owned(),
        None => escaped(path.as_os_str()),
    }
}

fn escaped(text: &OsStr) -> String {
    text.as_encoded_bytes().escape_ascii().to_string()
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<String> = self.some.iter().map(|path| format!("`{path}`")).collect();
        f.write_str(&quoted.join(", "))?;
        match self.count - self.some.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
