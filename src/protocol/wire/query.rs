//! Questions that are no push or pull, and their answers. A long answer is several messages.

use serde::{Deserialize, Serialize};

use super::{
    DeliveryPlan, DeliveryStatus, DestinationCheck, DestinationDropped, DestinationStatus, GroupStatus,
    LinkSeen, ListedTarget, Refusal, RolloutStatus,
};
use format::current::{CurrentEntry, MovedBy, Standing};
use format::maintenance::{Collected, Removal, Verified};
use format::record::{AppSummary, DeliveryEvent, Record};
use ground::ids::{AppName, DestinationName, Label, ReleaseId, RolloutId, SpaceName, UserName};

/// A part of an answer; the stream's end ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Some applications.
    Applications(Vec<AppSummary>),
    /// Some releases, newest first.
    Releases(Vec<Record>),
    /// Some files that differ, in the manifest's order.
    Changes(Vec<Change>),
    /// Counts.
    Statistics(Box<Statistics>),
    /// Who answers, and for whom the token speaks.
    Identity(ProxyInfo),
    /// The result of a collection.
    Collected(Collected),
    /// The result of verifying.
    Verified(Box<Verified>),
    /// The release that the next selector of the question means. Comes before all other parts, once for each selector;
    /// the agent compares it with its question.
    Meant(Record),
    /// The release that was pinned or unpinned.
    Done(Record),
    /// The release that was removed, or was not, as that would remove labels that were not named.
    Removed(Box<Removal>),
    /// A delivery's new state.
    Delivery(DeliveryEvent),
    /// No.
    Refused(Refusal),
    /// Where the application's releases stand. Comes before its releases, or its log.
    Standing(Standing),
    /// The current release was moved, or was this one already.
    Moved(Box<Moved>),
    /// Some entries of the log of current releases, newest first.
    Log(Vec<LogEntry>),
    /// The labels that were taken away.
    Unlabelled(Vec<Label>),
    /// Some deliveries; none says only that the proxy is there.
    Deliveries(Vec<DeliveryStatus>),
    /// The destinations that the token allows.
    Destinations(Vec<DestinationStatus>),
    /// The result of trying one destination.
    Checked(DestinationCheck),
    /// A part of what a delivery would do.
    Planned(Box<DeliveryPlan>),
    /// What was taken into the cache.
    Primed(Primed),
    /// What a destination that is gone no longer holds.
    Dropped(DestinationDropped),
    /// What helps to choose how to push.
    PushHint(PushHint),
    /// Some targets; none says only that the proxy is there.
    Targets(Vec<ListedTarget>),
    /// The rollout that was written down. Comes before news of deliveries.
    RollsOut(RolloutId),
    /// Some rollouts; none says only that the proxy is there.
    Rollouts(Vec<RolloutStatus>),
    /// Some groups.
    Groups(Vec<GroupStatus>),
}

/// What helps an agent to choose how to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHint {
    /// The link that the user's last push measured.
    pub link: Option<LinkSeen>,
    /// What the archives of a push meet.
    pub archives: ArchivesMet,
}

/// How the archives of an application's latest release are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchivesMet {
    /// There is no release.
    Nothing,
    /// As they are, until the proxy unpacks them in idle time.
    Packed,
    /// Unpacked, but for some that may be as they are until then.
    Unpacked,
    /// Unpacked where they can be, or as they are for good; or there are none.
    Lasting,
}

/// What was taken into the cache from a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primed {
    /// The release that it would make.
    pub release: ReleaseId,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the chunks that the space did not have.
    pub unseen_bytes: u64,
    /// Seconds since 1970 until which it is kept.
    pub until: u64,
}

/// A move of the current release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The release that is current now.
    pub record: Record,
    /// The release that was current before.
    pub from: Option<ReleaseId>,
    /// The number of the entry in the log; none where the release was current already.
    pub number: Option<u64>,
    /// True if the release before is bad from now on.
    pub rolled_back: bool,
    /// The groups that have another release: their members keep that. Those that the token allows.
    pub groups: Vec<GroupHas>,
}

