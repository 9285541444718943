//! The agent: pushes builds, pulls releases, asks questions.

pub mod memory;
pub mod pull;
pub mod push;
pub mod scan;

mod backoff;
mod chunk_cache;
mod delivery_progress;
mod hint;
mod lazy_store;
mod pace;
mod processor;
mod session;
mod follow;
mod tally;
mod token_renewal;

pub use crate::net::link_estimate::{LinkEstimate, Origin};
pub use delivery_progress::DeliveryProgress;
pub use pace::{Choice, Effort, Method, Prediction};
pub use push::Receipt;
pub use session::{Access, Session};

use std::path::PathBuf;

use crate::net::link;
use crate::{restore, store};
use disk::files;
use format::manifest;
use format::record::Record;
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, ReleaseId, Selector};
use ground::threads;
use protocol::wire::Refusal;

/// The errors of an agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link failed.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The input cannot be read.
    #[error(transparent)]
    Scan(#[from] scan::Error),
    /// The conversation of a push failed.
    #[error(transparent)]
    Push(#[from] protocol::Error),
    /// The proxy refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The proxy sent a malformed manifest.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The proxy answered with another release than was asked for.
    #[error("the proxy answered `{asked}` with release {} of `{app}`", .found.short())]
    OtherRelease {
        /// The release that was asked for.
        asked: Selector,
        /// The release of the answer.
        found: ReleaseId,
        /// Its application.
        app: AppName,
    },
    /// Files of the target directory changed during the pull.
    #[error("the directory changed during the pull")]
    DirectoryChanged,
    /// The proxy ended a conversation early.
    #[error("the proxy ended the conversation early")]
    Ended,
    /// The proxy owes an answer, and there is no progress.
    #[error("the proxy did not answer for {0} s")]
    Stalled(u64),
    /// The proxy is gone.
    #[error("nothing was received from the proxy for {0} s")]
    Unheard(u64),
    /// The proxy sent a message that is not allowed in this state.
    #[error("the proxy sent an unexpected message: {0}")]
    OutOfTurn(&'static str),
    /// An answer without an end.
    #[error("the proxy's answer did not end after {bytes} B")]
    Endless {
        /// Bytes of the answer so far.
        bytes: u64,
    },
    /// The memory of a push failed.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// Fetched chunks cannot be stored.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another pull is making the same directory.
    #[error("another pull to {} is under way", .0.display())]
    Busy(PathBuf),
    /// Who pulled did not want the release to be shown any more, or could not stop what was shown.
    #[error("the release was not shown")]
    HeldBack,
    /// The directory cannot be pulled into.
    #[error(transparent)]
    Place(#[from] pull::PlaceError),
    /// The tree cannot be rebuilt.
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    /// A thread failed.
    #[error(transparent)]
    Threads(#[from] threads::Error),
}

impl Error {
    /// Returns whether content was missing that a directory has by its mark.
    pub fn lacks_content(&self) -> bool {
        use restore::{Error::Source, SourceError};
        matches!(self, Self::DirectoryChanged | Self::Rebuild(Source(SourceError::Unknown(_))))
    }
}

/// Checks that the proxy's answer is about what was asked for.
fn check_meant(record: &Record, asked: &Selector) -> Result<()> {
    if record.is_meant_by(asked) {
        return Ok(());
    }
    Err(Error::OtherRelease { asked: asked.clone(), found: record.release, app: record.app.clone() })
}

/// Checks that the proxy recorded the release that was pushed, if it recorded any; returns the release.
fn check_pushed(recorded: Option<&Record>, app: &AppName, release: ReleaseId) -> Result<ReleaseId> {
    let at = Some(release.to_string().parse().expect("64 digits are a word"));
    let pushed = Selector { app: app.clone(), at };
    recorded.map_or(Ok(()), |record| check_meant(record, &pushed)).map(|()| release)
}

faulty! {
    Error passes on Link, Scan, Push, Refused, File, Manifest, Memory, Store, Place, Rebuild, Threads;
    Self::OtherRelease { .. } => Fault::Corrupt, "do not use this release from this proxy: report it to the proxy's admin";
    Self::Busy(_) => Fault::Retry, "wait until the other pull has ended";
    Self::Ended | Self::HeldBack | Self::Stalled(_) | Self::Unheard(_) | Self::DirectoryChanged => Fault::Retry;
    Self::OutOfTurn(_) | Self::Endless { .. } => Fault::Bug;
}

/// The result of an agent's work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Runs blocking work off the async threads.
async fn blocking<T: Send + 'static, E>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> Result<T>
where
    E: Send + 'static,
    Error: From<E>,
{
    Ok(crate::net::blocking::start(work).await??)
}
