//! Threads, which a system short of memory or of processes does not give, and those that nothing may hold up.
//!
//! [`std::thread::Scope::spawn`] panics where there is no thread to be had, and leaves those waiting that were started.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::faults::{Fault, faulty};

/// The reasons why work on another thread fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system gives no thread.
    #[error("no thread could be started: {0}")]
    Start(#[source] io::Error),
    /// The thread ended in a panic.
    #[error("a thread panicked; the log, or the lines above, say why")]
    Panicked,
}

faulty! {
    Error;
    Self::Start(_) => Fault::Retry,
        "allow more memory or processes (`ulimit -v`, `ulimit -u`, the limits of a container), then try again";
    Self::Panicked => Fault::Bug;
}

thread_local! {
    /// True while this thread runs asynchronous tasks.
    static RUNS_TASKS: Cell<bool> = const { Cell::new(false) };
}

/// Marks a thread as one that runs asynchronous tasks, until it is dropped.
#[derive(Debug)]
#[must_use = "the mark ends with it"]
pub struct RunsTasks {
    before: bool,
    /// It stays on its thread.
    here: PhantomData<*const ()>,
}

/// Marks this thread as one that runs asynchronous tasks: nothing may hold it up.
pub fn runs_tasks() -> RunsTasks {
    RunsTasks { before: RUNS_TASKS.replace(true), here: PhantomData }
}

impl Drop for RunsTasks {
    fn drop(&mut self) {
        RUNS_TASKS.set(self.before);
    }
}

/// Checks that this thread may be held up: it comes before hashing, compressing, and work of the disk.
///
/// # Panics
/// In builds with debug assertions, on a thread that runs asynchronous tasks.
#[track_caller]
pub fn holds_up() {
    debug_assert!(
        !RUNS_TASKS.get(),
        "the thread `{}` runs asynchronous tasks, and work that takes long would hold them up",
        std::thread::current().name().unwrap_or("without a name"),
    );
}

/// 20 KiB: a manifest's root, or a small chunk; to hash it takes some 10 µs.
const HASHED_AT_ONCE: usize = 20 * 1024;

/// As [`holds_up`], where so many bytes are hashed that it takes long.
#[track_caller]
pub fn hashes(bytes: usize) {
    if bytes > HASHED_AT_ONCE {
        holds_up();
    }
}

/// Lets everything else on the machine go before this thread, and before those that it starts.
pub fn gives_way() {
    let lowest = 19;
    // Where it may not be, the thread works as others do.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), lowest);
}

/// Starts one thread.
///
/// # Errors
/// [`Error::Start`].
pub fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    Builder::new().spawn_scoped(scope, work).map_err(Error::Start)
}

/// Starts as many workers as the system allows, one to `count`, which share the work; `worker` creates each.
///
/// # Errors
/// [`Error::Start`]: the system allows none.
pub fn start_workers<'scope, Work: FnOnce() + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    mut worker: impl FnMut() -> Work,
) -> Result<(), Error> {
    start(scope, worker())?;
    for _ in 1..count {
        if start(scope, worker()).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_noticed_on_a_thread_that_runs_tasks_and_on_no_other() {
        let is_noticed = || std::panic::catch_unwind(holds_up).is_err();
        assert!(!is_noticed());
        let tasks = runs_tasks();
        assert_eq!(is_noticed(), cfg!(debug_assertions));
        drop(runs_tasks());
        assert_eq!(is_noticed(), cfg!(debug_assertions), "a mark inside another one ends with it");
        let other = std::thread::spawn(holds_up);
        assert!(other.join().is_ok());
        drop(tasks);
        assert!(!is_noticed());
    }
}
