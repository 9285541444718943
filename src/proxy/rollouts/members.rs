//! What is seen of a rollout's members, and what they are told.

use std::collections::HashMap;

use super::super::Shared;
use crate::delivery::Delivery;
use crate::delivery::rollout::{Group, Machine, MemberState, Phase, Rollout, Sight, StoredMember, shortened};
use disk::clock::now;
use format::record::DeliveryState;
use format::target::{Assignment, TargetReport, TargetState};
use ground::faults::{Fault, Faulty};
use ground::ids::{DestinationName, ReleaseId, RolloutId, TargetName};
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

    /// Returns the members of a group, by name, and whether each has a release other than `previous` from a rollout of the group that
    /// was left unfinished: `left`.
    pub fn members(
        &self,
        group: &Group,
        name: &DestinationName,
        previous: Option<ReleaseId>,
        left: Option<&Rollout>,
    ) -> Vec<(StoredMember, bool)> {
        let targets = self.0.values().filter(|status| group.has_target(&status.target)).map(|status| {
            let assigned = status.known.assigned.as_ref();
            let strayed = assigned.is_some_and(|it| it.group == *name && Some(it.release) != previous);
            (MemberName::Target(status.target.clone()), strayed)
        });
        let was_left = |destination: &DestinationName| {
            let states = left
                .iter()
                .flat_map(|left| left.members.iter().zip(left.machine.iter().flat_map(Machine::members)));
            states.into_iter().any(|(member, state)| {
                member.name == MemberName::Destination(destination.clone())
                    && !matches!(state.state, MemberState::Returned)
                    && (state.strayed || state.state != MemberState::Waiting)
            })
        };
        let destinations = group.destinations.iter();
        let destinations = destinations.map(|name| (MemberName::Destination(name.clone()), was_left(name)));
        let member =
            |(name, strayed)| (StoredMember { name, delivery: None, return_delivery: None }, strayed);
        let mut members: Vec<_> = targets.chain(destinations).map(member).collect();
        members.sort_by(|(one, _), (other, _)| {
            (one.name.as_str(), &one.name).cmp(&(other.name.as_str(), &other.name))
        });
        members.dedup_by(|(one, _), (other, _)| one.name == other.name);
        members
    }

    /// Returns what is seen of each member.
    pub fn look(&self, shared: &Shared, id: RolloutId, rollout: &Rollout) -> Vec<Sight> {
        let look = |member: &StoredMember| match &member.name {
            MemberName::Target(target) => {
                self.0.get(target).map(|status| of_target(status, id, rollout)).unwrap_or_default()
            }
            MemberName::Destination(_) => of_destination(shared, member, rollout),
        };
        rollout.members.iter().map(look).collect()
    }

    /// Tells targets what they are to have, where they were told otherwise. One that waits and was told nothing stays with the
    /// release of before: what is current may move.
    pub fn assign(&self, shared: &Shared, id: RolloutId, rollout: &Rollout) -> Result<(), Error> {
        let Some(machine) = &rollout.machine else { return Ok(()) };
        let told = rollout.members.iter().zip(machine.members()).filter_map(|(member, at)| {
            let MemberName::Target(target) = &member.name else { return None };
            let known = self.0.get(target).and_then(|status| status.known.assigned.as_ref());
            let release = match at.state {
                MemberState::Given { .. } | MemberState::Proving { .. } => Some(rollout.release),
                MemberState::Returning { .. } | MemberState::Returned | MemberState::NotReturned { .. } => {
                    rollout.previous
                }
                MemberState::Waiting if known.is_none() => rollout.previous,
                _ => None,
            };
            let assignment = Assignment { release: release?, rollout: id, group: rollout.group.clone() };
            (known != Some(&assignment)).then(|| (target.clone(), assignment))
        });
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            return Ok(());
        }
        shared.targets.assign(&rollout.space, &rollout.app, &told).map_err(boxed)
    }
}

/// Tells the targets that were to have the release of a rollout that leads nowhere, and never showed it, to stay with the one of
/// before.
pub(super) fn take_back(shared: &Shared, id: RolloutId, rollout: &Rollout) -> Result<(), Error> {
    let (Some(previous), Some(machine)) = (rollout.previous, &rollout.machine) else { return Ok(()) };
    let Known(known) = Known::of(shared, rollout)?;
    let assignment = Assignment { release: previous, rollout: id, group: rollout.group.clone() };
    let told = rollout.members.iter().zip(machine.members()).filter_map(|(member, at)| {
        let MemberName::Target(target) = &member.name else { return None };
        let was_given = matches!(at.state, MemberState::Given { .. } | MemberState::Failed { .. });
        let shows = known.get(target).and_then(|status| status.known.report.shown);
        (was_given && shows != Some(rollout.release)).then(|| (target.clone(), assignment.clone()))
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        return Ok(());
    }
    shared.targets.assign(&rollout.space, &rollout.app, &told).map_err(boxed)
}

/// Tells each target of a group to have the release of a rollout that has succeeded: some may have come while it went on.
pub(super) fn settle(shared: &Shared, id: RolloutId, group: &Group, rollout: &Rollout) -> Result<(), Error> {
    let Known(known) = Known::of(shared, rollout)?;
    let assignment = Assignment { release: rollout.release, rollout: id, group: rollout.group.clone() };
    let is_told = |status: &TargetStatus| {
        let assigned = status.known.assigned.as_ref();
        assigned.is_some_and(|it| (&it.group, it.release) == (&assignment.group, assignment.release))
    };
    let others = known.into_values().filter(|status| group.has_target(&status.target) && !is_told(status));
    let told: Vec<_> = others.map(|status| (status.target, assignment.clone())).collect();
    if told.is_empty() {
        return Ok(());
    }
    shared.targets.assign(&rollout.space, &rollout.app, &told).map_err(boxed)
}

/// Asks for the deliveries that are due, and notes their numbers. Returns whether there were any. One that cannot be asked for is
/// tried again at the next look, until its member has failed.
pub(super) fn deliver(shared: &Shared, rollout: &mut Rollout) -> bool {
    let Some(machine) = rollout.machine.clone() else { return false };
    if matches!(machine.phase(), Phase::Over(_)) {
        return false;
    }
    let mut any = false;
    let Rollout { space, app, user, token, then, release, previous, members, .. } = rollout;
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
    for (member, at) in members.iter_mut().zip(machine.members()) {
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
                let Some(previous) = *previous else { continue };
                member.return_delivery = order(previous, name);
                any |= member.return_delivery.is_some();
            }
            _ => {}
        }
    }
    any
}

fn of_target(status: &TargetStatus, id: RolloutId, rollout: &Rollout) -> Sight {
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
    let is_about = *about == Some(rollout.release) && *by == Some(id);
    Sight {
        reachable: status.reachable,
        has_new: is_about && *shown == Some(rollout.release) && *state == TargetState::Confirmed,
        refused,
        has_old: settled && shown.is_some() && *shown == rollout.previous && is_told(rollout.previous),
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
