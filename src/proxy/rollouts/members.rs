//! What is seen of a rollout's members, and what they are told.

use std::collections::HashMap;

use super::super::Shared;
use crate::delivery::Delivery;
use crate::delivery::rollout::{Group, MemberState, Phase, Rollout, Sight, StoredMember, shortened};
use crate::ledger;
use disk::clock::now;
use format::record::DeliveryState;
use format::target::{Assignment, TargetReport, TargetState};
use ground::faults::{Fault, Faulty};
use ground::ids::{DestinationName, ReleaseId, RolloutId, SpaceName, TargetName};
use protocol::wire::{MemberName, TargetStatus};

/// Why members could not be looked at, or told.
pub(super) type Error = Box<dyn Faulty>;

/// The targets of an application, as they are now.
pub(super) struct Known(HashMap<TargetName, TargetStatus>);

impl Known {
    /// Asks for the targets of a rollout's application.
    pub fn of(shared: &Shared, rollout: &Rollout) -> Result<Self, Error> {
        let known = shared.targets.known(&rollout.space, &rollout.app).map_err(boxed)?;
        Ok(Self(known.into_iter().map(|status| (status.target.clone(), status)).collect()))
    }

    /// Returns the targets of a group.
    pub fn of_group(&self, group: &Group) -> impl Iterator<Item = &TargetStatus> {
        self.0.values().filter(|status| group.has_target(&status.target))
    }

    /// Returns what is seen of each member.
    pub fn look(&self, shared: &Shared, id: RolloutId, rollout: &Rollout) -> Vec<Sight> {
        let look = |member: &StoredMember| match &member.name {
            MemberName::Target(target) => {
                self.0.get(target).map(|status| of_target(status, id, rollout, member)).unwrap_or_default()
            }
            MemberName::Destination(_) => of_destination(shared, member, rollout),
        };
        rollout.members.iter().map(look).collect()
    }

    /// Tells targets what they are to have, where they were told otherwise. One that waits and was told nothing stays with what it had:
    /// what is current may move. One that was forgotten meanwhile is told nothing.
    pub fn assign(&self, shared: &Shared, id: RolloutId, rollout: &Rollout) -> Result<(), Error> {
        let Some(machine) = &rollout.machine else { return Ok(()) };
        let is_over = matches!(machine.phase(), Phase::Over(_));
        let told = rollout.members.iter().zip(machine.members()).filter_map(|(member, at)| {
            let MemberName::Target(target) = &member.name else { return None };
            let known = self.0.get(target)?.known.assigned.as_ref();
            let (release, group) = match at.state {
                MemberState::Given { .. } | MemberState::Proving { .. } if !is_over => {
                    (rollout.release, &rollout.group)
                }
                MemberState::Returning { .. } | MemberState::Returned | MemberState::NotReturned { .. } => {
                    rollout.before(member)?
                }
                MemberState::Waiting if known.is_none() => rollout.before(member)?,
                _ => return None,
            };
            let assignment = Assignment { release, rollout: id, group: group.clone() };
            (known != Some(&assignment)).then(|| (target.clone(), Some(assignment)))
        });
        tell(shared, rollout, &told.collect::<Vec<_>>())
    }
}

/// Returns the targets that a group names without a pattern, and that never came, of whatever application: they are away, or
/// misspelt. Blocks for the ledger.
pub(super) fn never_seen(
    shared: &Shared,
    space: &SpaceName,
    group: &Group,
) -> ledger::Result<Vec<TargetName>> {
    let mut names: Vec<TargetName> = group.named_targets().collect();
    if names.is_empty() {
        return Ok(names);
    }
    for app in shared.targets.apps_of(space)? {
        let known = shared.targets.known(space, &app)?;
        names.retain(|name| known.iter().all(|status| status.target != *name));
    }
    Ok(names)
}

/// Tells targets what they are to have, or that no group says so any more.
fn tell(shared: &Shared, rollout: &Rollout, told: &[(TargetName, Option<Assignment>)]) -> Result<(), Error> {
    if told.is_empty() {
        return Ok(());
    }
    shared.targets.assign(&rollout.space, &rollout.app, told).map_err(boxed)
}

/// Tells the targets that were to have the release of a rollout that leads nowhere, and never showed it, to stay with what they had;
/// those that had nothing, nothing. Deliveries of it that have yet to be made are not.
pub(super) fn take_back(shared: &Shared, id: RolloutId, rollout: &Rollout) -> Result<(), Error> {
    let Some(machine) = &rollout.machine else { return Ok(()) };
    let Known(known) = Known::of(shared, rollout)?;
    let told = rollout.members.iter().zip(machine.members()).filter_map(|(member, at)| {
        let was_given = matches!(at.state, MemberState::Given { .. } | MemberState::Failed { .. });
        let MemberName::Target(target) = &member.name else {
            if let Some(number) = member.delivery.filter(|_| was_given) {
                // It may have ended.
                drop(shared.deliveries.cancel(shared.deliveries.id(number), &rollout.user));
            }
            return None;
        };
        let status = known.get(target).filter(|_| was_given)?;
        let assignment = |(release, group): (ReleaseId, &DestinationName)| Assignment {
            release,
            rollout: id,
            group: group.clone(),
        };
        let shows_it = status.known.report.shown == Some(rollout.release);
        (!shows_it).then(|| (target.clone(), rollout.before(member).map(assignment)))
    });
    tell(shared, rollout, &told.collect::<Vec<_>>())
}

