//! A destination's worker: makes one delivery after another, tries failed ones again, and reports each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::destination::Destination;
use super::journal::Journal;
use super::pending::Delivery;
use super::queue::{Queue, Queued};
use disk::crash_points;
use format::record::{DeliveryReport, DeliveryState};
use ground::faults::Fault;

/// The wait after the first failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Tries before a delivery is given up: with the waits above, about a day.
const TRIES_MAX: u32 = 1450;

/// Makes one delivery.
pub trait Executor: Send + Sync {
    /// Puts a complete, verified copy of the release at the destination.
    ///
    /// # Errors
    /// The fault and the reason; [`Fault::Retry`], [`Fault::Full`] and [`Fault::Corrupt`] are tried again.
    fn deliver(
        &self,
        number: u64,
        delivery: &Delivery,
        destination: &dyn Destination,
        cancelled: &AtomicBool,
    ) -> Result<DeliveryReport, (Fault, String)>;
}

/// The worker of one destination.
pub(super) struct Worker {
    pub queue: Arc<Queue>,
    pub destination: Arc<dyn Destination>,
    pub executor: Arc<dyn Executor>,
    pub stop: Arc<AtomicBool>,
    pub journal: Arc<Journal>,
}

/// The outcome of one try.
enum Attempt {
    Ended(DeliveryState),
    Failed(Fault, String),
    Stopped,
}

impl Worker {
    /// Makes deliveries until it is stopped.
    pub fn run(&self) {
        while let Some(queued) = self.queue.next(|| self.stop.load(Ordering::Relaxed), WAIT_MAX) {
            match self.attempt(&queued) {
                Attempt::Stopped => return,
                Attempt::Ended(state) => end(&queued, &state, &self.journal),
                Attempt::Failed(fault, reason) => {
                    if let Some(queued) = self.queue.push_again(again(queued, fault, &reason)) {
                        give_way(&queued, fault, &reason, &self.journal);
                    }
                }
            }
        }
    }

    fn attempt(&self, queued: &Queued) -> Attempt {
        queued.report(&DeliveryState::Running);
        match self.executor.deliver(queued.number, &queued.delivery, self.destination.as_ref(), &self.stop) {
            Ok(report) => Attempt::Ended(DeliveryState::Delivered(report)),
            Err(_) if self.stop.load(Ordering::Relaxed) => Attempt::Stopped,
            Err((fault, reason)) => {
                let is_passing =
                    matches!(fault, Fault::Retry | Fault::Full | Fault::Corrupt) && queued.tries < TRIES_MAX;
                let Delivery { app, destination, release, .. } = &queued.delivery;
                let place = self.destination.describe(Some(app));
                tracing::warn!(%destination, place, ?release, reason, passing = is_passing, "a delivery failed");
                if is_passing {
                    Attempt::Failed(fault, reason)
                } else {
                    Attempt::Ended(DeliveryState::Failed { reason, fault })
                }
            }
        }
    }
}

/// Schedules the next try of a failed delivery, later each time.
fn again(queued: Queued, fault: Fault, reason: &str) -> Queued {
    let wait = WAIT_MIN.saturating_mul(1 << queued.tries.min(16)).min(WAIT_MAX);
    queued.report(&DeliveryState::Retrying { reason: reason.to_owned(), seconds: wait.as_secs(), fault });
    Queued { tries: queued.tries + 1, not_before: Instant::now() + wait, ..queued }
}

/// Gives up a failed delivery because a later one of its application waits.
pub(super) fn give_way(queued: &Queued, fault: Fault, reason: &str, journal: &Journal) {
    let reason = format!("{reason}; a later release takes its place");
    end(queued, &DeliveryState::Failed { reason, fault }, journal);
}

fn end(queued: &Queued, state: &DeliveryState, journal: &Journal) {
    // Removed before it is reported: a reported delivery is not repeated.
    crash_points::point("delivery.made");
    if let Err(error) = journal.remove(queued.number) {
        tracing::warn!(%error, "a finished delivery will be repeated at the next start");
    }
    crash_points::point("delivery.removed");
    queued.report(state);
    journal.forget(queued.number);
}
