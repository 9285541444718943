//! All deliveries of a proxy: a queue and a worker for each destination, and the journal that makes deliveries durable.
//!
//! A delivery is in the ledger before anybody hears of it, and is there until its end is, so that what a crash
//! interrupts goes on at the next start. Deliveries are idempotent: making one again is harmless.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::actions::Event;
use super::backoff::{ASKED_MAX, Backoff};
use super::board::{self, Board};
use super::destination::Destinations;
use super::ending::{Ending, OnEnd, OnFailure};
use super::error::Error;
use super::journal::Journal;
use super::listeners::{Events, Listeners};
use super::pending::{Delivery, LastFailure};
use super::policy::Policies;
use super::queue::{Cancelled, Queue, Queued};
use super::worker::{Executor, Worker};
use crate::ledger::{self, Change, Ledger};
use disk::clock::now;
use disk::files::OnPath as _;
use format::record::DeliveryState;
use ground::faults::Fault;
use ground::ids::{AppName, DeliveryId, DestinationName, ReleaseId, SpaceName, UserName};
use ground::limits::DELIVERIES_PER_USER_MAX;
use ground::poison::Unpoisoned as _;
use protocol::wire::DeliveryStatus;

/// The options of a proxy's deliveries.
pub struct DeliveryOptions {
    /// The first bytes of the proxy's fingerprint, with which the ids of its deliveries begin.
    pub proxy: [u8; 4],
    /// The policies of destinations; one that has none has the defaults.
    pub policies: Policies,
    /// Decides by how much waits between tries differ.
    pub seed: u64,
    /// Called with each delivery that ends.
    pub on_end: Arc<OnEnd>,
    /// Called with each delivery that fails for the first time, ends without success, or has no destination any more.
    pub on_failure: Arc<OnFailure>,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        let (on_end, on_failure) = (Arc::new(|_, _: &_| {}), Arc::new(|_, _, _: &_, _: &_| {}));
        Self { proxy: [0; 4], policies: Policies::new(), seed: 0, on_end, on_failure }
    }
}

