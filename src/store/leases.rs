//! Leases: the promise, for one push, that every chunk it was called known stays.
//!
//! A push takes its lease before its first question and renews it with every message. The collector
//! waits for the leases that were open when it chose what to remove; a lease that was not renewed for
//! [`LEASE_TIME`] is waited for no longer, and its push checks every chunk again before it commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a lease holds without being renewed: ten times what a silent peer is given.
pub const LEASE_TIME: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    renewed: BTreeMap<u64, Instant>,
}

/// The open leases of a space.
#[derive(Debug, Clone)]
pub struct Leases {
    open: Arc<Mutex<Open>>,
    now: fn() -> Instant,
}

/// One open lease; it ends when it is dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    number: u64,
}

impl Leases {
    /// No leases; they lapse by the clock `now`.
    pub fn new(now: fn() -> Instant) -> Self {
        Self { open: Arc::default(), now }
    }

    /// Opens a lease.
    pub fn open(&self) -> Lease {
        let now = (self.now)();
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.renewed.insert(number, now);
        drop(open);
        Lease { leases: self.clone(), number }
    }

    /// The numbers of all leases that hold; those that lapsed end here.
    pub fn holding(&self) -> Vec<u64> {
        let now = (self.now)();
        let mut open = self.lock();
        open.renewed.retain(|_, renewed| now.duration_since(*renewed) < LEASE_TIME);
        open.renewed.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Renews the lease; false where it has lapsed: then nothing that was promised holds.
    pub fn renew(&self) -> bool {
        let now = (self.leases.now)();
        let mut open = self.leases.lock();
        match open.renewed.get_mut(&self.number) {
            Some(renewed) if now.duration_since(*renewed) < LEASE_TIME => {
                *renewed = now;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().renewed.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<Instant> = Cell::new(Instant::now());
    }

    fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    #[test]
    fn a_lease_holds_while_it_is_renewed_and_ends_with_its_push() {
        let leases = Leases::new(|| NOW.get());
        let lease = leases.open();
        pass(LEASE_TIME / 2);
        assert!(lease.renew());
        pass(LEASE_TIME / 2);
        assert_eq!(leases.holding(), [0]);
        pass(LEASE_TIME / 2);
        assert!(!lease.renew(), "it lapsed");
        assert!(leases.holding().is_empty());
        assert!(!lease.renew(), "a lapsed lease does not come back");
        let other = leases.open();
        assert_eq!(leases.holding(), [1]);
        drop(other);
        assert!(leases.holding().is_empty());
    }
}
