//! What people see of a rollout.

use super::machine::Rest;
use super::{Left, Machine, Member, MemberState, Phase, Rollout, StoredMember};
use disk::clock::now;
use ground::ids::{DeliveryId, RolloutId};
use protocol::wire::{RolloutMember, RolloutMemberState, RolloutState, RolloutStatus, RolloutWait};

/// What was noted of a rollout when it was last looked at, and is not in the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// The number of the rollout of another group that it comes after.
    pub behind: Option<u64>,
    /// What it waits for, where its machine does not know.
    pub waits: Option<RolloutWait>,
    /// The places, rising, of the members that are not there while it waits for them.
    pub away: Vec<usize>,
}

impl Rollout {
    /// Returns what people see of it; `behind` is the rollout that it comes after.
    pub fn status(&self, id: RolloutId, behind: Option<RolloutId>, noted: &Noted) -> RolloutStatus {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (batch, batches) = self.machine.as_ref().map(Machine::batches).unwrap_or_default();
        let state = match (&self.ended, &self.machine) {
            (Some((state, _)), _) => state.clone(),
            (None, None) => RolloutState::Waiting { behind },
            (None, Some(machine)) => match (machine.phase(), machine.held()) {
                (_, Some(reason)) => RolloutState::Held { reason: reason.to_owned() },
                (Phase::Back { reason } | Phase::Over(RolloutState::RolledBack { reason }), None) => {
                    RolloutState::RollingBack { reason: reason.clone() }
                }
                (Phase::Over(_) | Phase::Forward, None) => RolloutState::Running,
            },
        };
        let waits = noted.waits.clone().or_else(|| self.machine.as_ref().and_then(rest));
        RolloutStatus {
            id,
            group: self.group.clone(),
            app: self.app.clone(),
            release: self.release,
            previous: self.previous,
            user: self.user.clone(),
            because: self.because.clone(),
            asked: self.asked,
            ended: self.ended.as_ref().map(|(_, at)| *at),
            state,
            batch: number(batch),
            batches: number(batches),
            members: self.members(id, noted),
            canaries: number(self.machine.as_ref().map(Machine::canaries).unwrap_or_default()),
            waits: waits.filter(|_| self.ended.is_none()),
            current_stays: self.current_stays,
        }
    }

    fn members(&self, id: RolloutId, noted: &Noted) -> Vec<RolloutMember> {
        let goes_on = self.ended.is_none();
        let states = self.machine.iter().flat_map(|machine| {
            machine.members().iter().map(|member| (member, machine.time_left(&member.state)))
        });
        let member = |(place, (stored, (member, left))): (usize, (&StoredMember, (&Member, Option<u64>)))| {
            RolloutMember {
                name: stored.name.clone(),
                delivery: stored
                    .return_delivery
                    .or(stored.delivery)
                    .map(|number| DeliveryId { proxy: id.proxy, number }),
                state: seen(&member.state),
                before: before(member),
                away: goes_on && noted.away.binary_search(&place).is_ok(),
                until: left.filter(|_| goes_on).map(in_seconds),
            }
        };
        self.members.iter().zip(states).enumerate().map(member).collect()
    }
}

fn in_seconds(seconds: u64) -> u64 {
    now().saturating_add(seconds)
}

fn rest(machine: &Machine) -> Option<RolloutWait> {
    Some(match machine.rest()? {
        Rest::Bakes(left) => RolloutWait::Bakes { until: in_seconds(left) },
        Rest::MinHealthy(left) => RolloutWait::MinHealthy { until: in_seconds(left) },
    })
}

fn seen(state: &MemberState) -> RolloutMemberState {
    match state {
        MemberState::Waiting => RolloutMemberState::Waiting,
        MemberState::Given { .. } => RolloutMemberState::Updating,
        MemberState::Proving { .. } => RolloutMemberState::Proving,
        MemberState::Confirmed => RolloutMemberState::Confirmed,
        MemberState::Failed { reason } => RolloutMemberState::Failed { reason: reason.clone() },
        MemberState::Leaving | MemberState::Returning { .. } => RolloutMemberState::Returning,
        MemberState::Returned => RolloutMemberState::Returned,
        MemberState::NotReturned { reason } => RolloutMemberState::NotReturned { reason: reason.clone() },
    }
}

fn before(member: &Member) -> Option<RolloutMemberState> {
    match member.left {
        Left::Nothing => None,
        Left::Waiting => Some(RolloutMemberState::Waiting),
        Left::Given => Some(RolloutMemberState::Updating),
        Left::Proving => Some(RolloutMemberState::Proving),
        Left::Confirmed => Some(RolloutMemberState::Confirmed),
        Left::Failed => Some(RolloutMemberState::Failed { reason: member.left_because.clone() }),
    }
}
