//! The definition of a destination in a configuration, and the kind made from it: the only place that names all kinds.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::Destination;
use super::directory::Directory;
use crate::restore::OutsideLinks;

/// The definition of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Definition {
    /// A folder with releases and a `current` link.
    Dir(Directory),
}

/// A mistake in a definition.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A path that depends on where the proxy was started.
    #[error("`{}` is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// Something in braces that is no placeholder.
    #[error("`{0}` is not a placeholder")]
    Placeholder(String),
    /// Nothing would be kept.
    #[error("0 keeps nothing")]
    Nothing,
}

impl Mistake {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Relative(_) => "write the whole path, from / on",
            Self::Placeholder(_) => "there is one placeholder: {app}, the application's name",
            Self::Nothing => "give a number from 1 on, or leave the key out",
        }
    }
}

impl Definition {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        match self {
            Self::Dir(directory) => directory.check(),
        }
    }

    /// Creates the destination.
    pub fn open(&self) -> Arc<dyn Destination> {
        match self {
            Self::Dir(directory) => Arc::new(directory.clone()),
        }
    }
}

/// Creates a destination from a folder of this machine, with the defaults of `kind = "dir"`: `--to dir:PATH`.
pub fn local(path: impl Into<PathBuf>, outside_links: OutsideLinks) -> Arc<dyn Destination> {
    Arc::new(Directory { outside_links, ..Directory::new(path) })
}