/// A group, and the release that it has of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHas {
    /// The group.
    pub group: DestinationName,
    /// The release.
    pub release: ReleaseId,
}

/// An entry of the log of current releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Counts the application's entries from 1.
    pub number: u64,
    /// The release that became current.
    pub release: ReleaseId,
    /// The release that was current before.
    pub from: Option<ReleaseId>,
    /// What moved it.
    pub by: MovedBy,
    /// On whose behalf.
    pub user: UserName,
    /// The id of the token that allowed it; empty where none was needed.
    pub token: String,
    /// Seconds since 1970, by the proxy's clock.
    pub time: u64,
    /// The user's reason.
    pub because: Option<String>,
}

impl LogEntry {
    /// Returns an entry without what is for the store alone; none of one that made no release current.
    pub fn of(number: u64, entry: CurrentEntry) -> Option<Self> {
        let CurrentEntry { release, from, by, user, token, time, because, .. } = entry;
        Some(Self { number, release: release?, from, by, user, token, time, because })
    }
}

/// Who answers, and whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyInfo {
    /// The proxy's version of whit.
    pub whit: String,
    /// The user whom the token identifies.
    pub user: UserName,
    /// In which space.
    pub space: SpaceName,
    /// Seconds since 1970 at which the token ends, if it does.
    pub expires: Option<u64>,
    /// Seconds since 1970, by the proxy's clock.
    pub now: u64,
}

/// The change of a path between two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Only in the later one.
    Added,
    /// In both, with other content, kind or mode.
    Changed,
    /// Only in the earlier one.
    Removed,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The change.
    pub kind: ChangeKind,
    /// The path's bytes.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Bytes in the later release, or in the earlier one where it was removed.
    pub bytes: u64,
    /// Bytes of its chunks that the earlier release did not have.
    pub unseen_bytes: u64,
}

/// Chunks of one class of size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeClass {
    /// The most bytes of a chunk of this class; smaller classes come before.
    pub up_to: u32,
    /// How many.
    pub chunks: u64,
    /// Their plain bytes.
    pub bytes: u64,
}

/// The pushes of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatistics {
    /// The user.
    pub user: UserName,
    /// Pushes.
    pub pushes: u64,
    /// Bytes of the releases pushed.
    pub pushed_bytes: u64,
    /// Bytes of them that did not have to cross.
    pub saved_bytes: u64,
    /// Bytes of the content that was pushed only to fill the cache, and is still kept.
    pub cached_bytes: u64,
}

/// Counts of a space, or of one application in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// The application, or none for the whole space.
    pub app: Option<AppName>,
    /// Pushes.
    pub releases: u64,
    /// Files of all releases.
    pub files: u64,
    /// Bytes of all releases, as if each were stored whole.
    pub logical_bytes: u64,
    /// Plain bytes of the distinct chunks.
    pub unique_bytes: u64,
    /// Bytes on disk: the packs of the space, or the application's share of their compressed chunks.
    pub stored_bytes: u64,
    /// Distinct chunks.
    pub chunks: u64,
    /// The chunks by size.
    pub sizes: Vec<SizeClass>,
    /// The users who pushed.
    pub users: Vec<UserStatistics>,
    /// The application's unpacked archives; none for the whole space.
    #[serde(default)]
    pub archives: Option<ArchiveStatistics>,
}

/// Distinct archives that were unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatistics {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of their unpacked content.
    pub stream_bytes: u64,
    /// The encoders that reproduce their deflate streams, most bytes first.
    pub methods: Vec<MethodStatistics>,
}

/// Deflate streams that one encoder reproduces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodStatistics {
    /// The method, in words.
    pub method: String,
    /// How many streams.
    pub streams: u64,
    /// Plain bytes of them.
    pub bytes: u64,
}
