//! Makes deliveries from the stores of a proxy's spaces.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::actions::{Actions, Event};
use super::destination::{Destination, Job, Preview, ShownLog as _};
use super::pending::Delivery;
use super::shown_log::ShownInLedger;
use super::telling::Story;
use super::worker::{Executor, Failure, Task};
use crate::ledger::Ledger;
use crate::store::{self, Store};
use disk::crash_points;
use format::manifest::Root;
use format::record::{DeliveryReport, Progress};
use format::shown::Shown;
use ground::faults::{Fault, Faulty};
use ground::ids::{DeliveryId, Label, ReleaseId, SpaceName};
use ground::monitor::{Monitor, Phase, Silent};
use ground::poison::Unpoisoned as _;
use protocol::token::Hop;
use protocol::wire::Refusal;

/// The most notes in a report; the log has all.
const NOTES_MAX: usize = 10;
/// The least time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Opens the store of a space.
type Open = dyn Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync;

/// Delivers releases from the stores of spaces.
pub struct StoreExecutor {
    open: Box<Open>,
    ledger: Arc<dyn Ledger>,
    actions: Arc<Actions>,
}

impl StoreExecutor {
    /// Creates an executor that opens stores by `open`, writes down in `ledger` what destinations show, and tells `actions`.
    pub fn new(
        open: impl Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync + 'static,
        ledger: Arc<dyn Ledger>,
        actions: Arc<Actions>,
    ) -> Self {
        Self { open: Box::new(open), ledger, actions }
    }

    /// Tells actions what happened to a delivery, besides its success.
    pub fn tell(&self, event: Event, id: DeliveryId, delivery: &Delivery, reason: &str) {
        let store = match (self.open)(&delivery.space) {
            Ok(store) => store,
            Err(error) => return tracing::warn!(%id, %error, "no action follows a failed delivery"),
        };
        let shown = ShownInLedger::open(Arc::clone(&self.ledger), delivery).map(|log| log.shown());
        let previous = shown.ok().and_then(|shown| shown_before(&shown, id));
        let story = Story { event, id, delivery, store: &store, previous, place: None, reason: Some(reason) };
        // Nothing of it runs here.
        story.tell(&self.actions, &AtomicBool::new(false));
    }

    /// Says what a delivery would do, and changes nothing.
    ///
    /// # Errors
    /// Those that would fail the delivery already now.
    pub fn plan(
        &self,
        id: DeliveryId,
        delivery: &Delivery,
        destination: &dyn Destination,
        cancelled: &AtomicBool,
    ) -> Result<Preview, Failure> {
        let release = Release::open(self, id, delivery)?;
        let root_of = |earlier: &ReleaseId| release.store.root(earlier).ok();
        destination.plan(&release.job(id, delivery, &root_of, cancelled)).map_err(|error| failed(&error))
    }
}

impl Executor for StoreExecutor {
    fn deliver(&self, task: &Task<'_>) -> Result<DeliveryReport, Failure> {
        let Task { id, delivery, last, destination, cancelled, progress } = *task;
        let release = Release::open(self, id, delivery)?;
        let Release { store, root, shown, .. } = &release;
        let (total, files) = (root.totals.bytes, root.totals.files);
        let watch = Watch {
            delivery,
            notes: Mutex::default(),
            progress,
            done: Mutex::new((Progress { bytes: 0, total, files }, Instant::now())),
        };
        let root_of = |earlier: &ReleaseId| store.root(earlier).ok();
        let job = Job { monitor: &watch, ..release.job(id, delivery, &root_of, cancelled) };
        let begun = Instant::now();
        let is_new =
            shown.begin(delivery.release, id.number, destination.rules()).map_err(|error| failed(&error))?;
        // A try that was cut off after the place had changed may have left nothing of what was there.
        let previous = shown_before(&shown.shown(), id).or(last);
        let done = destination.deliver(&job);
        let done = done.map_err(|error| {
            if is_new && error.is_before_all() {
                shown.withdraw();
            }
            Failure { retry_after: error.retry_after(), ..failed(&error) }
        })?;
        crash_points::point("delivery.there");
        shown.complete(&done.kept).map_err(|error| failed(&error))?;
        crash_points::point("delivery.shown");
        for folder in destination.folders() {
            if let Err(error) = store.copies().note(&delivery.app, &folder.of(&delivery.app)) {
                tracing::warn!(%error, "the location of a delivered copy could not be recorded");
            }
        }
        store.records().touch(&delivery.app, &delivery.release);
        let (event, place) = (Event::Delivered, Some(done.place.as_str()));
        let story = Story { event, id, delivery, store, previous, place, reason: None };
        let actions = story.tell(&self.actions, cancelled).ok_or_else(interrupted)?;
        crash_points::point("delivery.told");
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
            actions,
            notes: watch.notes.into_inner().unpoisoned(),
        })
    }
}

