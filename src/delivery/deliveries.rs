//! All deliveries of a proxy: a queue and a worker for each destination, and the journal that makes deliveries durable.
//!
//! A delivery is in the ledger before anybody hears of it, and is removed when it has ended, so that what a crash
//! interrupts goes on at the next start. Deliveries are idempotent: making one again is harmless.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::destination::Destinations;
use super::journal::Journal;
use super::pending::Delivery;
use super::queue::{Events, Queue, Queued};
use super::worker::{Executor, Worker, give_way};
use crate::ledger::{self, Change, Ledger};
use disk::files::{self, OnPath as _};
use ground::faults::{Fault, faulty};
use ground::ids::{DestinationName, ReleaseId, SpaceName, UserName};
use ground::limits::DELIVERIES_PER_USER_MAX;
use ground::poison::Unpoisoned as _;

/// Why a delivery could not be queued. The failure of a delivery is a state of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A worker's thread.
    #[error(transparent)]
    Thread(#[from] files::Error),
    /// The admin has not defined it.
    #[error("there is no destination `{0}`")]
    Unknown(DestinationName),
    /// One user's limit.
    #[error(
        "destination `{destination}`: {waiting} deliveries of this user are waiting already, at most {DELIVERIES_PER_USER_MAX} may"
    )]
    TooMany {
        /// The destination.
        destination: DestinationName,
        /// The number of deliveries that wait.
        waiting: usize,
    },
}

faulty! {
    Error passes on Ledger, Thread;
    Self::Unknown(_) => Fault::Missing, "destinations are defined in the proxy's configuration file";
    Self::TooMany { .. } => Fault::Retry;
}

/// The deliveries of a proxy.
pub struct Deliveries {
    queues: BTreeMap<DestinationName, Arc<Queue>>,
    stop: Arc<AtomicBool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    journal: Arc<Journal>,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Takes up what an earlier run left in the ledger and starts a worker for each destination.
    ///
    /// # Errors
    /// The ledger cannot be read, or a thread not be started.
    pub fn start(
        ledger: Arc<dyn Ledger>,
        destinations: Destinations,
        executor: &Arc<dyn Executor>,
    ) -> Result<Self, Error> {
        let (journal, left) = Journal::open(ledger)?;
        let journal = Arc::new(journal);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut queues, mut workers) = (BTreeMap::new(), Vec::new());
        for (name, destination) in destinations {
            let queue = Arc::new(Queue::default());
            let worker = Worker {
                queue: Arc::clone(&queue),
                destination,
                executor: Arc::clone(executor),
                stop: Arc::clone(&stop),
                journal: Arc::clone(&journal),
            };
            let thread = std::thread::Builder::new().name(format!("whit-{name}"));
            workers
                .push(thread.spawn(move || worker.run()).on("start a worker for", Path::new(name.as_str()))?);
            queues.insert(name, queue);
        }
        let deliveries = Self { queues, stop, workers: Mutex::new(workers), journal };
        deliveries.take_up(left);
        Ok(deliveries)
    }

    /// Checks that the admin has defined the destination.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn check(&self, destination: &DestinationName) -> Result<(), Error> {
        if self.queues.contains_key(destination) { Ok(()) } else { Err(Error::Unknown(destination.clone())) }
    }

    /// Checks that the user may have another delivery waiting.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::TooMany`].
    pub fn check_room(
        &self,
        destination: &DestinationName,
        space: &SpaceName,
        user: Option<&UserName>,
    ) -> Result<(), Error> {
        let queue = self.queues.get(destination).ok_or_else(|| Error::Unknown(destination.clone()))?;
        let waiting = queue.waiting_of(&(space.clone(), user.cloned()));
        if waiting < DELIVERIES_PER_USER_MAX {
            return Ok(());
        }
        Err(Error::TooMany { destination: destination.clone(), waiting })
    }

    /// Plans deliveries: each follows the same delivery if that waits already, and is to be written down otherwise.
    ///
    /// # Errors
    /// An unknown destination, or too many waiting deliveries.
    pub fn plan(&self, deliveries: Vec<Delivery>) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        for delivery in deliveries {
            self.check(&delivery.destination)?;
            let queue = self.queues.get(&delivery.destination);
            if let Some(events) = queue.and_then(|queue| queue.join(&delivery)) {
                plan.joined.push(events);
            } else if plan.new.iter().all(|(_, new)| *new != delivery) {
                self.check_room(&delivery.destination, &delivery.space, delivery.user.as_ref())?;
                plan.new.push((0, delivery));
            }
        }
        Ok(plan)
    }

    /// Returns the changes that write a plan down, each time under other numbers.
    pub fn changes(&self, plan: &mut Plan) -> Vec<Change> {
        let change = |(number, delivery): &mut (u64, Delivery)| {
            let (new_number, change) = self.journal.change(delivery);
            *number = new_number;
            change
        };
        plan.new.iter_mut().map(change).collect()
    }

    /// Queues the deliveries of a plan whose last changes were applied.
    pub fn enter(&self, plan: Plan) -> Vec<Events> {
        let mut all = plan.joined;
        for (number, delivery) in plan.new {
            self.journal.note(number, &delivery);
            let mut queued = Queued::new(number, delivery);
            all.push(queued.listen());
            self.enqueue(queued);
        }
        all
    }

    /// Queues the deliveries that were written down although the last changes of their plan failed. They would be made after the
    /// next start otherwise, and replace later releases.
    pub fn enter_written(&self, mut plan: Plan) {
        plan.new.retain(|(number, delivery)| self.journal.has(*number, delivery));
        drop(self.enter(plan));
    }

    /// Writes deliveries down, durably, and queues them. Where the same delivery already waits, follows that one instead.
    ///
    /// # Errors
    /// An unknown destination, too many waiting deliveries, or the ledger's.
    pub fn add(&self, deliveries: Vec<Delivery>) -> Result<Vec<Events>, Error> {
        let mut plan = self.plan(deliveries)?;
        loop {
            match self.journal.apply(&self.changes(&mut plan)) {
                Ok(()) => return Ok(self.enter(plan)),
                // Another proxy has taken a number.
                Err(ledger::Error::Exists(_)) => {}
                Err(error) => {
                    self.enter_written(plan);
                    return Err(error.into());
                }
            }
        }
    }

    /// Returns the releases of a space whose deliveries have not ended.
    pub fn pending(&self, space: &SpaceName) -> Vec<ReleaseId> {
        self.journal.pending(space)
    }

    /// Stops the deliveries under way at their next step. The next start takes up what is left.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for queue in self.queues.values() {
            queue.wake();
        }
        for worker in self.workers.lock().unpoisoned().drain(..) {
            if worker.join().is_err() {
                tracing::error!("a delivery worker panicked; its deliveries go on at the next start");
            }
        }
    }

    fn enqueue(&self, queued: Queued) {
        if let Some(queue) = self.queues.get(&queued.delivery.destination) {
            for replaced in queue.push(queued) {
                give_way(&replaced, Fault::Retry, "it failed", &self.journal);
            }
        }
    }

    fn take_up(&self, left: Vec<(u64, Delivery)>) {
        for (number, delivery) in left {
            if self.queues.contains_key(&delivery.destination) {
                self.enqueue(Queued::new(number, delivery));
            } else {
                tracing::warn!(destination = %delivery.destination, "a delivery waits for a destination that is not configured any more");
            }
        }
    }
}

/// Deliveries that are to be written down, by themselves or together with something else.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of deliveries that wait already.
    joined: Vec<Events>,
    /// The others, with the numbers that they were last given.
    new: Vec<(u64, Delivery)>,
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop();
    }
}
