//! The targets whose values are to be written.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use ground::ids::{AppName, SpaceName, TargetName};
use ground::poison::Unpoisoned as _;

/// An application of a space.
pub(super) type SpaceApp = (SpaceName, AppName);

/// The targets whose values are to be written.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeSet<(SpaceApp, TargetName)>,
    /// True once what is here is the last.
    ends: bool,
}

impl Dirty {
    /// Adds a target.
    pub fn add(&self, place: SpaceApp, target: TargetName) {
        self.state.lock().unpoisoned().targets.insert((place, target));
        self.changed.notify_one();
    }

    /// Adds targets again that could not be written. At the end there is no other time: each reports again when it connects.
    pub fn put_back(&self, targets: &[(SpaceApp, TargetName)]) {
        let mut state = self.state.lock().unpoisoned();
        if !state.ends {
            state.targets.extend(targets.iter().cloned());
        }
    }

    /// What is here is the last.
    pub fn end(&self) {
        self.state.lock().unpoisoned().ends = true;
        self.changed.notify_one();
    }

    /// Waits for targets; none at the end.
    pub fn take(&self) -> Option<Vec<(SpaceApp, TargetName)>> {
        let state = self.state.lock().unpoisoned();
        let waits = |state: &mut State| state.targets.is_empty() && !state.ends;
        let mut state = self.changed.wait_while(state, waits).unpoisoned();
        let taken = std::mem::take(&mut state.targets);
        (!taken.is_empty()).then(|| taken.into_iter().collect())
    }

    /// Waits before the next round; not at the end.
    pub fn pause(&self, time: Duration) {
        let state = self.state.lock().unpoisoned();
        drop(self.changed.wait_timeout_while(state, time, |state| !state.ends).unpoisoned());
    }
}
