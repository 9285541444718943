//! Leases: the promise, for one push or pull, that every chunk that the proxy called known stays.
//!
//! A push takes its lease before its first question, and renews it with each message that makes progress. The collector
//! waits for the leases that were open when it chose what to remove. A lease that was not renewed for [`LEASE_TIME`], or
//! is older than [`LEASE_LIFE_MAX`], has lapsed: the collector no longer waits for it, and its push checks every chunk
//! again before it commits. So no peer holds up a collection for longer than that.
//!
//! Chunks that a push itself has brought stay while it goes on: packs begun since its lease was taken are not collected
//! while it brings [`LEASE_BYTES_MIN`] in each hour, for [`LEASE_BROUGHT_MAX`] at most, as others' garbage stays with them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Result;
use ground::poison::Unpoisoned as _;

/// 5 minutes: how long a lease holds without being renewed; five times what a peer may be silent inside a message.
pub const LEASE_TIME: Duration = Duration::from_secs(300);
/// An hour: how long a lease holds at most. Few pushes take longer; one that does checks its chunks again.
pub const LEASE_LIFE_MAX: Duration = Duration::from_secs(3600);
/// 4 MiB: what a push has to bring in each [`LEASE_LIFE_MAX`] so that its chunks stay; some 1 kB a second.
pub const LEASE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// 55 minutes: for how long its push counts on it, so that a record is written before a collection waits no longer.
const LEASE_COUNTED_ON: Duration = Duration::from_secs(3600 - 300);
/// 7 days: how long what a push brought stays while it goes on: 60 GB at 100 kB a second. Then it is looked at again.
pub const LEASE_BROUGHT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The name of an open lease; none is given twice while the leases live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseNumber(pub u64);

/// The open leases of a space, by one clock for all who ask.
///
/// Where the answer cannot be known, a lease does not hold, and nobody knows which do: a push then checks its chunks again,
/// and a collection removes nothing.
pub trait Leases: Send + Sync + Debug {
    /// Opens a lease; `first_pack` is the first pack that its push may add to.
    ///
    /// # Errors
    /// It cannot be noted.
    fn open(&self, first_pack: u32) -> Result<LeaseNumber>;

    /// Renews a lease, as its push made progress; returns false where it has lapsed, or is about to for its age: then the
    /// promise is not to be counted on.
    fn renew(&self, lease: LeaseNumber) -> bool;

    /// Renews a lease, as its push brought `bytes`.
    fn brought(&self, lease: LeaseNumber, bytes: u64);

    /// Returns whether the promise still holds.
    fn holds(&self, lease: LeaseNumber) -> bool;

    /// Ends a lease.
    fn end(&self, lease: LeaseNumber);

    /// Returns all leases that hold; those that lapsed end here.
    ///
    /// # Errors
    /// They cannot be known.
    fn holding(&self) -> Result<Vec<LeaseNumber>>;

    /// Returns the first pack that may hold chunks of pushes that go on; none without such pushes.
    ///
    /// # Errors
    /// It cannot be known.
    fn first_pack(&self) -> Result<Option<u32>>;
}

/// One open lease; it ends when it is dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Arc<dyn Leases>,
    number: LeaseNumber,
}

impl Lease {
    /// Opens a lease; `first_pack` is the first pack that its push may add to.
    ///
    /// # Errors
    /// As [`Leases::open`].
    pub fn open(leases: &Arc<dyn Leases>, first_pack: u32) -> Result<Self> {
        Ok(Self { leases: Arc::clone(leases), number: leases.open(first_pack)? })
    }

    /// Renews the lease; see [`Leases::renew`].
    pub fn renew(&self) -> bool {
        self.leases.renew(self.number)
    }

    /// Renews the lease, as its push brought `bytes`.
    pub fn brought(&self, bytes: u64) {
        self.leases.brought(self.number, bytes);
    }

    /// Returns whether the promise still holds.
    pub fn holds(&self) -> bool {
        self.leases.holds(self.number)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.end(self.number);
    }
}

/// Leases in the memory of the one process that serves the space: a crash ends them all.
#[derive(Debug)]
pub struct InProcess {
    open: Mutex<Open>,
    now: fn() -> Instant,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    leases: BTreeMap<LeaseNumber, Times>,
}

/// When a lease was taken, and when it was last renewed.
#[derive(Debug, Clone, Copy)]
struct Times {
    taken: Instant,
    renewed: Instant,
    /// The pack that was filled, or the next, when the lease was taken.
    first_pack: u32,
    /// When the push had last brought enough, and the bytes that it has brought since.
    brought: (Instant, u64),
}

impl Times {
    /// Returns whether the promise holds.
    fn hold(&self, now: Instant) -> bool {
        now.duration_since(self.renewed) < LEASE_TIME && now.duration_since(self.taken) < LEASE_LIFE_MAX
    }

    /// Returns whether the promise holds for as long as it takes to write a record: so its push never counts on a lease that
    /// a collection begun meanwhile waits for no longer.
    fn hold_on(&self, now: Instant) -> bool {
        self.hold(now) && now.duration_since(self.taken) < LEASE_COUNTED_ON
    }

    /// Returns whether the push's own chunks stay.
    fn goes_on(&self, now: Instant) -> bool {
        now.duration_since(self.renewed) < LEASE_TIME
            && now.duration_since(self.brought.0) < LEASE_LIFE_MAX
            && now.duration_since(self.taken) < LEASE_BROUGHT_MAX
    }
}

