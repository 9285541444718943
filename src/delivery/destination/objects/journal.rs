//! How far a delivery has come: the steps of its plan that are done.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::{Error, ShownLog};
use ground::poison::Unpoisoned as _;

/// The journal is written at most so often: what a crash costs is this time's objects, compared or written again.
const EVERY: Duration = Duration::from_secs(1);

/// Writes down how far a delivery has come.
pub(super) struct Journal<'a> {
    shown: &'a dyn ShownLog,
    state: Mutex<JournalState>,
}

struct JournalState {
    /// All before this one are done.
    done: u64,
    /// Those after it that are done.
    ahead: BTreeSet<u64>,
    written: Instant,
}

impl<'a> Journal<'a> {
    /// Begins after the steps that are done.
    pub fn new(shown: &'a dyn ShownLog, done: u64) -> Self {
        let state = JournalState { done, ahead: BTreeSet::new(), written: Instant::now() };
        Self { shown, state: Mutex::new(state) }
    }

    /// Notes that a step is done.
    ///
    /// # Errors
    /// The ledger's.
    pub fn done(&self, place: u64) -> Result<(), Error> {
        let mut state = self.state.lock().unpoisoned();
        state.ahead.insert(place);
        while state.ahead.first() == Some(&state.done) {
            state.ahead.pop_first();
            state.done += 1;
        }
        if state.written.elapsed() < EVERY {
            return Ok(());
        }
        state.written = Instant::now();
        let (started, done) = (state.ahead.last().map_or(state.done, |last| last + 1), state.done);
        drop(state);
        self.shown.note(started, done)
    }

    /// Writes down that all before `place` are done.
    ///
    /// # Errors
    /// The ledger's.
    pub fn end(&self, place: u64) -> Result<(), Error> {
        self.shown.note(place, place)
    }
}
