//! The stream of a watching target: its reports go to the proxy, what the proxy wants comes back. It is opened again whenever it ends.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::error::{Error, Result};
use super::watched_directory::Target;
use crate::agent::{self, Access, Session};
use crate::net::link::{self, Receiver};
use crate::net::owned_task::OwnedTask;
use ground::faults::{Fault, Faulty as _};
use ground::ids::Label;
use ground::limits::{CONNECT_TIME_MAX, TARGET_ALIVE_EVERY, TARGET_SILENCE_MAX};
use protocol::wire::{FromTarget, Operation, ToTarget, Wanted, Watching};

/// The wait before the second try to connect; it doubles with each further one, up to …
const WAIT_MIN: Duration = Duration::from_millis(250);
/// … 30 s.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A stream that lasted that long was no try, nor was one that a proxy accepted and the link lost. One that the proxy ended sooner was: two
/// machines that replace each other come less and less often.
const LASTING: Duration = WAIT_MAX;
/// Messages that are read ahead.
const MESSAGES_AHEAD: usize = 4;

/// Where the proxy is, and how to get there.
#[derive(Debug, Clone)]
pub struct Route {
    /// The proxy, and the target's token.
    pub access: Access,
    /// Where newer tokens are written to.
    pub token_file: Option<PathBuf>,
    /// The link.
    pub options: link::Options,
    /// The label or release that is followed; none for the current one.
    pub follows: Option<Label>,
}

/// What the proxy wants last, and a session to fetch it by.
#[derive(Debug, Clone)]
pub struct Newest {
    /// The session.
    pub session: Arc<Session>,
    /// The release.
    pub wanted: Wanted,
}

/// Keeps a stream to the proxy open, for ever, and hands on the newest that it wants.
///
/// # Errors
/// The proxy refuses the target before it has ever accepted it, in a way that another try does not mend.
pub async fn hold(
    target: Arc<Target>,
    route: Route,
    newest: Arc<watch::Sender<Option<Newest>>>,
) -> Result<Infallible> {
    let mut stream = Stream { target, route, newest, session: None, was_heard: false, was_accepted: false };
    let mut tries = 0;
    let mut is_away = false;
    loop {
        stream.was_heard = false;
        let began = Instant::now();
        let error = stream.converse().await;
        if stream.was_heard {
            is_away = false;
        }
        let was_ended = matches!(error, Error::Agent(agent::Error::Refused(_)));
        if began.elapsed() >= LASTING || (stream.was_heard && !was_ended) {
            tries = 0;
        }
        let is_final = matches!(error.fault(), Fault::Denied | Fault::Input | Fault::Version);
        if is_final && !stream.was_accepted {
            return Err(error);
        }
        if !is_away {
            stream.target.reports().note(&format!("{error}; trying again, with what is here until then"));
            is_away = true;
        }
        sleep(wait((WAIT_MIN, WAIT_MAX), tries, stream.target.instance())).await;
        tries += 1;
    }
}

/// Returns the wait before try number `tries`, from `least` up to `most`: half of it is drawn by `seed`, so that many targets do not come
/// at a time.
pub fn wait((least, most): (Duration, Duration), tries: u32, seed: u64) -> Duration {
    let whole = (least * (1 << tries.min(10))).min(most);
    let part = u32::try_from(seed.rotate_left(tries.wrapping_mul(7) % 64) % 1024).unwrap_or_default();
    whole / 2 + whole / 2 * part / 1024
}

struct Stream {
    target: Arc<Target>,
    route: Route,
    newest: Arc<watch::Sender<Option<Newest>>>,
    session: Option<Arc<Session>>,
    /// True if the proxy said something in this conversation.
    was_heard: bool,
    /// True if it ever did.
    was_accepted: bool,
}

