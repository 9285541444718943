//! The durable effort to put releases to destinations, in order for each of them.
//!
//! A delivery is a small file before anybody is told of it, and is removed when it has ended, so that
//! what a crash interrupts goes on at the next start. Each destination has one worker; deliveries are
//! idempotent, so that doing one again is harmless.

mod lane;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::lane::{Lane, Queued};
use crate::delivery::destination::{Destination, Destinations};
use disk::crash_points;
use disk::files::{self, OnPath};
use format::record::{DeliveryEvent, DeliveryReport, DeliveryState};
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, DestinationName, ReleaseId, SpaceName, UserName};
use ground::limits::DELIVERIES_PER_USER_MAX;
use ground::poison::Unpoisoned as _;

/// What can go wrong with the queue itself; what goes wrong with a delivery is a state of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Not defined by the admin.
    #[error("there is no destination `{0}`")]
    Unknown(DestinationName),
    /// The user already has as many waiting there as one user may have.
    #[error("{waiting} deliveries of the same user wait for destination `{destination}` already")]
    TooMany {
        /// The destination.
        destination: DestinationName,
        /// How many.
        waiting: usize,
    },
}

faulty! {
    Error passes on File;
    Self::Unknown(_) => Fault::Missing, "destinations are defined in the proxy's configuration file";
    Self::TooMany { .. } => Fault::Retry;
}

/// One delivery, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The space of the release.
    pub space: SpaceName,
    /// Its application.
    pub app: AppName,
    /// What to deliver.
    pub release: ReleaseId,
    /// Where to.
    pub destination: DestinationName,
    /// On whose behalf; older files do not say.
    #[serde(default)]
    pub user: Option<UserName>,
}

impl Delivery {
    /// The bytes of a delivery's file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, self).expect("a Vec takes every write");
        bytes
    }

    /// Reads the bytes of a delivery's file; none for what is damaged or of a newer whit.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, delivery)) => rmp_serde::from_slice(delivery).ok(),
            _ => None,
        }
    }
}

/// Makes a delivery: the proxy's part that knows spaces and stores.
pub trait Courier: Send + Sync {
    /// Puts a complete, verified copy of the release there, or says why not and what can be done.
    ///
    /// # Errors
    /// What failed; [`Fault::Retry`], [`Fault::Full`] and [`Fault::Corrupt`] are tried again.
    fn deliver(
        &self,
        delivery: &Delivery,
        destination: &dyn Destination,
        cancelled: &AtomicBool,
    ) -> Result<DeliveryReport, (Fault, String)>;
}

/// First byte of a delivery's file (FORMAT 5).
const VERSION: u8 = 1;
const DELIVERY_BYTES_MAX: u64 = 64 * 1024;
/// The wait after the first failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Tries before a delivery is given up: with the waits above, about a day.
const TRIES_MAX: u32 = 1450;

/// Told of one delivery's states; it ends with the delivery.
pub type Events = mpsc::Receiver<DeliveryEvent>;

/// The queue: one lane and one worker for each destination.
pub struct Deliveries {
    folder: PathBuf,
    lanes: BTreeMap<DestinationName, Arc<Lane>>,
    stop: Arc<AtomicBool>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    next: Mutex<u64>,
    pending: Pending,
}

