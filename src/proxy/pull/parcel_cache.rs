//! Parcels made for one pull, cached for other machines that pull the same at about the same time.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ground::poison::Unpoisoned as _;

/// 32 MiB: the most bytes of cached payloads.
const CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most payloads, each of which a lookup may compare with its name.
const CACHED_MAX: usize = 1024;
/// The longest wait for a parcel that another pull makes: the slowest takes a fifth of a second.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Parcels that were made, and those under way. Of those who make some, no more compress hard at a time than there are
/// processors.
#[derive(Debug)]
pub(in crate::proxy) struct ParcelCache {
    state: Mutex<State>,
    made: Condvar,
    places: usize,
}

#[derive(Debug, Default)]
struct State {
    held: VecDeque<(blake3::Hash, Arc<Vec<u8>>)>,
    held_bytes: usize,
    under_way: HashSet<blake3::Hash>,
    at_work: usize,
}

/// How much a parcel may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// As much as its link is worth.
    Hard,
    /// Little: all processors are compressing.
    Light,
}

impl ParcelCache {
    /// Creates an empty one, for as many processors.
    pub fn new(processors: usize) -> Self {
        Self { state: Mutex::default(), made: Condvar::new(), places: processors.max(1) }
    }

    /// Returns the parcel of that name; makes it where it is neither cached nor under way.
    ///
    /// # Errors
    /// Those of `make`; who waits for the parcel then makes it again.
    pub(super) fn payload<E>(
        &self,
        name: blake3::Hash,
        make: impl FnOnce(Allowance) -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Vec<u8>>, E> {
        let state = self.state.lock().unpoisoned();
        let (mut state, _) = self
            .made
            .wait_timeout_while(state, WAIT_MAX, |state| state.under_way.contains(&name))
            .unpoisoned();
        if let Some((_, payload)) = state.held.iter().find(|(other, _)| *other == name) {
            return Ok(Arc::clone(payload));
        }
        let allowance = if state.at_work < self.places { Allowance::Hard } else { Allowance::Light };
        state.under_way.insert(name);
        state.at_work += 1;
        drop(state);
        let work = Work { cache: self, name };
        let payload = Arc::new(make(allowance)?);
        work.cache.hold(name, &payload);
        Ok(payload)
    }

    /// Forgets what was made.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock().unpoisoned();
        (state.held, state.held_bytes) = (VecDeque::new(), 0);
    }

    fn hold(&self, name: blake3::Hash, payload: &Arc<Vec<u8>>) {
        let mut state = self.state.lock().unpoisoned();
        state.held_bytes += payload.len();
        state.held.push_back((name, Arc::clone(payload)));
        while state.held_bytes > CACHE_BYTES_MAX || state.held.len() > CACHED_MAX {
            let oldest = state.held.pop_front().map_or(0, |(_, payload)| payload.len());
            state.held_bytes -= oldest;
        }
    }
}

/// A parcel under way. Dropped, others may make it.
struct Work<'a> {
    cache: &'a ParcelCache,
    name: blake3::Hash,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock().unpoisoned();
        state.under_way.remove(&self.name);
        state.at_work -= 1;
        self.cache.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn name(number: usize) -> blake3::Hash {
        blake3::hash(&number.to_le_bytes())
    }

    #[test]
    fn many_pulls_of_one_parcel_make_it_once() {
        let (cache, made) = (ParcelCache::new(2), AtomicUsize::new(0));
        let pull = || {
            let make = |_| {
                made.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(vec![7; 1000])
            };
            assert_eq!(*cache.payload(name(1), make).expect("made"), vec![7; 1000]);
        };
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(pull);
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn no_more_parcels_are_compressed_hard_than_there_are_processors() {
        let cache = ParcelCache::new(1);
        let outer: Result<_, ()> = cache.payload(name(1), |outer| {
            let inner = |inner| Ok::<_, ()>(vec![u8::from(inner == Allowance::Light)]);
            assert_eq!(*cache.payload(name(2), inner)?, [1]);
            Ok(vec![u8::from(outer == Allowance::Hard)])
        });
        assert_eq!(*outer.expect("made"), [1]);
    }

    #[test]
    fn a_parcel_that_failed_is_made_again_and_the_oldest_go() {
        let cache = ParcelCache::new(1);
        assert_eq!(cache.payload(name(0), |_| Err("unreadable")), Err("unreadable"));
        let large = |_| Ok::<_, ()>(vec![0; CACHE_BYTES_MAX / 2]);
        for number in 0..3 {
            cache.payload(name(number), large).expect("made");
        }
        let again = |number| *cache.payload(name(number), |_| Ok::<_, ()>(vec![1])).expect("made") == [1];
        assert!(!again(2) && again(0));
    }
}
