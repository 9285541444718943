//! Reads records, repairs damaged ones from the history, and sets aside those that it does not have.

use std::collections::HashMap;

use super::history::{self, Pushed};
use super::records::Records;
use super::{Error, Result};
use crate::ledger::{Change, Key, Retired, Table};
use format::record::Record;
use format::value::NoValue;
use ground::faults::{Fault, Faulty};
use ground::ids::AppName;
use ground::poison::Unpoisoned as _;

impl Records {
    /// Returns the records that were found damaged, now or earlier. The chunks that their pushes need are unknown.
    pub fn unreadable(&self) -> Vec<Key> {
        self.unreadable.lock().unpoisoned().clone()
    }

    /// Describes a record's location for people.
    pub fn describe(&self, record: &Key) -> String {
        self.ledger.describe(record)
    }

    /// Gives up a record that was found damaged; its bytes stay, for people to look at.
    ///
    /// # Errors
    /// The ledger's.
    pub fn let_go(&self, record: &Key) -> Result<()> {
        self.ledger.apply(&[Change::Retire { key: record.clone(), reason: Retired::Unreadable }])?;
        self.unreadable.lock().unpoisoned().retain(|other| other != record);
        Ok(())
    }

    /// Lists damaged records that the history has; with `repair`, rewrites these and sets
    /// aside those that the history does not have.
    ///
    /// # Errors
    /// The ledger's.
    pub fn damaged_on_disk(&self, repair: bool) -> Result<Vec<String>> {
        let mut damaged = Vec::new();
        for summary in self.apps() {
            let pushed = self.read().pushed(&summary.app).to_vec();
            for pushed in pushed {
                let key = self.key(&summary.app, pushed.sequence);
                let found = match self.ledger.read(&key) {
                    Ok(bytes) => bytes.and_then(|bytes| Self::decode(&bytes).ok()),
                    Err(error) if matches!(error.fault(), Fault::Missing | Fault::Corrupt) => None,
                    Err(error) => return Err(error.into()),
                };
                if found.is_some_and(|found| Pushed::from(&found) == pushed) {
                    continue;
                }
                // No record is removed or added between the check and the repair.
                let mut memory = self.write();
                if !memory.pushed(&summary.app).contains(&pushed) {
                    continue;
                }
                damaged.push(self.describe(&key));
                if repair && self.mend(&summary.app, &pushed)?.is_none() {
                    self.set_aside(&key)?;
                    memory.forget(&summary.app, |other| *other == pushed);
                    self.find_latest(&mut memory, &summary.app)?;
                }
            }
        }
        Ok(damaged)
    }

    /// Rewrites a record as the history has it.
    pub(super) fn mend(&self, app: &AppName, pushed: &Pushed) -> Result<Option<Record>> {
        let known = history::find(&self.history(app), pushed.sequence);
        let Some(record) = known.filter(|record| Pushed::from(record) == *pushed) else { return Ok(None) };
        let key = self.key(app, pushed.sequence);
        self.ledger.apply(&[Change::Put { key: key.clone(), value: Self::encode(&record) }])?;
        tracing::warn!(place = self.describe(&key), "rewrote a damaged record");
        Ok(Some(record))
    }

    /// Sets a damaged record aside, so that its bytes can still be looked at.
    pub(super) fn set_aside(&self, key: &Key) -> Result<()> {
        if self.ledger.has(key)? {
            self.ledger.apply(&[Change::Retire { key: key.clone(), reason: Retired::Damaged }])?;
            self.unreadable.lock().unpoisoned().push(key.clone());
        }
        Ok(())
    }

    /// Reads a record; none where it is damaged or gone.
    pub(super) fn read_value(&self, key: &Key) -> Result<Option<Record>> {
        let Some(bytes) = self.ledger.read(key)? else { return Ok(None) };
        match Self::decode(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(NoValue::Damaged) => {
                let error = Error::Record { place: self.describe(key) };
                tracing::error!(%error, "a record is damaged");
                Ok(None)
            }
            Err(NoValue::Version(version)) => {
                Err(Error::RecordVersion { place: self.describe(key), version })
            }
        }
    }

    /// Reads what is known of an application's pushes, oldest first, and the highest number that any of its
    /// records has or had.
    pub(super) fn read_app(&self, app: &AppName) -> Result<(Vec<Pushed>, u64)> {
        let table = Table::Records { space: self.space.clone(), app: app.clone() };
        self.ledger.recover(&table)?;
        let (mut there, mut last_number) = (Vec::new(), 0);
        for (key, retired) in self.ledger.scan(&table)? {
            let Key::Record { number, .. } = key else { continue };
            last_number = last_number.max(number);
            match retired {
                None => there.push(number),
                Some(Retired::Damaged) => self.unreadable.lock().unpoisoned().push(key),
                Some(Retired::Removed | Retired::Unreadable) => {}
            }
        }
        let folder = self.history(app);
        let (known, is_whole) = history::read(&folder)?;
        let known_count = known.len();
        let mut known: HashMap<u64, Record> =
            known.into_iter().map(|record| (record.sequence, record)).collect();
        let (mut records, mut unknown) = (Vec::with_capacity(there.len()), 0);
        for number in there {
            if let Some(known) = known.remove(&number) {
                records.push(known);
                continue;
            }
            let key = self.key(app, number);
            unknown += 1;
            match self.read_value(&key)? {
                Some(record) => records.push(record),
                None => self.set_aside(&key)?,
            }
        }
        let is_stale = known_count + unknown > 2 * records.len() + 64;
        if (unknown > 0 || !is_whole || is_stale)
            && let Err(error) = history::replace(&folder, &records)
        {
            tracing::debug!(%error, "an application's history was not written; the next start reads its records again");
        }
        Ok((records.iter().map(Pushed::from).collect(), last_number))
    }
}
