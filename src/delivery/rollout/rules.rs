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
    /// Returns the targets that are named without a pattern: they are members also where they never came.
    pub fn named_targets(&self) -> impl Iterator<Item = TargetName> {
        self.targets.iter().filter(|pattern| pattern.is_name()).filter_map(|name| name.as_str().parse().ok())
    }

    /// Returns whether a target is a member.
    pub fn has_target(&self, name: &TargetName) -> bool {
        self.targets.iter().any(|pattern| pattern.matches(name.as_str()))
    }
}

/// Returns what two groups share, of what can be seen without knowing the targets: the groups' names, and a pattern of each or the
/// destination.
pub fn shared(groups: &Groups) -> Vec<(DestinationName, DestinationName, String)> {
    let mut found = Vec::new();
    for (place, (name, group)) in groups.iter().enumerate() {
        for (other_name, other) in groups.iter().skip(place + 1) {
            let both = group.targets.iter().flat_map(|one| other.targets.iter().map(move |two| (one, two)));
            let targets = both.filter(|(one, two)| one.meets(two)).map(|(one, two)| {
                let (one, two) = (one.as_str(), two.as_str());
                if one == two { format!("targets {one}") } else { format!("targets {one} and {two}") }
            });
            let edges = group.destinations.iter().filter(|edge| other.destinations.contains(edge));
            let edges = edges.map(|edge| format!("destination {edge}"));
            found.extend(targets.chain(edges).map(|what| (name.clone(), other_name.clone(), what)));
        }
    }
    found
}

impl Rules {
    /// Returns each rule by its key in a configuration, as it is written there.
    pub fn by_key(&self) -> BTreeMap<String, String> {
        let seconds = |seconds: u64| format!("{seconds}s");
        let on_failure = match self.on_failure {
            OnFailure::Rollback => "rollback",
            OnFailure::Hold => "hold",
            OnFailure::Continue => "continue",
        };
        let on_newer = match self.on_newer {
            OnNewer::Supersede => "supersede",
            OnNewer::Wait => "wait",
        };
        let all = [
            ("canary", self.canary.to_string()),
            ("batch", self.batch.to_string()),
            ("bake", seconds(self.bake)),
            ("max_failures", self.max_failures.to_string()),
            ("healthy_within", seconds(self.healthy_within)),
            ("healthy_for", seconds(self.healthy_for)),
            ("on_failure", on_failure.to_owned()),
            ("on_newer", on_newer.to_owned()),
        ];
        let fewest = self.min_healthy.map(|share| ("min_healthy", share.to_string()));
        all.into_iter().chain(fewest).map(|(key, value)| (key.to_owned(), value)).collect()
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
