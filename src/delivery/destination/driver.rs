//! Runs requests of asynchronous clients for a worker, which is a thread.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::Error;
use ground::threads;

/// How soon a request ends after its delivery was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A runtime with one thread, started by the first request. It ends with its last clone.
#[derive(Debug, Clone, Default)]
pub struct Driver(Arc<Started>);

#[derive(Debug, Default)]
struct Started(OnceLock<Runtime>);

impl Driver {
    /// Waits for a request; ends it once `cancelled` is set. Call it from a thread that is no runtime's.
    ///
    /// # Errors
    /// The request's, [`Error::Cancelled`], or the thread cannot be started.
    pub fn run<T>(
        &self,
        cancelled: &AtomicBool,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.runtime()?.block_on(async {
            tokio::pin!(request);
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    answer = &mut request => return answer,
                    _ = looks.tick() => if cancelled.load(Ordering::Relaxed) { return Err(Error::Cancelled) },
                }
            }
        })
    }

    /// Starts a request that goes on while its caller does something else.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>, Error> {
        Ok(self.runtime()?.spawn(request))
    }

    fn runtime(&self) -> Result<&Runtime, Error> {
        let started = &self.0.0;
        if let Some(runtime) = started.get() {
            return Ok(runtime);
        }
        let made =
            Builder::new_multi_thread().worker_threads(1).thread_name("whit-requests").enable_all().build();
        let made = made.map_err(threads::Error::Start)?;
        // Another thread may have been faster: this one ends by itself.
        if let Err(second) = started.set(made) {
            second.shutdown_background();
        }
        Ok(started.get().expect("it was just set"))
    }
}

impl Drop for Started {
    /// A runtime must not be dropped where waiting is not allowed, as in an asynchronous task that ends a proxy.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
