//! A message or hook that is still to be made, as it is written down.

use serde::{Deserialize, Serialize};

use super::event::Happened;
use crate::ledger::{self, Key, Ledger, Table};
use format::current::CurrentEntry;
use format::value;
use ground::ids::ActionName;

/// First byte of a notice's value (FORMAT 5.3); what version 1 lacks is empty.
const VERSION: u8 = 2;
const VERSION_OLDEST: u8 = 1;

/// One action that is to follow one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The action.
    pub action: ActionName,
    /// The event.
    pub happened: Happened,
    /// The number of the entry in the log of current releases that the notice tells. It is written before that entry, in one
    /// transaction, and counts only with it: a crash between the two leaves neither.
    #[serde(default)]
    pub entry: Option<u64>,
}

impl Notice {
    /// Encodes a notice.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(VERSION, self)
    }

    /// Decodes a notice; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION_OLDEST..=VERSION, bytes).ok()
    }

    /// Returns whether what it tells has happened.
    ///
    /// # Errors
    /// The ledger's.
    pub fn counts(&self, ledger: &dyn Ledger) -> ledger::Result<bool> {
        let Some(number) = self.entry else { return Ok(true) };
        let (space, app) = (self.happened.space.clone(), self.happened.app.clone());
        let key = Key::Current { space: space.clone(), app: app.clone(), number };
        if let Some(bytes) = ledger.read(&key)? {
            let is_told = |entry: CurrentEntry| {
                (entry.release, entry.time) == (Some(self.happened.release), self.happened.time)
            };
            // One that is damaged was written.
            return Ok(CurrentEntry::decode(&bytes).map_or(true, is_told));
        }
        // The oldest entries of a log are removed.
        let last = ledger.list(&Table::Current { space, app })?.pop();
        Ok(matches!(last, Some(Key::Current { number: last, .. }) if last > number))
    }

    /// Returns whether both are the same action after the same event.
    pub fn is_same(&self, other: &Self) -> bool {
        self.action == other.action && self.happened.message_id() == other.happened.message_id()
    }
}
