//! How many xz and zstd encoders there are at a time, whatever the number of threads.

use std::sync::{Condvar, Mutex, MutexGuard};

use ground::poison::Unpoisoned as _;

/// 4: some 600 MiB for xz at most, on a machine of four or more processors.
const AT_A_TIME: usize = 4;

/// Bounds the threads that make xz streams or zstd frames at a time.
#[derive(Debug)]
pub struct Permits {
    left: Mutex<usize>,
    given_back: Condvar,
}

/// One thread's turn; given back when dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Permits);

impl Default for Permits {
    fn default() -> Self {
        Self { left: Mutex::new(AT_A_TIME), given_back: Condvar::new() }
    }
}

impl Permits {
    /// Waits for a turn. A thread that has one must not wait for another.
    pub fn wait(&self) -> Turn<'_> {
        let left = self.given_back.wait_while(self.lock(), |left| *left == 0);
        *left.unpoisoned() -= 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.left.lock().unpoisoned()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_threads_work_than_there_are_turns() {
        let (turns, working, most) = (Permits::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 * AT_A_TIME {
                scope.spawn(|| {
                    let _turn = turns.wait();
                    most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    working.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= AT_A_TIME);
        assert_eq!(*turns.lock(), AT_A_TIME);
    }
}
