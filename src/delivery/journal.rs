//! Deliveries in the ledger: those that have not ended, and those that ended last.

use std::sync::{Arc, Mutex};

use super::ended::Ended;
use super::pending::Delivery;
use crate::ledger::{self, Change, Key, Ledger, Retired, Table};
use ground::poison::Unpoisoned as _;

/// Writes deliveries down, each under a number of its own. Numbers are in the order in which deliveries were asked for, and
/// none is given twice: the highest is always in one of the two tables.
#[derive(Debug)]
pub(super) struct Journal {
    ledger: Arc<dyn Ledger>,
    next: Mutex<u64>,
}

/// The deliveries that an earlier run left in the ledger.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Deliveries that have not ended, in the order of their numbers.
    pub pending: Vec<(u64, Delivery)>,
    /// Deliveries that ended.
    pub ended: Vec<(u64, Ended)>,
}

impl Journal {
    /// Opens the journal. Returns what an earlier run left.
    ///
    /// # Errors
    /// The ledger's.
    pub fn open(ledger: Arc<dyn Ledger>) -> ledger::Result<(Self, Left)> {
        let (mut highest, mut left) = (0, Left::default());
        ledger.recover(&Table::Ended)?;
        for (key, _) in ledger.scan(&Table::Ended)? {
            let Key::Ended { number } = key else { continue };
            highest = highest.max(number);
            let value = ledger.read(&key)?.unwrap_or_default();
            match Ended::decode(&value) {
                Some(ended) => left.ended.push((number, ended)),
                None => log_damage(&*ledger, &key),
            }
        }
        ledger.recover(&Table::Deliveries)?;
        for (key, retired) in ledger.scan(&Table::Deliveries)? {
            let Key::Delivery { number } = key else { continue };
            highest = highest.max(number);
            if retired.is_some() {
                continue;
            }
            if left.ended.binary_search_by_key(&number, |(number, _)| *number).is_ok() {
                // The last run ended between the two changes of `end`.
                ledger.apply(&[Change::Remove { key }])?;
                continue;
            }
            let value = ledger.read(&key)?.unwrap_or_default();
            match Delivery::decode(&value) {
                Some(delivery) => left.pending.push((number, delivery)),
                None => log_damage(&*ledger, &key),
            }
        }
        Ok((Self { ledger, next: Mutex::new(highest + 1) }, left))
    }

    /// Returns a number that was never given, and the change that writes a delivery down under it.
    pub fn change(&self, delivery: &Delivery) -> (u64, Change) {
        let mut next = self.next.lock().unpoisoned();
        let number = *next;
        *next += 1;
        (number, Change::Create { key: Key::Delivery { number }, value: delivery.encode() })
    }

    /// Applies changes that write deliveries down.
    ///
    /// # Errors
    /// The ledger's; [`ledger::Error::Exists`] where another proxy has taken a number.
    pub fn apply(&self, changes: &[Change]) -> ledger::Result<()> {
        self.ledger.apply(changes)
    }

    /// Returns whether a delivery was written down under a number, although the transaction failed.
    pub fn has(&self, number: u64, delivery: &Delivery) -> bool {
        let value = self.ledger.read(&Key::Delivery { number });
        value.is_ok_and(|value| value == Some(delivery.encode()))
    }

    /// Writes down that a delivery has failed, and when it is tried again. A failure to do so is logged: after the next start it
    /// is tried at once.
    pub fn failed(&self, number: u64, delivery: &Delivery) {
        let change = Change::Put { key: Key::Delivery { number }, value: delivery.encode() };
        if let Err(error) = self.ledger.apply(&[change]) {
            tracing::warn!(%error, number, "the failure of a delivery could not be written down");
        }
    }

    /// Writes down, in one transaction, that a delivery has ended and how.
    ///
    /// Where that fails, as on a full disk, it is only taken out of the queue: its end is then not known after the next start.
    pub fn end(&self, number: u64, ended: &Ended) {
        let key = Key::Delivery { number };
        let whole = [
            Change::Put { key: Key::Ended { number }, value: ended.encode() },
            Change::Remove { key: key.clone() },
        ];
        let Err(error) = self.ledger.apply(&whole) else { return };
        tracing::warn!(%error, number, "the end of a delivery could not be written down");
        if let Err(error) = self.ledger.apply(&[Change::Retire { key, reason: Retired::Removed }]) {
            tracing::warn!(%error, number, "a finished delivery will be repeated at the next start");
        }
    }

    /// Forgets deliveries that ended long ago.
    pub fn forget(&self, numbers: &[u64]) {
        let changes: Vec<Change> =
            numbers.iter().map(|number| Change::Remove { key: Key::Ended { number: *number } }).collect();
        if let Err(error) = self.ledger.apply(&changes) {
            tracing::warn!(%error, "deliveries that ended long ago could not be removed");
        }
    }
}

fn log_damage(ledger: &dyn Ledger, key: &Key) {
    let place = ledger.describe(key);
    tracing::error!(place, "a delivery is damaged or of a newer version");
}
