//! Locks that stay usable after a panic of their holder.

use std::sync::{LockResult, PoisonError};

/// Takes what a lock guards even if a thread panicked while it held the lock.
///
/// A second panic here would hide the first, which is reported where its thread is joined
/// ([`threads`](crate::threads)). What whit guards stays consistent: counters, maps and queues that single calls
/// change; what they say of the disk is verified when it is read.
pub trait Unpoisoned {
    /// The guard, or the guarded value.
    type Inner;

    /// Returns the guard of `lock()`, `read()`, `write()` or `wait()`, poisoned or not.
    fn unpoisoned(self) -> Self::Inner;
}

impl<T> Unpoisoned for LockResult<T> {
    type Inner = T;

    #[expect(clippy::disallowed_methods, reason = "the one place that does it")]
    fn unpoisoned(self) -> T {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_panic_with_a_lock_leaves_the_value_to_others() {
        let mutex = Mutex::new(1);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut value = mutex.lock().unpoisoned();
                *value = 2;
                panic!("on purpose");
            });
            assert!(thread.join().is_err());
        });
        assert!(mutex.is_poisoned());
        assert_eq!(*mutex.lock().unpoisoned(), 2);
    }
}
