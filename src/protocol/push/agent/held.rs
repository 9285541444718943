//! Chunks that wait for what is like them; what comes after them waits too, so that their order stays.

use super::{Action, Agent, Chunks, Error};
use crate::wire::{FromAgent, Sketches};

/// Chunks that are not sent yet.
#[derive(Debug)]
pub(super) struct Held {
    chunks: Chunks,
    /// Whether the proxy looks for what is like some of them.
    pub(super) is_looked_for: bool,
}

impl Agent {
    /// An [`Action::Sketch`] is done: these are sketches of some of its chunks, if any.
    pub fn sketched(&mut self, chunks: Chunks, sketches: Option<Sketches>) -> Vec<Action> {
        let is_looked_for = sketches.is_some();
        if is_looked_for && self.held.iter().all(|held| !held.is_looked_for) {
            self.round_trips += 1;
        }
        self.held.push_back(Held { chunks, is_looked_for });
        let sketches = sketches.map(|sketches| Action::Send(FromAgent::Sketches(sketches)));
        sketches.into_iter().chain(self.release()).collect()
    }

    /// Takes what was signed for the chunks that were looked for first.
    pub(super) fn alike(&mut self) -> Result<Vec<Action>, Error> {
        let signed = std::mem::take(&mut self.signed);
        let held = self.held.iter_mut().find(|held| held.is_looked_for);
        let held = held.ok_or(Error::OutOfTurn("Alike"))?;
        held.is_looked_for = false;
        held.chunks.signed.extend(signed);
        held.chunks.signed.sort_by_key(|signed| signed.first);
        let actions = self.release();
        self.count_signed();
        Ok(actions)
    }

    /// Counts anew what signatures take that are held: those that are being sent are the feeder's.
    pub(super) fn count_signed(&mut self) {
        let held = self.held.iter().flat_map(|held| &held.chunks.signed);
        self.signed_bytes = held.map(|signed| signed.signature.len()).sum();
    }

    /// Sends what no longer waits.
    fn release(&mut self) -> Vec<Action> {
        let waits = self.held.iter().position(|held| held.is_looked_for).unwrap_or(self.held.len());
        self.held.drain(..waits).map(|held| Action::SendChunks(held.chunks)).collect()
    }
}
