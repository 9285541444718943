//! Actions that follow deliveries: hooks (commands) and webhooks (messages), defined by the admin and asked for by name.
//!
//! Hooks after a delivery run before it ends, in the order in which they were asked for; their results are part of its report.
//! Everything else waits in an [`Outbox`], a thread for each action, and is made at least once.

mod changes;
mod definition;
mod event;
mod hook;
mod notice;
mod outbox;
mod signature;
mod webhook;

pub use changes::changes;
pub use definition::{Definition, HookDefinition, Mistake, WebhookDefinition};
pub use event::{Changed, Event, Happened};
pub use notice::Notice;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use self::outbox::{Outbox, Tried};
use crate::ledger::{self, Change, Key, Ledger, Table};
use disk::files::{self, OnPath as _};
use format::record::ActionReport;
use ground::faults::{Fault, faulty};
use ground::ids::{ActionName, AppName, DestinationName};
use ground::poison::Unpoisoned as _;

/// Definitions by name.
pub type Definitions = BTreeMap<ActionName, Definition>;

/// Notices that an earlier run left, by action.
type Left = BTreeMap<ActionName, BTreeMap<u64, Notice>>;

/// Why actions could not be started, or may not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A thread.
    #[error(transparent)]
    Thread(#[from] files::Error),
    /// The admin has not defined it.
    #[error("there is no action `{0}`")]
    Unknown(ActionName),
    /// The admin has defined it for others.
    #[error("the action `{action}` is not for `{app}`{}", to(.destination.as_ref()))]
    NotFor {
        /// The action.
        action: ActionName,
        /// The application.
        app: AppName,
        /// The destination, if the application alone would be allowed.
        destination: Option<DestinationName>,
    },
    /// Actions without a delivery that they could follow.
    #[error("the action `{0}` follows a delivery, and there is none")]
    NoDelivery(ActionName),
}

fn to(destination: Option<&DestinationName>) -> String {
    destination.map(|destination| format!(" at destination `{destination}`")).unwrap_or_default()
}

faulty! {
    Error passes on Ledger, Thread;
    Self::Unknown(_) => Fault::Missing, "hooks and webhooks are defined in the proxy's configuration file";
    Self::NotFor { .. } => Fault::Denied,
        "the action's `apps` and `destinations` in the proxy's configuration file say for what it may be asked";
    Self::NoDelivery(_) => Fault::Input, "name a destination with --to";
}

/// The actions of a proxy.
#[derive(Debug)]
pub struct Actions {
    outboxes: BTreeMap<ActionName, Arc<Outbox>>,
    ledger: Arc<dyn Ledger>,
    next: AtomicU64,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Notices that are to be written down together with what they tell.
#[derive(Debug, Default)]
pub struct Planned(Vec<(u64, Notice)>);

impl Planned {
    /// Returns the changes that write the notices down.
    pub fn changes(&self) -> Vec<Change> {
        let change = |(number, notice): &(u64, Notice)| Change::Put {
            key: Key::Notice { number: *number },
            value: notice.encode(),
        };
        self.0.iter().map(change).collect()
    }
}

impl Actions {
    /// Takes up what an earlier run left in the ledger, and starts a thread for each action.
    ///
    /// # Errors
    /// The ledger cannot be read, or a thread not be started.
    pub fn start(definitions: &Definitions, ledger: &Arc<dyn Ledger>) -> Result<Self, Error> {
        let (mut left, next) = take_up(definitions, &**ledger)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (mut outboxes, mut threads) = (BTreeMap::new(), Vec::new());
        for (name, definition) in definitions {
            let left = left.remove(name).unwrap_or_default();
            let outbox = Outbox::new(definition.clone(), Arc::clone(ledger), Arc::clone(&stop), left);
            let outbox = Arc::new(outbox);
            let thread = std::thread::Builder::new().name(format!("whit-{name}"));
            let running = Arc::clone(&outbox);
            let thread = thread.spawn(move || running.run());
            threads.push(thread.on("start a thread for", Path::new(name.as_str()))?);
            outboxes.insert(name.clone(), outbox);
        }
        let (ledger, next) = (Arc::clone(ledger), AtomicU64::new(next));
        Ok(Self { outboxes, ledger, next, stop, threads: Mutex::new(threads) })
    }

    /// Checks that actions may be asked for with an application's deliveries to some destinations.
    ///
    /// # Errors
    /// The first that may not.
    pub fn check(
        &self,
        app: &AppName,
        destinations: &[DestinationName],
        asked: &[ActionName],
    ) -> Result<(), Error> {
        for action in asked {
            let outbox = self.outboxes.get(action).ok_or_else(|| Error::Unknown(action.clone()))?;
            let not_for = |destination: Option<&DestinationName>| Error::NotFor {
                action: action.clone(),
                app: app.clone(),
                destination: destination.cloned(),
            };
            if !outbox.definition().may_follow(app, None) {
                return Err(not_for(None));
            }
            if destinations.is_empty() {
                return Err(Error::NoDelivery(action.clone()));
            }
            let refused = |name: &&DestinationName| !outbox.definition().may_follow(app, Some(name));
            if let Some(destination) = destinations.iter().find(refused) {
                return Err(not_for(Some(destination)));
            }
        }
        Ok(())
    }

    /// Returns whether some action follows an event, those that were asked for among them.
    pub fn follows(&self, happened: &Happened, asked: &[ActionName]) -> bool {
        let follows = |(name, outbox): (&ActionName, &Arc<Outbox>)| {
            outbox.definition().follows(happened, asked.contains(name))
        };
        self.outboxes.iter().any(follows)
    }

