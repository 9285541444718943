//! Decides between a switch that begins and somebody who ends the update before it: one of them is first.

use std::sync::Mutex;

use ground::poison::Unpoisoned as _;

/// One update's gate.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It finishes what was begun before: it goes on until that is done.
    #[default]
    Beginning,
    /// The same, and is to end then.
    Ending,
    /// It fetches.
    Open,
    /// The switch began: the update goes on to its end.
    Passed,
    /// The update was ended: nothing is switched any more.
    Ended,
}

impl Gate {
    /// Begins the fetch; returns false if the update was ended before.
    pub fn open(&self) -> bool {
        self.go(|state| match state {
            State::Beginning => State::Open,
            State::Ending => State::Ended,
            other => other,
        }) == State::Open
    }

    /// Returns whether it fetches.
    pub fn is_open(&self) -> bool {
        *self.0.lock().unpoisoned() == State::Open
    }

    /// Begins the switch; returns false if the update was ended before.
    pub fn pass(&self) -> bool {
        self.go(|state| if state == State::Open { State::Passed } else { state }) == State::Passed
    }

    /// Ends the update; returns false if it goes on: the switch has begun, or it ends once it has finished what was begun before.
    pub fn end(&self) -> bool {
        self.go(|state| match state {
            State::Beginning => State::Ending,
            State::Open => State::Ended,
            other => other,
        }) == State::Ended
    }

    fn go(&self, next: impl FnOnce(State) -> State) -> State {
        let mut state = self.0.lock().unpoisoned();
        *state = next(*state);
        *state
    }
}
