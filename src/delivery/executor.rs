//! Makes deliveries from the stores of a proxy's spaces.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::destination::{Destination, Job};
use super::pending::Delivery;
use super::worker::Executor;
use crate::store::{self, Store};
use format::record::DeliveryReport;
use ground::faults::{Fault, Faulty};
use ground::ids::{ReleaseId, SpaceName};
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
}

impl StoreExecutor {
    /// Creates an executor that opens stores by `open`.
    pub fn new(open: impl Fn(&SpaceName) -> store::Result<Arc<Store>> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open) }
    }
}

impl Executor for StoreExecutor {
    fn deliver(
        &self,
        delivery: &Delivery,
        destination: &dyn Destination,
        cancelled: &AtomicBool,
    ) -> Result<DeliveryReport, (Fault, String)> {
        let failed = |error: &dyn Faulty| (error.fault(), Refusal::of(error).text);
        let store = (self.open)(&delivery.space).map_err(|error| failed(&error))?;
        let root = store.root(&delivery.release).map_err(|error| failed(&error))?;
        let previous = |release: &ReleaseId| store.root(release).ok();
        let notes = Notes { delivery, notes: Mutex::default() };
        let job = Job {
            app: &delivery.app,
            root: &root,
            source: store.as_ref(),
            root_of: &previous,
            monitor: &notes,
            cancelled,
        };
        match destination.deliver(&job) {
            Ok(done) => {
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