    /// Makes what follows an event: hooks of a delivery now, one after another, and the rest by its outbox. Returns the
    /// results; of what waits, how its first try went. None if it was cancelled: the event has to come again.
    pub fn follow(
        &self,
        happened: &Happened,
        asked: &[ActionName],
        cancelled: &AtomicBool,
    ) -> Option<Vec<ActionReport>> {
        let mut reports = Vec::new();
        let named = asked.iter().filter_map(|name| self.outboxes.get_key_value(name));
        let others = self.outboxes.iter().filter(|(name, _)| !asked.contains(name));
        for (action, outbox) in named.chain(others) {
            if !outbox.definition().follows(happened, asked.contains(action)) {
                continue;
            }
            let begun = Instant::now();
            let tried = match outbox.definition() {
                Definition::Hook(definition) if happened.event == Event::Delivered => {
                    let ran = hook::run(definition, happened, cancelled)?;
                    if let Some(failure) = &ran.failure {
                        tracing::warn!(%action, delivery = happened.id, failure, "a hook failed");
                    }
                    Tried { failure: ran.failure, output: ran.output, is_pending: false }
                }
                _ => self.add(outbox, action, happened),
            };
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            reports.push(report(action, millis, tried));
        }
        Some(reports)
    }

    /// Plans what follows an event that is written down together with it: the move of a current release with `entry`, its number in the
    /// log. Nothing of it runs before [`Actions::enter`]. What waits already is not planned again.
    pub fn plan(&self, happened: &Happened, asked: &[ActionName], entry: Option<u64>) -> Planned {
        let follows = |(name, outbox): &(&ActionName, &Arc<Outbox>)| {
            outbox.definition().follows(happened, asked.contains(name))
        };
        let planned = |(action, outbox): (&ActionName, &Arc<Outbox>)| {
            if !outbox.has_room() {
                tracing::error!(%action, id = happened.message_id(), "too many of this action wait already: one is not made");
                return None;
            }
            let notice = Notice { action: action.clone(), happened: happened.clone(), entry };
            (!outbox.has(&notice)).then(|| (self.next.fetch_add(1, Ordering::Relaxed), notice))
        };
        Planned(self.outboxes.iter().filter(follows).filter_map(planned).collect())
    }

    /// Makes what was planned and is written down.
    pub fn enter(&self, planned: Planned) {
        for (number, notice) in planned.0 {
            if let Some(outbox) = self.outboxes.get(&notice.action) {
                outbox.enter(number, notice);
            }
        }
    }

    /// Makes what was planned, if what it tells was written down although the transaction failed; removes it otherwise.
    pub fn settle(&self, planned: Planned) {
        let (real, void): (Vec<_>, Vec<_>) = planned.0.into_iter().partition(|(_, notice)| {
            // Where that cannot be known, the next start looks again.
            notice.counts(&*self.ledger).unwrap_or(false)
        });
        self.enter(Planned(real));
        self.withdraw(&Planned(void));
    }

    /// Removes what was planned and did not happen.
    pub fn withdraw(&self, planned: &Planned) {
        let removed =
            planned.0.iter().map(|(number, _)| Change::Remove { key: Key::Notice { number: *number } });
        if let Err(error) = self.ledger.apply(&removed.collect::<Vec<_>>()) {
            tracing::debug!(%error, "messages of what did not happen are removed at the next start");
        }
    }

    fn add(&self, outbox: &Outbox, action: &ActionName, happened: &Happened) -> Tried {
        let notice = Notice { action: action.clone(), happened: happened.clone(), entry: None };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        outbox.add(number, notice).unwrap_or_else(|error| {
            tracing::error!(%action, %error, "a message could not be written down");
            Tried { failure: Some(error.to_string()), output: String::new(), is_pending: false }
        })
    }

    /// Ends what is under way. The next start takes up what is left.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.outboxes.values().for_each(|outbox| outbox.wake());
        for thread in self.threads.lock().unpoisoned().drain(..) {
            if thread.join().is_err() {
                tracing::error!("the thread of an action panicked; its messages go on at the next start");
            }
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads what an earlier run left, by action, and the first number that it did not use. Removes what never counted, and what waits
/// for longer than a day for an action that is gone.
fn take_up(definitions: &Definitions, ledger: &dyn Ledger) -> ledger::Result<(Left, u64)> {
    let mut left = Left::new();
    let mut next = 1;
    ledger.recover(&Table::Notices)?;
    for key in ledger.list(&Table::Notices)? {
        let Key::Notice { number } = key else { continue };
        next = number + 1;
        let Some(notice) = Notice::decode(&ledger.read(&key)?.unwrap_or_default()) else {
            let place = ledger.describe(&key);
            tracing::error!(place, "a message is damaged or of a newer version");
            continue;
        };
        let is_defined = definitions.contains_key(&notice.action);
        if !notice.counts(ledger)? || !(is_defined || outbox::is_in_time(&notice)) {
            ledger.apply(&[Change::Remove { key }])?;
        } else if is_defined {
            left.entry(notice.action.clone()).or_default().insert(number, notice);
        } else {
            tracing::warn!(action = %notice.action, "a message waits for an action that is not configured any more");
        }
    }
    Ok((left, next))
}

/// Returns the report of an action. One that is tried again has not failed.
fn report(action: &ActionName, millis: u64, tried: Tried) -> ActionReport {
    let Tried { failure, output, is_pending } = tried;
    let (failure, output) = match (is_pending, failure) {
        (true, Some(reason)) => (None, format!("pending: {reason}; tried again for a day")),
        (true, None) => (None, "pending: no answer yet; tried again for a day".to_owned()),
        (false, failure) => (failure, output),
    };
    ActionReport { action: action.clone(), millis, failure, output }
}
