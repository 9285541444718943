//! The deliveries that have not ended: in the ledger, and in memory for those who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::pending::Delivery;
use crate::ledger::{self, Change, Key, Ledger, Table};
use ground::ids::{ReleaseId, SpaceName};
use ground::poison::Unpoisoned as _;

/// Deliveries by their numbers, which are in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Journal {
    ledger: Arc<dyn Ledger>,
    next: Mutex<u64>,
    pending: Mutex<BTreeMap<u64, Delivery>>,
}

impl Journal {
    /// Opens the journal. Returns the deliveries that an earlier run left, in order.
    ///
    /// # Errors
    /// The ledger's.
    pub fn open(ledger: Arc<dyn Ledger>) -> ledger::Result<(Self, Vec<(u64, Delivery)>)> {
        ledger.recover(&Table::Deliveries)?;
        let (mut next, mut left) = (1, Vec::new());
        for key in ledger.list(&Table::Deliveries)? {
            let Key::Delivery { number } = key else { continue };
            next = number + 1;
            let value = ledger.read(&key)?.unwrap_or_default();
            if let Some(delivery) = Delivery::decode(&value) {
                left.push((number, delivery));
            } else {
                let place = ledger.describe(&key);
                tracing::error!(place, "a delivery is damaged or of a newer version");
            }
        }
        let pending = Mutex::new(left.iter().cloned().collect());
        Ok((Self { ledger, next: Mutex::new(next), pending }, left))
    }

    /// Returns a number that this process has not given yet, and the change that writes a delivery down under it.
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

    /// Notes a delivery that was written down.
    pub fn note(&self, number: u64, delivery: &Delivery) {
        self.pending.lock().unpoisoned().insert(number, delivery.clone());
    }

    /// Removes a delivery that has ended.
    ///
    /// # Errors
    /// The ledger's: the next start makes the delivery again.
    pub fn remove(&self, number: u64) -> ledger::Result<()> {
        self.ledger.apply(&[Change::Remove { key: Key::Delivery { number } }])
    }

    /// Forgets a delivery that has ended.
    pub fn forget(&self, number: u64) {
        self.pending.lock().unpoisoned().remove(&number);
    }

    /// Returns the releases of a space whose deliveries have not ended.
    pub fn pending(&self, space: &SpaceName) -> Vec<ReleaseId> {
        let pending = self.pending.lock().unpoisoned();
        let ours = pending.values().filter(|delivery| delivery.space == *space);
        ours.map(|delivery| delivery.release).collect()
    }
}
