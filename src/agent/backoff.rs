//! Decides how long an agent goes on trying while the proxy stores nothing new.

use std::time::{Duration, Instant};

use ground::limits::CONNECT_TIME_MAX;

/// The shortest time in which another try is worthwhile.
const TRY_MIN: Duration = Duration::from_secs(1);
/// The wait before the second try; it doubles with each further one, six times.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// Counts the tries since the last progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    deadline: Instant,
    tries: u32,
}

impl Backoff {
    /// Begins now.
    pub fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, tries: 0 }
    }

    /// Returns how long to wait before the next try; none where no time is left for one.
    pub fn wait(&mut self) -> Option<Duration> {
        let left = self.left().checked_sub(TRY_MIN)?;
        let wait = WAIT_MIN * (1 << self.tries.min(6));
        self.tries += 1;
        Some(wait.min(left))
    }

    /// Returns how long the next try may take to connect.
    pub fn connect_time(&self) -> Duration {
        self.left().clamp(TRY_MIN, CONNECT_TIME_MAX)
    }

    /// Moves the deadline by time `spent` on something else.
    pub fn excuse(&mut self, spent: Duration) {
        self.deadline += spent;
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_in_time_for_a_last_try() {
        let mut backoff = Backoff::new(Duration::from_secs(3600));
        let waits: Vec<u128> = (0..9).filter_map(|_| backoff.wait()).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 16_000, 16_000]);
        assert_eq!(backoff.connect_time(), CONNECT_TIME_MAX);
        let mut short = Backoff::new(Duration::from_millis(1200));
        assert!(short.wait().is_some_and(|wait| wait <= Duration::from_millis(200)));
        assert!(short.connect_time() <= Duration::from_millis(1200));
        assert_eq!(Backoff::new(Duration::from_millis(900)).wait(), None);
        assert_eq!(Backoff::new(Duration::ZERO).connect_time(), TRY_MIN);
    }
}
