//! All deliveries of a proxy: a queue and a worker for each destination, and the files that make deliveries durable.
//!
//! A delivery is a small file before anybody hears of it, and is removed when it has ended, so that what a crash
//! interrupts goes on at the next start. Deliveries are idempotent: making one again is harmless.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::destination::Destinations;
use super::pending::Delivery;
use super::queue::{Events, Queue, Queued};
use super::worker::{Executor, Pending, Worker, give_way};
use disk::files::{self, OnPath};
use ground::faults::{Fault, faulty};
use ground::ids::{DestinationName, ReleaseId, SpaceName, UserName};
use ground::limits::DELIVERIES_PER_USER_MAX;
use ground::poison::Unpoisoned as _;

/// Why a delivery could not be queued. The failure of a delivery is a state of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The admin has not defined it.
    #[error("there is no destination `{0}`")]
    Unknown(DestinationName),
    /// One user's limit.
    #[error(
        "destination `{destination}`: {waiting} deliveries of this user wait already, {DELIVERIES_PER_USER_MAX} may"
    )]
    TooMany {
        /// The destination.
        destination: DestinationName,
        /// The number of deliveries that wait.
        waiting: usize,
    },
}

faulty! {
    Error passes on File;
    Self::Unknown(_) => Fault::Missing, "destinations are defined in the proxy's configuration file";
    Self::TooMany { .. } => Fault::Retry;
}

/// The longest file of a delivery; names and an id take far less.
const DELIVERY_BYTES_MAX: u64 = 64 * 1024;

/// The deliveries of a proxy.
pub struct Deliveries {
    folder: PathBuf,
    queues: BTreeMap<DestinationName, Arc<Queue>>,
    stop: Arc<AtomicBool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    next: Mutex<u64>,
    pending: Pending,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Deliveries {
    /// Takes up what was left in `folder` and starts a worker for each destination.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn start(
        folder: &Path,
        destinations: Destinations,
        executor: &Arc<dyn Executor>,
    ) -> Result<Self, Error> {
        files::create_folder(folder)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pending = Pending::default();
        let (mut queues, mut workers) = (BTreeMap::new(), Vec::new());
        for (name, destination) in destinations {
            let queue = Arc::new(Queue::default());
            let worker = Worker {
                queue: Arc::clone(&queue),
                destination,
                executor: Arc::clone(executor),
                stop: Arc::clone(&stop),
                pending: Arc::clone(&pending),
            };
            let thread = std::thread::Builder::new().name(format!("whit-{name}"));
            workers.push(thread.spawn(move || worker.run()).on("start a worker for", folder)?);
            queues.insert(name, queue);
        }
        let deliveries = Self {
            folder: folder.to_owned(),
            queues,
            stop,
            workers: Mutex::new(workers),
            next: Mutex::new(1),
            pending,
        };
        deliveries.take_up()?;
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

    /// Writes the delivery down, durably, and queues it. Where the same delivery already waits, follows that one instead.
    ///
    /// # Errors
    /// An unknown destination, too many waiting deliveries, or the disk's.
    pub fn add(&self, delivery: Delivery) -> Result<Events, Error> {
        self.check(&delivery.destination)?;
        if let Some(events) = self.queues.get(&delivery.destination).and_then(|queue| queue.join(&delivery)) {
            return Ok(events);
        }
        self.check_room(&delivery.destination, &delivery.space, delivery.user.as_ref())?;
        let file = {
            let mut next = self.next.lock().unpoisoned();
            let file = self.folder.join(format!("{:012}.delivery", *next));
            *next += 1;
            file
        };
        files::publish(&file, &delivery.encode(), 0o600)?;
        self.note_pending(&file, &delivery);
        let mut queued = Queued::new(file, delivery);
        let events = queued.listen();
        self.enqueue(queued);
        Ok(events)
    }

    /// Returns the releases of a space whose deliveries have not ended.
    pub fn pending(&self, space: &SpaceName) -> Vec<ReleaseId> {
        let pending = self.pending.lock().unpoisoned();
        let ours = pending.values().filter(|delivery| delivery.space == *space);
        ours.map(|delivery| delivery.release).collect()
    }

    fn note_pending(&self, file: &Path, delivery: &Delivery) {
        let mut pending = self.pending.lock().unpoisoned();
        pending.insert(file.to_owned(), delivery.clone());
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
                give_way(&replaced, Fault::Retry, "it failed", &self.pending);
            }
        }
    }

    fn take_up(&self) -> Result<(), Error> {
        files::remove_unpublished(&self.folder)?;
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&self.folder).on("list", &self.folder)? {
            let file = entry.on("list", &self.folder)?.path();
            let number =
                file.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            if let (Some(number), true) = (number, file.extension().is_some_and(|end| end == "delivery")) {
                left.push((number, file));
            }
        }
        left.sort();
        for (number, file) in left {
            *self.next.lock().unpoisoned() = number + 1;
            let bytes = files::read_bounded(&file, DELIVERY_BYTES_MAX)?;
            let delivery = Delivery::decode(&bytes);
            if let Some(delivery) = &delivery {
                self.note_pending(&file, delivery);
            }
            match delivery {
                Some(delivery) if self.queues.contains_key(&delivery.destination) => {
                    self.enqueue(Queued::new(file, delivery));
                }
                Some(delivery) => {
                    tracing::warn!(destination = %delivery.destination, "a delivery waits for a destination that is no longer defined");
                }
                None => {
                    tracing::error!(file = %file.display(), "a delivery's file is damaged or of a newer version");
                }
            }
        }
        Ok(())
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop();
    }
}
