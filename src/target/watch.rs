//! Watches: keeps a directory at what the proxy wants, until it is told to stop.
//!
//! A newer wish ends a fetch, and waits for a switch that has begun. What failed before its switch is tried again, later each time.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::{Error, Result};
use super::gate::Gate;
use super::stream::{self, Route, Task, Wish};
use super::update::Outcome;
use super::watched_directory::Target;
use ground::threads;

/// The wait before a failed update is tried again; it doubles, up to …
const RETRY_MIN: Duration = Duration::from_secs(1);
/// … 5 min.
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// How often to look whether a person has pulled by hand.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches until `stop` counts to 1. An update whose switch has begun goes on to its end, unless `stop` counts to 2: what was begun is
/// then finished at the next start.
///
/// # Errors
/// The proxy refuses the target before it has ever accepted it.
pub async fn watch(target: Arc<Target>, route: Route, stop: watch::Receiver<u32>) -> Result<()> {
    let mut watcher = Watcher { target, stop, retry: None, tries: 0 };
    let wishes = Arc::new(watch::Sender::new(None));
    let mut newest = wishes.subscribe();
    let holding = stream::hold(Arc::clone(&watcher.target), route, wishes);
    let mut holding = Task(tokio::spawn(holding));
    // The proxy hears of what was begun before; what it wants waits until that is finished.
    let watched = match watcher.recover().await {
        Some(()) => watcher.follow(&mut newest, &mut holding).await,
        None => Ok(()),
    };
    watcher.flush().await;
    // It holds the target, and with it the directory's lock.
    if !holding.0.is_finished() {
        holding.0.abort();
        drop((&mut holding.0).await);
    }
    watched
}

struct Watcher {
    target: Arc<Target>,
    stop: watch::Receiver<u32>,
    /// When what failed is tried again.
    retry: Option<Instant>,
    /// Tries in a row that failed.
    tries: u32,
}

impl Watcher {
    /// Finishes what an earlier process had begun, however long that takes; none if it is told to stop meanwhile.
    async fn recover(&mut self) -> Option<()> {
        loop {
            let target = Arc::clone(&self.target);
            let mut recovering = pin!(target.recover());
            let error = loop {
                tokio::select! {
                    recovered = &mut recovering => match recovered {
                        Ok(()) if *self.stop.borrow() > 0 => return None,
                        Ok(()) => {
                            self.tries = 0;
                            return Some(());
                        }
                        Err(error) => break error,
                    },
                    _ = self.stop.changed() => self.hurry(),
                }
            };
            self.fail(None, &error);
            let retry = self.retry.take().unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(retry) => {}
                _ = self.stop.changed() => return None,
            }
        }
    }

    /// Does what is wanted, until it is told to stop.
    async fn follow(
        &mut self,
        newest: &mut watch::Receiver<Option<Wish>>,
        holding: &mut Task<Result<Infallible>>,
    ) -> Result<()> {
        let mut written = self.target.state().written();
        loop {
            let retry = self.retry;
            tokio::select! {
                ended = &mut holding.0 => {
                    return match ended {
                        Ok(Ok(never)) => match never {},
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(threads::Error::Panicked.into()),
                    };
                }
                _ = self.stop.changed() => return Ok(()),
                Ok(()) = newest.changed() => self.tries = 0,
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
                () = sleep(LOOK_EVERY) => {
                    self.flush().await;
                    if self.target.state().written() == written {
                        continue;
                    }
                }
            }
            self.retry = None;
            let wish = newest.borrow_and_update().clone();
            let Some(wish) = wish else { continue };
            if !self.update(&wish, newest).await {
                return Ok(());
            }
            written = self.target.state().written();
        }
    }

    /// Does what is wanted; returns false if it is told to stop meanwhile.
    async fn update(&mut self, wish: &Wish, newest: &mut watch::Receiver<Option<Wish>>) -> bool {
        let gate = Arc::new(Gate::default());
        let target = Arc::clone(&self.target);
        let mut updating = pin!(target.update(&wish.session, &wish.wanted, &gate));
        // True if another release waits for the end of a switch, or the same is wanted once more.
        let (mut waits, mut comes_next) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut updating => break ended,
                Ok(()) = newest.changed(), if !waits => {
                    let release = newest.borrow().as_ref().map(|wish| wish.wanted.record.release);
                    comes_next = true;
                    waits = release != Some(wish.wanted.record.release);
                    if waits && gate.end() {
                        newest.mark_changed();
                        return true;
                    }
                }
                _ = self.stop.changed() => {
                    if gate.end() {
                        return false;
                    }
                    self.hurry();
                }
            }
        };
        if comes_next {
            newest.mark_changed();
        }
        match ended {
            Ok(Outcome::Settled) => self.tries = 0,
            Ok(Outcome::Again) => self.try_again(),
            Err(error) => self.fail(Some(wish), &error),
        }
        *self.stop.borrow() == 0
    }

    /// Writes what could not be written before.
    async fn flush(&self) {
        // Who has the directory now does not keep it for long.
        if let Err(error) = self.target.flush().await
            && !error.is_busy()
        {
            self.target.reports().note(&error.to_string());
        }
    }

    /// Is told to stop while it cannot: says so, and the second time ends what runs.
    fn hurry(&self) {
        if *self.stop.borrow() > 1 {
            self.target.end_soon();
        } else {
            let note =
                "stopping once the release is confirmed, or gone back from; a second signal stops at once";
            self.target.reports().note(note);
        }
    }

    fn fail(&mut self, wish: Option<&Wish>, error: &Error) {
        if error.is_busy() {
            self.retry = Some(Instant::now() + RETRY_MIN);
            return;
        }
        self.target.report_failure(wish.map(|wish| &wish.wanted), error);
        self.try_again();
    }

    fn try_again(&mut self) {
        let wait = stream::wait((RETRY_MIN, RETRY_MAX), self.tries, self.target.instance());
        self.retry = Some(Instant::now() + wait);
        self.tries += 1;
    }
}
