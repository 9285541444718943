//! The stream of a target, as the registry knows it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::dirty::SpaceApp;
use super::entry::News;
use super::registry::{Error, Opened, Targets};
use super::resolved::Resolved;
use disk::clock::now;
use format::target::{Assignment, TargetReport};
use ground::ids::{AppName, Label, SpaceName, TargetName};
use protocol::wire::Watching;

/// 10 minutes: how old the time at which a target was last seen may be in the ledger.
const SEEN_EVERY: u64 = 600;

/// The stream of a target; dropped, the target is unreachable.
pub(super) struct TargetStream {
    targets: Arc<Targets>,
    place: SpaceApp,
    target: TargetName,
    /// The label or release that it follows; none for the current one.
    pub follows: Option<Label>,
    /// Changes when what it wants may have changed.
    pub moves: watch::Receiver<u64>,
    /// The records that the application's targets want.
    pub resolved: Arc<tokio::sync::Mutex<Resolved>>,
    /// Says that a newer stream took its place.
    pub replaced: Arc<Notify>,
    /// Says that its target was assigned something, or nothing any more.
    pub told: Arc<Notify>,
}

impl TargetStream {
    /// Notes the stream, in the place of an earlier one of the same directory. Its application is loaded.
    pub fn begin(
        targets: &Arc<Targets>,
        space: &SpaceName,
        target: &TargetName,
        watching: Watching,
    ) -> Result<Self, Error> {
        let Opened { replaced, assigned: told, moves, resolved } =
            targets.open_stream(space, target, &watching)?;
        let Watching { app, at: follows, report, .. } = watching;
        let (targets, place, target) = (Arc::clone(targets), (space.clone(), app), target.clone());
        let target_stream = Self { targets, place, target, follows, moves, resolved, replaced, told };
        target_stream.note(report, true);
        Ok(target_stream)
    }

    /// Returns the application.
    pub fn app(&self) -> &AppName {
        &self.place.1
    }

    /// Notes what the target says of itself.
    pub fn report(&self, report: TargetReport) {
        self.note(report, false);
    }

    fn note(&self, report: TargetReport, is_first: bool) {
        self.targets.change(&self.place, &self.target, &self.replaced, |entry| {
            let known = &mut entry.known;
            let is_alike = known.report.is_alike(&report);
            if !is_alike {
                known.since = now();
            }
            (known.report, known.seen, entry.is_unread) = (report, now(), false);
            entry.keep();
            if is_alike && !is_first { News::Tell } else { News::Write }
        });
    }

    /// Notes that the application has releases.
    pub fn has_releases(&self) {
        self.targets.change(&self.place, &self.target, &self.replaced, |entry| {
            let is_news = !entry.has_releases;
            entry.has_releases = true;
            entry.keep();
            if is_news { News::Write } else { News::None }
        });
    }

    /// Notes that the target is there.
    pub fn alive(&self) {
        self.targets.change(&self.place, &self.target, &self.replaced, |entry| {
            entry.known.seen = now();
            let is_old = entry.known.seen >= entry.seen_written + SEEN_EVERY;
            if is_old { News::Write } else { News::None }
        });
    }

    /// Returns what its group assigned to the target.
    pub fn assigned(&self) -> Option<Assignment> {
        let (space, app) = &self.place;
        self.targets.assigned(space, app, &self.target)
    }
}

impl Drop for TargetStream {
    fn drop(&mut self) {
        self.targets.change(&self.place, &self.target, &self.replaced, |entry| {
            (entry.stream, entry.known.seen) = (None, now());
            News::Write
        });
    }
}
