//! Blocking work beside async tasks, each on a thread of its own.
//!
//! If the system grants no further thread, Tokio's pool queues work until a thread is free, which never happens if that
//! thread waits for the work. Here it fails at once.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use ground::threads::Error;

/// Tells blocking work to end once it is dropped.
#[derive(Debug, Default)]
pub struct CancelOnDrop(Arc<AtomicBool>);

impl CancelOnDrop {
    /// Returns what the work looks at: true once it is to end.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

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

/// Work that ends soon once it is told to: dropping the future waits for that, as long as its time says.
#[derive(Debug)]
#[must_use = "as of other work"]
pub struct Ending<T> {
    /// None once its result was taken.
    running: Option<Running<T>>,
    time: Duration,
}

/// Starts work that ends soon once it is told to, which whoever drops its future does before; `time` bounds the wait then.
pub fn start_ending<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Ending<T> {
    Ending { running: Some(start(work)), time }
}

impl<T> Future for Ending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let running = self.running.as_mut().expect("it is not polled after its end");
        let result = Pin::new(running).poll(context);
        if result.is_ready() {
            self.running = None;
        }
        result
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(wait(running, self.time));
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

/// Waits on this thread until `future` ends, at most for `time`. For futures that others complete: channels and tasks, not
/// timers and sockets.
///
/// Needs no runtime, so that a thread that waits is not in the way of one that ends.
pub fn wait<T>(future: impl Future<Output = T>, time: Duration) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let begin = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        let left = time.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_it_waits_for_or_with_its_time() {
        let (done, mut end) = oneshot::channel();
        assert_eq!(wait(&mut end, Duration::ZERO), None);
        let other = std::thread::spawn(move || done.send(7));
        assert_eq!(wait(end, Duration::from_secs(600)), Some(Ok(7)));
        assert_eq!(other.join().expect("it does not panic"), Ok(()));
    }

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
    async fn dropped_work_that_was_told_to_end_is_waited_for_within_its_time() {
        let (done, ended) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let working = start_ending(Duration::from_secs(600), move || {
            assert!(told.recv().is_err());
            std::thread::sleep(Duration::from_millis(20));
            done.send(()).expect("somebody looks");
        });
        drop(tell);
        drop(working);
        assert!(ended.try_recv().is_ok());
        let (tell, told) = std::sync::mpsc::channel::<()>();
        drop(start_ending(Duration::from_millis(1), move || told.recv()));
        drop(tell);
        assert_eq!(start_ending(Duration::ZERO, || 7).await.expect("it ends well"), 7);
    }

    #[tokio::test]
    async fn work_that_is_not_begun_says_so() {
        let mut running = Running::<()>(Err(Some(io::ErrorKind::WouldBlock.into())));
        assert!(matches!((&mut running).await, Err(Error::Start(_))));
    }
}
