//! Fair shares of a limited resource among users.
//!
//! Nobody takes more than what is left for others: a user alone comes to half of it, `n` users who want as much as
//! they can get come to `1 / (n + 1)` of it each, and somebody new always finds some (the dynamic thresholds of
//! Choudhury and Hahne, 1998, with a factor of one). There is no list of who is entitled to what.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::poison::Unpoisoned as _;

/// A number of units, and how many of them each user holds.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash + Clone> {
    capacity: u64,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    total: u64,
    by: HashMap<K, u64>,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Makes shares of `capacity` units, all free.
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self { capacity, taken: Mutex::new(Taken { total: 0, by: HashMap::new() }) })
    }

    /// Takes `units` for `who` until the share is dropped; none where `who` would hold more than is left.
    pub fn take(self: &Arc<Self>, who: &K, units: u64) -> Option<Share<K>> {
        let mut taken = self.taken();
        let (left, own) = (self.capacity - taken.total, taken.by.get(who).copied().unwrap_or_default());
        if own.checked_add(units)? > left {
            return None;
        }
        taken.total += units;
        *taken.by.entry(who.clone()).or_default() += units;
        drop(taken);
        Some(Share { of: Arc::clone(self), who: who.clone(), units })
    }

    /// Returns the number of units that `who` holds.
    pub fn held_by(&self, who: &K) -> u64 {
        self.taken().by.get(who).copied().unwrap_or_default()
    }

    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unpoisoned()
    }
}

/// Some units that somebody holds; given back when dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash + Clone> {
    of: Arc<Shares<K>>,
    who: K,
    units: u64,
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Returns the number of units.
    pub fn units(&self) -> u64 {
        self.units
    }
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.total -= self.units;
        if let Some(own) = taken.by.get_mut(&self.who) {
            *own -= self.units;
            if *own == 0 {
                taken.by.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_many_as_possible(
        shares: &Arc<Shares<&'static str>>,
        who: &'static str,
    ) -> Vec<Share<&'static str>> {
        std::iter::from_fn(|| shares.take(&who, 1)).collect()
    }

    #[test]
    fn who_comes_first_leaves_as_much_as_he_takes() {
        let shares = Shares::new(512);
        let eve = as_many_as_possible(&shares, "eve");
        assert_eq!(eve.len(), 256);
        assert_eq!(as_many_as_possible(&shares, "bob").len(), 128);
        assert_eq!(shares.held_by(&"eve"), 256);
    }

    #[test]
    fn what_is_given_back_others_may_take() {
        let shares = Shares::new(8);
        let eve = as_many_as_possible(&shares, "eve");
        let bob = as_many_as_possible(&shares, "bob");
        assert_eq!((eve.len(), bob.len()), (4, 2));
        drop(eve);
        assert_eq!(as_many_as_possible(&shares, "bob").len(), 2);
        drop(bob);
        assert_eq!(shares.held_by(&"bob"), 0);
        assert!(shares.taken().by.is_empty());
    }

    #[test]
    fn many_who_want_all_each_come_to_the_same_and_leave_as_much() {
        let shares = Shares::new(120);
        let mut taken: HashMap<u32, Vec<Share<u32>>> = HashMap::new();
        // They alternate, so that nobody comes first.
        loop {
            let took = (0..5).filter(|who| {
                let share = shares.take(who, 1);
                let got = share.is_some();
                taken.entry(*who).or_default().extend(share);
                got
            });
            if took.count() == 0 {
                break;
            }
        }
        assert!(taken.values().all(|taken| taken.len() == 20), "{taken:?}");
        assert!(shares.take(&5, 20).is_some());
    }

    #[test]
    fn large_takings_are_measured_like_small_ones() {
        let shares = Shares::new(100);
        assert!(shares.take(&"eve", 51).is_some_and(|share| share.units() == 51));
        let _half = shares.take(&"eve", 50);
        assert!(shares.take(&"eve", 1).is_none());
        assert!(shares.take(&"bob", u64::MAX).is_none());
        assert!(shares.take(&"bob", 50).is_some());
    }
}