impl Stream {
    /// Connects, and converses until that fails.
    async fn converse(&mut self) -> Error {
        match self.try_converse().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_converse(&mut self) -> Result<Infallible> {
        let session = self.connect().await?;
        let reports = self.target.reports();
        let mut news = reports.subscribe();
        let Some(report) = news.borrow_and_update().clone() else {
            return Err(agent::Error::OutOfTurn("a target without a report").into());
        };
        let hello = Watching {
            app: self.target.app().clone(),
            at: self.route.follows.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.target.instance(),
            report,
        };
        let (mut sender, receiver) = session.request(&Operation::Watch(Box::new(hello))).await?;
        let (messages_in, mut messages) = mpsc::channel(MESSAGES_AHEAD);
        let _reader = OwnedTask::start(read(receiver, messages_in));
        let mut renewals = session.renewals();
        let mut alive = interval(TARGET_ALIVE_EVERY);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let message = tokio::select! {
                message = messages.recv() => {
                    heard = Instant::now();
                    self.take(&session, message.unwrap_or(Err(agent::Error::Ended))?)?;
                    continue;
                }
                Ok(()) = news.changed() => {
                    let Some(report) = news.borrow_and_update().clone() else { continue };
                    FromTarget::Report(Box::new(report))
                }
                Some(token) = renewals.recv() => FromTarget::Renew(token),
                _ = alive.tick() => FromTarget::Alive,
                () = sleep_until(heard + TARGET_SILENCE_MAX) => {
                    return Err(agent::Error::Unheard(TARGET_SILENCE_MAX.as_secs()).into());
                }
            };
            if let Err(error) = sender.send(&message).await {
                // A proxy that refuses stops reading: its reason is on its way.
                while let Ok(Some(Ok(message))) = tokio::time::timeout(WAIT_MIN, messages.recv()).await {
                    self.take(&session, message)?;
                }
                return Err(agent::Error::from(error).into());
            }
        }
    }

    async fn connect(&mut self) -> Result<Arc<Session>> {
        if let Some(session) = &self.session {
            session.reopen(CONNECT_TIME_MAX).await?;
            return Ok(Arc::clone(session));
        }
        let session = Session::open(&self.route.access, &self.route.options).await?;
        let session = Arc::new(match &self.route.token_file {
            Some(file) => session.with_token_file(file.clone()),
            None => session,
        });
        self.session = Some(Arc::clone(&session));
        Ok(session)
    }

    fn take(&mut self, session: &Arc<Session>, message: ToTarget) -> Result<()> {
        match message {
            ToTarget::Refused(refusal) => return Err(agent::Error::Refused(refusal).into()),
            ToTarget::Alive => {}
            ToTarget::Wanted(wanted) if wanted.record.app == *self.target.app() => {
                let newest = Newest { session: Arc::clone(session), wanted: *wanted };
                self.newest.send_replace(Some(newest));
            }
            ToTarget::Wanted(_) => {
                return Err(agent::Error::OutOfTurn("a release of another application").into());
            }
        }
        if !self.was_heard {
            self.target.reports().note("watching");
        }
        (self.was_heard, self.was_accepted) = (true, true);
        Ok(())
    }
}

/// Reads the proxy's messages.
async fn read(mut receiver: Receiver, messages: mpsc::Sender<agent::Result<ToTarget>>) {
    loop {
        let message = match receiver.receive::<ToTarget>().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(agent::Error::Ended),
            Err(error) => Err(error.into()),
        };
        let ends = message.is_err();
        if messages.send(message).await.is_err() || ends {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_differ_between_targets() {
        let of = |seed: u64| (0..20).map(|tries| wait((WAIT_MIN, WAIT_MAX), tries, seed)).collect::<Vec<_>>();
        let (one, other) = (of(0x1234_5678_9abc_def0), of(0x0fed_cba9_8765_4321));
        assert_ne!(one, other);
        for waits in [one, other] {
            assert!(waits[0] >= WAIT_MIN / 2 && waits[0] <= WAIT_MIN);
            assert!(waits[19] >= WAIT_MAX / 2 && waits[19] <= WAIT_MAX);
        }
    }
}
