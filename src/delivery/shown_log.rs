//! The releases that destinations show, in the ledger: read and written around each delivery.

use std::sync::{Arc, Mutex};

use super::destination::{self, ShownLog};
use super::pending::Delivery;
use crate::ledger::{self, Change, Key, Ledger};
use disk::clock::now;
use format::shown::Shown;
use ground::ids::ReleaseId;
use ground::poison::Unpoisoned as _;

/// The releases of one application that one destination shows.
pub(super) struct ShownInLedger {
    ledger: Arc<dyn Ledger>,
    key: Key,
    shown: Mutex<Shown>,
}

impl ShownInLedger {
    /// Reads what the delivery's destination shows. A value that is damaged counts as none: the next delivery compares.
    ///
    /// # Errors
    /// The ledger's.
    pub fn open(ledger: Arc<dyn Ledger>, delivery: &Delivery) -> ledger::Result<Self> {
        let Delivery { space, app, destination, .. } = delivery.clone();
        let key = Key::Shown { space, app, destination };
        let value = ledger.read(&key)?;
        let shown = value.map(|value| {
            Shown::decode(&value).unwrap_or_else(|| {
                let place = ledger.describe(&key);
                tracing::error!(place, "what a destination shows is damaged or of a newer version");
                Shown::default()
            })
        });
        Ok(Self { ledger, key, shown: Mutex::new(shown.unwrap_or_default()) })
    }

    /// Notes that a delivery begins. Returns whether this is its first try.
    ///
    /// # Errors
    /// The ledger's.
    pub fn begin(&self, release: ReleaseId, number: u64, rules: [u8; 32]) -> ledger::Result<bool> {
        let before = self.shown();
        self.change(|shown| shown.begin(release, number, rules, now()))?;
        Ok(self.shown() != before)
    }

    /// Notes that the delivery that began last has written nothing. A failure to do so is logged: the next one compares.
    pub fn withdraw(&self) {
        if let Err(error) = self.change(Shown::withdraw_first) {
            let place = self.ledger.describe(&self.key);
            tracing::warn!(%error, place, "a delivery that wrote nothing counts as begun");
        }
    }

    /// Notes that the delivery ended well.
    ///
    /// # Errors
    /// The ledger's.
    pub fn complete(&self, kept: &[ReleaseId]) -> ledger::Result<()> {
        self.change(|shown| shown.complete_first(kept, now()))
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) -> ledger::Result<()> {
        let mut shown = self.shown.lock().unpoisoned();
        let mut next = shown.clone();
        change(&mut next);
        if next != *shown {
            self.ledger.apply(&[Change::Put { key: self.key.clone(), value: next.encode() }])?;
            *shown = next;
        }
        Ok(())
    }
}

impl ShownLog for ShownInLedger {
    fn shown(&self) -> Shown {
        self.shown.lock().unpoisoned().clone()
    }

    fn note(&self, started: u64, done: u64) -> Result<(), destination::Error> {
        Ok(self.change(|shown| shown.note(started, done))?)
    }

    fn switch(&self, kept: &[ReleaseId]) -> Result<(), destination::Error> {
        Ok(self.change(|shown| shown.switch(kept, now()))?)
    }
}
