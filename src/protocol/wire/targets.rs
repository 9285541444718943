//! What watching targets and the proxy say to one another, and what is asked of targets and rollouts.

use serde::{Deserialize, Serialize};

use super::Refusal;
use format::record::Record;
use format::target::{Assignment, StoredTarget, TargetReport};
use ground::ids::{AppName, DeliveryId, DestinationName, Label, ReleaseId, RolloutId, TargetName, UserName};

/// The beginning of a target's stream; its name is in its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// The application.
    pub app: AppName,
    /// The label or release that it follows; none for the current one.
    pub at: Option<Label>,
    /// The version of its whit.
    pub version: String,
    /// Names the directory: another one under the same name is refused while this one is there.
    pub instance: u64,
    /// What it does.
    pub report: TargetReport,
}

/// A message of a target after `Watching`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromTarget {
    /// What it does has changed.
    Report(Box<TargetReport>),
    /// It is there. Comes every few seconds, and is not answered.
    Alive,
    /// As [`FromAgent::Renew`](super::FromAgent::Renew).
    Renew(String),
}

/// A message of the proxy to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToTarget {
    /// What it is to show from now on. Comes first, where there is a release, and at each change.
    Wanted(Box<Wanted>),
    /// The proxy is there. Comes every few seconds, and is not answered.
    Alive,
    /// No.
    Refused(Refusal),
}

/// What a target is to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The release's record.
    pub record: Record,
    /// The group's word, where one assigned it.
    pub assigned: Option<Assignment>,
}

/// A target of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub target: TargetName,
    /// The application.
    pub app: AppName,
    /// True if its stream is there.
    pub reachable: bool,
    /// What is remembered of it.
    pub known: StoredTarget,
}

/// A target, and what is said of its releases to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedTarget {
    /// The target.
    pub status: TargetStatus,
    /// The labels of the release that it shows.
    pub labels: Vec<Label>,
    /// The release that it is to show; none where there is none.
    pub wants: Option<ReleaseId>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Its id.
    pub id: RolloutId,
    /// The group.
    pub group: DestinationName,
    /// The application.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// The release that the group had before.
    pub previous: Option<ReleaseId>,
    /// Who asked for it.
    pub user: UserName,
    /// Why.
    pub because: Option<String>,
    /// Seconds since 1970 at which it was asked for.
    pub asked: u64,
    /// Seconds since 1970 at which it ended.
    pub ended: Option<u64>,
    /// How far it is.
    pub state: RolloutState,
    /// Batches that have begun.
    pub batch: u32,
    /// Batches that there will be, as it looks now.
    pub batches: u32,
    /// The group's members, in the order in which they get the release; none before it begins.
    pub members: Vec<RolloutMember>,
    /// How many of the first members are canaries.
    pub canaries: u32,
    /// What it waits for, besides members that are to confirm or go back.
    pub waits: Option<RolloutWait>,
    /// The release that stays current although the rollout has succeeded, as it was asked for later.
    pub current_stays: Option<ReleaseId>,
}

/// What a rollout waits for. Times are seconds since 1970, as it looks now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutWait {
    /// The proxy has started, and members may come back.
    ComesBack {
        /// Until when.
        until: u64,
    },
    /// The last batch is looked at before the next one begins.
    Bakes {
        /// Until when.
        until: u64,
    },
    /// More members are to be well before the next batch begins.
    MinHealthy {
        /// When that has failed.
        until: u64,
    },
    /// What it does cannot be done, or written down; it is tried again each second.
    Trouble {
        /// Why.
        reason: String,
    },
}

/// How far a rollout is. The last states have the names by which version 1 of its value (FORMAT 5.5) knew them, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// It waits for another one of its group, or of its members.
    Waiting {
        /// The other one.
        behind: Option<RolloutId>,
    },
    /// Members get the release.
    Running,
    /// No further batch begins until a person says so.
    Held {
        /// Why.
        reason: String,
    },
    /// Members go back.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// The group has the release.
    #[serde(alias = "Succeeded")]
    Succeeded,
    /// Members that had it went back, or will as soon as they can.
    #[serde(alias = "RolledBack")]
    RolledBack {
        /// Why.
        reason: String,
    },
    /// Too many failed; who has the release keeps it.
    #[serde(alias = "Failed")]
    Failed {
        /// Why.
        reason: String,
    },
    /// A person ended it; who has the release keeps it.
    #[serde(alias = "Aborted")]
    Aborted {
        /// Who.
        by: String,
    },
    /// A newer one came.
    #[serde(alias = "Superseded")]
    Superseded {
        /// The newer one's id.
        by: String,
    },
}

impl RolloutState {
    /// Returns whether the rollout has ended.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Running | Self::Held { .. } | Self::RollingBack { .. })
    }
}

/// A member of a group, in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutMember {
    /// Its name.
    pub name: MemberName,
    /// The delivery to a destination, once it was asked for.
    pub delivery: Option<DeliveryId>,
    /// How far it is.
    pub state: RolloutMemberState,
    /// How far it was when it was told to go back; none of one that was not.
    pub before: Option<RolloutMemberState>,
    /// True if it is not there while the rollout waits for it.
    pub away: bool,
    /// Until when the rollout waits for it, as it looks now, in seconds since 1970.
    pub until: Option<u64>,
}

impl RolloutMember {
    /// Returns why it failed, also if it has gone back since.
    pub fn failure(&self) -> Option<&str> {
        match (&self.state, &self.before) {
            (RolloutMemberState::Failed { reason }, _) | (_, Some(RolloutMemberState::Failed { reason })) => {
                Some(reason)
            }
            _ => None,
        }
    }
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberName {
    /// A machine or directory that pulls.
    Target(TargetName),
    /// A destination of the proxy.
    Destination(DestinationName),
}

impl MemberName {
    /// Returns the name itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Target(target) => target.as_str(),
            Self::Destination(destination) => destination.as_str(),
        }
    }
}

/// How far a member is in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutMemberState {
    /// Its batch has not begun.
    Waiting,
    /// It is to have the release, and has not confirmed it.
    Updating,
    /// It has confirmed the release, and is to stay so for a while.
    Proving,
    /// It has confirmed the release.
    Confirmed,
    /// It refused the release, or did not confirm it in time.
    Failed {
        /// Why.
        reason: String,
    },
    /// It goes back, or is to when others have.
    Returning,
    /// It has gone back.
    Returned,
    /// It did not go back in time; it does so when it can.
    NotReturned {
        /// Why.
        reason: String,
    },
}

/// What is done to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutSteering {
    /// Begin no further batch.
    Hold,
    /// Go on.
    Resume,
    /// End it: who has the release keeps it.
    Abort,
    /// End it: who has the release goes back.
    Rollback,
}
