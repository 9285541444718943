//! Threads, which a system short of memory or of processes does not give.
//!
//! [`std::thread::Scope::spawn`] panics where there is no thread to be had, and leaves those waiting that were started.

use std::io;
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
