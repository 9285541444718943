//! Lookups that miss nothing while chunks move between memory and the index.

use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ground::poison::Unpoisoned as _;

/// Tracks changes that move chunks between memory and the index.
#[derive(Debug, Default)]
pub struct Moves {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Locked by a change; a lookup that found nothing meanwhile waits for it.
    lock: RwLock<()>,
}

impl Moves {
    /// Runs a change, one at a time. It must add what it moves before it removes it.
    pub fn change<T>(&self, change: impl FnOnce() -> T) -> T {
        let _alone = self.lock.write().unpoisoned();
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _ended = Ended(&self.ended);
        change()
    }

    /// Repeats `look` until it finds something, or finds nothing while nothing changed. `look` may search memory first and the
    /// index then.
    ///
    /// Looks once if nothing changes; else it waits for the change and looks again.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn look<T, E>(&self, mut look: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
        loop {
            let ended = self.ended.load(Ordering::SeqCst);
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if self.begun.load(Ordering::SeqCst) == ended {
                return Ok(None);
            }
            drop(self.lock.read().unpoisoned());
        }
    }
}

/// Counts a change as ended, also one that panics.
struct Ended<'a>(&'a AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_moves_between_two_looks_is_found() {
        let moves = Moves::default();
        let (in_memory, in_index) = (Cell::new(false), Cell::new(true));
        let looks = Cell::new(0);
        let found = moves.look(|| {
            looks.set(looks.get() + 1);
            if in_memory.get() {
                return Ok::<_, ()>(Some("memory"));
            }
            // After memory was looked at, and before the index is.
            if looks.get() == 1 {
                in_memory.set(true);
                moves.change(|| in_index.set(false));
            }
            Ok(in_index.get().then_some("index"))
        });
        assert_eq!((found, looks.get()), (Ok(Some("memory")), 2));
    }

    #[test]
    fn what_is_nowhere_is_looked_for_once() {
        let (moves, looks) = (Moves::default(), Cell::new(0));
        moves.change(|| ());
        let found = moves.look(|| {
            looks.set(looks.get() + 1);
            Ok::<Option<()>, ()>(None)
        });
        assert_eq!((found, looks.get()), (Ok(None), 1));
    }

    #[test]
    fn who_finds_nothing_during_a_change_waits_for_it() {
        let moves = Moves::default();
        let there = AtomicBool::new(false);
        let (begun, has_begun) = mpsc::channel();
        let (looked, has_looked) = mpsc::channel();
        std::thread::scope(|scope| {
            let (moves, there) = (&moves, &there);
            scope.spawn(move || {
                moves.change(|| {
                    begun.send(()).expect("somebody waits");
                    has_looked.recv().expect("somebody looks");
                    there.store(true, Ordering::SeqCst);
                });
            });
            has_begun.recv().expect("it changes");
            let found = moves.look(|| {
                let found = there.load(Ordering::SeqCst).then_some(());
                looked.send(()).ok();
                Ok::<_, ()>(found)
            });
            assert_eq!(found, Ok(Some(())));
        });
    }
}
