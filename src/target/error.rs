//! Why a target cannot be watched for.

use std::path::PathBuf;

use super::place;
use crate::agent;
use crate::delivery::destination;
use disk::files;
use ground::escape;
use ground::faults::{Fault, faulty};
use ground::threads;

/// Why a target cannot be watched for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error(transparent)]
    Place(#[from] place::Error),
    /// The proxy.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// A file beside the directory.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A thread.
    #[error(transparent)]
    Threads(#[from] threads::Error),
    /// Another process has it.
    #[error("another process watches for {}", escape::path(.0))]
    Watched(PathBuf),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
}

/// The result of what is asked of a target.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Returns whether another pull works on the directory.
    pub fn is_busy(&self) -> bool {
        let Self::Place(error) = self else { return false };
        matches!(
            error,
            place::Error::Agent(agent::Error::Busy(_)) | place::Error::Directory(destination::Error::Busy(_))
        )
    }
}

faulty! {
    Error passes on Place, Agent, File, Threads;
    Self::Watched(_) => Fault::Retry, "end the other process; one directory has one watching target";
    Self::Random => Fault::Retry;
}
