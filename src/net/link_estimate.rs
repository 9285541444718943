//! Estimates a link's rate and round trip: before anything was sent, and while it carries content.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::link::Connection;
use protocol::wire::LinkSeen;

/// Round trips below this are those of a local network.
pub const LOCAL_TRIP: Duration = Duration::from_millis(1);
/// 800 Mbit/s: a local network. A new connection's window says nothing yet, and compressing hard until it does would delay
/// a fast link.
pub const LOCAL_RATE: f64 = 100e6;
/// 50 Mbit/s: 36 MB of a changed `.tgz` take 0.2 s of both sides to be compared with the one before, which saves 0 to 8 % of them.
const FAST_RATE: f64 = 50e6 / 8.0;
/// 10 Gbit/s: loopback, over which bytes cost next to nothing.
const LOOPBACK_RATE: f64 = 1.25e9;
/// 128 KiB: before that much was sent, a long round trip or a lost packet says nothing about the rate.
const TELLING_BYTES: u64 = 128 * 1024;
/// A round trip of this many first ones waits in a queue: the link is full.
const QUEUED_TRIPS: u32 = 2;
/// The same for short round trips, whose length a busy host changes.
const QUEUED_MIN: Duration = Duration::from_millis(5);

/// Where an estimate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The user says so.
    Told,
    /// Links of such a round trip usually carry that.
    Assumed,
    /// An earlier push to this proxy filled the link; from here, or the proxy says so.
    Remembered,
    /// This push fills the link.
    Measured,
}

/// A link's rate and round trip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LinkEstimate {
    /// Bytes a second.
    pub rate: f64,
    /// Seconds.
    pub round_trip: f64,
    /// Where the rate comes from.
    pub origin: Origin,
}

impl LinkEstimate {
    /// Returns the usual rate of a link with this round trip.
    ///
    /// Only the distance is known: below a millisecond a local network, below 10 ms the same city or region of a cloud, below
    /// 35 ms the same country, often from an office or a home; beyond, whatever else. The guesses are low for their classes, as
    /// compressing a little too hard delays a fast link less than sending too much delays a slow one; but none is so low
    /// that archives would be unpacked by a guess, which may take a hundred times as long as sending them.
    pub fn assumed(round_trip: Duration) -> Self {
        let rate = match round_trip {
            trip if trip < LOCAL_TRIP => LOCAL_RATE,
            trip if trip < Duration::from_millis(10) => 300e6 / 8.0,
            trip if trip < Duration::from_millis(35) => 100e6 / 8.0,
            _ => 20e6 / 8.0,
        };
        Self { rate, round_trip: round_trip.as_secs_f64(), origin: Origin::Assumed }
    }

    /// Returns whether what rarely saves bytes takes longer than they would.
    pub fn is_fast(&self) -> bool {
        self.rate >= FAST_RATE
    }

    /// Returns whether an estimate that was made with another round trip is of the same way: not if a machine has moved.
    pub fn is_of(&self, round_trip: Duration) -> bool {
        let now = round_trip.as_secs_f64();
        let slack = QUEUED_MIN.as_secs_f64();
        self.round_trip < now * 2.0 + slack && now < self.round_trip * 2.0 + slack
    }
}

/// What the proxy says of a link was measured by another push.
impl From<LinkSeen> for LinkEstimate {
    fn from(LinkSeen { rate, round_trip }: LinkSeen) -> Self {
        let rate = f64::from(rate.clamp(1, u32::MAX)) * 1000.0;
        Self { rate, round_trip: f64::from(round_trip) / 1e6, origin: Origin::Remembered }
    }
}

impl LinkEstimate {
    /// Returns what the proxy may tell others: only what was measured, and not of a local network.
    pub fn seen(&self) -> Option<LinkSeen> {
        let is_telling = self.origin == Origin::Measured && self.round_trip >= LOCAL_TRIP.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        is_telling.then(|| LinkSeen {
            rate: (self.rate / 1000.0) as u32,
            round_trip: (self.round_trip * 1e6) as u32,
        })
    }
}

/// What a connection counts, for an estimate.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Bytes that may be under way.
    pub congestion_window: u64,
    /// How often the window shrank.
    pub congestion_events: u64,
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// The round trip of the handshake.
    pub first_trip: Duration,
    /// True if the peer has a loopback address.
    pub is_loopback: bool,
}

impl Reading {
    /// Reads a connection's counters; `first_trip` is the round trip of its handshake.
    pub fn of(connection: &Connection, first_trip: Duration) -> Self {
        let counters = connection.counters();
        Self {
            sent_bytes: counters.sent_bytes,
            congestion_window: counters.congestion_window,
            congestion_events: counters.congestion_events,
            round_trip: counters.rtt,
            first_trip,
            is_loopback: connection.is_loopback(),
        }
    }

