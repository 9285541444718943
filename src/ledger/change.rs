//! Changes of a ledger.

use super::Key;

/// One change; several make a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Gives a new key its value. Expects that the key does not exist, not even retired.
    Create {
        /// The key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
    },
    /// Gives a key its value, whether or not it has one. Expects that it is not retired.
    Put {
        /// The key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
    },
    /// Takes a key out of lists and reads and keeps its value, for people; a key that is retired gets another reason. One that
    /// does not exist is no error.
    Retire {
        /// The key.
        key: Key,
        /// Why.
        reason: Retired,
    },
    /// Removes a key and its value. One that does not exist, or is retired, is no error and stays as it is.
    Remove {
        /// The key.
        key: Key,
    },
}

impl Change {
    /// The key that changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. }
            | Self::Put { key, .. }
            | Self::Retire { key, .. }
            | Self::Remove { key } => key,
        }
    }

    /// The value that the key gets, if any.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Create { value, .. } | Self::Put { value, .. } => Some(value),
            Self::Retire { .. } | Self::Remove { .. } => None,
        }
    }
}

/// Why a key was retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retired {
    /// Somebody removed what it names.
    Removed,
    /// Its value was found damaged, and that has not been settled.
    Damaged,
    /// Its value was damaged, and an admin has settled it.
    Unreadable,
}

impl Retired {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Removed, Self::Damaged, Self::Unreadable];
}
