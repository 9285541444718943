//! The agent's roles: pushing a build, pulling a release, asking questions.

pub mod memory;
pub mod pull;
pub mod push;
pub mod scan;

mod backoff;
mod chunk_cache;
mod link_speed;
mod session;
mod token_renewal;

pub use link_speed::LinkSpeed;
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
use protocol::wire::{BatchError, Refusal};

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
    Push(#[from] protocol::Error),
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
    /// The proxy answered with another release than was asked for.
    #[error("the proxy answered `{asked}` with release {} of `{app}`", .found.short())]
    OtherRelease {
        /// What was asked for.
        asked: Selector,
        /// What the proxy meant.
        found: ReleaseId,
        /// Of which application.
        app: AppName,
    },
    /// Files of the directory that is pulled into are not what they were.
    #[error("the directory was changed while it was pulled into")]
    DirectoryChanged,
    /// The proxy ended a conversation in its middle.
    #[error("the proxy ended the conversation before it was done")]
    Ended,
    /// The proxy owes an answer, and nothing moves.
    #[error("the proxy did not answer for {0} s")]
    Stalled(u64),
    /// The proxy is gone.
    #[error("nothing at all was heard of the proxy for {0} s")]
    Unheard(u64),
    /// The proxy said something that does not belong here.
    #[error("the proxy sent {0} out of turn")]
    OutOfTurn(&'static str),
    /// An answer without an end.
    #[error("the proxy's answer did not end after {bytes} B")]
    Endless {
        /// What came of it.
        bytes: u64,
    },
    /// What the agent remembers.
    #[error(transparent)]
    Memory(#[from] memory::Error),
    /// Keeping fetched chunks.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another pull is making the same directory.
    #[error("another pull to {} is under way", .0.display())]
    Busy(PathBuf),
    /// A directory that cannot be pulled into as it is.
    #[error(transparent)]
    Place(#[from] pull::PlaceError),
    /// Rebuilding.
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    /// A thread.
    #[error(transparent)]
    Threads(#[from] threads::Error),
}

/// Checks that the proxy's answer is about what was asked for.
fn check_meant(record: &Record, asked: &Selector) -> Result<()> {
    if record.is_meant_by(asked) {
        return Ok(());
    }
    Err(Error::OtherRelease { asked: asked.clone(), found: record.release, app: record.app.clone() })
}

/// Checks that what the proxy recorded, if anything, is what was pushed; gives the release.
fn check_pushed(recorded: Option<&Record>, app: &AppName, release: ReleaseId) -> Result<ReleaseId> {
    let at = Some(release.to_string().parse().expect("64 digits are a word"));
    let pushed = Selector { app: app.clone(), at };
    recorded.map_or(Ok(()), |record| check_meant(record, &pushed)).map(|()| release)
}

faulty! {
    Error passes on Link, Scan, Push, Refused, File, Manifest, Batch, Memory, Store, Place, Rebuild, Threads;
    Self::WrongChunk => Fault::Corrupt;
    Self::OtherRelease { .. } => Fault::Corrupt, "the proxy is not to be trusted with this release: see to it";
    Self::Busy(_) => Fault::Retry, "wait until the other pull has ended";
    Self::Ended | Self::Stalled(_) | Self::Unheard(_) | Self::DirectoryChanged => Fault::Retry;
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
