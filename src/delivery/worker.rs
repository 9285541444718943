//! A destination's worker: makes one delivery after another, tries failed ones again, and reports each.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::actions::Event;
use super::backoff::{Backoff, TRIES_MAX, WAIT_MAX};
use super::destination::Destination;
use super::ending::Ending;
use super::pending::{Delivery, LastFailure};
use super::queue::{Again, Queue, Queued};
use disk::clock::now;
use format::record::{DeliveryReport, DeliveryState, Progress};
use ground::faults::Fault;
use ground::ids::{DeliveryId, ReleaseId};
use ground::poison::Unpoisoned as _;

/// Makes one delivery.
pub trait Executor: Send + Sync {
    /// Puts a complete, verified copy of the release at the destination.
    ///
    /// # Errors
    /// The fault and the reason; [`Fault::Retry`], [`Fault::Full`] and [`Fault::Corrupt`] are tried again.
    fn deliver(&self, task: &Task<'_>) -> Result<DeliveryReport, Failure>;
}

/// A delivery to make.
pub struct Task<'a> {
    /// Its id, the same at each try.
    pub id: DeliveryId,
    /// The delivery.
    pub delivery: &'a Delivery,
    /// The release that was delivered there last, if that is remembered.
    pub last: Option<ReleaseId>,
    /// Where to.
    pub destination: &'a dyn Destination,
    /// Ends the delivery soon after it is set.
    pub cancelled: &'a AtomicBool,
    /// Takes how far the delivery is, at most once a second.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Says what can be done about it.
    pub fault: Fault,
    /// The reason, for people.
    pub reason: String,
    /// The time that the service wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// The worker of one destination.
pub(super) struct Worker {
    pub queue: Arc<Queue>,
    pub destination: Arc<dyn Destination>,
    pub executor: Arc<dyn Executor>,
    pub stop: Arc<AtomicBool>,
    pub ending: Arc<Ending>,
    pub backoff: Mutex<Backoff>,
}

impl Worker {
    /// Makes deliveries until it is stopped.
    pub fn run(&self) {
        let is_stopped = || self.stop.load(Ordering::Relaxed);
        while let Some((queued, cancelled)) = self.queue.next(is_stopped, WAIT_MAX) {
            match self.attempt(&queued, &cancelled) {
                Ok(report) => {
                    self.queue.finish();
                    self.ending.end(&queued, DeliveryState::Delivered(report));
                }
                Err(_) if is_stopped() => return,
                Err(failure) => self.failed(queued, failure),
            }
        }
    }

    fn attempt(&self, queued: &Queued, cancelled: &AtomicBool) -> Result<DeliveryReport, Failure> {
        let board = &self.ending.board;
        let running = |progress| DeliveryState::Running(progress);
        board.begin(queued.number, running(Progress::default()));
        queued.listeners.report(&running(Progress::default()));
        let report = |progress| {
            board.set(queued.number, running(progress));
            queued.listeners.report(&running(progress));
        };
        let task = Task {
            id: board.id(queued.number),
            delivery: &queued.delivery,
            last: board.delivered_last(&queued.delivery),
            destination: self.destination.as_ref(),
            cancelled,
            progress: &report,
        };
        // A mistake in one kind of destination ends one delivery, not all that come after it.
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.executor.deliver(&task)));
        made.unwrap_or_else(|_| {
            let reason = "a mistake in whit ended the delivery; the log has its place".to_owned();
            Err(Failure { fault: Fault::Bug, reason, retry_after: None })
        })
    }

    fn failed(&self, queued: Queued, failure: Failure) {
        let Failure { fault, reason, retry_after } = failure;
        let is_passing =
            matches!(fault, Fault::Retry | Fault::Full | Fault::Corrupt) && queued.delivery.tries < TRIES_MAX;
        let Delivery { app, destination, release, tries, .. } = &queued.delivery;
        let place = self.destination.describe(Some(app));
        let id = self.ending.board.id(queued.number);
        tracing::warn!(%id, %destination, place, ?release, tries, reason, passing = is_passing, "a delivery failed");
        if *tries == 0 {
            (self.ending.on_failure)(Event::Failed, id, &queued.delivery, &reason);
        }
        if is_passing {
            return self.again(queued, fault, reason, retry_after);
        }
        let state = match self.queue.finish() {
            Some(by) => DeliveryState::Cancelled { by },
            None => DeliveryState::Failed { reason, fault },
        };
        self.ending.end(&queued, state);
    }

    /// Schedules the next try of a failed delivery, later each time, unless a later delivery takes its place.
    fn again(&self, mut queued: Queued, fault: Fault, reason: String, retry_after: Option<Duration>) {
        let delivery = &mut queued.delivery;
        delivery.tries += 1;
        let wait = self.backoff.lock().unpoisoned().wait(delivery.tries, retry_after);
        delivery.not_before = now() + wait.as_secs();
        delivery.failure = Some(LastFailure::new(reason.clone(), fault));
        queued.not_before = Instant::now() + wait;
        // While it is this worker's: once it waits, somebody may end it.
        self.ending.journal.failed(queued.number, &queued.delivery);
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        let state = DeliveryState::Retrying { reason, seconds, fault };
        self.ending.board.failed(queued.number, &queued.delivery, state.clone());
        queued.listeners.report(&state);
        match self.queue.push_again(queued) {
            Again::Waits => {}
            Again::Cancelled(queued, by) => self.ending.end(&queued, DeliveryState::Cancelled { by }),
            Again::GivesWay(queued, later) => {
                self.ending.give_way(&queued, later, self.queue.is_latest_only());
            }
        }
    }
}
