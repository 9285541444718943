//! The definitions of groups.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{DestinationConfig, Mistake, mistake};
use crate::delivery::rollout::{Group, OnFailure, OnNewer, Rules, Share};
use ground::ids::DestinationName;
use ground::pattern::Pattern;

/// 30 days: the longest time that a key may give.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The definition of a group. What is not given has the defaults of [`Rules`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Names of targets, or patterns of them.
    pub targets: Vec<Pattern>,
    /// Destinations.
    pub destinations: Vec<DestinationName>,
    canary: Option<Share>,
    batch: Option<Share>,
    bake: Option<Time>,
    min_healthy: Option<Share>,
    max_failures: Option<Share>,
    healthy_within: Option<Time>,
    healthy_for: Option<Time>,
    on_failure: Option<OnFailure>,
    on_newer: Option<OnNewer>,
}

/// A time as people write it: `90s`, `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_duration(&text).ok().filter(|time| *time <= TIME_MAX);
        time.map(Self).ok_or_else(|| {
            let text = format!("{text:?} is no time of at most 30 days, like \"90s\" or \"2m\"");
            serde::de::Error::custom(text)
        })
    }
}

impl GroupConfig {
    /// Returns the group.
    pub fn open(&self) -> Group {
        let defaults = Rules::default();
        let seconds = |time: Option<Time>, default| time.map_or(default, |Time(time)| time.as_secs());
        Group {
            targets: self.targets.clone(),
            destinations: self.destinations.clone(),
            rules: Rules {
                canary: self.canary.unwrap_or(defaults.canary),
                batch: self.batch.unwrap_or(defaults.batch),
                bake: seconds(self.bake, defaults.bake),
                min_healthy: self.min_healthy,
                max_failures: self.max_failures.unwrap_or(defaults.max_failures),
                healthy_within: seconds(self.healthy_within, defaults.healthy_within),
                healthy_for: seconds(self.healthy_for, defaults.healthy_for),
                on_failure: self.on_failure.unwrap_or(defaults.on_failure),
                on_newer: self.on_newer.unwrap_or(defaults.on_newer),
            },
        }
    }

    /// Returns whether nobody could ever be updated at a time.
    pub fn updates_nobody(&self) -> bool {
        self.batch.is_some_and(Share::is_nobody)
    }
}

/// Returns the first key of a group whose value is a mistake.
pub fn mistaken(
    groups: &BTreeMap<DestinationName, GroupConfig>,
    destinations: &BTreeMap<DestinationName, DestinationConfig>,
) -> Option<(String, Mistake)> {
    groups.iter().find_map(|(name, group)| {
        let found = |key: &str, mistake| Some((format!("groups.{name}{key}"), mistake));
        if destinations.contains_key(name) {
            return found("", Mistake::GroupAndDestination(name.clone()));
        }
        let is_unknown = |member: &&DestinationName| !destinations.contains_key(*member);
        if let Some(member) = group.destinations.iter().find(is_unknown) {
            let names = destinations.keys().map(DestinationName::as_str);
            let nearest = mistake::nearest(member.as_str(), names).map(str::to_owned);
            return found(".destinations", Mistake::NoDestination { member: member.clone(), nearest });
        }
        if group.targets.is_empty() && group.destinations.is_empty() {
            return found(".targets", Mistake::NoMembers);
        }
        // Less than a second is none.
        if group.healthy_within.is_some_and(|Time(time)| time.as_secs() == 0) {
            return found(".healthy_within", Mistake::NoTime);
        }
        if group.updates_nobody() { found(".batch", Mistake::Nobody) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ground::faults::Faulty as _;

    use crate::config::Config;

    #[test]
    fn a_group_that_cannot_be_meant_is_refused_by_its_key() {
        let edge = "[destinations.edge]\nkind = \"dir\"\npath = \"/srv/{app}\"\n";
        for (text, said, hint) in [
            ("[groups.edge]\ntargets = [\"*\"]", "groups.edge: `edge` is a destination", "name of its own"),
            ("[groups.a]\ndestinations = [\"egde\"]", "groups.a.destinations: ", "did you mean `edge`?"),
            ("[groups.a]", "groups.a.targets: ", "web-*"),
            ("[groups.a]\ntargets = [\"*\"]\nbatch = 0", "groups.a.batch: ", "1 or more"),
            ("[groups.a]\ntargets = [\"*\"]\nhealthy_within = \"0s\"", "groups.a.healthy_within: ", "10m"),
            ("[groups.a]\ntargets = [\"*\"]\nbatch = \"120%\"", "neither a number of members", ""),
            ("[groups.a]\ntargets = [\"*\"]\nbake = \"soon\"", "no time", ""),
            ("[groups.a]\ntargets = [\"*\"]\ncanaries = 1", "unknown field", "did you mean `canary`?"),
        ] {
            let text = format!("{edge}{text}");
            let error = Config::parse(text.as_bytes(), Path::new("whit.toml")).expect_err(&text);
            let (refused, found) = (error.to_string(), error.hint().unwrap_or_default());
            assert!(refused.contains(said) && found.contains(hint), "{refused}; {found}");
        }
        let text =
            "[groups.a]\ntargets = [\"web-*\"]\ndestinations = [\"edge\"]\nbatch = \"25%\"\nbake = \"2m\"";
        let groups = Config::parse(format!("{edge}{text}").as_bytes(), Path::new("whit.toml"));
        let groups = groups.expect("a configuration").groups();
        let group = groups.values().next().expect("a group");
        assert_eq!(
            (group.rules.bake, group.rules.healthy_within, group.rules.batch.to_string()),
            (120, 600, "25%".to_owned())
        );
    }
}
