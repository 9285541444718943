//! Keeps a directory at the release that the proxy wants, until it is stopped.
//!
//! A newer wanted release ends a fetch, and waits for a switch that has begun. What failed before its switch is tried again, later each time.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::{Error, Result};
use super::gate::Gate;
use super::stream::{self, Newest, Route};
use super::update::Outcome;
use super::watched_directory::Target;
use crate::net::owned_task::OwnedTask;
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
    let newest = Arc::new(watch::Sender::new(None));
    let mut incoming = newest.subscribe();
    let holding = stream::hold(Arc::clone(&watcher.target), route, newest);
    let mut holding = OwnedTask::start(holding);
    // The proxy hears of what was begun before; what it wants waits until that is finished.
    let watched = match watcher.recover().await {
        Some(()) => watcher.follow(&mut incoming, &mut holding).await,
        None => Ok(()),
    };
    watcher.flush().await;
    // It holds the target, and with it the directory's lock.
    holding.end().await;
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
        incoming: &mut watch::Receiver<Option<Newest>>,
        holding: &mut OwnedTask<Result<Infallible>>,
    ) -> Result<()> {
        let mut written = self.target.state().written();
        loop {
            let retry = self.retry;
            tokio::select! {
                ended = &mut *holding => {
                    return match ended {
                        Ok(Ok(never)) => match never {},
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(threads::Error::Panicked.into()),
                    };
                }
                _ = self.stop.changed() => return Ok(()),
                Ok(()) = incoming.changed() => self.tries = 0,
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {}
                () = sleep(LOOK_EVERY) => {
                    self.flush().await;
                    if self.target.state().written() == written {
                        continue;
                    }
                }
            }
            self.retry = None;
            let newest = incoming.borrow_and_update().clone();
            let Some(newest) = newest else { continue };
            if !self.update(&newest, incoming).await {
                return Ok(());
            }
            written = self.target.state().written();
        }
    }

    /// Does what is wanted; returns false if it is told to stop meanwhile.
    async fn update(&mut self, newest: &Newest, incoming: &mut watch::Receiver<Option<Newest>>) -> bool {
        let gate = Arc::new(Gate::default());
        let target = Arc::clone(&self.target);
        let mut updating = pin!(target.update(&newest.session, &newest.wanted, &gate));
        // True if another release waits for the end of a switch, or the same is wanted once more.
        let (mut waits, mut comes_next) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = &mut updating => break ended,
                Ok(()) = incoming.changed(), if !waits => {
                    let release = incoming.borrow().as_ref().map(|newest| newest.wanted.record.release);
                    comes_next = true;
                    waits = release != Some(newest.wanted.record.release);
                    if waits && gate.end() {
                        incoming.mark_changed();
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
            incoming.mark_changed();
        }
        match ended {
            Ok(Outcome::Settled) => self.tries = 0,
            Ok(Outcome::Again) => self.try_again(),
            Err(error) => self.fail(Some(newest), &error),
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

    /// Answers a request to stop that has to wait: says so, and ends what runs at the second one.
    fn hurry(&self) {
        if *self.stop.borrow() > 1 {
            self.target.end_soon();
        } else {
            let note =
                "stopping once the release is confirmed, or gone back from; a second signal stops at once";
            self.target.reports().note(note);
        }
    }

    fn fail(&mut self, newest: Option<&Newest>, error: &Error) {
        if error.is_busy() {
            self.retry = Some(Instant::now() + RETRY_MIN);
            return;
        }
        self.target.report_failure(newest.map(|newest| &newest.wanted), error);
        self.try_again();
    }

    fn try_again(&mut self) {
        let wait = stream::wait((RETRY_MIN, RETRY_MAX), self.tries, self.target.instance());
        self.retry = Some(Instant::now() + wait);
        self.tries += 1;
    }
}
