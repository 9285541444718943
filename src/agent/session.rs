//! A connection to one proxy on behalf of one user.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::hint::Hint;
use super::memory::Key;
use super::token_renewal;
use super::{Error, Result, check_meant};
use crate::net::link::{self, Connection, Counters, Receiver, Sender};
use crate::net::link_estimate::{Link, LinkEstimate, Reading};
use crate::net::owned_task::OwnedTask;
use ground::faults::{Fault, Faulty};
use ground::ids::AppName;
use ground::limits::{ANSWER_TIME_LONG_MAX, ANSWER_TIME_MAX, ANSWER_TOTAL_BYTES_MAX};
use ground::monitor::Monitor;
use ground::poison::Unpoisoned as _;
use protocol::address::ProxyUrl;
use protocol::wire::{Answer, Operation, Request};

/// The longest wait for a hint, which only spares bytes.
const HINT_TIME_MAX: Duration = Duration::from_secs(2);
/// Checks for datagrams from the proxy within the time after which it counts as gone.
const UNHEARD_LOOKS: u32 = 20;

/// How long a proxy that stopped reading may take to say why.
const HEAR_OUT: Duration = Duration::from_secs(5);

/// Where the proxy is and what the user may do there.
#[derive(Debug, Clone)]
pub struct Access {
    /// The proxy's address and key.
    pub url: ProxyUrl,
    /// The signed token.
    pub token: String,
}

/// An open connection; each request is a stream of its own.
#[derive(Debug)]
pub struct Session {
    access: Access,
    options: link::Options,
    current: Arc<Mutex<Current>>,
    /// Where newer tokens are written to.
    token_file: Option<PathBuf>,
}

/// The connection in use, and the traffic of those before it.
#[derive(Debug, Clone)]
struct Current {
    connection: Connection,
    earlier: Counters,
    introduction: Arc<Introduction>,
    /// The round trip of the handshake.
    first_trip: Duration,
}

impl Current {
    fn new(connection: Connection, earlier: Counters, introduction: Introduction) -> Self {
        let first_trip = connection.counters().rtt;
        Self { connection, earlier, introduction: Arc::new(introduction), first_trip }
    }

    fn reading(&self) -> Reading {
        Reading::of(&self.connection, self.first_trip)
    }
}

/// Identifies an agent that has nothing to ask for yet, e.g. while it reads a large input: the proxy closes a connection on
/// which no token comes.
#[derive(Debug)]
struct Introduction {
    /// True if a request was sent.
    asked: Arc<AtomicBool>,
    _task: OwnedTask<()>,
}

impl Introduction {
    fn begin(connection: &Connection, token: &str, after: Duration) -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        let (connection, token, was_asked) = (connection.clone(), token.to_owned(), Arc::clone(&asked));
        let task = OwnedTask::start(async move {
            sleep(after).await;
            if was_asked.load(Ordering::Relaxed) {
                return;
            }
            // The next request reports what is wrong with the connection or the token.
            if let Ok((mut sender, mut receiver)) = connection.open().await
                && sender.send(&Request::new(&token, &Operation::Identify)).await.is_ok()
                && sender.finish().is_ok()
            {
                while let Ok(Some(Answer::Identity(_))) = receiver.receive().await {}
            }
        });
        Self { asked, _task: task }
    }
}

impl Session {
    /// Connects and checks the proxy's key.
    ///
    /// # Errors
    /// The proxy cannot be reached, has another key, or speaks another protocol.
    pub async fn open(access: &Access, options: &link::Options) -> Result<Self> {
        let connection = link::connect(&access.url, options).await?;
        let introduction = Introduction::begin(&connection, &access.token, options.introduction_time);
        let current = Arc::new(Mutex::new(Current::new(connection, Counters::default(), introduction)));
        Ok(Self { access: access.clone(), options: options.clone(), current, token_file: None })
    }

    /// Uses newer tokens of the same user and space as they are written to `file`.
    #[must_use]
    pub fn with_token_file(self, file: PathBuf) -> Self {
        Self { token_file: Some(file), ..self }
    }

    /// Returns the new tokens that come while a request goes on.
    pub fn renewals(&self) -> mpsc::Receiver<String> {
        token_renewal::watch(self.token_file.as_deref(), &self.access.token)
    }

