//! Strangers: bounds the connections whose agent has not shown a good token, and chooses which one gives way.
//!
//! Anybody who sends a datagram can open one, so all of them together must cost little. Beyond the bound, a new
//! stranger takes the place of the oldest one of the address that has the most. So an address that opens thousands
//! takes places only from itself, and the newest is the last to go. Addresses that have lately shown a good token come
//! last, as long as they have few strangers.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::VarInt;
use tokio::task::AbortHandle;

use ground::faults::Fault;
use ground::limits::{ADDRESSES_KNOWN_MAX, STRANGERS_KNOWN_MAX};
use ground::poison::Unpoisoned as _;

/// The reason given to an agent that gives way.
const GIVES_WAY: &str = "too many clients are connected without a token";

/// The unit of counting: an IPv4 address, or the /64 that a host is given of IPv6 (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Origin(IpAddr);

impl Origin {
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Ends a stranger's connection, at whatever stage it is.
#[derive(Debug)]
enum Hold {
    /// There is nothing to end yet.
    Coming,
    /// The task that shakes hands.
    Handshake(AbortHandle),
    /// The connection.
    Connection(quinn::Connection),
}

impl Hold {
    fn end(self, fault: Fault, text: &str) {
        match self {
            Self::Coming => {}
            Self::Handshake(task) => task.abort(),
            Self::Connection(connection) => {
                connection.close(VarInt::from_u32(fault.code()), text.as_bytes());
            }
        }
    }
}

/// All strangers of a listener.
#[derive(Debug)]
pub(super) struct Strangers {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// The strangers, in the order in which they came.
    all: BTreeMap<u64, (Origin, Hold)>,
    by_origin: HashMap<Origin, usize>,
    /// Addresses that have shown a good token, with the number of strangers by then.
    known: HashMap<Origin, u64>,
}

impl Inner {
    fn remove(&mut self, number: u64) -> Option<Hold> {
        let (origin, hold) = self.all.remove(&number)?;
        if let Some(count) = self.by_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&origin);
            }
        }
        Some(hold)
    }

    /// Chooses the oldest of the origin that has the most, unknown origins first. One that has many counts as unknown,
    /// as a single token would else keep out all who are new.
    fn first_to_go(&self) -> Option<u64> {
        let weight = |origin: &Origin| {
            let count = self.by_origin.get(origin).copied().unwrap_or_default();
            (!self.known.contains_key(origin) || count > STRANGERS_KNOWN_MAX, count)
        };
        let heaviest = self.by_origin.keys().map(weight).max()?;
        self.all.iter().find(|(_, (origin, _))| weight(origin) == heaviest).map(|(number, _)| *number)
    }
}

impl Strangers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inner: Mutex::default() })
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.inner().all.len()
    }

    /// Adds a new one; at the bound, another gives way.
    pub fn come(self: &Arc<Self>, origin: Origin) -> Place {
        let mut inner = self.inner();
        let full = inner.all.len() >= self.most;
        let gone = full.then(|| inner.first_to_go()).flatten().and_then(|number| inner.remove(number));
        let number = inner.next;
        inner.next += 1;
        inner.all.insert(number, (origin, Hold::Coming));
        *inner.by_origin.entry(origin).or_default() += 1;
        drop(inner);
        if let Some(gone) = gone {
            gone.end(Fault::Retry, GIVES_WAY);
        }
        Place { strangers: Arc::clone(self), number, origin }
    }

    /// Ends all that are there.
    pub fn end_all(&self, fault: Fault, text: &str) {
        let all = {
            let mut inner = self.inner();
            inner.by_origin.clear();
            std::mem::take(&mut inner.all)
        };
        for (_, hold) in all.into_values() {
            hold.end(fault, text);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unpoisoned()
    }
}

/// The place of one stranger; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    number: u64,
    origin: Origin,
}

impl Place {
    /// Notes the task that shakes hands, unless that is done already.
    pub fn shakes_hands(&self, task: AbortHandle) {
        let mut inner = self.strangers.inner();
        match inner.all.get_mut(&self.number) {
            Some((_, held @ Hold::Coming)) => *held = Hold::Handshake(task),
            Some(_) => {}
            None => {
                drop(inner);
                task.abort();
            }
        }
    }

