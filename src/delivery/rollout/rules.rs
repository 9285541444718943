//! How a group is updated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Share;
use ground::ids::{DestinationName, TargetName};
use ground::pattern::Pattern;

/// Groups by name; a group is named where a destination is.
pub type Groups = BTreeMap<DestinationName, Group>;

/// A group, as the admin defines it: its members, and its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Names of targets, or patterns of them.
    pub targets: Vec<Pattern>,
    /// Destinations.
    pub destinations: Vec<DestinationName>,
    /// How they are updated.
    pub rules: Rules,
}

impl Group {
    /// Returns whether a target is a member.
    pub fn has_target(&self, name: &TargetName) -> bool {
        self.targets.iter().any(|pattern| pattern.matches(name.as_str()))
    }
}

/// How a group is updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The members that come first, alone, rounded up; nobody for none.
    pub canary: Share,
    /// The most members that have the release and have yet to confirm it, rounded up.
    pub batch: Share,
    /// Seconds between two batches.
    pub bake: u64,
    /// The fewest members that are there and well while a batch is under way, rounded up; a batch is smaller, or waits, for that.
    pub min_healthy: Option<Share>,
    /// The most members that may fail, rounded down.
    pub max_failures: Share,
    /// Seconds in which a member must confirm.
    pub healthy_within: u64,
    /// Seconds for which it must then stay so.
    pub healthy_for: u64,
    /// What happens when more fail.
    pub on_failure: OnFailure,
    /// What happens to a rollout that is under way when a newer one is asked for.
    pub on_newer: OnNewer,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            canary: Share::Members(0),
            batch: Share::Members(1),
            bake: 0,
            min_healthy: None,
            max_failures: Share::Members(0),
            healthy_within: 600,
            healthy_for: 0,
            on_failure: OnFailure::Rollback,
            on_newer: OnNewer::Supersede,
        }
    }
}

/// What happens when more members fail than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Who has the release goes back.
    Rollback,
    /// No further batch begins until a person says so.
    Hold,
    /// The others get it all the same.
    Continue,
}

/// What happens to a rollout that is under way when a newer one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNewer {
    /// It ends, and the newer one begins.
    Supersede,
    /// The newer one waits for its end.
    Wait,
}