impl InProcess {
    /// No leases; they lapse by the clock `now`.
    pub fn new(now: fn() -> Instant) -> Self {
        Self { open: Mutex::default(), now }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unpoisoned()
    }
}

impl Leases for InProcess {
    fn open(&self, first_pack: u32) -> Result<LeaseNumber> {
        let now = (self.now)();
        let mut open = self.lock();
        let number = LeaseNumber(open.next);
        open.next += 1;
        let times = Times { taken: now, renewed: now, first_pack, brought: (now, 0) };
        open.leases.insert(number, times);
        Ok(number)
    }

    fn renew(&self, lease: LeaseNumber) -> bool {
        let now = (self.now)();
        match self.lock().leases.get_mut(&lease) {
            Some(times) if times.hold(now) || times.goes_on(now) => {
                // What lapsed does not come back.
                let holds_on = times.hold_on(now);
                times.renewed = now;
                holds_on
            }
            _ => false,
        }
    }

    fn brought(&self, lease: LeaseNumber, bytes: u64) {
        let now = (self.now)();
        if let Some(times) = self.lock().leases.get_mut(&lease)
            && (times.hold(now) || times.goes_on(now))
        {
            times.renewed = now;
            times.brought.1 += bytes;
            if times.brought.1 >= LEASE_BYTES_MIN && times.goes_on(now) {
                times.brought = (now, 0);
            }
        }
    }

    fn holds(&self, lease: LeaseNumber) -> bool {
        let now = (self.now)();
        self.lock().leases.get(&lease).is_some_and(|times| times.hold(now))
    }

    fn end(&self, lease: LeaseNumber) {
        self.lock().leases.remove(&lease);
    }

    fn holding(&self) -> Result<Vec<LeaseNumber>> {
        let now = (self.now)();
        let mut open = self.lock();
        open.leases.retain(|_, times| times.hold(now) || times.goes_on(now));
        Ok(open.leases.iter().filter(|(_, times)| times.hold(now)).map(|(number, _)| *number).collect())
    }

    fn first_pack(&self) -> Result<Option<u32>> {
        let now = (self.now)();
        let open = self.lock();
        Ok(open.leases.values().filter(|times| times.goes_on(now)).map(|times| times.first_pack).min())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    fn leases() -> Arc<dyn Leases> {
        Arc::new(InProcess::new(|| NOW.get()))
    }

    fn open(leases: &Arc<dyn Leases>, first_pack: u32) -> Lease {
        Lease::open(leases, first_pack).expect("memory")
    }

    fn holding(leases: &Arc<dyn Leases>) -> Vec<u64> {
        leases.holding().expect("memory").into_iter().map(|LeaseNumber(number)| number).collect()
    }

    fn first_pack(leases: &Arc<dyn Leases>) -> Option<u32> {
        leases.first_pack().expect("memory")
    }

    fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    #[test]
    fn a_lease_holds_while_it_is_renewed_and_ends_with_its_push() {
        let leases = leases();
        let lease = open(&leases, 7);
        pass(LEASE_TIME / 2);
        assert!(lease.renew());
        pass(LEASE_TIME / 2);
        assert_eq!(holding(&leases), [0]);
        pass(LEASE_TIME / 2);
        assert!(!lease.renew(), "it lapsed");
        assert!(holding(&leases).is_empty());
        assert!(!lease.renew(), "a lapsed lease does not come back");
        let other = open(&leases, 7);
        assert_eq!(holding(&leases), [1]);
        drop(other);
        assert!(holding(&leases).is_empty());
    }

    #[test]
    fn no_lease_holds_for_longer_than_its_life_however_often_it_is_renewed() {
        let leases = leases();
        let lease = open(&leases, 7);
        let begin = NOW.get();
        while NOW.get() - begin < LEASE_LIFE_MAX {
            assert!(lease.holds() && holding(&leases) == [0]);
            // Its push sees the end coming before a collection does.
            assert_eq!(lease.renew(), NOW.get() - begin < LEASE_COUNTED_ON);
            pass(LEASE_TIME / 3);
        }
        assert!(!lease.holds() && !lease.renew() && holding(&leases).is_empty());
    }

    #[test]
    fn what_a_push_brought_stays_while_it_goes_on_and_a_trickle_is_not_enough() {
        let leases = leases();
        let (push, trickle) = (open(&leases, 7), open(&leases, 3));
        for _ in 0..100 {
            assert!(first_pack(&leases).is_some());
            pass(LEASE_TIME / 2);
            push.brought(LEASE_BYTES_MIN / 8);
            trickle.brought(1);
        }
        assert!(holding(&leases).is_empty() && !push.renew(), "no promise holds for so long");
        assert_eq!(first_pack(&leases), Some(7));
        pass(LEASE_TIME);
        assert_eq!(first_pack(&leases), None);
    }

    #[test]
    fn no_push_keeps_what_others_leave_for_more_than_a_week() {
        let leases = leases();
        let (push, begin) = (open(&leases, 7), NOW.get());
        while NOW.get() - begin < LEASE_BROUGHT_MAX {
            assert_eq!(first_pack(&leases), Some(7));
            pass(LEASE_TIME / 2);
            push.brought(LEASE_BYTES_MIN);
        }
        assert_eq!(first_pack(&leases), None);
    }
}