/// Returns the release that a place showed before a delivery.
fn shown_before(shown: &Shown, id: DeliveryId) -> Option<ReleaseId> {
    shown.complete().find(|entry| entry.delivery != id.number).map(|entry| entry.release)
}

/// Returns the failure that an error is. Its reason says what to do about it: who reads it may not be who asked.
fn failed(error: &dyn Faulty) -> Failure {
    let Refusal { fault, text, hint } = Refusal::of(error);
    let reason = hint.map_or_else(|| text.clone(), |hint| format!("{text} ({hint})"));
    Failure { fault, reason, retry_after: None }
}

/// The release of a delivery, and what its destination shows.
struct Release {
    store: Arc<Store>,
    root: Root,
    created: u64,
    labels: Vec<Label>,
    shown: ShownInLedger,
    behalf: Vec<Hop>,
}

impl Release {
    fn open(executor: &StoreExecutor, id: DeliveryId, delivery: &Delivery) -> Result<Self, Failure> {
        let store = (executor.open)(&delivery.space).map_err(|error| failed(&error))?;
        let root = store.root(&delivery.release).map_err(|error| failed(&error))?;
        let shown = ShownInLedger::open(Arc::clone(&executor.ledger), delivery);
        let pushed = store.records().pushed_last(&delivery.app, &delivery.release);
        let created = store.records().first_created(&delivery.app, &delivery.release).unwrap_or_default();
        let mut behalf = delivery.behalf.clone();
        behalf.push(hop(id, delivery, pushed.as_ref().map_or(0, |pushed| pushed.sequence)));
        let labels = store.records().labels(&delivery.app, &delivery.release);
        let shown = shown.map_err(|error| failed(&error))?;
        Ok(Self { store, root, created, labels, shown, behalf })
    }

    /// Returns the job that delivers it, without a monitor.
    fn job<'a>(
        &'a self,
        id: DeliveryId,
        delivery: &'a Delivery,
        root_of: &'a (dyn Fn(&ReleaseId) -> Option<Root> + Sync),
        cancelled: &'a AtomicBool,
    ) -> Job<'a> {
        Job {
            id,
            app: &delivery.app,
            destination: &delivery.destination,
            root: &self.root,
            labels: &self.labels,
            created: self.created,
            user: delivery.user.as_ref(),
            is_current: self.store.records().standing(&delivery.app).current == Some(delivery.release),
            behalf: &self.behalf,
            source: &self.store,
            root_of,
            shown: &self.shown,
            monitor: &Silent,
            cancelled,
        }
    }
}

/// Returns this proxy as a hop of the release's way.
fn hop(id: DeliveryId, delivery: &Delivery, sequence: u64) -> Hop {
    // An older whit wrote down no user.
    let user = delivery.user.clone().unwrap_or_else(|| "unknown".parse().expect("a word"));
    Hop { proxy: id.proxy, user, token: delivery.token, sequence, delivery: Some(id.number) }
}

/// Returns the failure of a delivery that was stopped after it was made, during what follows it.
fn interrupted() -> Failure {
    let reason = "stopped during an action; the copy is complete".to_owned();
    Failure { fault: Fault::Interrupted, reason, retry_after: None }
}

/// Writes notes on a delivery to the log and into its report, and tells how far it is.
struct Watch<'a> {
    delivery: &'a Delivery,
    notes: Mutex<Vec<String>>,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// How far it is, and when that was last reported.
    done: Mutex<(Progress, Instant)>,
}

impl Monitor for Watch<'_> {
    fn advance(&self, _phase: Phase, bytes: u64) {
        let mut done = self.done.lock().unpoisoned();
        let (progress, reported) = &mut *done;
        // A bundle has headers, and what is sent again counts again.
        progress.bytes = progress.bytes.saturating_add(bytes).min(progress.total);
        let now = Instant::now();
        if now.saturating_duration_since(*reported) < PROGRESS_EVERY {
            return;
        }
        *reported = now;
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
