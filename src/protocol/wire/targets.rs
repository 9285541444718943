//! What watching targets and the proxy say to one another, and what is asked of targets and rollouts.

use serde::{Deserialize, Serialize};

use super::Refusal;
use format::record::Record;
use format::target::{Assignment, StoredTarget, TargetReport};
use ground::ids::{AppName, DestinationName, Label, ReleaseId, RolloutId, TargetName, UserName};

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
