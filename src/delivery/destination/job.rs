//! A job for a destination, and its result.

use std::sync::atomic::AtomicBool;

use super::Error;
use crate::restore::ChunkSource;
use format::manifest::Root;
use format::shown::Shown;
use ground::ids::{AppName, DeliveryId, DestinationName, Label, ReleaseId, UserName};
use ground::monitor::Monitor;
use protocol::token::Hop;

/// One delivery to make.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The same at each try; services that can, do not act on it twice.
    pub id: DeliveryId,
    /// The application.
    pub app: &'a AppName,
    /// The name of the destination.
    pub destination: &'a DestinationName,
    /// The root of the release.
    pub root: &'a Root,
    /// The labels of the release.
    pub labels: &'a [Label],
    /// Seconds since 1970 at which the release was first pushed: the one time of what is new in it, however often it is pushed.
    pub created: u64,
    /// The user who asked for the delivery, if that is known.
    pub user: Option<&'a UserName>,
    /// True if the release is the application's current one.
    pub is_current: bool,
    /// The proxies that the release came through and on whose behalf, the first one first, this one last.
    pub behalf: &'a [Hop],
    /// The chunks of the release, and of earlier ones.
    pub source: &'a dyn ChunkSource,
    /// Returns the root of an earlier release, whose copy may save work.
    pub root_of: &'a (dyn Fn(&ReleaseId) -> Option<Root> + Sync),
    /// The releases that the destination shows, and the journal of this delivery.
    pub shown: &'a dyn ShownLog,
    /// Receives progress and notes.
    pub monitor: &'a dyn Monitor,
    /// Ends the delivery soon after it is set.
    pub cancelled: &'a AtomicBool,
}

impl Job<'_> {
    /// Returns the release to deliver.
    pub fn release(&self) -> ReleaseId {
        self.root.release()
    }
}

/// The releases of an application that a destination shows, written down.
pub trait ShownLog: Sync {
    /// Returns it. During a delivery, the first entry is that of the delivery, and is partial.
    fn shown(&self) -> Shown;

    /// Writes down how far this delivery has come; durable when it returns.
    ///
    /// # Errors
    /// The ledger's.
    fn note(&self, started: u64, done: u64) -> Result<(), Error>;

    /// Writes down that readers see this delivery's release, before anything is removed that only releases not `kept` have;
    /// durable when it returns.
    ///
    /// # Errors
    /// The ledger's.
    fn switch(&self, kept: &[ReleaseId]) -> Result<(), Error>;
}

/// The result of a delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The complete copy's place, for people.
    pub place: String,
    /// Files of the release.
    pub files: u64,
    /// Bytes of the release.
    pub bytes: u64,
    /// Bytes that an earlier copy had; all of them where the release was already there.
    pub reused_bytes: u64,
    /// True if the release was shown before, so that nothing was done.
    pub already: bool,
    /// Bytes that were sent to a service, or written.
    pub sent_bytes: u64,
    /// Requests to a service.
    pub requests: u64,
    /// The service's own answer, for people.
    pub answer: Option<String>,
    /// The releases of which all files are still there, this one included.
    pub kept: Vec<ReleaseId>,
}

/// The changes that a delivery would make. Paths are escaped, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// Files that would be written, with their bytes.
    pub put: Vec<(String, u64)>,
    /// Files that stay as they are.
    pub keep: Vec<(String, u64)>,
    /// Files that would be removed.
    pub delete: Vec<String>,
}

impl Check {
    /// Notes how a step went.
    pub fn of(step: &str, result: Result<(), &Error>) -> Self {
        Self { step: step.to_owned(), failure: result.err().map(ToString::to_string) }
    }
}

/// A step of trying a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was tried.
    pub step: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}