/// The deliveries that have not ended, by their file.
type Pending = Arc<Mutex<BTreeMap<PathBuf, Delivery>>>;

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
        courier: &Arc<dyn Courier>,
    ) -> Result<Self, Error> {
        files::create_folder(folder)?;
        let stop = Arc::new(AtomicBool::new(false));
        let pending = Pending::default();
        let (mut lanes, mut workers) = (BTreeMap::new(), Vec::new());
        for (name, destination) in destinations {
            let lane = Arc::new(Lane::default());
            let (for_worker, stop, courier) = (Arc::clone(&lane), Arc::clone(&stop), Arc::clone(courier));
            let thread = std::thread::Builder::new().name(format!("whit-{name}"));
            let pending = Arc::clone(&pending);
            let worker = thread
                .spawn(move || work(&for_worker, destination.as_ref(), courier.as_ref(), &stop, &pending));
            workers.push(worker.on("start a worker for", folder)?);
            lanes.insert(name, lane);
        }
        let queue = Self {
            folder: folder.to_owned(),
            lanes,
            stop,
            workers: Mutex::new(workers),
            next: Mutex::new(1),
            pending,
        };
        queue.take_up()?;
        Ok(queue)
    }

    /// Whether the admin has defined the destination.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn check(&self, destination: &DestinationName) -> Result<(), Error> {
        if self.lanes.contains_key(destination) { Ok(()) } else { Err(Error::Unknown(destination.clone())) }
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
        let lane = self.lanes.get(destination).ok_or_else(|| Error::Unknown(destination.clone()))?;
        let waiting = lane.waiting_of(&(space.clone(), user.cloned()));
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
        if let Some(events) = self.lanes.get(&delivery.destination).and_then(|lane| lane.join(&delivery)) {
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

    /// The releases of a space that deliveries have still to be made of.
    pub fn pending(&self, space: &SpaceName) -> Vec<ReleaseId> {
        let pending = self.pending.lock().unpoisoned();
        let ours = pending.values().filter(|delivery| delivery.space == *space);
        ours.map(|delivery| delivery.release).collect()
    }

    fn note_pending(&self, file: &Path, delivery: &Delivery) {
        let mut pending = self.pending.lock().unpoisoned();
        pending.insert(file.to_owned(), delivery.clone());
    }

    /// Lets the deliveries under way come to their next step, and stops. What is left is taken up at the next start.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        for lane in self.lanes.values() {
            lane.wake();
        }
        for worker in self.workers.lock().unpoisoned().drain(..) {
            if worker.join().is_err() {
                tracing::error!("a delivery worker panicked; its deliveries go on at the next start");
            }
        }
    }

    fn enqueue(&self, queued: Queued) {
        if let Some(lane) = self.lanes.get(&queued.delivery.destination) {
            for replaced in lane.push(queued) {
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
                Some(delivery) if self.lanes.contains_key(&delivery.destination) => {
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

/// A destination's worker: one delivery after another until it is told to stop.
fn work(lane: &Lane, place: &dyn Destination, courier: &dyn Courier, stop: &AtomicBool, pending: &Pending) {
    while let Some(queued) = lane.next(|| stop.load(Ordering::Relaxed), WAIT_MAX) {
        match attempt(&queued, place, courier, stop) {
            Attempt::Stopped => return,
            Attempt::Ended(state) => end(&queued, &state, pending),
            Attempt::Failed(fault, reason) => {
                if let Some(queued) = lane.push_again(again(queued, fault, &reason)) {
                    give_way(&queued, fault, &reason, pending);
                }
            }
        }
    }
}

/// How one try went.
enum Attempt {
    Ended(DeliveryState),
    Failed(Fault, String),
    Stopped,
}

fn attempt(queued: &Queued, place: &dyn Destination, courier: &dyn Courier, stop: &AtomicBool) -> Attempt {
    queued.tell(&DeliveryState::Running);
    match courier.deliver(&queued.delivery, place, stop) {
        Ok(report) => Attempt::Ended(DeliveryState::Delivered(report)),
        Err(_) if stop.load(Ordering::Relaxed) => Attempt::Stopped,
        Err((fault, reason)) => {
            let passing =
                matches!(fault, Fault::Retry | Fault::Full | Fault::Corrupt) && queued.tries < TRIES_MAX;
            let Delivery { destination, release, .. } = &queued.delivery;
            tracing::warn!(%destination, ?release, reason, passing, "a delivery failed");
            if passing {
                Attempt::Failed(fault, reason)
            } else {
                Attempt::Ended(DeliveryState::Failed { reason, fault })
            }
        }
    }
}

/// Schedules the next try of a failed delivery, later each time.
fn again(queued: Queued, fault: Fault, reason: &str) -> Queued {
    let wait = WAIT_MIN.saturating_mul(1 << queued.tries.min(16)).min(WAIT_MAX);
    queued.tell(&DeliveryState::Retrying { reason: reason.to_owned(), seconds: wait.as_secs(), fault });
    Queued { tries: queued.tries + 1, not_before: Instant::now() + wait, ..queued }
}

/// Gives up a delivery that failed, as a later one of its application waits.
fn give_way(queued: &Queued, fault: Fault, reason: &str, pending: &Pending) {
    let reason = format!("{reason}; a later release takes its place");
    end(queued, &DeliveryState::Failed { reason, fault }, pending);
}

fn end(queued: &Queued, state: &DeliveryState, pending: &Pending) {
    // Removed before anybody is told: a delivery that was reported is not made again.
    crash_points::point("delivery.made");
    if let Err(error) = files::remove(&queued.file) {
        tracing::warn!(%error, "a finished delivery will be made again at the next start");
    }
    crash_points::point("delivery.removed");
    queued.tell(state);
    pending.lock().unpoisoned().remove(&queued.file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_that_an_older_whit_wrote_down_is_nobodys() {
        let delivery = Delivery {
            space: "shop".parse().expect("a name"),
            app: "web".parse().expect("a name"),
            release: ReleaseId::of(b"a root"),
            destination: "edge".parse().expect("a name"),
            user: None,
        };
        let Delivery { space, app, release, destination, .. } = &delivery;
        let older = rmp_serde::to_vec(&(space, app, release, destination)).expect("bytes");
        assert_eq!(Delivery::decode(&[&[VERSION], older.as_slice()].concat()), Some(delivery));
    }
}
