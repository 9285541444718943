//! Decides which lines of a log are written, and which are only counted.
//!
//! Of each kind of line, a few are written for each peer and a few dozen for all, in each span of ten seconds; one line for
//! each kind and peer then counts the rest. Reads no clock: callers pass the time.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The lines that are counted together.
const SPAN: Duration = Duration::from_secs(10);
/// The most lines of one kind about one peer in a span.
const LINES_PEER: u32 = 5;
/// The most lines of one kind about all peers in a span.
const LINES_KIND: u32 = 50;
/// The most pairs of kind and peer counted apart in a span, and so the most lines of sums.
const PEERS_MAX: usize = 100;

/// Counts lines that were not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary<K> {
    /// Their kind.
    pub kind: K,
    /// Their peer; none if they name no peer, or if there are too many peers to count apart.
    pub peer: Option<String>,
    /// Their number.
    pub lines: u64,
    /// The time that they cover.
    pub span: Duration,
}

/// Counts of one span.
#[derive(Debug)]
pub struct Tally<K> {
    begin: Instant,
    kinds: HashMap<K, u32>,
    peers: HashMap<(K, Option<String>), Count>,
}

#[derive(Debug, Default)]
struct Count {
    written: u32,
    held_back: u64,
}

impl<K: Eq + Hash + Clone> Tally<K> {
    /// Begins a span.
    pub fn new(now: Instant) -> Self {
        Self { begin: now, kinds: HashMap::new(), peers: HashMap::new() }
    }

    /// Counts a line, and returns whether to write it. Call [`Tally::due`] before.
    pub fn admits(&mut self, kind: &K, peer: Option<&str>) -> bool {
        let of_kind = self.kinds.entry(kind.clone()).or_default();
        let mut key = (kind.clone(), peer.map(str::to_owned));
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&key) {
            key.1 = None;
        }
        // Lines about nobody in particular have no limit but that of their kind.
        let limit = if key.1.is_some() { LINES_PEER } else { LINES_KIND };
        let count = self.peers.entry(key).or_default();
        let admitted = *of_kind < LINES_KIND && count.written < limit;
        *of_kind += u32::from(admitted);
        count.written += u32::from(admitted);
        count.held_back += u64::from(!admitted);
        admitted
    }

    /// Returns the sums of a span that is over, or, at the `end`, of the present one; begins the next span.
    pub fn due(&mut self, now: Instant, end: bool) -> Vec<Summary<K>> {
        let span = now.saturating_duration_since(self.begin);
        if span < SPAN && !end {
            return Vec::new();
        }
        let counts = std::mem::replace(self, Self::new(now)).peers;
        let held_back = counts.into_iter().filter(|(_, count)| count.held_back > 0);
        held_back.map(|((kind, peer), count)| Summary { kind, peer, lines: count.held_back, span }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_sum() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        let written = (0..20_000).filter(|_| tally.admits(&"refused", Some("10.0.0.1"))).count();
        assert_eq!(written, 5);
        assert!(tally.admits(&"refused", Some("10.0.0.2")), "others are heard");
        assert!(tally.admits(&"lost", Some("10.0.0.1")), "and so is what else happens");
        assert!(tally.due(now + Duration::from_secs(9), false).is_empty());
        let peer = Some("10.0.0.1".to_owned());
        let expected = Summary { kind: "refused", peer, lines: 19_995, span: SPAN };
        assert_eq!(tally.due(now + SPAN, false), [expected]);
        assert!(tally.admits(&"refused", Some("10.0.0.1")), "the next span counts from zero");
    }

    #[test]
    fn ten_thousand_addresses_are_no_more_lines_and_no_more_memory() {
        let now = Instant::now();
        let mut tally = Tally::new(now);
        let written =
            (0..10_000).filter(|peer| tally.admits(&"refused", Some(&format!("peer {peer}")))).count();
        assert_eq!(written, 50);
        let summed = tally.due(now, true);
        assert!(summed.len() <= PEERS_MAX);
        assert_eq!(summed.iter().map(|summary| summary.lines).sum::<u64>(), 9_950);
    }
}
