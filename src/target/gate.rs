//! Decides between a switch that begins and somebody who ends the update before it: one of them is first.

use std::sync::Mutex;

use ground::poison::Unpoisoned as _;

/// One update's gate.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The switch began: the update goes on to its end.
    Passed,
    /// The update was ended: nothing is switched any more.
    Ended,
}

impl Gate {
    /// Begins the switch; returns false if the update was ended before.
    pub fn pass(&self) -> bool {
        self.go_to(State::Passed)
    }

    /// Ends the update; returns false if the switch has begun.
    pub fn end(&self) -> bool {
        self.go_to(State::Ended)
    }

    fn go_to(&self, wanted: State) -> bool {
        let mut state = self.0.lock().unpoisoned();
        if *state == State::Open {
            *state = wanted;
        }
        *state == wanted
    }
}
