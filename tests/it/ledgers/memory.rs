//! A ledger in memory, with what the contract demands of a kind and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use disk::files;
use ground::ids::{AppName, SpaceName};
use whit::ledger::{Change, Error, InProcess, Key, Leases, Ledger, Result, Retired, Table, VALUE_BYTES_MAX};

#[derive(Debug)]
struct Value {
    bytes: Vec<u8>,
    retired: Option<Retired>,
    touched: SystemTime,
}

/// A ledger in memory.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    values: Mutex<BTreeMap<Key, Value>>,
    leases: Mutex<HashMap<SpaceName, Arc<InProcess>>>,
    /// Number of values that still fit; unlimited if none.
    room: Mutex<Option<usize>>,
}

impl MemoryLedger {
    /// Limits the ledger to this many more values, or removes the limit.
    pub fn fill(&self, room: Option<usize>) {
        *self.room.lock().expect("no panic") = room;
    }

    fn take_room(&self, key: &Key) -> Result<()> {
        match &mut *self.room.lock().expect("no panic") {
            Some(0) => {
                let source = ErrorKind::StorageFull.into();
                Err(files::Error { action: "write", path: key.to_string().into(), source }.into())
            }
            Some(room) => {
                *room -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Ledger for MemoryLedger {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let values = self.values.lock().expect("no panic");
        Ok(values.get(key).filter(|value| value.retired.is_none()).map(|value| value.bytes.clone()))
    }

    fn has(&self, key: &Key) -> Result<bool> {
        Ok(self.read(key)?.is_some())
    }

    fn scan(&self, table: &Table) -> Result<Vec<(Key, Option<Retired>)>> {
        let values = self.values.lock().expect("no panic");
        let ours = values.iter().filter(|(key, _)| key.table() == *table);
        Ok(ours.map(|(key, value)| (key.clone(), value.retired)).collect())
    }

    fn apps(&self, space: &SpaceName) -> Result<Vec<AppName>> {
        let values = self.values.lock().expect("no panic");
        let mut apps: Vec<AppName> = values
            .keys()
            .filter_map(|key| match key {
                Key::Record { space: of, app, .. }
                | Key::Cached { space: of, app, .. }
                | Key::Target { space: of, app, .. }
                    if of == space =>
                {
                    Some(app.clone())
                }
                _ => None,
            })
            .collect();
        apps.sort();
        apps.dedup();
        Ok(apps)
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        let mut values = self.values.lock().expect("no panic");
        for change in changes {
            let key = change.key();
            if let Some(value) = change.value().filter(|value| value.len() as u64 > VALUE_BYTES_MAX) {
                return Err(Error::TooLarge { key: key.clone(), bytes: value.len() });
            }
            let refused = match change {
                Change::Create { .. } => values.contains_key(key),
                Change::Put { .. } => values.get(key).is_some_and(|value| value.retired.is_some()),
                Change::Retire { .. } | Change::Remove { .. } => false,
            };
            if refused {
                return Err(Error::Exists(key.clone()));
            }
        }
        for change in changes {
            if change.value().is_some() {
                self.take_room(change.key())?;
            }
            match change {
                Change::Create { key, value } | Change::Put { key, value } => {
                    let value = Value { bytes: value.clone(), retired: None, touched: SystemTime::now() };
                    values.insert(key.clone(), value);
                }
                Change::Retire { key, reason } => {
                    if let Some(value) = values.get_mut(key) {
                        value.retired = Some(*reason);
                    }
                }
                Change::Remove { key } => {
                    if values.get(key).is_some_and(|value| value.retired.is_none()) {
                        values.remove(key);
                    }
                }
            }
        }
        Ok(())
    }

    fn touch(&self, key: &Key) -> Result<()> {
        if let Some(value) = self.values.lock().expect("no panic").get_mut(key) {
            value.touched = SystemTime::now();
        }
        Ok(())
    }

    fn touched(&self, key: &Key) -> Result<Option<SystemTime>> {
        let values = self.values.lock().expect("no panic");
        Ok(values.get(key).filter(|value| value.retired.is_none()).map(|value| value.touched))
    }

    fn describe(&self, key: &Key) -> String {
        key.to_string()
    }

    fn recover(&self, _table: &Table) -> Result<()> {
        Ok(())
    }

    fn leases(&self, space: &SpaceName) -> Arc<dyn Leases> {
        let mut leases = self.leases.lock().expect("no panic");
        let of_space = leases.entry(space.clone()).or_insert_with(|| Arc::new(InProcess::new(Instant::now)));
        Arc::clone(of_space) as Arc<dyn Leases>
    }
}
