//! What an agent may ask for.

use serde::{Deserialize, Serialize};

use super::{DeliveriesWanted, Open, RolloutSteering, Steering, Watching};
use ground::ids::{
    ActionName, AppName, ChunkId, DeliveryId, DestinationName, Label, RolloutId, Selector, TargetName,
};

/// A request of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Push a release: [`FromAgent`](super::FromAgent) and [`PushReply`](super::PushReply) follow.
    Push(Open),
    /// Pull a release: [`PullRequest`](super::PullRequest) and [`PullReply`](super::PullReply) follow.
    Pull {
        /// Which release.
        release: Selector,
        /// The root of the agent's directory: segments and chunks may then come as changes to those of that manifest.
        have: Option<ChunkId>,
        /// Bytes are scarcer than time: archives come unpacked where the proxy has them so.
        unpacked: bool,
    },
    /// Deliver a release again: each change of a delivery's state is answered.
    Deliver {
        /// Which release.
        release: Selector,
        /// Where to.
        destinations: Vec<DestinationName>,
        /// The actions that are to follow each delivery, in order.
        #[serde(default)]
        then: Vec<ActionName>,
    },
    /// Who am I, and who are you.
    Identify,
    /// What is known of a push of this application from where this user pushes.
    HintPush(AppName),
    /// All applications of the space.
    Applications,
    /// An application's releases, newest first.
    Releases(AppName),
    /// Which files differ between two releases.
    Difference {
        /// Before.
        from: Selector,
        /// After.
        to: Selector,
    },
    /// Counts of an application, or of the whole space.
    Statistics(Option<AppName>),
    /// Collect garbage in the space.
    Collect {
        /// Only say what would be removed.
        dry_run: bool,
    },
    /// Verify the space's packs and releases.
    Verify {
        /// Repair what can be repaired.
        repair: bool,
        /// Stop after this many seconds; the next run continues from there.
        seconds_max: Option<u64>,
    },
    /// Remove a release: its chunks go at the next collection, unless others name them.
    Remove {
        /// Which.
        release: Selector,
        /// True if labels that were not named may go with it.
        all_labels: bool,
        /// True if it may go although it is current, or the one before, or at a destination.
        force: bool,
    },
    /// Keep a release from being removed, or end that.
    Pin {
        /// Which.
        release: Selector,
        /// True to keep it.
        pinned: bool,
    },
    /// Make a stored release current, and deliver it: each change of a delivery's state is answered.
    Promote {
        /// Which.
        release: Selector,
        /// Where to.
        destinations: Vec<DestinationName>,
        /// The user's reason.
        because: Option<String>,
        /// The actions that are to follow each delivery, in order.
        then: Vec<ActionName>,
    },
    /// Make the release current that was before, and deliver it; the one that is left is bad from then on.
    Rollback {
        /// The application.
        app: AppName,
        /// Where to.
        destinations: Vec<DestinationName>,
        /// The user's reason.
        because: Option<String>,
        /// The actions that are to follow each delivery, in order.
        then: Vec<ActionName>,
    },
    /// Which release is current, and why.
    Current {
        /// The application.
        app: AppName,
        /// True to list all moves, and not only the last.
        log: bool,
    },
    /// Give labels to a stored release.
    Label {
        /// Which.
        release: Selector,
        /// The labels.
        labels: Vec<Label>,
        /// True if labels that name other releases move.
        moves: bool,
    },
    /// Take labels away.
    Unlabel {
        /// The application.
        app: AppName,
        /// The labels.
        labels: Vec<Label>,
    },
    /// Deliveries that have not ended, and those that ended last; then each change.
    Deliveries(DeliveriesWanted),
    /// Retry or end a delivery.
    Steer {
        /// Which.
        delivery: DeliveryId,
        /// What is done.
        how: Steering,
    },
    /// The destinations that the token allows.
    Destinations,
    /// Try a destination, or all that the token allows.
    CheckDestinations(Option<DestinationName>),
    /// Say what a delivery would do.
    PlanDelivery {
        /// Which release.
        release: Selector,
        /// Where to.
        destinations: Vec<DestinationName>,
        /// True for whole lists of files, false for the first thousand of each.
        all: bool,
    },
    /// Fill the cache with what a destination holds of an application, for its first push.
    Prime {
        /// The application.
        app: AppName,
        /// The destination.
        destination: DestinationName,
    },
    /// Let go of a destination that is not configured any more: what waits for it, and what it shows and keeps.
    DropDestination(DestinationName),
    /// Be a target: [`FromTarget`](super::FromTarget) and [`ToTarget`](super::ToTarget) follow.
    Watch(Box<Watching>),
    /// The targets of an application, or of all that the token may see; then each change, if that is wanted.
    Targets {
        /// The application.
        app: Option<AppName>,
        /// True to hear of changes.
        watch: bool,
    },
    /// Forget a target that is gone for good, of an application, or of all that the token may deliver.
    ForgetTarget {
        /// The target.
        target: TargetName,
        /// The application.
        app: Option<AppName>,
    },
    /// Let a target want its label or the current release again, whatever a group assigned to it, of an application, or of all that the
    /// token may deliver.
    UnassignTarget {
        /// The target.
        target: TargetName,
        /// The application.
        app: Option<AppName>,
    },
    /// Rollouts that have not ended, and those that ended last; then each change, if that is wanted.
    Rollouts {
        /// The application.
        app: Option<AppName>,
        /// True to hear of changes.
        watch: bool,
    },
    /// The groups that the token allows, and their members and releases of an application, or of all that the token may read.
    Groups(Option<AppName>),
    /// Hold, resume or end a rollout.
    SteerRollout {
        /// Which.
        rollout: RolloutId,
        /// What is done.
        how: RolloutSteering,
    },
}

impl Operation {
    /// Returns the releases that a question names; the answer identifies each by [`Answer::Meant`](super::Answer::Meant) first.
    pub fn selectors(&self) -> Vec<&Selector> {
        match self {
            Self::Deliver { release, .. }
            | Self::Pin { release, .. }
            | Self::Remove { release, .. }
            | Self::Promote { release, .. }
            | Self::PlanDelivery { release, .. }
            | Self::Label { release, .. } => {
                vec![release]
            }
            Self::Difference { from, to } => vec![from, to],
            Self::Push(_)
            | Self::Pull { .. }
            | Self::Identify
            | Self::HintPush(_)
            | Self::Applications
            | Self::Releases(_)
            | Self::Statistics(_)
            | Self::Collect { .. }
            | Self::Verify { .. }
            | Self::Rollback { .. }
            | Self::Current { .. }
            | Self::Unlabel { .. }
            | Self::Deliveries(_)
            | Self::Steer { .. }
            | Self::Destinations
            | Self::CheckDestinations(_)
            | Self::Prime { .. }
            | Self::DropDestination(_)
            | Self::Watch(_)
            | Self::Targets { .. }
            | Self::ForgetTarget { .. }
            | Self::UnassignTarget { .. }
            | Self::Rollouts { .. }
            | Self::Groups(_)
            | Self::SteerRollout { .. } => Vec::new(),
        }
    }
}
