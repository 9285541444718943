//! The outbox of one action: what is still to be made, durable until it is made or given up.
//!
//! A notice is in the ledger before anybody relies on it, and is removed once it was received. What a crash interrupts is made
//! again: receivers tell it by its id. One thread makes one after another; a failed one waits and holds up no other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::definition::Definition;
use super::event::Event;
use super::hook;
use super::notice::Notice;
use super::webhook::{Sender, Unsent};
use crate::ledger::{self, Change, Key, Ledger};
use disk::clock::now;
use ground::poison::Unpoisoned as _;

/// The wait after the first failure; it doubles up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(600);
/// One day: how long a receiver may be gone before its messages are given up.
const GIVEN_UP_SECONDS: u64 = 24 * 3600;
/// The most notices of one action that wait; a receiver that is gone for a day costs no more.
pub const WAITING_MAX: usize = 1000;
/// The time for the first try before whoever waits for it goes on.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest sleep of the thread.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// A notice that waits.
#[derive(Debug)]
struct Waiting {
    notice: Arc<Notice>,
    tries: u32,
    since: Instant,
    not_before: Instant,
    /// Receives the result of the next try.
    listener: Option<SyncSender<Tried>>,
}

impl Waiting {
    fn new(notice: Notice) -> Self {
        let now = Instant::now();
        Self { notice: Arc::new(notice), tries: 0, since: now, not_before: now, listener: None }
    }

    /// Returns whether it has failed before, or has waited for longer than anybody waits for it.
    fn is_late(&self) -> bool {
        self.tries > 0 || self.since.elapsed() >= FIRST_WAIT
    }
}

/// The result of a try, for people.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The receiver's answer, or what the hook printed.
    pub output: String,
    /// True if it is tried again.
    pub is_pending: bool,
}

/// The notices that one action still has to make.
#[derive(Debug)]
pub struct Outbox {
    definition: Definition,
    ledger: Arc<dyn Ledger>,
    stop: Arc<AtomicBool>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    more: Condvar,
}

impl Outbox {
    /// Creates an outbox with what an earlier run left.
    pub fn new(
        definition: Definition,
        ledger: Arc<dyn Ledger>,
        stop: Arc<AtomicBool>,
        left: BTreeMap<u64, Notice>,
    ) -> Self {
        let waiting = left.into_iter().map(|(number, notice)| (number, Waiting::new(notice))).collect();
        Self { definition, ledger, stop, waiting: Mutex::new(waiting), more: Condvar::new() }
    }

    /// Returns the definition of the action.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Writes a notice down under `number`, unless the same waits already. After a delivery, waits a moment for the first try,
    /// unless earlier ones of the action are late already: a receiver that hangs holds up nobody.
    ///
    /// # Errors
    /// The ledger's.
    pub fn add(&self, number: u64, notice: Notice) -> ledger::Result<Tried> {
        let (listener, tried) = sync_channel(1);
        let is_delivered = notice.happened.event == Event::Delivered;
        let is_late = {
            let mut waiting = self.waiting();
            let is_late = waiting.values().any(|other| other.is_late() && !other.notice.is_same(&notice));
            let same = waiting.values_mut().find(|waiting| waiting.notice.is_same(&notice));
            if let Some(same) = same {
                same.listener = Some(listener);
                same.not_before = Instant::now();
            } else {
                if waiting.len() >= WAITING_MAX {
                    let failure = Some(format!("{WAITING_MAX} of this action wait already"));
                    return Ok(Tried { failure, output: String::new(), is_pending: false });
                }
                let change = Change::Put { key: Key::Notice { number }, value: notice.encode() };
                self.ledger.apply(&[change])?;
                waiting.insert(number, Waiting { listener: Some(listener), ..Waiting::new(notice) });
            }
            is_late
        };
        self.more.notify_all();
        let pending = Tried { failure: None, output: String::new(), is_pending: true };
        let wait = if is_delivered && !is_late { FIRST_WAIT } else { Duration::ZERO };
        Ok(tried.recv_timeout(wait).unwrap_or(pending))
    }

    /// Returns whether another notice may wait.
    pub fn has_room(&self) -> bool {
        self.waiting().len() < WAITING_MAX
    }

    /// Returns whether the same notice waits.
    pub fn has(&self, notice: &Notice) -> bool {
        self.waiting().values().any(|waiting| waiting.notice.is_same(notice))
    }

    /// Takes in a notice that is written down.
    pub fn enter(&self, number: u64, notice: Notice) {
        self.waiting().insert(number, Waiting::new(notice));
        self.more.notify_all();
    }

