//! Cubic that does not take every lost packet for a full queue.
//!
//! A long link loses packets by itself: at 1 % of loss and 40 ms Cubic keeps 3.6 of 100 Mbit/s. Where a queue
//! overflows, more is lost than that. So a loss counts only when more than a fiftieth of what was sent lately is
//! lost: the threshold of `BBRv2` (Cardwell et al., draft-cardwell-iccrg-bbr-congestion-control-02, `BBRLossThresh`).
//! BBR itself, as quinn has it, dropped half of its packets in a short queue (docs/decisions/0017).

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// One part of this many may be lost without a meaning.
const TOLERATED: u64 = 50;
/// Packets that may be lost besides, so that a few mean nothing at the beginning.
const TOLERATED_PACKETS: u64 = 3;
/// 20 packets of 1,200 B, where RFC 9002 has 10 and Chromium's QUIC 32: the window doubles with each round trip, so that a
/// transfer of some MB ends a round trip sooner. They leave paced, and take 40 ms of a link of 5 Mbit/s; 32 took so long over one
/// of 8 kbit/s that its peer was thought silent (`tests/sim`).
const FIRST_WINDOW: u64 = 20 * 1200;
/// The number of windows remembered.
const WINDOWS: u64 = 4;

/// Makes the controllers of new paths.
#[derive(Debug)]
pub(super) struct Tolerant {
    cubic: Arc<CubicConfig>,
}

impl Tolerant {
    /// Cubic below, with a wider first window.
    pub fn new() -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(FIRST_WINDOW);
        Self { cubic: Arc::new(cubic) }
    }
}

impl ControllerFactory for Tolerant {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(Path { inner, mtu: u64::from(current_mtu), delivered: 0, lost: 0 })
    }
}

/// The controller of one path.
struct Path {
    inner: Box<dyn Controller>,
    mtu: u64,
    /// Bytes that arrived lately.
    delivered: u64,
    /// Bytes that were lost lately.
    lost: u64,
}

impl Path {
    /// Returns whether so much is lost that a queue must be full.
    fn is_congested(&self) -> bool {
        self.lost > (self.delivered + self.lost) / TOLERATED + TOLERATED_PACKETS * self.mtu
    }
}

impl Controller for Path {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.delivered += bytes;
        if self.delivered > WINDOWS * self.window() {
            self.delivered /= 2;
            self.lost /= 2;
        }
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.lost += lost_bytes;
        // A mark of the network's own (no bytes) always counts, and so does a path that carries nothing.
        if lost_bytes == 0 || is_persistent || self.is_congested() {
            (self.delivered, self.lost) = (0, 0);
            self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let inner = self.inner.clone_box();
        Box::new(Self { inner, mtu: self.mtu, delivered: self.delivered, lost: self.lost })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn path() -> Box<dyn Controller> {
        Arc::new(Tolerant::new()).build(Instant::now(), 1200)
    }

    #[test]
    fn a_few_lost_packets_leave_the_window_as_it_is_and_many_do_not() {
        let now = Instant::now();
        let later = now + Duration::from_millis(50);
        let mut path = path();
        let begin = path.window();
        for _ in 0..3 {
            path.on_congestion_event(later, now, false, 1200);
        }
        assert_eq!(path.window(), begin);
        path.on_congestion_event(later, now, false, 2400);
        assert!(path.window() < begin);
    }

    #[test]
    fn a_mark_of_the_network_and_a_dead_path_count_at_once() {
        let now = Instant::now();
        let later = now + Duration::from_millis(50);
        for (persistent, lost) in [(false, 0), (true, 1200)] {
            let mut path = path();
            let begin = path.window();
            path.on_congestion_event(later, now, persistent, lost);
            assert!(path.window() < begin);
        }
    }
}
