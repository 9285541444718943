//! Makes deliveries from the stores of a proxy's spaces.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::destination::{Destination, Job};
use super::pending::Delivery;
use super::shown_log::ShownInLedger;
use super::worker::Executor;
use crate::ledger::Ledger;
use crate::store::{self, Store};
use format::record::DeliveryReport;
use ground::faults::{Fault, Faulty};
use ground::ids::{DeliveryId, ReleaseId, SpaceName};
use ground::monitor::Monitor;
use ground::poison::Unpoisoned as _;
use protocol::wire::Refusal;

/// The most notes in a report; the log has all.
const NOTES_MAX: usize = 10;

/// Opens the store of a space.
type Open = dyn Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync;

/// Delivers releases from the stores of spaces.
pub struct StoreExecutor {
    open: Box<Open>,
    ledger: Arc<dyn Ledger>,
    /// The first bytes of the proxy's fingerprint.
    proxy: [u8; 4],
}

impl StoreExecutor {
    /// Creates an executor of the proxy whose fingerprint begins with `proxy`; it opens stores by `open`.
    pub fn new(
        open: impl Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync + 'static,
        ledger: Arc<dyn Ledger>,
        proxy: [u8; 4],
    ) -> Self {
        Self { open: Box::new(open), ledger, proxy }
    }
}

impl Executor for StoreExecutor {
    fn deliver(
        &self,
        number: u64,
        delivery: &Delivery,
        destination: &dyn Destination,
        cancelled: &AtomicBool,
    ) -> Result<DeliveryReport, (Fault, String)> {
        let failed = |error: &dyn Faulty| (error.fault(), Refusal::of(error).text);
        let store = (self.open)(&delivery.space).map_err(|error| failed(&error))?;
        let root = store.root(&delivery.release).map_err(|error| failed(&error))?;
        let previous = |release: &ReleaseId| store.root(release).ok();
        let notes = Notes { delivery, notes: Mutex::default() };
        let shown =
            ShownInLedger::open(Arc::clone(&self.ledger), delivery).map_err(|error| failed(&error))?;
        let pushed = store.records().pushed_last(&delivery.app, &delivery.release);
        let job = Job {
            id: DeliveryId { proxy: self.proxy, number },
            app: &delivery.app,
            root: &root,
            labels: pushed.as_ref().map_or(&[], |pushed| &pushed.labels),
            created: pushed.as_ref().map_or(0, |pushed| pushed.created),
            user: delivery.user.as_ref(),
            source: store.as_ref(),
            root_of: &previous,
            shown: &shown,
            monitor: &notes,
            cancelled,
        };
        let begun = Instant::now();
        shown.begin(delivery.release, number, destination.rules()).map_err(|error| failed(&error))?;
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
                    notes: notes.notes.into_inner().unpoisoned(),
                })
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Writes notes on a delivery to the log and into its report.
struct Notes<'a> {
    delivery: &'a Delivery,
    notes: Mutex<Vec<String>>,
}

impl Monitor for Notes<'_> {
    fn note(&self, text: &str) {
        let Delivery { destination, app, .. } = self.delivery;
        tracing::warn!(%destination, %app, "{text}");
        let mut notes = self.notes.lock().unpoisoned();
        if notes.len() < NOTES_MAX {
            notes.push(text.to_owned());
        }
    }
}
