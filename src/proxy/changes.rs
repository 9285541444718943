//! The changes that an agent hears of which follows a list, for as long as its token is good and it is there.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Interval;

use super::current_token::{alive, checks};
use super::granted::Granted;
use super::stopping::{Stopping, stopping};
use crate::net::link::Sender;
use protocol::wire::Refusal;

/// The changes of a list, for one agent.
pub(super) struct Changes<'a, T> {
    granted: &'a Granted,
    source: Receiver<T>,
    /// True if changes were lost that no [`Next::Missed`] has told of.
    missed: bool,
    checks: Interval,
    alive: Interval,
    stops: Stopping,
}

/// What an agent that follows a list is to hear next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// A change.
    Change(T),
    /// The whole list again: it reads more slowly than things change.
    Missed,
    /// That the proxy is there: nothing has changed for [`ALIVE_EVERY`](ground::limits::ALIVE_EVERY).
    Alive,
    /// Nothing: it is gone, or nothing can change any more.
    Over,
}

impl<'a, T: Clone> Changes<'a, T> {
    /// Begins with the next change of `source`.
    pub fn new(granted: &'a Granted, source: Receiver<T>) -> Self {
        let stops = granted.shared.targets.stopping();
        Self { granted, source, missed: false, checks: checks(), alive: alive(), stops }
    }

    /// Waits for what the agent behind `sender` is to hear.
    ///
    /// # Errors
    /// Its token is no longer valid, or the proxy stops: it hears what it has missed from the next one.
    pub async fn next(&mut self, sender: &mut Sender) -> Result<Next<T>, Refusal> {
        if std::mem::take(&mut self.missed) {
            return Ok(Next::Missed);
        }
        loop {
            tokio::select! {
                change = self.source.recv() => return Ok(match change {
                    Ok(change) => Next::Change(change),
                    Err(RecvError::Lagged(_)) => Next::Missed,
                    Err(RecvError::Closed) => Next::Over,
                }),
                _ = self.alive.tick() => return Ok(Next::Alive),
                _ = self.checks.tick() => self.granted.still_holds()?,
                () = self.stops.begun() => return Err(stopping()),
                () = sender.unwanted() => return Ok(Next::Over),
            }
        }
    }

    /// Returns one more change, if there is one already.
    pub fn more(&mut self) -> Option<T> {
        match self.source.try_recv() {
            Ok(change) => Some(change),
            Err(TryRecvError::Lagged(_)) => {
                self.missed = true;
                None
            }
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}
