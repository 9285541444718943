//! Rollouts and the releases of groups, as they are written down.

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::ledger::VALUE_BYTES_MAX;
use format::value;
use ground::escape;
use ground::ids::{ActionName, AppName, DestinationName, ReleaseId, RolloutId, SpaceName, UserName};
use protocol::token::TokenId;
use protocol::wire::{MemberName, RolloutState};

/// First byte of a rollout's value (FORMAT 5.5).
const VERSION: u8 = 2;
/// In version 1 ends have other names, and each member goes back to the group's release.
const VERSION_OLDEST: u8 = 1;
/// First byte of the value of a group's release (FORMAT 5.6).
const GROUP_VERSION: u8 = 1;
/// Members of a group: with names of 32 letters, and few reasons, a value has room for them.
pub const MEMBERS_MAX: usize = 1024;
/// Bytes of the reason why a member failed; more says no more.
const REASON_BYTES_MAX: usize = 200;
/// Bytes by which a member's state may grow, without a reason.
const STATE_BYTES_MORE: usize = 8;
/// Members whose reasons are kept where not all have room.
const REASONS_MAX: usize = 32;

/// One rollout, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The space of the release.
    pub space: SpaceName,
    /// Its application.
    pub app: AppName,
    /// The group.
    pub group: DestinationName,
    /// The release.
    pub release: ReleaseId,
    /// The release that the group had before; members go back to it, unless they had one of their own.
    pub previous: Option<ReleaseId>,
    /// Who asked for it.
    pub user: UserName,
    /// With which token.
    pub token: TokenId,
    /// Why.
    pub because: Option<String>,
    /// The actions that are to follow each delivery.
    pub then: Vec<ActionName>,
    /// Seconds since 1970 at which it was asked for.
    pub asked: u64,
    /// True if its success makes the release current.
    pub moves_current: bool,
    /// The members, in the machine's order; none before it begins.
    pub members: Vec<StoredMember>,
    /// How far it is; none while it waits for another one.
    pub machine: Option<Machine>,
    /// The last state in which it ended, and seconds since 1970 at which it did.
    pub ended: Option<(RolloutState, u64)>,
    /// The releases that members had of their own, each once.
    #[serde(default)]
    pub own: Vec<OwnRelease>,
    /// The release that stays current although it succeeded, as somebody asked for that later.
    #[serde(default)]
    pub current_stays: Option<ReleaseId>,
    /// The release that it takes back: bad once this one is current instead.
    #[serde(default)]
    pub takes_back: Option<ReleaseId>,
}

/// A release that a member had before a rollout, and its group had not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRelease {
    /// The release.
    pub release: ReleaseId,
    /// The group that assigned it; of what no group assigned, the rollout's own.
    pub group: DestinationName,
}

/// A member of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMember {
    /// Its name.
    pub name: MemberName,
    /// The number of the delivery of the release to a destination, once it was asked for.
    pub delivery: Option<u64>,
    /// The number of the delivery of the release before, once it is to go back.
    pub return_delivery: Option<u64>,
    /// The place in [`Rollout::own`] of the release that it had before; none where that is the group's.
    #[serde(default)]
    pub own: Option<u16>,
}

impl Rollout {
    /// Returns whether both are of one group of one application.
    pub fn is_of_same_group(&self, other: &Self) -> bool {
        (&self.space, &self.app, &self.group) == (&other.space, &other.app, &other.group)
    }

    /// Returns whether it ended with members that have its release and others that have what was before.
    pub fn left_members_apart(&self) -> bool {
        let ended = self.ended.as_ref().map(|(state, _)| state);
        ended.is_some_and(|state| !matches!(state, RolloutState::Succeeded | RolloutState::RolledBack { .. }))
    }

    /// Returns the release that a member goes back to, and the group that assigned it; none where it had none.
    pub fn before(&self, member: &StoredMember) -> Option<(ReleaseId, &DestinationName)> {
        match member.own {
            Some(place) => {
                self.own.get(usize::from(place)).map(|OwnRelease { release, group }| (*release, group))
            }
            None => self.previous.map(|release| (release, &self.group)),
        }
    }

    /// Returns the releases that it needs while it is under way: the new one, and those that members go back to.
    pub fn needed(&self) -> impl Iterator<Item = ReleaseId> {
        let own = self.own.iter().map(|own| own.release);
        [self.release].into_iter().chain(self.previous).chain(own)
    }

    /// Encodes the value. Leaves out the ends of long reasons and, where there is no room, those of members.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = value::encode(VERSION, self);
        if bytes.len() as u64 <= VALUE_BYTES_MAX {
            return bytes;
        }
        let shortened = |most| {
            let mut shorter = self.clone();
            shorter.machine.iter_mut().for_each(|machine| machine.forget_reasons(most));
            value::encode(VERSION, &shorter)
        };
        let bytes = shortened(REASONS_MAX);
        if bytes.len() as u64 <= VALUE_BYTES_MAX { bytes } else { shortened(0) }
    }

    /// Returns whether a value has room for it, in each state of its members, as it begins.
    pub fn fits(&self) -> bool {
        let bytes = value::encode(VERSION, self).len() + self.members.len() * STATE_BYTES_MORE;
        bytes as u64 <= VALUE_BYTES_MAX
    }

    /// Decodes a value; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rollout: Self = value::decode(VERSION_OLDEST..=VERSION, bytes).ok()?;
        let machine = rollout.machine.as_ref().map_or(0, |machine| machine.members().len());
        let is_last = |ended: &(RolloutState, u64)| ended.0.is_last();
        (machine == rollout.members.len() && rollout.ended.as_ref().is_none_or(is_last)).then_some(rollout)
    }
}

/// Returns the beginning of a reason why a member failed.
pub fn shortened(reason: &str) -> String {
    reason[..escape::boundary(reason, REASON_BYTES_MAX)].to_owned()
}

/// The release of a group of an application: what its last rollout that succeeded gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRelease {
    /// The release.
    pub release: ReleaseId,
    /// The rollout.
    pub rollout: RolloutId,
}

impl GroupRelease {
    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(GROUP_VERSION, self)
    }

    /// Decodes a value; none if the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(GROUP_VERSION..=GROUP_VERSION, bytes).ok()
    }
}
