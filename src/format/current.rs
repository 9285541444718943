//! The current release of an application: the log of what moved it (FORMAT 4.1).
//!
//! The newest entry that counts says all there is to know: which release is current, which were before it, and which of
//! them are bad. Older entries are for people.

use serde::{Deserialize, Serialize};

use crate::value::{self, NoValue};
use ground::ids::{ReleaseId, UserName};

/// First byte of an entry that makes a release current, and of the meaning of a label.
const VERSION: u8 = 1;
/// First byte of an entry after which no release is current: an older whit would take the latest release for current.
const VERSION_WITHOUT: u8 = 2;

/// Releases that were current before, as an entry lists them; older ones are forgotten.
pub const BACK_MAX: usize = 50;
/// Bad releases that an entry lists; those that were left longest ago are forgotten.
pub const BAD_MAX: usize = 50;
/// Entries of an application's log that are kept.
pub const ENTRIES_MAX: u64 = 1000;
/// Bytes of the reason that a user gives for a promote or rollback.
pub const REASON_BYTES_MAX: usize = 1000;

/// What moved the current release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MovedBy {
    /// A push.
    Push,
    /// `whit promote`.
    Promote,
    /// `whit rollback`: the release that it left is bad.
    Rollback,
}

impl MovedBy {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        }
    }
}

/// Where the releases of an application stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The current one.
    pub current: Option<ReleaseId>,
    /// The one that a rollback goes to.
    pub previous: Option<ReleaseId>,
    /// Those that a rollback left, and that nobody has made current since.
    pub bad: Vec<ReleaseId>,
}

/// One entry of the log: who made which release current, when and why, and what follows from all entries so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentEntry {
    /// The release that is current from here on; none until a rollout of the application's first release has succeeded.
    pub release: Option<ReleaseId>,
    /// The release that was current before, if there was any.
    pub from: Option<ReleaseId>,
    /// The record that was written with the entry, by its number. The entry counts only if that record is there: a crash
    /// between the two leaves neither.
    pub record: Option<u64>,
    /// What moved it.
    pub by: MovedBy,
    /// On whose behalf.
    pub user: UserName,
    /// The id of the token that allowed it, 16 hexadecimal digits; empty where none was needed.
    pub token: String,
    /// Seconds since 1970, by the proxy's clock.
    pub time: u64,
    /// The reason that the user gave.
    pub because: Option<String>,
    /// The releases that were current before, each once, the last one first; at most [`BACK_MAX`].
    pub back: Vec<ReleaseId>,
    /// The releases that a rollback left, the last one first; at most [`BAD_MAX`].
    pub bad: Vec<ReleaseId>,
}

impl CurrentEntry {
    /// Encodes an entry: a version, MessagePack, and a check of both.
    pub fn encode(&self) -> Vec<u8> {
        value::encode_checked(if self.release.is_some() { VERSION } else { VERSION_WITHOUT }, self)
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// The bytes are not an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoValue> {
        let entry: Self = value::decode_checked(VERSION..=VERSION_WITHOUT, bytes)?;
        let is_bounded = entry.back.len() <= BACK_MAX && entry.bad.len() <= BAD_MAX;
        if is_bounded { Ok(entry) } else { Err(NoValue::Damaged) }
    }
}

/// The meaning that a label was given after a push, or that it lost (FORMAT 4.2). It counts until a later record gives the label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelMeaning {
    /// The release that it names; none where it was taken away.
    pub release: Option<ReleaseId>,
    /// The number of the application's last record at that time: the label in records up to there does not count.
    pub after: u64,
    /// On whose behalf.
    pub user: UserName,
    /// Seconds since 1970, by the proxy's clock.
    pub time: u64,
}

impl LabelMeaning {
    /// Encodes a meaning: a version, MessagePack, and a check of both.
    pub fn encode(&self) -> Vec<u8> {
        value::encode_checked(VERSION, self)
    }

    /// Decodes a meaning.
    ///
    /// # Errors
    /// As with [`CurrentEntry::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NoValue> {
        value::decode_checked(VERSION..=VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> CurrentEntry {
        CurrentEntry {
            release: Some(ReleaseId::of(b"new")),
            from: Some(ReleaseId::of(b"old")),
            record: Some(7),
            by: MovedBy::Push,
            user: "ada".parse().expect("a name"),
            token: "0102030405060708".to_owned(),
            time: 1_764_000_000,
            because: None,
            back: vec![ReleaseId::of(b"old")],
            bad: Vec::new(),
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_unless_it_lists_too_much() {
        assert_eq!(CurrentEntry::decode(&entry().encode()), Ok(entry()));
        let without = CurrentEntry { release: None, ..entry() };
        assert_eq!(CurrentEntry::decode(&without.encode()), Ok(without.clone()));
        assert_eq!(
            (entry().encode()[0], without.encode()[0]),
            (1, 2),
            "an older whit does not take it for another"
        );
        let endless = CurrentEntry { back: vec![ReleaseId::of(b"old"); BACK_MAX + 1], ..entry() };
        assert_eq!(CurrentEntry::decode(&endless.encode()), Err(NoValue::Damaged));
    }

    #[test]
    fn the_meaning_of_a_label_is_read_as_it_was_written() {
        let user: UserName = "ada".parse().expect("a name");
        let meaning = LabelMeaning { release: Some(ReleaseId::of(b"x")), after: 3, user, time: 9 };
        for meaning in [meaning.clone(), LabelMeaning { release: None, ..meaning }] {
            assert_eq!(LabelMeaning::decode(&meaning.encode()), Ok(meaning));
        }
    }
}
