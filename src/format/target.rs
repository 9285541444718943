//! What a target says of itself, and what the proxy remembers of it (FORMAT 5.4).

use serde::{Deserialize, Serialize};

use crate::record::Progress;
use ground::faults::Fault;
use ground::ids::{DestinationName, Label, ReleaseId, RolloutId};

/// What a target does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// It shows nothing yet, and nothing is wanted.
    Empty,
    /// It fetches and writes a release beside the one that it shows.
    Fetching(Progress),
    /// It runs what is to run before the switch, and switches.
    Switching,
    /// It shows the release, and has yet to be sure of it.
    Confirming,
    /// It shows the release and is sure of it.
    Confirmed,
    /// It has gone back from a release, which it does not try again by itself.
    RolledBack {
        /// Why.
        reason: String,
    },
    /// It could not come to show the release, and tries again.
    Failed {
        /// Why.
        reason: String,
        /// What can be done about it.
        fault: Fault,
    },
}

/// What a target says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The release that it shows.
    pub shown: Option<ReleaseId>,
    /// The release to which it can go back by itself.
    pub previous: Option<ReleaseId>,
    /// The release that its state is about: where it comes from, goes to, or has gone back from.
    pub about: Option<ReleaseId>,
    /// The rollout that assigned that release.
    pub rollout: Option<RolloutId>,
    /// What it does.
    pub state: TargetState,
    /// Bytes of the release that the last update fetched.
    pub fetched_bytes: u64,
    /// Bytes of the release that it did not have to fetch.
    pub saved_bytes: u64,
    /// The last lines of the hook or check that failed.
    pub output: String,
}

/// What a group told a target to want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The release.
    pub release: ReleaseId,
    /// The rollout that assigned it.
    pub rollout: RolloutId,
    /// The group.
    pub group: DestinationName,
}

/// What the proxy remembers of a target of one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTarget {
    /// What it said last.
    pub report: TargetReport,
    /// Seconds since 1970, by the proxy's clock, at which it said that it does this.
    pub since: u64,
    /// Seconds since 1970, by the proxy's clock, at which its stream was last known to be there.
    pub seen: u64,
    /// The version of its whit.
    pub version: String,
    /// The label or release that it follows; none for the current one.
    pub follows: Option<Label>,
    /// What its group told it last.
    pub assigned: Option<Assignment>,
}
