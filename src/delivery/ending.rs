//! The end of a delivery: written down, reported, and seen by those who ask.

use std::sync::Arc;

use super::actions::Event;
use super::board::Board;
use super::ended::Ended;
use super::journal::Journal;
use super::pending::Delivery;
use super::queue::Queued;
use disk::clock::now;
use disk::crash_points;
use format::record::DeliveryState;
use ground::faults::Fault;
use ground::ids::DeliveryId;

/// Called with each delivery that ends.
pub type OnEnd = dyn Fn(DeliveryId, &Ended) + Send + Sync;

/// Called with each delivery that fails for the first time, ends without success, or has no destination any more, and with
/// the reason.
pub type OnFailure = dyn Fn(Event, DeliveryId, &Delivery, &str) + Send + Sync;

/// Ends deliveries.
pub(super) struct Ending {
    pub journal: Journal,
    pub board: Board,
    pub on_end: Arc<OnEnd>,
    pub on_failure: Arc<OnFailure>,
}

impl Ending {
    /// Ends a delivery.
    pub fn end(&self, queued: &Queued, state: DeliveryState) {
        let number = queued.number;
        let started = self.board.started(number).unwrap_or_default();
        // The state says why it failed, if it did.
        let delivery = Delivery { failure: None, ..queued.delivery.clone() };
        let ended = Ended { delivery, started, ended: now(), state };
        if let DeliveryState::Failed { reason, .. } = &ended.state {
            (self.on_failure)(Event::GivenUp, self.board.id(number), &ended.delivery, reason);
        }
        crash_points::point("delivery.made");
        // Written down before it is reported: a reported delivery is not repeated.
        self.journal.end(number, &ended);
        crash_points::point("delivery.removed");
        (self.on_end)(self.board.id(number), &ended);
        let state = ended.state.clone();
        let gone = self.board.end(number, ended);
        queued.listeners.report(&state);
        if !gone.is_empty() {
            self.journal.forget(&gone);
        }
    }

    /// Ends a delivery in favour of a later one of its application.
    ///
    /// Where `is_skipped`, only the latest release counts; else the delivery failed, and the later one may be the fix.
    pub fn give_way(&self, queued: &Queued, later: u64, is_skipped: bool) {
        let state = if is_skipped {
            DeliveryState::Skipped { by: self.board.id(later) }
        } else {
            let (reason, fault) = match self.board.pending(queued.number) {
                Some((_, DeliveryState::Retrying { reason, fault, .. })) => (reason, fault),
                _ => ("it failed".to_owned(), Fault::Retry),
            };
            DeliveryState::Failed { reason: format!("{reason}; a later release takes its place"), fault }
        };
        self.end(queued, state);
    }
}
