//! What the registry knows of one target.

use std::sync::Arc;

use tokio::sync::Notify;

use format::target::StoredTarget;
use ground::ids::{AppName, TargetName};
use protocol::wire::TargetStatus;

/// One target.
#[derive(Default)]
pub(super) struct Entry {
    pub known: StoredTarget,
    /// True if the ledger has it, or is to have it.
    pub is_kept: bool,
    /// True until it reports, if what the ledger has is damaged or of a newer version.
    pub is_unread: bool,
    /// True once its application is known to have releases.
    pub has_releases: bool,
    /// `seen` as the ledger has it.
    pub seen_written: u64,
    pub stream: Option<OpenStream>,
}

/// The stream of a target.
pub(super) struct OpenStream {
    pub instance: u64,
    /// Tells it that a newer one took its place.
    pub replaced: Arc<Notify>,
    /// Tells it that its target was assigned something, or nothing any more.
    pub assigned: Arc<Notify>,
}

impl Entry {
    /// Decides whether it is worth a file: not before it has something of a release, of an application that exists.
    pub fn keep(&mut self) {
        let report = &self.known.report;
        self.is_kept |= self.has_releases && report.shown.or(report.about).is_some();
    }

    /// Returns what is told of it.
    pub fn status(&self, target: &TargetName, app: &AppName) -> TargetStatus {
        let (target, app) = (target.clone(), app.clone());
        TargetStatus { target, app, reachable: self.stream.is_some(), known: self.known.clone() }
    }
}

/// What comes of a change.
#[derive(PartialEq, Eq)]
pub(super) enum News {
    None,
    /// Those who follow hear of it.
    Tell,
    /// It is written, too.
    Write,
}
