//! Notices a conversation that no longer gets on, whatever is said in it.
//!
//! Reads no clock: whoever asks says what time it is.

use std::time::{Duration, Instant};

use crate::limits::PROGRESS_BYTES_MIN;

/// Since when there was no progress worth the name.
#[derive(Debug, Clone)]
pub struct Watch {
    since: Instant,
    /// How far it was then.
    progress: u64,
    time_max: Duration,
}

impl Watch {
    /// Begins at `now`; without progress it is over after `time_max`.
    pub fn new(now: Instant, time_max: Duration) -> Self {
        Self { since: now, progress: 0, time_max }
    }

    /// Hears how far the conversation is, in bytes of what was new in it; the time from `begin`, when the peer had said
    /// it, until `now` was this side's.
    pub fn hear(&mut self, progress: u64, begin: Instant, now: Instant) {
        if progress >= self.progress + PROGRESS_BYTES_MIN {
            (self.progress, self.since) = (progress, now);
        } else {
            self.since = (self.since + (now - begin)).min(now);
        }
    }

    /// Begins anew: what took its time was not the peer's.
    pub fn renew(&mut self, now: Instant) {
        self.since = now;
    }

    /// How long it may still go on like this; none once that is over.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.time_max.checked_sub(now - self.since).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PROGRESS_TIME_MAX;

    #[test]
    fn what_only_drips_is_over_and_what_gets_on_is_not() {
        let begin = Instant::now();
        let minute = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        let (mut drips, mut gets_on) =
            (Watch::new(begin, PROGRESS_TIME_MAX), Watch::new(begin, PROGRESS_TIME_MAX));
        for minutes in 0..100 {
            drips.hear(minutes * 100, minute(minutes), minute(minutes));
            gets_on.hear(minutes * 2_000, minute(minutes), minute(minutes));
            assert_eq!(drips.left(minute(minutes)).is_some(), minutes < 10, "{minutes}");
            assert!(gets_on.left(minute(minutes)).is_some(), "{minutes}");
        }
    }

    #[test]
    fn what_this_side_takes_is_not_counted() {
        let begin = Instant::now();
        let minute = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        let mut watch = Watch::new(begin, PROGRESS_TIME_MAX);
        watch.hear(1, minute(9), minute(90));
        assert_eq!(watch.left(minute(90)), Some(Duration::from_secs(60)));
        watch.renew(minute(90));
        assert_eq!(watch.left(minute(90)), Some(PROGRESS_TIME_MAX));
    }
}
