//! Why a place cannot show a release.

use std::path::PathBuf;

use crate::agent;
use crate::agent::pull::Layout;
use ground::escape;
use ground::faults::{Fault, faulty};

/// Why a place cannot show a release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pull failed, or a file cannot be read or written.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The place remembers another layout.
    #[error("{} has the layout {has}, not {asked}", escape::path(.place))]
    OtherLayout {
        /// The directory.
        place: PathBuf,
        /// The layout that it has.
        has: Layout,
        /// The one that was asked for.
        asked: Layout,
    },
    /// No pull has made what is there.
    #[error("{} shows no release that a pull put there", escape::path(.0))]
    NothingShown(PathBuf),
}

faulty! {
    Error passes on Agent;
    Self::OtherLayout { .. } => Fault::Input, "leave out --layout, or pull into another directory";
    Self::NothingShown(_) => Fault::Missing, "pull a release into it";
}
