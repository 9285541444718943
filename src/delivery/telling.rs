//! The events of a delivery, handed to the actions that follow.

use std::sync::atomic::AtomicBool;

use super::actions::{Actions, Changed, Event, Happened, changes};
use super::pending::Delivery;
use crate::store::Store;
use disk::clock::now;
use format::record::ActionReport;
use ground::escape;
use ground::ids::{DeliveryId, ReleaseId};

/// 4 KiB: the most of a reason or a place that actions get.
const TEXT_BYTES_MAX: usize = 4096;

/// An event of a delivery.
pub(super) struct Story<'a> {
    pub event: Event,
    pub id: DeliveryId,
    pub delivery: &'a Delivery,
    pub store: &'a Store,
    /// The release that the destination showed before.
    pub previous: Option<ReleaseId>,
    pub place: Option<&'a str>,
    pub reason: Option<&'a str>,
}

impl Story<'_> {
    /// Runs the actions that follow, or leaves them to their outboxes; none if it was cancelled: the event is then handed over again.
    pub fn tell(&self, actions: &Actions, cancelled: &AtomicBool) -> Option<Vec<ActionReport>> {
        let Delivery { space, app, release, destination, user, then, .. } = self.delivery;
        let mut happened = Happened {
            event: self.event,
            time: now(),
            id: self.id.to_string(),
            space: space.clone(),
            app: app.clone(),
            release: *release,
            labels: Vec::new(),
            previous: self.previous,
            destination: Some(destination.clone()),
            place: self.place.map(shortened),
            user: user.clone(),
            reason: self.reason.map(shortened),
            changed: Changed::default(),
        };
        if !actions.follows(&happened, then) {
            return Some(Vec::new());
        }
        happened.labels = self.store.records().labels(app, release);
        if self.event == Event::Delivered {
            happened.changed = self.changed();
        }
        actions.follow(&happened, then, cancelled)
    }

    /// Returns the paths that differ from what was shown before; everything if they cannot be listed.
    fn changed(&self) -> Changed {
        let before = self.previous.and_then(|release| self.store.root(&release).ok());
        let found = self.store.root(&self.delivery.release).map_err(|error| error.to_string());
        let found = found
            .and_then(|root| changes(before.as_ref(), &root, self.store).map_err(|error| error.to_string()));
        found.unwrap_or_else(|reason| {
            tracing::warn!(id = %self.id, reason, "the paths that a delivery changed could not be listed");
            Changed { paths: vec!["*".to_owned()], truncated: true }
        })
    }
}

fn shortened(text: &str) -> String {
    text[..escape::boundary(text, TEXT_BYTES_MAX)].to_owned()
}
