//! How long a failed delivery waits for its next try.

use std::time::Duration;

/// The wait after the first failure; it doubles up to [`WAIT_USUAL`].
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait within the first hour, and from then on: a destination that comes back is found soon, one that is gone for
/// a day costs little.
const WAIT_USUAL: Duration = Duration::from_secs(60);
pub(super) const WAIT_MAX: Duration = Duration::from_secs(600);
/// Tries after which the wait grows beyond [`WAIT_USUAL`]: with the waits before, an hour.
const TRIES_USUAL: u32 = 64;
/// Tries before a delivery is given up: with the waits, about a day.
pub(super) const TRIES_MAX: u32 = 204;
/// The longest wait that a service may ask for, and so of all waits.
pub(super) const ASKED_MAX: Duration = Duration::from_secs(3600);
/// A wait is this much shorter or longer, in thousandths, so that deliveries that failed together do not come together.
const JITTER: u64 = 250;

/// The waits of one destination's deliveries.
#[derive(Debug)]
pub(super) struct Backoff {
    random: u64,
}

impl Backoff {
    /// Creates one whose jitter follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: seed }
    }

    /// Returns the wait before the next try of a delivery that has failed `tries` times, at least once.
    ///
    /// A service that asked for a time gets it, up to an hour.
    pub fn wait(&mut self, tries: u32, asked: Option<Duration>) -> Duration {
        let doubled = |from: Duration, times: u32, most: Duration| {
            from.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
        };
        let wait = match tries.checked_sub(TRIES_USUAL) {
            None => doubled(WAIT_MIN, tries.saturating_sub(1), WAIT_USUAL),
            Some(times) => doubled(WAIT_USUAL, times.saturating_add(1), WAIT_MAX),
        };
        let jittered = self.jittered(wait).min(WAIT_MAX);
        asked.map_or(jittered, |asked| asked.clamp(WAIT_MIN, ASKED_MAX))
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        let thousandths = 1000 - JITTER + self.next() % (2 * JITTER + 1);
        wait.saturating_mul(u32::try_from(thousandths).expect("it is small")) / 1000
    }

    /// `SplitMix64`, Steele et al. 2014.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_minute_and_after_an_hour_to_ten() {
        let mut backoff = Backoff::new(1);
        for (tries, seconds) in
            [(1, 1), (2, 2), (6, 32), (7, 60), (63, 60), (64, 120), (66, 480), (67, 600), (204, 600)]
        {
            for _ in 0..100 {
                let wait = backoff.wait(tries, None);
                let usual = Duration::from_secs(seconds);
                assert!(wait >= usual * 3 / 4 && wait <= (usual * 5 / 4).min(WAIT_MAX), "{tries}: {wait:?}");
            }
        }
    }

    #[test]
    fn all_tries_together_take_about_a_day() {
        let mut backoff = Backoff::new(2);
        let day: Duration = (1..=TRIES_MAX).map(|tries| backoff.wait(tries, None)).sum();
        assert!((20..=26).contains(&(day.as_secs() / 3600)), "{day:?}");
    }

    #[test]
    fn equal_seeds_give_equal_waits_and_others_do_not() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (1..20).map(|tries| backoff.wait(tries, None)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }

    #[test]
    fn a_service_gets_the_time_that_it_asks_for_up_to_an_hour() {
        let mut backoff = Backoff::new(3);
        for (asked, seconds) in [(0, 1), (30, 30), (3600, 3600), (86_400, 3600)] {
            let wait = backoff.wait(5, Some(Duration::from_secs(asked)));
            assert_eq!(wait, Duration::from_secs(seconds));
        }
    }
}
