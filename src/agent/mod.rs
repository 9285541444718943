//! The agent's roles: pushing a build, pulling a release, asking questions.

pub mod pull;
pub mod push;
pub mod receipt;
pub mod scan;

mod feed;
mod session;

pub use receipt::Receipt;
pub use session::{Access, Session};

use crate::faults::{Fault, Faulty};
use crate::wire::{BatchError, Refusal};
use crate::{destination, files, link, manifest, reassembly, store};

/// Why an agent could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// Reading the input.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// The conversation of a push.
    #[error(transparent)]
    Push(#[from] crate::push::Error),
    /// The proxy said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A manifest from the proxy that no honest one sends.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// A batch from the proxy that breaks its bounds.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The proxy sent a chunk that is not the one asked for.
    #[error("the proxy sent a chunk whose bytes are not what its name says")]
    WrongChunk,
    /// The proxy ended a conversation in its middle.
    #[error("the proxy ended the conversation before it was done")]
    Ended,
    /// The proxy said something that does not belong here.
    #[error("the proxy sent {0} out of turn")]
    OutOfTurn(&'static str),
    /// Keeping fetched chunks.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Rebuilding.
    #[error(transparent)]
    Rebuild(#[from] reassembly::Error),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] destination::Error),
}

impl Error {
    fn inner(&self) -> Option<&dyn Faulty> {
        Some(match self {
            Self::Link(error) => error,
            Self::Scan(error) => error,
            Self::Push(error) => error,
            Self::Refused(error) => error,
            Self::File(error) => error,
            Self::Manifest(error) => error,
            Self::Batch(error) => error,
            Self::Store(error) => error,
            Self::Rebuild(error) => error,
            Self::Publish(error) => error,
            Self::WrongChunk | Self::Ended | Self::OutOfTurn(_) => return None,
        })
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::WrongChunk => Fault::Corrupt,
            Self::Ended => Fault::Retry,
            Self::OutOfTurn(_) => Fault::Bug,
            _ => self.inner().map_or(Fault::Bug, Faulty::fault),
        }
    }

    fn hint(&self) -> Option<String> {
        self.inner().and_then(Faulty::hint)
    }
}

/// The result of an agent's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;
