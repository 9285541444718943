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
    /// Returns whether it is to have the release, and has not been sure of it for long enough.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Given { .. } | Self::Proving { .. })
    }
}