/// Tells each target of a group to have the release of a rollout that has succeeded: some may have come while it went on. Those
/// that another group's rollout counts by now are that one's.
pub(super) fn settle(shared: &Shared, id: RolloutId, group: &Group, rollout: &Rollout) -> Result<(), Error> {
    let Known(known) = Known::of(shared, rollout)?;
    let assignment = Assignment { release: rollout.release, rollout: id, group: rollout.group.clone() };
    let is_told = |status: &TargetStatus| {
        let assigned = status.known.assigned.as_ref();
        assigned.is_some_and(|it| (&it.group, it.release) == (&assignment.group, assignment.release))
    };
    let is_free = |target: &TargetName| {
        let by = shared.rollouts.under_way_with(&rollout.space, &rollout.app, target);
        by.is_none_or(|by| by == id)
    };
    let is_meant = |status: &TargetStatus| group.has_target(&status.target) && !is_told(status);
    let others = known.into_values().filter(|status| is_meant(status) && is_free(&status.target));
    let told: Vec<_> = others.map(|status| (status.target, Some(assignment.clone()))).collect();
    tell(shared, rollout, &told)
}

/// Asks for the deliveries that are due, and notes their numbers. Returns whether there were any. One that cannot be asked for is
/// tried again at the next look, until its member has failed.
pub(super) fn deliver(shared: &Shared, rollout: &mut Rollout) -> bool {
    let Some(machine) = rollout.machine.clone() else { return false };
    if matches!(machine.phase(), Phase::Over(_)) {
        return false;
    }
    let mut any = false;
    let returns: Vec<Option<ReleaseId>> =
        rollout.members.iter().map(|member| rollout.before(member).map(|(release, _)| release)).collect();
    let Rollout { space, app, user, token, then, release, members, .. } = rollout;
    let order = |release: ReleaseId, destination: &DestinationName| {
        let delivery = Delivery {
            user: Some(user.clone()),
            asked: now(),
            token: Some(*token),
            then: then.clone(),
            ..Delivery::new(space.clone(), app.clone(), release, destination.clone())
        };
        let added = shared.deliveries.add(vec![delivery]);
        let log =
            |error: &_| tracing::warn!(%destination, %error, "a rollout cannot deliver; it tries again");
        let mut events = added.inspect_err(log).ok()?;
        let first = events.first_mut().and_then(|events| events.try_recv().ok());
        Some(first.map(|event| event.id.number).unwrap_or_default())
    };
    for ((member, at), before) in members.iter_mut().zip(machine.members()).zip(returns) {
        let MemberName::Destination(name) = &member.name else { continue };
        match at.state {
            MemberState::Given { .. } if member.delivery.is_none() => {
                member.delivery = order(*release, name);
                any |= member.delivery.is_some();
            }
            MemberState::Returning { .. } if member.return_delivery.is_none() => {
                if let Some(number) = member.delivery {
                    // It may have ended.
                    drop(shared.deliveries.cancel(shared.deliveries.id(number), user));
                }
                let Some(previous) = before else { continue };
                member.return_delivery = order(previous, name);
                any |= member.return_delivery.is_some();
            }
            _ => {}
        }
    }
    any
}

fn of_target(status: &TargetStatus, id: RolloutId, rollout: &Rollout, member: &StoredMember) -> Sight {
    let TargetReport { shown, about, state, rollout: by, output, .. } = &status.known.report;
    let settled =
        !matches!(state, TargetState::Fetching(_) | TargetState::Switching | TargetState::Confirming);
    let refused = match state {
        // One without a release to go back to has failed for good, too.
        TargetState::RolledBack { reason } | TargetState::Failed { reason, fault: Fault::Input }
            if *about == Some(rollout.release) && *by == Some(id) =>
        {
            let last = output.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            Some(shortened(&format!("{reason}{last}")))
        }
        _ => None,
    };
    // What it said before this rollout told it anything says nothing.
    let is_told = |release| {
        let assigned = status.known.assigned.as_ref();
        release == assigned.map(|it| it.release) && assigned.is_some_and(|it| it.rollout == id)
    };
    let before = rollout.before(member).map(|(release, _)| release);
    let is_about = *about == Some(rollout.release) && *by == Some(id);
    Sight {
        reachable: status.reachable,
        has_new: is_about && *shown == Some(rollout.release) && *state == TargetState::Confirmed,
        refused,
        has_old: settled && shown.is_some() && *shown == before && is_told(before),
    }
}

fn of_destination(shared: &Shared, member: &StoredMember, rollout: &Rollout) -> Sight {
    let state = |number: Option<u64>| {
        let status = shared.deliveries.status(&rollout.space, shared.deliveries.id(number?));
        // One that is forgotten ended long ago.
        status.ok().map(|status| status.state)
    };
    let delivered = |state: &Option<DeliveryState>| matches!(state, Some(DeliveryState::Delivered(_)));
    let (on, back) = (state(member.delivery), state(member.return_delivery));
    let refused = match &on {
        Some(DeliveryState::Failed { reason, .. }) => Some(shortened(reason)),
        Some(DeliveryState::Cancelled { by }) => Some(format!("{by} cancelled the delivery")),
        Some(DeliveryState::Skipped { by }) => Some(format!("delivery {by} has a later release")),
        Some(DeliveryState::Stranded) => Some("the destination is not configured any more".to_owned()),
        _ => None,
    };
    Sight { reachable: true, has_new: delivered(&on), refused, has_old: delivered(&back) }
}

pub(super) fn boxed(error: impl Faulty + 'static) -> Error {
    Box::new(error)
}