    /// Makes notices until it is stopped.
    pub fn run(&self) {
        let mut sender = None;
        while let Some((number, notice)) = self.next() {
            let Some(tried) = self.attempt(&notice, &mut sender) else { return };
            self.settle(number, &notice, tried);
        }
    }

    /// Wakes the thread, to see that it is stopped.
    pub fn wake(&self) {
        self.more.notify_all();
    }

    /// Waits for a notice that is due; none once it is stopped.
    fn next(&self) -> Option<(u64, Arc<Notice>)> {
        let mut waiting = self.waiting();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            let first = waiting.iter().min_by_key(|(number, waiting)| (waiting.not_before, **number));
            let wait = match first {
                Some((number, waiting)) if waiting.not_before <= now => {
                    return Some((*number, Arc::clone(&waiting.notice)));
                }
                Some((_, waiting)) => (waiting.not_before - now).min(SLEEP_MAX),
                None => SLEEP_MAX,
            };
            waiting = self.more.wait_timeout(waiting, wait).unpoisoned().0;
        }
    }

    /// Makes a notice; none if it was stopped meanwhile.
    fn attempt(&self, notice: &Notice, sender: &mut Option<Sender>) -> Option<Result<String, Unsent>> {
        let happened = &notice.happened;
        let webhook = match &self.definition {
            Definition::Hook(definition) => {
                let ran = hook::run(definition, happened, &self.stop)?;
                // A hook is not repeated because it failed: nobody knows what it has done.
                let failed = |reason| Unsent { reason, retry_after: None, is_final: true };
                return Some(ran.failure.map_or(Ok(ran.output), |reason| Err(failed(reason))));
            }
            Definition::Webhook(definition) => definition,
        };
        sender.get_or_insert_with(|| Sender::new(webhook.clone())).send(happened, now(), &self.stop)
    }

    /// Removes a notice that was made or is given up, and schedules another.
    fn settle(&self, number: u64, notice: &Notice, result: Result<String, Unsent>) {
        let action = &notice.action;
        let (tried, wait) = match result {
            Ok(output) => (Tried { failure: None, output, is_pending: false }, None),
            Err(Unsent { reason, retry_after, is_final }) => {
                let mut waiting = self.waiting();
                let tries = waiting.get_mut(&number).map_or(0, |waiting| {
                    waiting.tries += 1;
                    waiting.tries
                });
                drop(waiting);
                let is_pending = !is_final && is_in_time(notice);
                let id = notice.happened.message_id();
                tracing::warn!(%action, id, reason, is_pending, "an action failed");
                let wait = is_pending.then(|| retry_after.unwrap_or_default().max(backoff(&id, tries)));
                (Tried { failure: Some(reason), output: String::new(), is_pending }, wait)
            }
        };
        if wait.is_none()
            && let Err(error) = self.ledger.apply(&[Change::Remove { key: Key::Notice { number } }])
        {
            tracing::warn!(%error, %action, "an action that was made is repeated at the next start");
        }
        let mut waiting = self.waiting();
        let listener = match wait {
            None => waiting.remove(&number).and_then(|waiting| waiting.listener),
            Some(wait) => waiting.get_mut(&number).and_then(|waiting| {
                waiting.not_before = Instant::now() + wait;
                waiting.listener.take()
            }),
        };
        if let Some(listener) = listener {
            // Nobody may listen any more.
            drop(listener.try_send(tried));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unpoisoned()
    }
}

/// Returns the wait after `tries` failures, up to a quarter more or less: messages that failed together do not come together.
fn backoff(id: &str, tries: u32) -> Duration {
    let wait = WAIT_MIN.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(WAIT_MAX);
    let chance = blake3::hash(format!("{id} {tries}").as_bytes()).as_bytes()[0];
    wait.mul_f64(0.75 + f64::from(chance) / 510.0)
}

/// Returns whether a notice is still tried: for a day.
pub fn is_in_time(notice: &Notice) -> bool {
    now().saturating_sub(notice.happened.time) < GIVEN_UP_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_differ() {
        for (tries, seconds) in [(1, 1.0), (2, 2.0), (5, 16.0), (11, 600.0), (1000, 600.0)] {
            let wait = backoff("a-1-delivered", tries).as_secs_f64() / seconds;
            assert!((0.75..=1.25).contains(&wait), "{tries}: {wait}");
        }
        assert_ne!(backoff("a-1-delivered", 5), backoff("a-2-delivered", 5));
    }
}
