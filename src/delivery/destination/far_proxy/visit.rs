//! Conversations with another proxy, run for a worker's thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::Error;
use crate::agent::{self, Access, Session};
use crate::delivery::destination::driver::Driver;
use crate::delivery::destination::secret::SecretFrom;
use crate::net::link;
use ground::ids::{AppName, RolloutId};
use ground::monitor::{Monitor, Phase};
use ground::poison::Unpoisoned as _;
use protocol::address::ProxyUrl;
use protocol::wire::{Answer, Operation, ProxyInfo, RolloutStatus};

/// How often the delivery's monitor hears of progress.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How long the other proxy may take to hear that the conversation is over.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);
/// Notes that wait for the monitor; further ones are dropped.
const NOTES_MAX: usize = 64;

/// Makes conversations with one proxy.
pub struct Visits<'a> {
    /// Its address.
    pub url: &'a ProxyUrl,
    /// Where the token is; it is read again at each visit.
    pub token: &'a SecretFrom,
    /// Runs them.
    pub driver: &'a Driver,
}

impl Visits<'_> {
    /// Connects, does `work` over the session, and says goodbye. Ends soon after `cancelled` is set. Blocks.
    ///
    /// # Errors
    /// The token cannot be read, the proxy cannot be reached, or the error of `work`.
    pub fn make<T>(
        &self,
        cancelled: &AtomicBool,
        monitor: &dyn Monitor,
        work: impl AsyncFnOnce(&Session, &Arc<dyn Monitor>) -> agent::Result<T>,
    ) -> Result<T, Error> {
        let token = self.token.read()?;
        let access = Access { url: self.url.clone(), token: token.reveal().to_owned() };
        let token_file = match self.token {
            SecretFrom::File(path) => Some(path.clone()),
            SecretFrom::Env(_) => None,
        };
        let proxy = || format!("whit://{}:{}", self.url.host(), self.url.port());
        let failed = |source| Error::Proxy { proxy: proxy(), source: Box::new(source) };
        self.driver
            .run(cancelled, async { converse(&access, token_file, monitor, work).await.map_err(failed) })
    }
}

async fn converse<T>(
    access: &Access,
    token_file: Option<PathBuf>,
    monitor: &dyn Monitor,
    work: impl AsyncFnOnce(&Session, &Arc<dyn Monitor>) -> agent::Result<T>,
) -> agent::Result<T> {
    let session = Session::open(access, &link::Options::default()).await?;
    let session = match token_file {
        Some(file) => session.with_token_file(file),
        None => session,
    };
    let relay = Arc::new(Relay::default());
    let monitored: Arc<dyn Monitor> = Arc::clone(&relay) as _;
    let result = {
        let work = work(&session, &monitored);
        tokio::pin!(work);
        let mut tells = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                result = &mut work => break result,
                _ = tells.tick() => relay.tell(monitor),
            }
        }
    };
    relay.tell(monitor);
    drop(timeout(GOODBYE_TIME_MAX, session.finish()).await);
    result
}

/// Asks who answers, and whom.
pub async fn identify(session: &Session) -> agent::Result<ProxyInfo> {
    let mut info = None;
    let take = |answer| {
        if let Answer::Identity(found) = answer {
            info = Some(found);
        }
    };
    session.ask(&Operation::Identify, take).await?;
    info.ok_or(agent::Error::Ended)
}

/// Follows a rollout to its end.
pub async fn follow(session: &Session, app: &AppName, id: RolloutId) -> agent::Result<RolloutStatus> {
    let question = Operation::Rollouts { app: Some(app.clone()), watch: true };
    loop {
        let mut last = None;
        let take = |answer| {
            if let Answer::Rollouts(part) = answer {
                last = part.into_iter().find(|status| status.id == id && status.state.is_last());
            }
            last.is_none()
        };
        match session.ask_while(&question, take).await {
            // A proxy ends its answer after a day.
            Err(agent::Error::Endless { .. }) => {}
            ended => {
                ended?;
                return last.ok_or(agent::Error::Ended);
            }
        }
    }
}

/// Holds progress for a monitor that is only borrowed.
#[derive(Default)]
struct Relay {
    bytes: AtomicU64,
    notes: Mutex<Vec<String>>,
}

impl Relay {
    fn tell(&self, monitor: &dyn Monitor) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            monitor.advance(Phase::Transfer, bytes);
        }
        for note in std::mem::take(&mut *self.notes.lock().unpoisoned()) {
            monitor.note(&note);
        }
    }
}

impl Monitor for Relay {
    fn advance(&self, phase: Phase, bytes: u64) {
        if phase == Phase::Transfer {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unpoisoned();
        if notes.len() < NOTES_MAX {
            notes.push(text.to_owned());
        }
    }
}
