//! Tells actions what happened to a delivery.

use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use super::actions::{Actions, Changed, Event, Happened, changes};
use super::pending::Delivery;
use crate::store::Store;
use format::record::ActionReport;
use ground::ids::{DeliveryId, ReleaseId};

/// 4 KiB: the most of a reason, or of a place, that is told.
const TEXT_BYTES_MAX: usize = 4096;

/// What happened to a delivery.
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
    /// Makes what follows, or leaves it to its outbox; none if it was cancelled, and is to be told again.
    pub fn tell(&self, actions: &Actions, cancelled: &AtomicBool) -> Option<Vec<ActionReport>> {
        let Delivery { space, app, release, destination, user, then, .. } = self.delivery;
        let mut happened = Happened {
            event: self.event,
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
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
        if let Some(pushed) = self.store.records().pushed_last(app, release) {
            happened.labels = pushed.labels.to_vec();
        }
        if self.event == Event::Delivered {
            happened.changed = self.changed();
        }
        actions.follow(&happened, then, cancelled)
    }

    /// Returns the paths that differ from what was shown before; everything if they cannot be told.
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
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
