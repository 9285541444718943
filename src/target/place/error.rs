//! Why a place cannot show a release.

use std::path::PathBuf;

use crate::agent;
use crate::agent::pull::Layout;
use crate::delivery::destination;
use ground::escape;
use ground::faults::{Fault, Faulty as _, faulty};

/// Why a place cannot show a release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pull failed, or a file cannot be read or written.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// A directory of releases cannot be changed.
    #[error(transparent)]
    Directory(#[from] destination::Error),
    /// What the place remembers of its layout is damaged.
    #[error("{} is damaged", escape::path(.0))]
    Damaged(PathBuf),
    /// Paths are shared among copies, of which a plain directory has one.
    #[error("{} has the layout plain, in which nothing is shared", escape::path(.0))]
    PlainShares(PathBuf),
    /// A plain directory keeps one copy besides the shown one at most.
    #[error("{} has the layout plain, which keeps one previous copy at most", escape::path(.0))]
    PlainKeeps(PathBuf),
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
    Error passes on Agent, Directory;
    Self::Damaged(_) => Fault::Corrupt, "remove it, and pull with --layout releases and the options of the first pull";
    Self::PlainKeeps(_) => Fault::Input, "give --keep 2, or pull into another directory with --layout releases";
    Self::PlainShares(_) => Fault::Input, "leave out --shared, or pull into another directory with --layout releases";
    Self::OtherLayout { .. } => Fault::Input, "leave out --layout, or pull into another directory";
    Self::NothingShown(_) => Fault::Missing, "pull a release into it";
}

impl Error {
    /// Returns whether the proxy or the link to it failed for now.
    pub(in crate::target) fn is_of_link(&self) -> bool {
        use agent::Error::{Ended, Link, Refused, Stalled, Unheard};
        self.fault() == Fault::Retry
            && matches!(self, Self::Agent(Link(_) | Refused(_) | Ended | Stalled(_) | Unheard(_)))
    }

    /// Returns whether content was missing that a copy has by its mark.
    pub(super) fn lacks_content(&self) -> bool {
        use crate::restore::{Error::Source, SourceError};
        match self {
            Self::Agent(error) => error.lacks_content(),
            Self::Directory(destination::Error::Pull(error)) => error.lacks_content(),
            Self::Directory(destination::Error::Rebuild(Source(SourceError::Unknown(_)))) => true,
            _ => false,
        }
    }
}
