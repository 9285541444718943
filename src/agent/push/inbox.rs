//! Reads the proxy's replies in a push as they come, whatever the agent is doing meanwhile.
//!
//! An agent that did not read while it sends would wait for a proxy that waits for it. The number of bytes read and not
//! yet acted on is bounded by what the agent asked for (PROTOCOL 3, *Credit*).

use tokio::task::JoinHandle;

use crate::agent::{Error, Result};
use crate::net::link::{Backlog, Receiver, replies};
use ground::limits::WORK_TIME_MAX;
use protocol::wire::PushReply;

/// The proxy's half of a push.
#[derive(Debug)]
pub struct Inbox {
    backlog: Backlog,
    /// None once the end was reported.
    reader: Option<JoinHandle<Result<()>>>,
}

impl Inbox {
    /// Starts to read.
    pub fn open(receiver: Receiver) -> Self {
        // The watchdog knows when a reply is due.
        let mut receiver = receiver.with_pause(WORK_TIME_MAX);
        let (said, backlog) = replies();
        let reader = tokio::spawn(async move {
            while let Some(reply) = receiver.receive::<PushReply>().await? {
                said.say(reply).map_err(|_| Error::OutOfTurn("more replies than requested"))?;
            }
            Ok(())
        });
        Self { backlog, reader: Some(reader) }
    }

    /// Returns the next reply; none at the end. May be cancelled.
    ///
    /// # Errors
    /// An error of the link, once all earlier replies are taken; a proxy that says more than it was asked.
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
