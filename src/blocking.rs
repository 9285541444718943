//! Blocking work beside async tasks, each on a thread of its own.
//!
//! Tokio's pool has work wait for a thread in use where the system gives no further one: for ever, where that one waits
//! for the work. Here it fails at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::threads::Error;

/// Work on its thread; a future of what it gives. Where it is dropped, the work goes on.
#[derive(Debug)]
#[must_use = "what the work gives, or that it was never begun, is known by waiting for it"]
pub struct Running<T>(Result<oneshot::Receiver<T>, Option<io::Error>>);

/// Begins `work`; some 30 µs. Where no thread can be started it is dropped, and its [`Running`] says why.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    let (done, result) = oneshot::channel();
    // Nobody may wait for it any more.
    let begun =
        std::thread::Builder::new().name("whit-work".to_owned()).spawn(move || drop(done.send(work())));
    Running(begun.map(|_| result).map_err(Some))
}

impl<T> Future for Running<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(result) => Pin::new(result).poll(context).map_err(|_| Error::Panicked),
            Err(source) => Poll::Ready(Err(source.take().map_or(Error::Panicked, Error::Start))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_work_gives_and_that_it_panicked_is_known() {
        assert_eq!(start(|| 7).await.expect("it ends well"), 7);
        let failed = start(|| assert!(std::env::args().count() == 0, "as it is to")).await;
        assert!(matches!(failed, Err(Error::Panicked)));
    }

    #[tokio::test]
    async fn work_that_is_not_begun_says_so() {
        let mut running = Running::<()>(Err(Some(io::ErrorKind::WouldBlock.into())));
        assert!(matches!((&mut running).await, Err(Error::Start(_))));
    }
}