    /// Opens a session; tries again for at most `limit` where the proxy cannot be reached. Notes each try on `monitor`.
    ///
    /// # Errors
    /// As [`Session::open`], from the last try.
    pub async fn open_within(
        access: &Access,
        options: &link::Options,
        limit: Duration,
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Self> {
        if limit.is_zero() {
            return Self::open(access, options).await;
        }
        let mut patience = Backoff::new(limit);
        loop {
            let tried = link::Options { connect_time_max: patience.connect_time(), ..options.clone() };
            let error = match Self::open(access, &tried).await {
                Ok(session) => return Ok(Self { options: options.clone(), ..session }),
                Err(error) if error.fault() == Fault::Retry => error,
                Err(error) => return Err(error),
            };
            let Some(wait) = patience.wait() else { return Err(error) };
            monitor.note(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
            tokio::time::sleep(wait).await;
        }
    }

    /// Connects again after the connection was lost, within `connect_time`. Continues to count bytes.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn reopen(&self, connect_time: Duration) -> Result<()> {
        let connect_time_max = self.options.connect_time_max.min(connect_time);
        let options = link::Options { connect_time_max, ..self.options.clone() };
        let connection = link::connect(&self.access.url, &options).await?;
        let earlier = self.counters();
        let after = self.options.introduction_time;
        let introduction = Introduction::begin(&connection, &self.access.token, after);
        *self.current() = Current::new(connection, earlier, introduction);
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unpoisoned()
    }

    fn connection(&self) -> Connection {
        self.current().connection.clone()
    }

    /// Returns how long a proxy may owe an answer while nothing moves, for an agent that goes on trying for `patience`.
    pub(super) fn quiet_max(&self, patience: Duration) -> Duration {
        let link::Options { silence_max, pause_max, .. } = self.options;
        patience.clamp(silence_max, pause_max.max(silence_max))
    }

    /// Returns when not one datagram has come for as long as an agent goes on trying, although the connection is kept alive:
    /// the proxy is gone, and waiting for the transport's timeout would only delay the next try.
    pub(super) async fn unheard(&self, patience: Duration) -> Error {
        let link::Options { unheard_min, .. } = self.options;
        let limit = patience.max(unheard_min);
        let step = limit / UNHEARD_LOOKS;
        // Counts checks instead of asking a clock: an agent that was itself stopped has heard nothing either.
        let (mut heard, mut looks) = (0, 0);
        loop {
            sleep(step).await;
            let received = self.counters().received_bytes;
            looks = if received == heard { looks + 1 } else { 0 };
            heard = received;
            if looks >= UNHEARD_LOOKS {
                return Error::Unheard(limit.as_secs());
            }
        }
    }

    /// Begins a request.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn request(&self, operation: &Operation) -> Result<(Sender, Receiver)> {
        let token = token_renewal::latest(self.token_file.as_deref(), &self.access.token).await;
        let Current { connection, introduction, .. } = self.current().clone();
        introduction.asked.store(true, Ordering::Relaxed);
        let (mut sender, mut receiver) = connection.open().await?;
        if let Err(error) = sender.send(&Request::new(&token, operation)).await {
            // A proxy that refuses stops reading: report its reason instead.
            return match timeout(HEAR_OUT, receiver.receive::<Answer>()).await {
                Ok(Ok(Some(Answer::Refused(refusal)))) => Err(Error::Refused(refusal)),
                _ => Err(error.into()),
            };
        }
        Ok((sender, receiver))
    }

    /// Asks a question and hands each part of the answer to `take`. Checks that the answer is about the releases that the
    /// question names.
    ///
    /// # Errors
    /// The connection is lost, the proxy refused, it answered for another release, or [`Error::Endless`].
    pub async fn ask(&self, operation: &Operation, mut take: impl FnMut(Answer)) -> Result<()> {
        let take = |answer| {
            take(answer);
            true
        };
        self.ask_while(operation, take).await
    }

