//! What people see of groups, and the release that a group goes back to.

use super::super::granted::Granted;
use super::members::never_seen;
use crate::delivery::rollout::{Group, Rollout};
use crate::ledger;
use ground::faults::Fault;
use ground::ids::{AppName, DestinationName, ReleaseId, RolloutId};
use protocol::token::Action;
use protocol::wire::{GroupApp, GroupHas, GroupMember, GroupStatus, MemberName, Refusal};

/// Returns the groups that the token allows, with what it may read of them. Blocks for the ledger.
///
/// # Errors
/// The token may not read; the ledger's.
pub fn groups(granted: &Granted, wanted: Option<&AppName>) -> Result<Vec<GroupStatus>, Refusal> {
    granted.allow(Action::Read, wanted)?;
    let all = granted.shared.rollouts.groups.iter();
    let allowed = all.filter(|(name, _)| granted.grant.allows_destination(name));
    let status = |(name, group): (&DestinationName, &Group)| {
        Ok(GroupStatus {
            name: name.clone(),
            targets: group.targets.clone(),
            destinations: group.destinations.clone(),
            rules: group.rules.by_key(),
            apps: apps(granted, name, group, wanted)?,
        })
    };
    let listed: ledger::Result<Vec<GroupStatus>> = allowed.map(status).collect();
    listed.map_err(|error| Refusal::of(&error))
}

fn apps(
    granted: &Granted,
    name: &DestinationName,
    group: &Group,
    wanted: Option<&AppName>,
) -> ledger::Result<Vec<GroupApp>> {
    let (shared, space) = (&granted.shared, &granted.grant.space);
    let book = &shared.rollouts.book;
    let under_way = book.under_way();
    let mut found = Vec::new();
    for app in shared.targets.apps_of(space)? {
        if wanted.is_some_and(|wanted| *wanted != app) || !granted.grant.allows(Action::Read, Some(&app)) {
            continue;
        }
        let release = book.release(space, &app, name)?.map(|it| it.release);
        let is_ours = |it: &Rollout| (&it.space, &it.app, &it.group) == (space, &app, name);
        let rollout = under_way.iter().find(|(_, it)| is_ours(it)).map(|(number, _)| book.id(*number));
        let known = shared.targets.known(space, &app)?;
        let targets = known.iter().filter(|status| group.has_target(&status.target)).map(|status| {
            let (name, away) = (MemberName::Target(status.target.clone()), !status.reachable);
            GroupMember { name, away }
        });
        let mut members: Vec<GroupMember> = targets.collect();
        let has_targets = !members.is_empty();
        if members.is_empty() && release.is_none() && rollout.is_none() {
            continue;
        }
        if has_targets {
            let unseen = never_seen(shared, space, group)?;
            members.extend(
                unseen.into_iter().map(|target| GroupMember { name: MemberName::Target(target), away: true }),
            );
        }
        let edges = group.destinations.iter().cloned().map(MemberName::Destination);
        members.extend(edges.map(|name| GroupMember { name, away: false }));
        members.sort_by(|one, other| one.name.cmp(&other.name));
        members.dedup_by(|one, other| one.name == other.name);
        found.push(GroupApp { app, release, rollout, members });
    }
    Ok(found)
}

/// Returns the groups that the token allows and that have another release of an application than one, or get the one that is bad now.
/// Blocks for the ledger.
pub fn others(
    granted: &Granted,
    app: &AppName,
    release: ReleaseId,
    bad: Option<ReleaseId>,
) -> ledger::Result<Vec<GroupHas>> {
    let rollouts = &granted.shared.rollouts;
    let under_way = rollouts.book.under_way();
    let gets = |group: &DestinationName| {
        let is_it = |it: &Rollout| (&it.space, &it.app, &it.group) == (&granted.grant.space, app, group);
        bad.filter(|bad| under_way.iter().any(|(_, it)| is_it(it) && it.release == *bad))
    };
    let allowed = rollouts.groups.keys().filter(|name| granted.grant.allows_destination(name));
    let mut found = Vec::new();
    for group in allowed {
        let has = rollouts.book.release(&granted.grant.space, app, group)?;
        let has = gets(group).or(has.map(|it| it.release)).filter(|has| *has != release);
        found.extend(has.map(|release| GroupHas { group: group.clone(), release }));
    }
    Ok(found)
}

/// Returns the release that a group has, and the last one that it had before, is stored and is not bad. Blocks for the ledger.
///
/// # Errors
/// The group had none of the application, or none before; a rollout is under way; the ledger's.
pub fn before(
    granted: &Granted,
    app: &AppName,
    group: &DestinationName,
    is_good: impl Fn(&ReleaseId) -> bool,
) -> Result<(ReleaseId, ReleaseId), Refusal> {
    let (book, space) = (&granted.shared.rollouts.book, &granted.grant.space);
    let refuse = |text, hint| Refusal { fault: Fault::Input, text, hint: Some(hint) };
    let is_ours = |it: &Rollout| (&it.space, &it.app, &it.group) == (space, app, group);
    if let Some((number, _)) = book.under_way().into_iter().find(|(_, it)| is_ours(it)) {
        let id: RolloutId = book.id(number);
        return Err(refuse(
            format!("rollout {id} to `{group}` is under way"),
            format!("`whit rollouts rollback {id}` takes it back"),
        ));
    }
    let promote = || format!("`whit promote {app}@RELEASE --to {group}` rolls out any that is stored");
    let has = book.release(space, app, group).map_err(|error| Refusal::of(&error))?;
    let Some(has) = has.map(|it| it.release) else {
        return Err(refuse(format!("group `{group}` has had no release of `{app}`"), promote()));
    };
    // Which of the two is to go is not known.
    if let Some(last) = book.last_ended(space, app, group).filter(|last| last.left_members_apart()) {
        return Err(refuse(
            format!(
                "the last rollout to `{group}`, of {}, did not come to its end: members have it, or {} as before",
                last.release.short(),
                has.short()
            ),
            format!("`whit promote {app}@{} --to {group}` gives all of them what the group has", has.short()),
        ));
    }
    let before = book.succeeded(space, app, group).into_iter().find(|it| *it != has && is_good(it));
    let before = before.ok_or_else(|| {
        refuse(
            format!("group `{group}` has had no other release of `{app}` that is stored and not bad"),
            promote(),
        )
    })?;
    Ok((has, before))
}
