//! Frames made for one pull, while others that are under way may want the same.

use std::sync::{Arc, Mutex};

use super::parcel_cache::ParcelCache;
use ground::poison::Unpoisoned as _;

/// Frames that the pulls of a proxy share. A pull alone makes its own and caches none; when the last of several ends, all go.
#[derive(Debug)]
pub(in crate::proxy) struct FrameCache {
    frames: ParcelCache,
    pulls: Mutex<usize>,
}

impl FrameCache {
    /// Creates an empty one, for as many processors.
    pub fn new(processors: usize) -> Self {
        Self { frames: ParcelCache::new(processors), pulls: Mutex::default() }
    }

    /// Notes that a pull begins.
    pub(super) fn begin(&self) -> SharedFrames<'_> {
        *self.pulls.lock().unpoisoned() += 1;
        SharedFrames(self)
    }
}

/// The frames, for one pull.
#[derive(Debug)]
pub(super) struct SharedFrames<'a>(&'a FrameCache);

impl SharedFrames<'_> {
    /// Returns the frame of that name; makes it where no other pull has.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn payload<E>(
        &self,
        name: impl FnOnce() -> blake3::Hash,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Vec<u8>>, E> {
        if *self.0.pulls.lock().unpoisoned() < 2 {
            return make().map(Arc::new);
        }
        self.0.frames.payload(name(), |_| make())
    }
}

impl Drop for SharedFrames<'_> {
    fn drop(&mut self) {
        let mut pulls = self.0.pulls.lock().unpoisoned();
        *pulls -= 1;
        if *pulls == 0 {
            self.0.frames.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_at_a_time_share_frames_and_one_alone_leaves_nothing() {
        let cache = FrameCache::new(2);
        let name = || blake3::hash(b"a frame");
        let make = |content: u8| move || Ok::<_, ()>(vec![content]);
        let one = cache.begin();
        assert_eq!(*one.payload(name, make(1)).expect("made"), [1]);
        let other = cache.begin();
        assert_eq!(*other.payload(name, make(2)).expect("made"), [2]);
        assert_eq!(*one.payload(name, make(3)).expect("there"), [2]);
        drop((one, other));
        let (one, _other) = (cache.begin(), cache.begin());
        assert_eq!(*one.payload(name, make(4)).expect("made"), [4]);
    }
}
