//! Limits the rate at which bytes are sent.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Pieces in which a second's bytes are sent: none delays other messages for long.
const PIECES_PER_SECOND: f64 = 20.0;

/// Spreads bytes over time; without a rate it does nothing.
#[derive(Debug)]
pub struct RateLimit {
    /// Bytes a second.
    rate: Option<f64>,
    next: Instant,
}

impl RateLimit {
    /// Starts; the first bytes need not wait.
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Returns how many bytes to send at a time, at most `most`.
    pub fn piece_bytes(&self, most: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bounded size")]
        let piece = self.rate.map_or(most, |rate| (rate / PIECES_PER_SECOND) as usize);
        piece.clamp(1024, most)
    }

    /// Waits until `bytes` may be sent.
    pub async fn take(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        sleep_until(self.next).await;
        #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
        let time = Duration::from_secs_f64(bytes as f64 / rate);
        self.next = self.next.max(Instant::now()) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_spread_over_the_time_that_they_take() {
        let begin = Instant::now();
        let mut rate_limit = RateLimit::new(Some(100_000.0));
        assert_eq!(rate_limit.piece_bytes(256 * 1024), 5000);
        for _ in 0..21 {
            rate_limit.take(5000).await;
        }
        assert_eq!(begin.elapsed().as_millis(), 1000);
        RateLimit::new(None).take(usize::MAX).await;
    }
}
