//! What a target says of itself, and what the proxy remembers of it (FORMAT 5.4).

use std::mem::discriminant;

use serde::{Deserialize, Serialize};

use crate::record::Progress;
use crate::value;
use ground::faults::Fault;
use ground::ids::{DestinationName, Label, ReleaseId, RolloutId};
use ground::limits::{TARGET_OUTPUT_BYTES_MAX, TARGET_REASON_BYTES_MAX};

/// First byte of the value.
const VERSION: u8 = 1;

/// What a target does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// It shows nothing yet, and nothing is wanted.
    #[default]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// While it fetches: why the last try ended, until the next one gets further.
    #[serde(default)]
    pub held_up: Option<String>,
}

impl TargetReport {
    /// Returns whether its texts are short enough.
    pub fn is_bounded(&self) -> bool {
        let reason = match &self.state {
            TargetState::RolledBack { reason } | TargetState::Failed { reason, .. } => reason.len(),
            _ => 0,
        };
        let held_up = self.held_up.as_ref().map_or(0, String::len);
        reason.max(held_up) <= TARGET_REASON_BYTES_MAX && self.output.len() <= TARGET_OUTPUT_BYTES_MAX
    }

    /// Returns whether it says the same as `other`, but for how far a fetch is.
    pub fn is_alike(&self, other: &Self) -> bool {
        let still = |report: &Self| match report.state {
            TargetState::Fetching(_) => Self {
                state: TargetState::Fetching(Progress::default()),
                fetched_bytes: 0,
                saved_bytes: 0,
                ..report.clone()
            },
            _ => report.clone(),
        };
        discriminant(&self.state) == discriminant(&other.state) && still(self) == still(other)
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl StoredTarget {
    /// Returns the releases that it needs: what it shows, goes back to, works on, and is assigned.
    pub fn releases(&self) -> impl Iterator<Item = ReleaseId> {
        let TargetReport { shown, previous, about, ref state, .. } = self.report;
        // From a release that it went back from it needs nothing any more.
        let about = about.filter(|_| !matches!(state, TargetState::RolledBack { .. }));
        let assigned = self.assigned.as_ref().map(|assigned| assigned.release);
        [shown, previous, about, assigned].into_iter().flatten()
    }

    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(VERSION, self)
    }

    /// Decodes a value; none if it is damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION..=VERSION, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_fetch_is_is_no_news_and_all_else_is() {
        let fetching = |bytes| TargetReport {
            state: TargetState::Fetching(Progress { bytes, total: 9, files: 1 }),
            fetched_bytes: bytes,
            ..TargetReport::default()
        };
        assert!(fetching(1).is_alike(&fetching(2)));
        assert!(!fetching(1).is_alike(&TargetReport { held_up: Some("busy".to_owned()), ..fetching(1) }));
        assert!(!fetching(1).is_alike(&TargetReport { shown: Some(ReleaseId::of(b"a")), ..fetching(1) }));
        let back = |reason: &str| TargetReport {
            state: TargetState::RolledBack { reason: reason.to_owned() },
            ..TargetReport::default()
        };
        assert!(!back("one").is_alike(&back("two")));
        assert!(!back("one").is_alike(&fetching(1)));
    }

    #[test]
    fn a_target_needs_what_it_may_show_again() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| ReleaseId::of(name));
        let report =
            TargetReport { shown: Some(a), previous: Some(b), about: Some(c), ..TargetReport::default() };
        let target = StoredTarget { report, ..StoredTarget::default() };
        assert_eq!(target.releases().collect::<Vec<_>>(), [a, b, c]);
        let mut back = target.clone();
        back.report.state = TargetState::RolledBack { reason: String::new() };
        assert_eq!(back.releases().collect::<Vec<_>>(), [a, b]);
        assert_eq!(StoredTarget::decode(&target.encode()), Some(target));
    }
}
