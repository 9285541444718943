//! What a push asks of the current release and of labels, and an entry of the log that is to be written.

use crate::ledger::{Change, Key};
use format::current::CurrentEntry;

/// What a push asks of the current release and of labels.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// The id of the token that allows the push, in hexadecimal digits; empty where none was needed.
    pub token: &'a str,
    /// What becomes of the current release.
    pub current: CurrentAfter,
    /// True if a release that a rollback left becomes current again, and labels of other releases move.
    pub moves: bool,
}

/// What becomes of the current release by a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentAfter {
    /// The pushed release is current.
    Pushed,
    /// The current release stays; the first release of an application becomes it.
    Kept,
    /// The current release stays, or there is none: a rollout makes the pushed one current.
    Awaited,
}

/// An entry of the log and its key.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: Key,
    pub entry: CurrentEntry,
}

/// Changes of one transaction with a move of the current release.
#[derive(Debug, Default)]
pub struct Together {
    /// Those before the entry, which count only with it.
    pub before: Vec<Change>,
    /// Those after the entry.
    pub after: Vec<Change>,
}

impl Entry {
    /// Returns the number of the entry.
    pub fn number(&self) -> u64 {
        match self.key {
            Key::Current { number, .. } => number,
            _ => unreachable!("entries have keys of their table"),
        }
    }

    /// Returns the change that writes the entry.
    pub fn change(&self) -> Change {
        Change::Create { key: self.key.clone(), value: self.entry.encode() }
    }
}
