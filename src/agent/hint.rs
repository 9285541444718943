//! The proxy's answer to `HintPush`, which threads of a push wait for.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use ground::poison::Unpoisoned as _;
use protocol::wire::PushHint;

/// The question and its answer. Asked at once by an agent that remembers no link, else before the first archive is unpacked that needs
/// it.
#[derive(Debug, Default)]
pub struct Hint {
    state: Mutex<HintState>,
    wanted: Notify,
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

    /// Ends once somebody waits for the answer.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Returns the answer if it came.
    pub fn now(&self) -> Option<PushHint> {
        match *self.state.lock().unpoisoned() {
            HintState::Open => None,
            HintState::Answered(answer) => answer,
        }
    }

    /// Waits for the answer, for at most `patience`. Blocks.
    pub fn wait(&self, patience: Duration) -> Option<PushHint> {
        self.wanted.notify_one();
        let state = self.state.lock().unpoisoned();
        let is_open = |state: &mut HintState| matches!(state, HintState::Open);
        let waited = self.answered.wait_timeout_while(state, patience, is_open);
        match *waited.unpoisoned().0 {
            HintState::Open => None,
            HintState::Answered(answer) => answer,
        }
    }
}
