//! What all pulls together may send, in turns.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use ground::rate::Rate;
use protocol::wire::PullReply;

/// How much of what was not sent lately may be sent at once.
const BURST: Duration = Duration::from_millis(50);

/// Limits what pulls send. Each waits with one message at a time, and they go in the order of their coming: so each pull gets
/// as much as another.
#[derive(Debug)]
pub(in crate::proxy) struct DownloadLimit {
    rate: Option<Rate>,
    /// When the next message may be sent.
    next: Mutex<Instant>,
}

impl DownloadLimit {
    /// Limits to a rate, or not at all.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    /// Waits until a message of `bytes` may be sent. May be cancelled: the turn is then another's.
    pub async fn take(&self, bytes: usize) {
        let Some(Rate { bytes_a_second }) = self.rate else { return };
        let mut next = self.next.lock().await;
        let begin = (*next).max(Instant::now().checked_sub(BURST).unwrap_or(*next));
        sleep_until(begin).await;
        let micros = (bytes as u64).saturating_mul(1_000_000) / bytes_a_second;
        *next = begin + Duration::from_micros(micros);
    }
}

/// Returns the bytes of content that a message carries: the rest is little.
pub(super) fn bytes(reply: &PullReply) -> usize {
    match reply {
        PullReply::Release { root, .. } => root.len(),
        PullReply::Names(bytes) | PullReply::Piece(bytes) => bytes.len(),
        PullReply::Segments(batch) | PullReply::Chunks(batch) => batch.payload.len(),
        PullReply::Thin(batch) => batch.payload.len(),
        PullReply::Outline(_) | PullReply::Executables(_) | PullReply::Parcel(_) | PullReply::Refused(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pulls_share_a_rate_and_each_gets_as_much() {
        let limit = Arc::new(DownloadLimit::new(Some(Rate { bytes_a_second: 1_000_000 })));
        let begin = Instant::now();
        let pull = |bytes: usize| {
            let limit = Arc::clone(&limit);
            tokio::spawn(async move {
                for _ in 0..10 {
                    limit.take(bytes).await;
                }
                begin.elapsed()
            })
        };
        let (one, other) = (pull(100_000), pull(100_000));
        let (one, other) = (one.await.expect("it ends"), other.await.expect("it ends"));
        // 2 MB at 1 MB/s, the last message of each not waited for.
        for elapsed in [one, other] {
            assert!((1.7..2.0).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        let (limit, begin) = (DownloadLimit::new(None), Instant::now());
        limit.take(usize::MAX).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