    /// Notes that the handshake is done.
    pub fn is_connected(&self, connection: &quinn::Connection) {
        let hold = Hold::Connection(connection.clone());
        let mut inner = self.strangers.inner();
        if let Some((_, held)) = inner.all.get_mut(&self.number) {
            *held = hold;
        } else {
            // It has given way already.
            drop(inner);
            hold.end(Fault::Retry, GIVES_WAY);
        }
    }

    /// Notes that the agent has shown a good token; returns false where it has given way already.
    pub fn prove(&self) -> bool {
        let mut inner = self.strangers.inner();
        let was_there = inner.remove(self.number).is_some();
        if !inner.known.contains_key(&self.origin) && inner.known.len() >= ADDRESSES_KNOWN_MAX {
            let oldest = inner.known.iter().min_by_key(|(_, when)| **when).map(|(origin, _)| *origin);
            oldest.and_then(|origin| inner.known.remove(&origin));
        }
        let now = inner.next;
        inner.known.insert(self.origin, now);
        was_there
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.strangers.inner().remove(self.number);
        // Dropping a connection's last handle closes it, which must not happen under the lock.
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_host_counts_as_one_whatever_it_calls_itself() {
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_gives_way() {
        let strangers = Strangers::new(4);
        let honest = strangers.come(origin("10.0.0.1"));
        let crowd: Vec<Place> = (0..20).map(|_| strangers.come(origin("10.0.0.2"))).collect();
        assert_eq!(strangers.count(), 4);
        assert!(honest.prove());
        let left: Vec<bool> = crowd.iter().map(Place::prove).collect();
        assert_eq!(left.iter().filter(|there| **there).count(), 3);
        assert!(left.ends_with(&[true, true, true]));
    }

    #[test]
    fn where_each_has_one_the_newest_stays_and_known_addresses_are_last_to_go() {
        let strangers = Strangers::new(4);
        assert!(strangers.come(origin("10.0.0.1")).prove());
        let known = strangers.come(origin("10.0.0.1"));
        let others: Vec<Place> =
            (10..40).map(|last| strangers.come(origin(&format!("10.0.1.{last}")))).collect();
        assert!(known.prove());
        assert!(others.last().is_some_and(Place::prove));
        assert!(!others[0].prove());
    }

    #[test]
    fn who_has_a_token_keeps_nobody_out_who_is_new() {
        let strangers = Strangers::new(2 * STRANGERS_KNOWN_MAX);
        let eve = || strangers.come(origin("10.0.0.1"));
        assert!(eve().prove());
        let first: Vec<Place> = (0..3 * STRANGERS_KNOWN_MAX).map(|_| eve()).collect();
        let honest = strangers.come(origin("10.0.0.2"));
        let later: Vec<Place> = (0..3 * STRANGERS_KNOWN_MAX).map(|_| eve()).collect();
        assert!(honest.prove(), "it was there when it showed its token");
        assert_eq!(strangers.count(), 2 * STRANGERS_KNOWN_MAX - 1);
        drop((first, later));
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let strangers = Strangers::new(2);
        let first = strangers.come(origin("10.0.0.1"));
        drop(strangers.come(origin("10.0.0.2")));
        drop(strangers.come(origin("10.0.0.3")));
        assert_eq!(strangers.count(), 1);
        assert!(first.prove());
        drop(first);
        assert_eq!(strangers.count(), 0);
        assert!(strangers.inner().by_origin.is_empty());
    }

    #[test]
    fn no_more_addresses_are_remembered_than_may_be() {
        let strangers = Strangers::new(2);
        for number in 0..ADDRESSES_KNOWN_MAX + 10 {
            let [_, _, high, low] = u32::try_from(number).expect("few").to_be_bytes();
            strangers.come(origin(&format!("10.0.{high}.{low}"))).prove();
        }
        assert_eq!(strangers.inner().known.len(), ADDRESSES_KNOWN_MAX);
        assert!(!strangers.inner().known.contains_key(&origin("10.0.0.0")));
    }
}
