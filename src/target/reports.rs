//! Where a target says what it does: the newest word to the proxy, every one to who listens here.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::gate::Gate;
use format::record::Progress;
use format::target::{TargetReport, TargetState};
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;

/// The shortest time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Hears every report and note.
pub trait Listener: Send + Sync {
    /// The target does something else, or has come further.
    fn report(&self, report: &TargetReport);
    /// Something that a person may want to know.
    fn note(&self, text: &str);
}

/// The sending half of reports. Clones share it.
#[derive(Clone)]
pub struct Reports {
    newest: Arc<watch::Sender<Option<TargetReport>>>,
    listener: Arc<dyn Listener>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.newest.borrow().fmt(f)
    }
}

impl Reports {
    /// Begins with no report.
    pub fn new(listener: Arc<dyn Listener>) -> Self {
        Self { newest: Arc::new(watch::Sender::new(None)), listener }
    }

    /// Returns the receiving half.
    pub fn subscribe(&self) -> watch::Receiver<Option<TargetReport>> {
        self.newest.subscribe()
    }

    /// Says what the target does.
    pub fn say(&self, report: &TargetReport) {
        if self.newest.borrow().as_ref() == Some(report) {
            return;
        }
        self.listener.report(report);
        self.newest.send_replace(Some(report.clone()));
    }

    /// Returns what was said last.
    pub fn newest(&self) -> Option<TargetReport> {
        self.newest.borrow().clone()
    }

    /// Tells a person something.
    pub fn note(&self, text: &str) {
        self.listener.note(text);
    }

    /// Returns a monitor that reports how far a fetch is, until it has passed its gate or was ended: `report` says the rest.
    pub fn fetching(&self, report: TargetReport, total: Progress, gate: Arc<Gate>) -> Arc<dyn Monitor> {
        let at = Mutex::new(Fetching { report, progress: total, expected: None, fetched: 0, said: None });
        Arc::new(FetchMonitor { reports: self.clone(), at, gate })
    }
}

/// Notes of what is done to the disk go to who listens.
impl Monitor for Reports {
    fn note(&self, text: &str) {
        self.listener.note(text);
    }
}

struct Fetching {
    report: TargetReport,
    progress: Progress,
    /// Bytes that have to be fetched, as far as that is known.
    expected: Option<u64>,
    fetched: u64,
    said: Option<Instant>,
}

struct FetchMonitor {
    reports: Reports,
    at: Mutex<Fetching>,
    gate: Arc<Gate>,
}

impl Monitor for FetchMonitor {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        let mut at = self.at.lock().unpoisoned();
        match phase {
            Phase::Transfer => at.expected = total,
            Phase::Rebuild => (at.expected, at.fetched) = (Some(0), 0),
            _ => {}
        }
    }

    fn advance(&self, phase: Phase, bytes: u64) {
        if phase != Phase::Transfer || !self.gate.is_open() {
            return;
        }
        let report = {
            let mut at = self.at.lock().unpoisoned();
            at.fetched += bytes;
            if at.said.is_some_and(|said| said.elapsed() < PROGRESS_EVERY) {
                return;
            }
            at.said = Some(Instant::now());
            let total = at.progress.total;
            let left = at.expected.unwrap_or(total).saturating_sub(at.fetched);
            let progress = Progress { bytes: total.saturating_sub(left), ..at.progress };
            TargetReport {
                state: TargetState::Fetching(progress),
                fetched_bytes: at.fetched,
                ..at.report.clone()
            }
        };
        self.reports.say(&report);
    }

    fn note(&self, text: &str) {
        self.reports.note(text);
    }
}
