//! Notices a conversation without progress, even if messages still come.
//!
//! Reads no clock: callers pass the time.

use std::time::{Duration, Instant};

use crate::limits::PROGRESS_BYTES_MIN;

/// Measures the time since the last progress.
#[derive(Debug, Clone)]
pub struct Watch {
    since: Instant,
    /// The progress at that time.
    progress: u64,
    time_max: Duration,
}

impl Watch {
    /// Starts at `now`; without progress the time is over after `time_max`.
    pub fn new(now: Instant, time_max: Duration) -> Self {
        Self { since: now, progress: 0, time_max }
    }

    /// Notes the conversation's progress, in new bytes. Does not count the time from `begin`, when the peer's message had come,
    /// until `now`, as this side was working.
    pub fn hear(&mut self, progress: u64, begin: Instant, now: Instant) {
        if progress >= self.progress + PROGRESS_BYTES_MIN {
            (self.progress, self.since) = (progress, now);
        } else {
            self.since = (self.since + (now - begin)).min(now);
        }
    }

    /// Starts the time again, as this side was working.
    pub fn renew(&mut self, now: Instant) {
        self.since = now;
    }

    /// Returns the time left without progress; none once it is over.
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
