//! A message or hook that is still to be made, as it is written down.

use serde::{Deserialize, Serialize};

use super::event::Happened;
use ground::ids::ActionName;

/// First byte of a notice's value (FORMAT 5.3).
const VERSION: u8 = 1;

/// One action that is to follow one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The action.
    pub action: ActionName,
    /// The event.
    pub happened: Happened,
}

impl Notice {
    /// Encodes a notice.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        rmp_serde::encode::write(&mut bytes, self).expect("a Vec takes every write");
        bytes
    }

    /// Decodes a notice; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, notice)) => rmp_serde::from_slice(notice).ok(),
            _ => None,
        }
    }

    /// Returns whether both are the same action after the same event.
    pub fn is_same(&self, other: &Self) -> bool {
        self.action == other.action && self.happened.message_id() == other.happened.message_id()
    }
}
