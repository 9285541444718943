//! What is to be shown.

use std::sync::atomic::AtomicBool;

use crate::delivery::destination::Job;
use crate::restore::ChunkSource;
use format::manifest::Root;
use ground::ids::ReleaseId;
use ground::monitor::Monitor;

/// A release to show, and what it is written from.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// The root of the release.
    pub root: &'a Root,
    /// The chunks of the release, and of the one whose copy is used.
    pub source: &'a dyn ChunkSource,
    /// Seconds since 1970 at which the release was first pushed: the time of what is new in it; 0 if it is not known.
    pub created: u64,
    /// Receives progress and notes.
    pub monitor: &'a dyn Monitor,
    /// Ends the work soon after it is set.
    pub cancelled: &'a AtomicBool,
}

impl<'a> Content<'a> {
    /// Takes what a delivery brings.
    pub(super) fn of(job: &Job<'a>) -> Self {
        let Job { root, source, created, monitor, cancelled, .. } = *job;
        Self { root, source, created, monitor, cancelled }
    }

    pub(super) fn release(&self) -> ReleaseId {
        self.root.release()
    }
}
