//! Notices, at the agent, a push that no longer makes progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::agent::{Error, Result};
use format::record::DeliveryEvent;
use ground::limits::{PROGRESS_BYTES_MIN, WORK_TIME_MAX};
use protocol::wire::PushReply;

/// The shortest and the longest time between two checks.
const CHECK_INTERVAL_MIN: Duration = Duration::from_millis(50);
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Remembers when a push last made progress.
///
/// A proxy may say for a long time that it is at work, but not for ever.
#[derive(Debug)]
pub struct Watchdog {
    /// How long the proxy may owe an answer while nothing moves.
    quiet_max: Duration,
    /// Set once something new was stored.
    stored: Arc<AtomicBool>,
    /// When something new was last said or done.
    news: Instant,
    /// When the proxy last said anything, or bytes last left this side.
    word: Instant,
    /// Bytes that had left this side at `word`.
    sent_bytes: u64,
    /// Messages of content that were sent, and how many of them are stored.
    sent_messages: u64,
    stored_messages: u64,
}

impl Watchdog {
    /// Begins now.
    pub fn new(quiet_max: Duration, stored: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self { quiet_max, stored, news: now, word: now, sent_bytes: 0, sent_messages: 0, stored_messages: 0 }
    }

    /// Notes that something new was done, or that it is not the proxy's turn.
    pub fn progressed(&mut self) {
        (self.news, self.word) = (Instant::now(), Instant::now());
    }

    /// Notes that a message of content is sent.
    pub fn sent_content(&mut self) {
        self.sent_messages += 1;
    }

    /// Notes a reply of the proxy; `deliveries` are the last states that it reported. Returns false if the reply only says
    /// that the proxy is at work.
    pub fn heard(&mut self, reply: &PushReply, deliveries: &[DeliveryEvent]) -> bool {
        self.word = Instant::now();
        let is_new = match reply {
            PushReply::Stored(messages) => {
                // No more is stored than was sent.
                let messages = (*messages).min(self.sent_messages);
                let is_more = messages > std::mem::replace(&mut self.stored_messages, messages);
                self.stored.fetch_or(is_more, Ordering::Relaxed);
                is_more
            }
            PushReply::Delivery(event) => !deliveries.contains(event),
            _ => true,
        };
        if is_new {
            self.news = self.word;
        }
        is_new
    }

    /// Returns how often an agent that has nothing else to do should check.
    pub fn check_interval(&self) -> Duration {
        (self.quiet_max / 4).clamp(CHECK_INTERVAL_MIN, CHECK_INTERVAL_MAX)
    }

    /// Checks that the push makes progress while it is the proxy's turn; this side has sent `sent_bytes` so far.
    ///
    /// # Errors
    /// [`Error::Stalled`].
    pub fn check(&mut self, sent_bytes: u64) -> Result<()> {
        let now = Instant::now();
        if sent_bytes >= self.sent_bytes + PROGRESS_BYTES_MIN {
            // The message that the proxy has to answer is still on its way.
            (self.sent_bytes, self.word) = (sent_bytes, now);
        }
        for (since, limit) in [(self.word, self.quiet_max), (self.news, WORK_TIME_MAX)] {
            if now - since > limit {
                return Err(Error::Stalled(limit.as_secs()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_push_and_what_moves_does_not() {
        let stored = Arc::new(AtomicBool::new(false));
        let mut watchdog = Watchdog::new(Duration::ZERO, Arc::clone(&stored));
        let past =
            Instant::now().checked_sub(Duration::from_secs(1)).expect("a machine that runs for a second");
        watchdog.word = past;
        assert!(matches!(watchdog.check(100), Err(Error::Stalled(0))));
        watchdog.quiet_max = Duration::from_secs(60);
        watchdog.check(100).expect("within its time");
        watchdog.word = past;
        watchdog.check(PROGRESS_BYTES_MIN).expect("it sends");
        assert!(watchdog.word > past);
    }

    #[test]
    fn words_alone_end_a_push_at_last() {
        let stored = Arc::new(AtomicBool::new(false));
        let mut watchdog = Watchdog::new(Duration::from_secs(60), Arc::clone(&stored));
        assert!(!watchdog.heard(&PushReply::Stored(0), &[]));
        assert!(!stored.load(Ordering::Relaxed) && watchdog.news < watchdog.word);
        let Some(past) = watchdog.news.checked_sub(WORK_TIME_MAX) else { return };
        watchdog.news = past;
        assert!(watchdog.check(0).is_err());
        assert!(!watchdog.heard(&PushReply::Stored(1), &[]), "nothing was sent");
        watchdog.sent_content();
        assert!(watchdog.heard(&PushReply::Stored(2), &[]));
        assert!(!watchdog.heard(&PushReply::Stored(3), &[]), "one message was sent");
        assert!(stored.load(Ordering::Relaxed));
        watchdog.check(0).expect("something new was stored");
    }
}
