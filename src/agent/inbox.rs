//! What the proxy says of a push, read as it comes, whatever the agent is at.
//!
//! An agent that read only while it does not send would wait for a proxy that waits for it. What is read and not acted on
//! is bounded by what was asked for (PROTOCOL 3, *Credit*).

use tokio::task::JoinHandle;

use super::{Error, Result};
use crate::limits::WORK_TIME_MAX;
use crate::link::{Backlog, Receiver, replies};
use crate::wire::PushReply;

/// The proxy's half of a push.
#[derive(Debug)]
pub(super) struct Inbox {
    backlog: Backlog,
    /// Gone once its end was told.
    reader: Option<JoinHandle<Result<()>>>,
}

impl Inbox {
    /// Starts to read.
    pub fn open(receiver: Receiver) -> Self {
        // Whoever acts on it knows when a word is due.
        let mut receiver = receiver.with_pause(WORK_TIME_MAX);
        let (said, backlog) = replies();
        let reader = tokio::spawn(async move {
            while let Some(reply) = receiver.receive::<PushReply>().await? {
                said.say(reply).map_err(|_| Error::OutOfTurn("more than was asked for"))?;
            }
            Ok(())
        });
        Self { backlog, reader: Some(reader) }
    }

    /// The next word; none at the end. May be cancelled.
    ///
    /// # Errors
    /// The link's, once all that came before is told; a proxy that says more than it was asked.
    pub async fn next(&mut self) -> Result<Option<PushReply>> {
        if let Some(reply) = self.backlog.next().await {
            return Ok(Some(reply));
        }
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let end = reader.await;
        self.reader = None;
        end.map_err(|_| Error::Ended)?.map(|()| None)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}
