//! Leases: the promise, for one push, that every chunk it was called known stays.
//!
//! A push takes its lease before its first question and renews it with every message. The collector
//! waits for the leases that were open when it chose what to remove; a lease that was not renewed for
//! [`LEASE_TIME`] is waited for no longer, and its push checks every chunk again before it commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a lease holds without being renewed: ten times what a silent peer is given.
pub const LEASE_TIME: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    renewed: BTreeMap<u64, Instant>,
}

/// The open leases of a space.
#[derive(Debug, Clone, Default)]
pub struct Leases(Arc<Mutex<Open>>);

/// One open lease; it ends when it is dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    number: u64,
}

impl Leases {
    /// Opens a lease at `now`.
    pub fn open(&self, now: Instant) -> Lease {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = open.next;
        open.next += 1;
        open.renewed.insert(number, now);
        Lease { leases: self.clone(), number }
    }

    /// The numbers of all leases that hold at `now`; those that lapsed end here.
    pub fn holding(&self, now: Instant) -> Vec<u64> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.renewed.retain(|_, renewed| now.duration_since(*renewed) < LEASE_TIME);
        open.renewed.keys().copied().collect()
    }
}

impl Lease {
    /// Renews the lease at `now`; false where it has lapsed: then nothing that was promised holds.
    pub fn renew(&self, now: Instant) -> bool {
        let mut open = self.leases.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.leases.0.lock().unwrap_or_else(PoisonError::into_inner).renewed.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_while_it_is_renewed_and_ends_with_its_push() {
        let leases = Leases::default();
        let begin = Instant::now();
        let lease = leases.open(begin);
        let later = begin + LEASE_TIME / 2;
        assert!(lease.renew(later));
        assert_eq!(leases.holding(later + LEASE_TIME / 2), [0]);
        assert!(!lease.renew(later + LEASE_TIME), "it lapsed");
        assert!(leases.holding(later + LEASE_TIME).is_empty());
        assert!(!lease.renew(later + LEASE_TIME), "a lapsed lease does not come back");
        let other = leases.open(later);
        drop(other);
        assert!(leases.holding(later).is_empty());
    }
}
