//! Chunks that wait for similar content at the proxy. Chunks after them wait too, to keep the order.

use super::{Action, Agent, Chunks, Error};
use crate::wire::{FromAgent, Sketches};

/// Chunks that are not sent yet.
#[derive(Debug)]
pub(super) struct Pending {
    chunks: Chunks,
    /// True if the proxy is looking for content similar to some of them.
    pub(super) is_looked_for: bool,
}

impl Agent {
    /// Takes the result of an [`Action::Sketch`]: sketches of some of its chunks, if any.
    pub fn sketched(&mut self, chunks: Chunks, sketches: Option<Sketches>) -> Vec<Action> {
        let is_looked_for = sketches.is_some();
        if is_looked_for && self.pending.iter().all(|pending| !pending.is_looked_for) {
            self.round_trips += 1;
        }
        self.pending.push_back(Pending { chunks, is_looked_for });
        let sketches = sketches.map(|sketches| Action::Send(FromAgent::Sketches(sketches)));
        sketches.into_iter().chain(self.release()).collect()
    }

    /// Takes the block sums for the chunks that were looked for first.
    pub(super) fn alike(&mut self) -> Result<Vec<Action>, Error> {
        let block_sums = std::mem::take(&mut self.block_sums);
        let pending = self.pending.iter_mut().find(|pending| pending.is_looked_for);
        let pending = pending.ok_or(Error::OutOfTurn("Alike"))?;
        pending.is_looked_for = false;
        pending.chunks.block_sums.extend(block_sums);
        pending.chunks.block_sums.sort_by_key(|sums| sums.first);
        let actions = self.release();
        self.count_block_sums();
        Ok(actions)
    }

    /// Recounts the bytes of pending block sums; those of chunks being sent are the pipeline's.
    pub(super) fn count_block_sums(&mut self) {
        let pending = self.pending.iter().flat_map(|pending| &pending.chunks.block_sums);
        self.block_sums_bytes = pending.map(|sums| sums.signature.len()).sum();
    }

    /// Sends what no longer waits.
    fn release(&mut self) -> Vec<Action> {
        let waits =
            self.pending.iter().position(|pending| pending.is_looked_for).unwrap_or(self.pending.len());
        self.pending.drain(..waits).map(|pending| Action::SendChunks(pending.chunks)).collect()
    }
}
