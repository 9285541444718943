//! When the open spaces are improved: while nobody uses any, once after each use, and later again where that failed.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::improvement::{self, Bounds, UnpackedArchives};
use super::{Shared, taking};
use crate::store::Store;
use ground::ids::{AppName, ReleaseId, SpaceName};
use ground::threads;

/// A minute: the wait after a failure, doubled with each further one ...
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// ... up to an hour, in which a disk may get room.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What is known of the spaces from earlier looks.
#[derive(Debug, Default)]
pub(super) struct Improvements {
    looked: HashMap<SpaceName, Looked>,
    /// What the last run that was interrupted had proven, and its space.
    proven: Option<(SpaceName, UnpackedArchives)>,
}

/// The last look at a space that came to its end.
#[derive(Debug)]
struct Looked {
    /// When the space had been used: nothing new is in it until it is used again.
    used: Instant,
    failures: u32,
    /// After failures: when it is tried again.
    again: Instant,
}

impl Improvements {
    /// Improves the open spaces that need it, as long as nobody uses any.
    pub fn go_on(&mut self, shared: &Shared, after: Duration) {
        // Held one at a time: what is held is not idle.
        let stores: Vec<Weak<Store>> = shared.spaces.opened().iter().map(Arc::downgrade).collect();
        for store in stores {
            let Some(store) = store.upgrade() else { continue };
            let space = store.records().space().clone();
            let Some(used) = shared.spaces.last_used(&space) else { continue };
            let is_idle =
                || !shared.stopping.load(Ordering::Relaxed) && shared.spaces.are_idle(after, &store);
            if !self.is_due(&space, used) || !is_idle() || !store.is_whole() {
                continue;
            }
            let mut proven = match self.proven.take() {
                Some((of, proven)) if of == space => proven,
                _ => UnpackedArchives::default(),
            };
            let is_pending = |app: &AppName, release: &ReleaseId| {
                shared.deliveries.is_pending(&space, release) || shared.targets.needs(&space, app, release)
            };
            let bounds = Bounds { is_idle: &is_idle, is_pending: &is_pending, stopping: &shared.stopping };
            let improved = std::thread::scope(|scope| {
                let work = || {
                    threads::gives_way();
                    improvement::improve(&store, &mut proven, &bounds)
                };
                threads::start(scope, work).map(ScopedJoinHandle::join)
            });
            match improved {
                Ok(Ok(Ok(_))) => self.succeeded(space, used),
                Ok(Ok(Err(taking::Error::Stopping))) => self.proven = Some((space, proven)),
                Ok(Ok(Err(error))) => {
                    let wait = self.failed(space.clone(), used);
                    self.proven = Some((space.clone(), proven));
                    tracing::warn!(%space, %error, ?wait, "stored archives were not unpacked; it is tried again later");
                }
                Ok(Err(_)) => {
                    let wait = self.failed(space.clone(), used);
                    tracing::error!(%space, ?wait, "unpacking stored archives panicked; it is tried again later");
                }
                Err(error) => {
                    let wait = self.failed(space.clone(), used);
                    tracing::warn!(%space, %error, ?wait, "stored archives were not unpacked; it is tried again later");
                }
            }
        }
    }

    /// Returns whether a space that was last used then may have something to improve, and is not left alone after a failure.
    fn is_due(&self, space: &SpaceName, used: Instant) -> bool {
        self.looked.get(space).is_none_or(|looked| match looked.failures {
            0 => looked.used != used,
            _ => looked.again <= Instant::now(),
        })
    }

    fn succeeded(&mut self, space: SpaceName, used: Instant) {
        self.looked.insert(space, Looked { used, failures: 0, again: used });
    }

    /// Returns the wait until the next try.
    fn failed(&mut self, space: SpaceName, used: Instant) -> Duration {
        let failures = self.looked.get(&space).map_or(0, |looked| looked.failures);
        let wait = AGAIN_AFTER.saturating_mul(1 << failures.min(10)).min(AGAIN_AFTER_MAX);
        self.looked.insert(space, Looked { used, failures: failures + 1, again: Instant::now() + wait });
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_is_looked_at_once_after_each_use_and_seldom_after_failures() {
        let (mut improvements, used) = (Improvements::default(), Instant::now());
        let space: SpaceName = "space".parse().expect("a name");
        assert!(improvements.is_due(&space, used));
        improvements.succeeded(space.clone(), used);
        assert!(!improvements.is_due(&space, used));
        assert!(improvements.is_due(&space, used + Duration::from_secs(1)));
        let waits: Vec<u64> = (0..8).map(|_| improvements.failed(space.clone(), used).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert!(!improvements.is_due(&space, used + Duration::from_secs(1)));
        improvements.succeeded(space.clone(), used);
        assert_eq!(improvements.failed(space, used).as_secs(), 60);
    }
}
