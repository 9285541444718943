//! Makes deliveries from the stores of a proxy's spaces.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::destination::Job;
use super::pending::Delivery;
use super::shown_log::ShownInLedger;
use super::worker::{Executor, Failure, Task};
use crate::ledger::Ledger;
use crate::store::{self, Store};
use format::record::{DeliveryReport, Progress};
use ground::faults::Faulty;
use ground::ids::{DeliveryId, ReleaseId, SpaceName};
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use protocol::token::Hop;
use protocol::wire::Refusal;

/// The most notes in a report; the log has all.
const NOTES_MAX: usize = 10;
/// How often it is told how far a delivery is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Opens the store of a space.
type Open = dyn Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync;

/// Delivers releases from the stores of spaces.
pub struct StoreExecutor {
    open: Box<Open>,
    ledger: Arc<dyn Ledger>,
}

impl StoreExecutor {
    /// Creates an executor that opens stores by `open` and writes down in `ledger` what destinations show.
    pub fn new(
        open: impl Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync + 'static,
        ledger: Arc<dyn Ledger>,
    ) -> Self {
        Self { open: Box::new(open), ledger }
    }
}

impl Executor for StoreExecutor {
    fn deliver(&self, task: &Task<'_>) -> Result<DeliveryReport, Failure> {
        let Task { id, delivery, destination, cancelled, progress } = *task;
        let failed = |error: &dyn Faulty| {
            let Refusal { fault, text, .. } = Refusal::of(error);
            Failure { fault, reason: text, retry_after: None }
        };
        let store = (self.open)(&delivery.space).map_err(|error| failed(&error))?;
        let root = store.root(&delivery.release).map_err(|error| failed(&error))?;
        let previous = |release: &ReleaseId| store.root(release).ok();
        let (total, files) = (root.totals.bytes, root.totals.files);
        let watch = Watch {
            delivery,
            notes: Mutex::default(),
            progress,
            done: Mutex::new((Progress { bytes: 0, total, files }, Instant::now())),
        };
        let shown =
            ShownInLedger::open(Arc::clone(&self.ledger), delivery).map_err(|error| failed(&error))?;
        let pushed = store.records().pushed_last(&delivery.app, &delivery.release);
        let mut behalf = delivery.behalf.clone();
        behalf.push(hop(id, delivery, pushed.as_ref().map_or(0, |pushed| pushed.sequence)));
        let job = Job {
            id,
            app: &delivery.app,
            root: &root,
            labels: pushed.as_ref().map_or(&[], |pushed| &pushed.labels),
            created: pushed.as_ref().map_or(0, |pushed| pushed.created),
            user: delivery.user.as_ref(),
            behalf: &behalf,
            source: &store,
            root_of: &previous,
            shown: &shown,
            monitor: &watch,
            cancelled,
        };
        let begun = Instant::now();
        shown.begin(delivery.release, id.number, destination.rules()).map_err(|error| failed(&error))?;
        match destination.deliver(&job) {
            Ok(done) => {
                shown.complete(&done.kept).map_err(|error| failed(&error))?;
                for folder in destination.folders() {
                    if let Err(error) = store.copies().note(&delivery.app, &folder.of(&delivery.app)) {
                        tracing::warn!(%error, "the location of a delivered copy could not be recorded");
                    }
                }
                store.records().touch(&delivery.app, &delivery.release);
                Ok(DeliveryReport {
                    place: done.place,
                    files: done.files,
                    bytes: done.bytes,
                    reused_bytes: done.reused_bytes,
                    already: done.already,
                    millis: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    sent_bytes: done.sent_bytes,
                    requests: done.requests,
                    answer: done.answer,
                    actions: Vec::new(),
                    notes: watch.notes.into_inner().unpoisoned(),
                })
            }
            Err(error) => Err(Failure { retry_after: error.retry_after(), ..failed(&error) }),
        }
    }
}

/// Returns this proxy as a hop of the release's way.
fn hop(id: DeliveryId, delivery: &Delivery, sequence: u64) -> Hop {
    // An older whit wrote down no user.
    let user = delivery.user.clone().unwrap_or_else(|| "unknown".parse().expect("a word"));
    Hop { proxy: id.proxy, user, token: delivery.token, sequence }
}

/// Writes notes on a delivery to the log and into its report, and tells how far it is.
struct Watch<'a> {
    delivery: &'a Delivery,
    notes: Mutex<Vec<String>>,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// How far it is, and when that was last told.
    done: Mutex<(Progress, Instant)>,
}

impl Monitor for Watch<'_> {
    fn advance(&self, _phase: Phase, bytes: u64) {
        let mut done = self.done.lock().unpoisoned();
        let (progress, told) = &mut *done;
        progress.bytes += bytes;
        let now = Instant::now();
        if now.saturating_duration_since(*told) < PROGRESS_EVERY {
            return;
        }
        *told = now;
        let progress = *progress;
        drop(done);
        (self.progress)(progress);
    }

    fn note(&self, text: &str) {
        let Delivery { destination, app, .. } = self.delivery;
        tracing::warn!(%destination, %app, "{text}");
        let mut notes = self.notes.lock().unpoisoned();
        if notes.len() < NOTES_MAX {
            notes.push(text.to_owned());
        }
    }
}
