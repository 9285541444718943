//! What people see of groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MemberName;
use ground::ids::{AppName, DestinationName, ReleaseId, RolloutId};
use ground::pattern::Pattern;

/// A group of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: DestinationName,
    /// Names of targets, or patterns of them.
    pub targets: Vec<Pattern>,
    /// Destinations.
    pub destinations: Vec<DestinationName>,
    /// How it is updated: the keys of a configuration, and their values as they are written there.
    pub rules: BTreeMap<String, String>,
    /// Its applications, by name: those with a target in the group, a release of the group, or a rollout under way.
    pub apps: Vec<GroupApp>,
}

/// An application of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupApp {
    /// The application.
    pub app: AppName,
    /// The group's release.
    pub release: Option<ReleaseId>,
    /// The rollout that is under way.
    pub rollout: Option<RolloutId>,
    /// The members that the next rollout would have, in its order.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its name.
    pub name: MemberName,
    /// True if it is not there.
    pub away: bool,
}
