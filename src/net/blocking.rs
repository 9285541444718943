//! Blocking work beside async tasks, each on a thread of its own.
//!
//! If the system grants no further thread, Tokio's pool queues work until a thread is free, which never happens if that
//! thread waits for the work. Here it fails at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use ground::threads::Error;

/// Work on its thread; a future of its result. If it is dropped, the work continues.
#[derive(Debug)]
#[must_use = "what the work gives, or that it was never begun, is known by waiting for it"]
pub struct Running<T>(Result<oneshot::Receiver<T>, Option<io::Error>>);

/// Begins `work`; some 30 µs. Where no thread can be started it is dropped, and its [`Running`] says why.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    begin(work).0
}

fn begin<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (Running<T>, Option<JoinHandle<()>>) {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("whit-work".to_owned());
    // Nobody may wait for it any more.
    match thread.spawn(move || drop(done.send(work()))) {
        Ok(thread) => (Running(Ok(result)), Some(thread)),
        Err(source) => (Running(Err(Some(source))), None),
    }
}

/// Work that must finish: dropping the future blocks until it has.
#[derive(Debug)]
#[must_use = "as of other work"]
pub struct Whole<T> {
    running: Running<T>,
    thread: Option<JoinHandle<()>>,
}

/// Starts work that must finish.
pub fn start_whole<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Whole<T> {
    let (running, thread) = begin(work);
    Whole { running, thread }
}

impl<T> Future for Whole<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.running).poll(context)
    }
}

impl<T> Drop for Whole<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // What it ended with, its future says.
            drop(thread.join());
        }
    }
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
    async fn whole_work_has_ended_where_its_future_is_dropped() {
        let (done, ended) = std::sync::mpsc::channel();
        drop(start_whole(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            done.send(()).expect("somebody looks");
        }));
        assert!(ended.try_recv().is_ok());
    }

    #[tokio::test]
    async fn work_that_is_not_begun_says_so() {
        let mut running = Running::<()>(Err(Some(io::ErrorKind::WouldBlock.into())));
        assert!(matches!((&mut running).await, Err(Error::Start(_))));
    }
}
