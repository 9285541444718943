//! How far a member of a group is in a rollout, and what is seen of it.

use serde::{Deserialize, Serialize};

/// A member of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// How far it is.
    pub state: MemberState,
    /// True if it had another release than its group's when the rollout began, from one that was left unfinished.
    pub strayed: bool,
    /// True if there is no other release that it could go back to.
    #[serde(default)]
    pub stays: bool,
    /// How far it had come when it was told to go back.
    #[serde(default)]
    pub left: Left,
    /// Why it had failed then; empty if it had not.
    #[serde(default)]
    pub left_because: String,
}

/// How far a member had come when it was told to go back. A number in the ledger, as a thousand members fit in a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub enum Left {
    /// It was not told to.
    #[default]
    Nothing,
    /// Its batch had not begun.
    Waiting,
    /// It was to have the release.
    Given,
    /// It had confirmed the release, and was to stay so for a while.
    Proving,
    /// It had confirmed the release.
    Confirmed,
    /// It had failed.
    Failed,
}

const LEFT: [Left; 6] =
    [Left::Nothing, Left::Waiting, Left::Given, Left::Proving, Left::Confirmed, Left::Failed];

impl From<Left> for u8 {
    fn from(left: Left) -> Self {
        left as Self
    }
}

impl From<u8> for Left {
    fn from(number: u8) -> Self {
        LEFT.get(usize::from(number)).copied().unwrap_or_default()
    }
}

impl Member {
    /// Notes how far it is, before it is told to go back.
    pub(super) fn leave(&mut self) {
        self.left = match &self.state {
            MemberState::Waiting => Left::Waiting,
            MemberState::Given { .. } => Left::Given,
            MemberState::Proving { .. } => Left::Proving,
            MemberState::Confirmed => Left::Confirmed,
            MemberState::Failed { reason } => {
                self.left_because.clone_from(reason);
                Left::Failed
            }
            // It goes back already.
            _ => self.left,
        };
    }
}

/// How far a member is. Times are ages of the rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Its batch has not begun.
    #[default]
    Waiting,
    /// It is to have the release.
    Given {
        /// Since when.
        at: u64,
    },
    /// It has confirmed the release, and is to stay so for a while.
    Proving {
        /// When it was given.
        at: u64,
        /// When it confirmed.
        since: u64,
    },
    /// It has confirmed the release for long enough.
    Confirmed,
    /// It refused the release, or did not confirm it in time.
    Failed {
        /// Why.
        reason: String,
    },
    /// It has the release, and is to go back when others have.
    Leaving,
    /// It is to go back.
    Returning {
        /// Since when.
        at: u64,
    },
    /// It has gone back.
    Returned,
    /// It did not go back in time; it does so when it can.
    NotReturned {
        /// Why.
        reason: String,
    },
}

/// What is seen of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// True if it is there.
    pub reachable: bool,
    /// True if it has the release, and is sure of it.
    pub has_new: bool,
    /// Why it went back from the release, if it did.
    pub refused: Option<String>,
    /// True if it has the release that it had before.
    pub has_old: bool,
}

impl MemberState {
    /// Returns whether the rollout waits for it to have the release, or to go back.
    pub fn is_awaited(&self) -> bool {
        self.is_under_way() || matches!(self, Self::Returning { .. })
    }

    /// Returns whether it is to have the release, and has not been sure of it for long enough.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Given { .. } | Self::Proving { .. })
    }
}