    /// Returns the congestion window a round trip, in bytes a second.
    pub fn rate(&self) -> f64 {
        // A congestion window is far below 2^52 bytes.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let window = self.congestion_window as f64;
        window / self.round_trip.as_secs_f64().max(1e-6)
    }

    /// Returns whether the link has been full: the window is then what it carries, before only what was needed of it.
    pub fn is_full(&self) -> bool {
        let queued = (self.first_trip * QUEUED_TRIPS).max(self.first_trip + QUEUED_MIN);
        self.sent_bytes >= TELLING_BYTES && (self.congestion_events > 0 || self.round_trip > queued)
    }

    /// Returns the estimate: `before` at least until the link is full; over loopback 10 Gbit/s at least.
    pub fn estimate(&self, before: LinkEstimate) -> LinkEstimate {
        let measured = self.rate();
        let round_trip = self.first_trip.as_secs_f64();
        if self.is_loopback {
            LinkEstimate { rate: measured.max(LOOPBACK_RATE), round_trip, origin: Origin::Measured }
        } else if self.is_full() || measured > before.rate {
            LinkEstimate { rate: measured, round_trip, origin: Origin::Measured }
        } else {
            LinkEstimate { round_trip, ..before }
        }
    }
}

/// A link whose rate is told, or estimated at each use.
#[derive(Clone)]
pub struct Link(Arc<dyn Fn() -> LinkEstimate + Send + Sync>);

impl Link {
    /// Creates one whose rate in bytes a second is told.
    pub fn told(rate: f64, round_trip: Duration) -> Self {
        let told = LinkEstimate { rate, round_trip: round_trip.as_secs_f64(), origin: Origin::Told };
        Self::estimated(move || told)
    }

    /// Creates one that `estimate` knows.
    pub fn estimated(estimate: impl Fn() -> LinkEstimate + Send + Sync + 'static) -> Self {
        Self(Arc::new(estimate))
    }

    /// Creates one of which a connection, opened just now, says all that is known.
    pub fn of(connection: &Connection) -> Self {
        let (connection, first_trip) = (connection.clone(), connection.counters().rtt);
        let assumed = LinkEstimate::assumed(first_trip);
        Self::estimated(move || Reading::of(&connection, first_trip).estimate(assumed))
    }

    /// Returns the estimate of now.
    pub fn now(&self) -> LinkEstimate {
        (self.0)()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:?})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(20);

    fn reading(sent_bytes: u64, congestion_window: u64) -> Reading {
        Reading {
            sent_bytes,
            congestion_window,
            congestion_events: 0,
            round_trip: TRIP,
            first_trip: TRIP,
            is_loopback: false,
        }
    }

    #[test]
    fn a_connection_that_has_not_filled_the_link_says_only_that_it_carries_more() {
        let before = LinkEstimate::assumed(TRIP);
        assert_eq!(reading(10_000, 12_000).estimate(before), before);
        let measured = |rate| LinkEstimate { rate, origin: Origin::Measured, ..before };
        assert_eq!(reading(50_000_000, 1_000_000).estimate(before), measured(50e6));
        let local = Reading { is_loopback: true, ..reading(10_000, 12_000) };
        assert_eq!(local.estimate(before), measured(LOOPBACK_RATE));
    }

    #[test]
    fn a_full_link_says_what_it_carries() {
        let before = LinkEstimate::assumed(TRIP);
        let lost = Reading { congestion_events: 1, ..reading(1_000_000, 12_000) };
        let measured = LinkEstimate { rate: 600e3, origin: Origin::Measured, ..before };
        assert_eq!(lost.estimate(before), measured);
        let queued = Reading { round_trip: 3 * TRIP, ..reading(1_000_000, 36_000) };
        assert_eq!(queued.estimate(before), measured);
        let early = Reading { sent_bytes: 1000, ..queued };
        assert_eq!(early.estimate(before), before);
    }

    #[test]
    fn only_what_was_measured_of_a_link_that_is_not_local_is_told_to_others() {
        let assumed = LinkEstimate::assumed(TRIP);
        let measured = LinkEstimate { rate: 625e3, origin: Origin::Measured, ..assumed };
        let local = LinkEstimate { round_trip: 0.0002, ..measured };
        assert!(assumed.seen().is_none() && local.seen().is_none());
        let told = LinkEstimate::from(measured.seen().expect("told"));
        assert_eq!(told, LinkEstimate { origin: Origin::Remembered, ..measured });
    }

    #[test]
    fn an_estimate_is_of_the_same_way_while_the_round_trip_is() {
        let estimate = LinkEstimate::assumed(TRIP);
        assert!(estimate.is_of(TRIP) && estimate.is_of(TRIP * 3 / 2));
        assert!(!estimate.is_of(TRIP * 4) && !estimate.is_of(Duration::ZERO));
    }
}