    /// Asks a question as [`Session::ask`] does, until `take` returns false.
    ///
    /// # Errors
    /// As [`Session::ask`].
    pub async fn ask_while(&self, operation: &Operation, mut take: impl FnMut(Answer) -> bool) -> Result<()> {
        let time_max = match operation {
            Operation::Deliver { .. }
            | Operation::Promote { .. }
            | Operation::Rollback { .. }
            | Operation::PlanDelivery { .. }
            | Operation::Prime { .. }
            | Operation::CheckDestinations(_)
            | Operation::Deliveries(_)
            | Operation::Targets { .. }
            | Operation::Rollouts { .. }
            | Operation::Collect { .. }
            | Operation::Verify { .. } => ANSWER_TIME_LONG_MAX,
            _ => ANSWER_TIME_MAX,
        };
        let (sender, mut receiver) = self.request(operation).await?;
        // If this fails, the proxy has already refused and says why.
        drop(sender.finish());
        let mut asked = operation.selectors().into_iter();
        let answered = async {
            while let Some(answer) = receiver.receive::<Answer>().await? {
                if receiver.received_bytes() > ANSWER_TOTAL_BYTES_MAX {
                    return Err(Error::Endless { bytes: receiver.received_bytes() });
                }
                match answer {
                    Answer::Refused(refusal) => return Err(Error::Refused(refusal)),
                    Answer::Meant(record) => {
                        check_meant(&record, asked.next().ok_or(Error::OutOfTurn("Meant"))?)?;
                    }
                    _ if asked.len() > 0 => {
                        return Err(Error::OutOfTurn("another message before the release"));
                    }
                    answer => {
                        if !take(answer) {
                            return Ok(());
                        }
                    }
                }
            }
            if asked.len() > 0 { Err(Error::Ended) } else { Ok(()) }
        };
        let answered = timeout(time_max, answered).await;
        answered.unwrap_or_else(|_| Err(Error::Endless { bytes: receiver.received_bytes() }))
    }

    /// Returns the key of the memory of this session's pushes of `app`.
    pub fn memory_key(&self, app: &AppName) -> Key {
        Key::new(&self.access.url.fingerprint(), &self.access.token, app)
    }

    /// Returns the proxy's address.
    pub(super) fn url(&self) -> &ProxyUrl {
        &self.access.url
    }

    /// Returns the round trip of the handshake, before anything was queued.
    pub(super) fn first_trip(&self) -> Duration {
        self.current().first_trip
    }

    /// Returns whether the proxy has a loopback address.
    pub(super) fn is_loopback(&self) -> bool {
        self.current().reading().is_loopback
    }

    /// Estimates the link: `remembered`, or as the proxy's hint says, if that is of the same way; else by the round trip, until
    /// the connection in use has filled it.
    pub(super) fn link(&self, remembered: Option<LinkEstimate>, hint: Arc<Hint>) -> Link {
        let first_trip = self.first_trip();
        let assumed = LinkEstimate::assumed(first_trip);
        let current = Arc::clone(&self.current);
        Link::estimated(move || {
            let hinted = || hint.now()?.link.map(LinkEstimate::from);
            let before = remembered.or_else(hinted).filter(|before| before.is_of(first_trip));
            current.lock().unpoisoned().reading().estimate(before.unwrap_or(assumed))
        })
    }

    /// Asks the proxy what helps to choose how to push. An answer that does not come is none.
    pub(super) async fn ask_hint(&self, app: &AppName, hint: &Hint) {
        let mut answer = None;
        let question = Operation::HintPush(app.clone());
        let asked = self.ask(&question, |given| {
            if let Answer::PushHint(given) = given {
                answer = Some(given);
            }
        });
        drop(timeout(HINT_TIME_MAX, asked).await);
        hint.set(answer);
    }

    /// Returns what the connection in use says of the link, where it was full.
    pub(super) fn measured_link(&self) -> Option<LinkEstimate> {
        let reading = self.current().reading();
        let is_telling = reading.is_full() && !reading.is_loopback;
        is_telling.then(|| reading.estimate(LinkEstimate::assumed(reading.first_trip)))
    }

    /// Returns the traffic of all connections so far, handshakes included.
    pub fn counters(&self) -> Counters {
        let Current { connection, earlier, .. } = self.current().clone();
        connection.counters().after(&earlier)
    }

    /// Closes the connection.
    pub async fn finish(self) {
        self.leave().await;
    }

    /// Closes the connection; requests fail until [`Session::reopen`].
    pub(super) async fn leave(&self) {
        self.connection().finish().await;
    }
}