/// The deliveries of a proxy.
pub struct Deliveries {
    queues: BTreeMap<DestinationName, Arc<Queue>>,
    stop: Arc<AtomicBool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    ending: Arc<Ending>,
    /// Held while a delivery without a worker is ended, so that it ends once.
    dropping: Mutex<()>,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("board", &self.ending.board).finish_non_exhaustive()
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
        options: DeliveryOptions,
    ) -> Result<Self, Error> {
        let DeliveryOptions { proxy, policies, seed, on_end, on_failure } = options;
        let (journal, left) = Journal::open(ledger)?;
        let ending = Arc::new(Ending { journal, board: Board::new(proxy), on_end, on_failure });
        let gone = ending.board.take_up(left.ended);
        ending.journal.forget(&gone);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut queues, mut workers) = (BTreeMap::new(), Vec::new());
        for (name, destination) in destinations {
            let policy = policies.get(&name).cloned().unwrap_or_default();
            let queue = Arc::new(Queue::new(policy.latest_only));
            let worker = Worker {
                queue: Arc::clone(&queue),
                destination,
                executor: Arc::clone(executor),
                stop: Arc::clone(&stop),
                ending: Arc::clone(&ending),
                backoff: Mutex::new(Backoff::new(seed.wrapping_add(workers.len() as u64))),
            };
            let thread = std::thread::Builder::new().name(format!("whit-{name}"));
            workers
                .push(thread.spawn(move || worker.run()).on("start a worker for", Path::new(name.as_str()))?);
            queues.insert(name, queue);
        }
        let deliveries =
            Self { queues, stop, workers: Mutex::new(workers), ending, dropping: Mutex::default() };
        deliveries.take_up(left.pending);
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
    /// What another proxy asked for before, by the same delivery of its own, is followed whatever became of it: made again after
    /// a later release, it would put the older one in its place.
    ///
    /// # Errors
    /// An unknown destination, or too many waiting deliveries.
    pub fn plan(&self, deliveries: Vec<Delivery>) -> Result<Plan, Error> {
        let mut plan = Plan::default();
        for delivery in deliveries {
            self.check(&delivery.destination)?;
            let queue = self.queues.get(&delivery.destination);
            let repeated = || self.ending.board.follow(|earlier| earlier.is_repeated_by(&delivery));
            let joined = queue.and_then(|queue| queue.join(&delivery)).or_else(repeated);
            if let Some((number, events)) = joined {
                self.hurry(number, queue);
                plan.joined.push(events);
            } else if plan.new.iter().all(|(_, new)| !new.covers(&delivery)) {
                self.check_room(&delivery.destination, &delivery.space, delivery.user.as_ref())?;
                plan.new.push((0, delivery));
            }
        }
        Ok(plan)
    }

    /// Returns the changes that write a plan down, each time under other numbers.
    pub fn changes(&self, plan: &mut Plan) -> Vec<Change> {
        let change = |(number, delivery): &mut (u64, Delivery)| {
            let (new_number, change) = self.ending.journal.change(delivery);
            *number = new_number;
            change
        };
        plan.new.iter_mut().map(change).collect()
    }

    /// Queues the deliveries of a plan whose last changes were applied.
    pub fn enter(&self, plan: Plan) -> Vec<Events> {
        let mut all = plan.joined;
        for (number, delivery) in plan.new {
            let queued = self.queued(number, delivery);
            self.ending.board.add(&queued, DeliveryState::Queued);
            all.push(queued.listeners.listen(DeliveryState::Queued));
            self.enqueue(queued);
        }
        all
    }

    /// Queues the deliveries that were written down although the last changes of their plan failed. They would be made after the
    /// next start otherwise, and replace later releases.
    pub fn enter_written(&self, mut plan: Plan) {
        plan.new.retain(|(number, delivery)| self.ending.journal.has(*number, delivery));
        drop(self.enter(plan));
    }

    /// Writes deliveries down, durably, and queues them. Where the same delivery already waits, follows that one instead.
    ///
    /// # Errors
    /// An unknown destination, too many waiting deliveries, or the ledger's.
    pub fn add(&self, deliveries: Vec<Delivery>) -> Result<Vec<Events>, Error> {
        let mut plan = self.plan(deliveries)?;
        loop {
            match self.ending.journal.apply(&self.changes(&mut plan)) {
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
        self.ending.board.releases(space)
    }

    /// Returns whether a delivery of a release of a space has not ended.
    pub fn is_pending(&self, space: &SpaceName, release: &ReleaseId) -> bool {
        self.ending.board.has(space, release)
    }

    /// Returns, of the deliveries of a space after a number, the first `most` for which `is_wanted`, in rising order: those that
    /// have not ended, and those that ended last.
    pub fn page(
        &self,
        space: &SpaceName,
        after: u64,
        most: usize,
        is_wanted: impl Fn(&AppName, &DestinationName) -> bool,
    ) -> Vec<DeliveryStatus> {
        self.ending.board.page(space, after, most, is_wanted)
    }

    /// Counts the deliveries of a space to a destination that have not ended, and those among them that have failed before, of
    /// the applications for which `is_wanted`.
    pub fn count(
        &self,
        space: &SpaceName,
        destination: &DestinationName,
        is_wanted: impl Fn(&AppName) -> bool,
    ) -> (usize, usize) {
        self.ending.board.count(space, destination, is_wanted)
    }

    /// Returns what receives each further change of any delivery.
    pub fn watch(&self) -> broadcast::Receiver<board::Change> {
        self.ending.board.watch()
    }

    /// Returns the id that a delivery with this number has.
    pub fn id(&self, number: u64) -> DeliveryId {
        self.ending.board.id(number)
    }

    /// Returns the status of a delivery of a space.
    ///
    /// # Errors
    /// [`Error::NoDelivery`].
    pub fn status(&self, space: &SpaceName, id: DeliveryId) -> Result<DeliveryStatus, Error> {
        let found = Some(id).filter(|id| *id == self.ending.board.id(id.number));
        let found = found.and_then(|id| self.ending.board.status(id.number));
        let (_, status) = found.filter(|(found, _)| found == space).ok_or(Error::NoDelivery(id))?;
        Ok(status)
    }

    /// Tries a waiting delivery at once.
    ///
    /// # Errors
    /// It has ended, is under way, or has no destination any more.
    pub fn retry(&self, id: DeliveryId) -> Result<Events, Error> {
        let (destination, queue) = self.queue_of(id)?;
        let queue = queue.ok_or(Error::Stranded { id, destination })?;
        self.ending.board.hurry(id.number);
        queue.hurry(id.number).ok_or_else(|| self.missed(id))
    }

    /// Lets a delivery that waits be tried at once: what made it fail may be gone.
    fn hurry(&self, number: u64, queue: Option<&Arc<Queue>>) {
        self.ending.board.hurry(number);
        drop(queue.and_then(|queue| queue.hurry(number)));
    }

    /// Ends a delivery that waits, or tells one that is under way to end soon. The last of the events says how it ended.
    ///
    /// # Errors
    /// It has ended, or has no destination any more.
    pub fn cancel(&self, id: DeliveryId, by: &UserName) -> Result<Events, Error> {
        let (destination, queue) = self.queue_of(id)?;
        let queue = queue.ok_or(Error::Stranded { id, destination })?;
        match queue.cancel(id.number, by) {
            Cancelled::Waiting(queued) => Ok(self.end_cancelled(&queued, by)),
            Cancelled::Running(events) => Ok(events),
            Cancelled::Unknown => Err(self.missed(id)),
        }
    }

    /// Ends a delivery whose destination is not configured any more.
    ///
    /// # Errors
    /// It has ended, or its destination is configured.
    pub fn drop_stranded(&self, id: DeliveryId, by: &UserName) -> Result<Events, Error> {
        let (destination, queue) = self.queue_of(id)?;
        if queue.is_some() {
            return Err(Error::Configured { id, destination });
        }
        let _dropping = self.dropping.lock().unpoisoned();
        let (delivery, _) = self.ending.board.pending(id.number).ok_or(Error::HasEnded(id))?;
        Ok(self.end_cancelled(&self.queued(id.number, delivery), by))
    }

    /// Ends the deliveries of a space that wait for a destination which is not configured any more, of the applications for which
    /// `is_wanted`. Returns them as they were.
    ///
    /// # Errors
    /// [`Error::InUse`].
    pub fn drop_destination(
        &self,
        space: &SpaceName,
        destination: &DestinationName,
        by: &UserName,
        is_wanted: impl Fn(&AppName) -> bool,
    ) -> Result<Vec<DeliveryStatus>, Error> {
        if self.queues.contains_key(destination) {
            return Err(Error::InUse(destination.clone()));
        }
        let _dropping = self.dropping.lock().unpoisoned();
        let board = &self.ending.board;
        let is_ours = |app: &AppName, to: &DestinationName| to == destination && is_wanted(app);
        let mut waiting = board.page(space, 0, usize::MAX, is_ours);
        waiting.retain(|status| !status.state.is_last());
        for DeliveryStatus { id, .. } in &waiting {
            if let Some((delivery, _)) = board.pending(id.number) {
                drop(self.end_cancelled(&self.queued(id.number, delivery), by));
            }
        }
        Ok(waiting)
    }

    fn end_cancelled(&self, queued: &Queued, by: &UserName) -> Events {
        let events = queued.listeners.listen(DeliveryState::Queued);
        self.ending.end(queued, DeliveryState::Cancelled { by: by.clone() });
        events
    }

    /// Returns the destination of a delivery that has not ended, and its queue if it is configured.
    fn queue_of(&self, id: DeliveryId) -> Result<(DestinationName, Option<&Arc<Queue>>), Error> {
        let (delivery, _) = self.ending.board.pending(id.number).ok_or(Error::HasEnded(id))?;
        let queue = self.queues.get(&delivery.destination);
        Ok((delivery.destination, queue))
    }

    /// Says why a delivery does not wait.
    fn missed(&self, id: DeliveryId) -> Error {
        if self.ending.board.pending(id.number).is_some() { Error::Runs(id) } else { Error::HasEnded(id) }
    }

    /// Stops the deliveries under way at their next step. The next start takes up what is left.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for queue in self.queues.values() {
            queue.stop();
        }
        for worker in self.workers.lock().unpoisoned().drain(..) {
            if worker.join().is_err() {
                tracing::error!("a delivery worker panicked; its deliveries go on at the next start");
            }
        }
    }

    fn queued(&self, number: u64, delivery: Delivery) -> Queued {
        let listeners = Listeners::new(self.ending.board.id(number), delivery.destination.clone());
        Queued::new(number, delivery, listeners)
    }

    fn enqueue(&self, queued: Queued) {
        let number = queued.number;
        if let Some(queue) = self.queues.get(&queued.delivery.destination) {
            for replaced in queue.push(queued) {
                self.ending.give_way(&replaced, number, queue.is_latest_only());
            }
        }
    }

    fn take_up(&self, left: Vec<(u64, Delivery)>) {
        for (number, mut delivery) in left {
            if !self.queues.contains_key(&delivery.destination) {
                let (id, destination) = (self.ending.board.id(number), &delivery.destination);
                tracing::warn!(%id, %destination, "a delivery waits for a destination that is not configured any more");
                self.ending.board.add(&self.queued(number, delivery.clone()), DeliveryState::Stranded);
                let reason = Error::Stranded { id, destination: destination.clone() }.to_string();
                (self.ending.on_failure)(Event::Held, id, &delivery, &reason);
                continue;
            }
            // Bounded, as the clock may have been set back.
            let wait = Duration::from_secs(delivery.not_before.saturating_sub(now())).min(ASKED_MAX);
            let state = if delivery.tries == 0 {
                DeliveryState::Queued
            } else {
                delivery.not_before = now() + wait.as_secs();
                let unknown =
                    || LastFailure::new("it failed before the proxy's last start".to_owned(), Fault::Retry);
                let LastFailure { reason, fault } = delivery.failure.clone().unwrap_or_else(unknown);
                DeliveryState::Retrying { reason, seconds: wait.as_secs(), fault }
            };
            let queued = self.queued(number, delivery);
            self.ending.board.add(&queued, state);
            self.enqueue(Queued { not_before: Instant::now() + wait, ..queued });
        }
    }
}

/// Deliveries that are to be written down, by themselves or together with something else.
#[derive(Debug, Default)]
pub struct Plan {
    /// The events of deliveries that wait already.
    joined: Vec<Events>,
    /// The others, with the numbers that they were last given.
    new: Vec<(u64, Delivery)>,
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop();
    }
}
