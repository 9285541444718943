//! The queue of a push's replies: at the proxy between the thread that makes them and the task that sends them, at the
//! agent between the task that receives them and the one that acts on them.
//!
//! Adding a reply never waits, so that neither half stops reading while its own messages wait to be read. Credit bounds
//! the queue: an agent may have only so much under way that all answers fit (PROTOCOL 3, *Credit*); more is refused. Of
//! `Stored`, which is a count, the queue holds only the last.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use ground::poison::Unpoisoned as _;
use protocol::transfer::{BeyondCredit, Bounds, Credit};
use protocol::wire::PushReply;

/// The state that both ends share.
#[derive(Debug)]
struct Shared {
    /// Of the replies in the queue.
    credit: Mutex<Credit>,
    /// The number of replies that were taken and dealt with.
    taken: AtomicU64,
    stored: AtomicU64,
    /// True if the count waits in the queue.
    is_stored_due: AtomicBool,
    /// True if this side works on the agent's messages.
    is_at_work: AtomicBool,
}

impl Shared {
    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unpoisoned()
    }
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few wait at a time")]
enum Said {
    Reply(PushReply),
    /// The count of `Stored`, read when it is taken.
    Stored,
}

/// The end that adds replies.
#[derive(Debug, Clone)]
pub struct Replies {
    said: UnboundedSender<Said>,
    shared: Arc<Shared>,
}

/// Shows others the progress of both ends.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Shared>);

/// The end that takes replies.
#[derive(Debug)]
pub struct Backlog {
    said: UnboundedReceiver<Said>,
    shared: Arc<Shared>,
    /// Bytes of the reply that was taken last.
    bytes: usize,
}

/// Makes both ends.
pub fn replies() -> (Replies, Backlog) {
    let (said, heard) = unbounded_channel();
    let shared = Arc::new(Shared {
        credit: Mutex::new(Credit::new(Bounds::PUSH)),
        taken: AtomicU64::new(0),
        stored: AtomicU64::new(0),
        is_stored_due: AtomicBool::new(false),
        is_at_work: AtomicBool::new(false),
    });
    (Replies { said, shared: Arc::clone(&shared) }, Backlog { said: heard, shared, bytes: 0 })
}

impl Replies {
    /// Adds a reply, without waiting. Where the other end is gone, the reply is dropped.
    ///
    /// # Errors
    /// Too many bytes wait in the queue.
    pub fn say(&self, reply: PushReply) -> Result<(), BeyondCredit> {
        if let PushReply::Stored(messages) = reply {
            self.stored(messages);
            return Ok(());
        }
        self.shared.credit().hold(reply.weight())?;
        drop(self.said.send(Said::Reply(reply)));
        Ok(())
    }

    /// Adds `Stored`: how many messages of content are safe.
    pub fn stored(&self, messages: u64) {
        self.shared.stored.store(messages, Ordering::Release);
        if !self.shared.is_stored_due.swap(true, Ordering::AcqRel) {
            drop(self.said.send(Said::Stored));
        }
    }

    /// Returns the bytes that were said and not taken up.
    pub fn memory_bytes(&self) -> usize {
        self.shared.credit().bytes()
    }

    /// Sets whether this side works on the agent's messages: while it does, the agent gets signs of life.
    pub fn at_work(&self, is_at_work: bool) {
        self.shared.is_at_work.store(is_at_work, Ordering::Relaxed);
    }

    /// Returns a view of the progress, which does not keep the queue open.
    pub fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.shared))
    }
}

impl Pulse {
    /// Returns the number of replies that were taken and dealt with, which shows that the agent reads on.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Returns whether somebody works on what the agent said.
    pub fn is_at_work(&self) -> bool {
        self.0.is_at_work.load(Ordering::Relaxed)
    }
}

impl Backlog {
    /// Returns the next reply, and counts the one before as dealt with; none at the end. May be cancelled.
    pub async fn next(&mut self) -> Option<PushReply> {
        self.done();
        let said = self.said.recv().await?;
        Some(self.open(said))
    }

    /// Returns the next reply, if one waits already.
    #[cfg(feature = "testing")]
    pub fn try_next(&mut self) -> Option<PushReply> {
        self.done();
        let said = self.said.try_recv().ok()?;
        Some(self.open(said))
    }

    /// Returns the reply that shows the agent that the proxy is at work, if it is: the same count again.
    pub fn alive(&self) -> Option<PushReply> {
        let is_at_work = self.shared.is_at_work.load(Ordering::Relaxed);
        is_at_work.then(|| PushReply::Stored(self.shared.stored.load(Ordering::Acquire)))
    }

    fn done(&mut self) {
        if self.bytes > 0 {
            self.shared.credit().release(std::mem::take(&mut self.bytes));
            self.shared.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(&mut self, said: Said) -> PushReply {
        match said {
            Said::Reply(reply) => {
                self.bytes = reply.weight();
                reply
            }
            Said::Stored => {
                self.shared.is_stored_due.store(false, Ordering::Release);
                PushReply::Stored(self.shared.stored.load(Ordering::Acquire))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::limits::{ANSWER_SIGNED_MAX, PUSH_STEPS_OPEN};
    use protocol::wire::BlockSums;

    fn signature(bytes: usize) -> PushReply {
        PushReply::BlockSums(BlockSums { region: 0, first: 0, chunks: 1, rule: 0, signature: vec![0; bytes] })
    }

    #[test]
    fn the_answers_to_all_that_may_be_under_way_wait_and_more_is_refused() {
        let (replies, mut backlog) = replies();
        for _ in 0..PUSH_STEPS_OPEN {
            replies.say(signature(ANSWER_SIGNED_MAX)).expect("within the credit");
        }
        assert!((0..PUSH_STEPS_OPEN).any(|_| replies.say(signature(ANSWER_SIGNED_MAX)).is_err()));
        while backlog.try_next().is_some() {}
        // What was refused ends the push.
        assert!(replies.memory_bytes() <= ANSWER_SIGNED_MAX + 64);
    }

    #[test]
    fn of_counts_the_last_is_held() {
        let (replies, mut backlog) = replies();
        for count in 1..=1000 {
            replies.stored(count);
        }
        replies.say(PushReply::Alike).expect("there is room");
        replies.stored(1001);
        let taken = std::iter::from_fn(|| backlog.try_next());
        assert_eq!(taken.collect::<Vec<_>>(), [PushReply::Stored(1001), PushReply::Alike]);
        let pulse = replies.pulse();
        assert_eq!((pulse.taken(), pulse.is_at_work(), backlog.alive()), (1, false, None));
        replies.at_work(true);
        assert_eq!(backlog.alive(), Some(PushReply::Stored(1001)));
    }
}
