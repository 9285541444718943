//! What the proxy knows of a push before it comes.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use ground::poison::Unpoisoned as _;
use protocol::wire::PushHint;

/// What the proxy is asked at the beginning of a push by an agent that remembers nothing of the link.
#[derive(Debug, Default)]
pub struct Hint {
    state: Mutex<HintState>,
    answered: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
enum HintState {
    /// The answer is to come.
    #[default]
    Open,
    /// It came, or there is none.
    Answered(Option<PushHint>),
}

impl Hint {
    /// Takes the answer, or that there is none.
    pub fn set(&self, answer: Option<PushHint>) {
        let mut state = self.state.lock().unpoisoned();
        if matches!(*state, HintState::Open) {
            *state = HintState::Answered(answer);
        }
        self.answered.notify_all();
    }

    /// Waits for the answer, for at most `patience`. Blocks.
    pub fn wait(&self, patience: Duration) -> Option<PushHint> {
        let state = self.state.lock().unpoisoned();
        let is_open = |state: &mut HintState| matches!(state, HintState::Open);
        let waited = self.answered.wait_timeout_while(state, patience, is_open);
        match *waited.unpoisoned().0 {
            HintState::Open => None,
            HintState::Answered(answer) => answer,
        }
    }
}
