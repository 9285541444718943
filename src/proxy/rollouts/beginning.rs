//! The beginning of a rollout: which rollouts it waits for, who is a member, and what each had before.

use std::collections::HashSet;

use super::ending::finish;
use super::members::{Error, Known, boxed, never_seen};
use super::turn::Turn;
use crate::delivery::rollout::{
    GroupRelease, MEMBERS_MAX, Machine, Member, MemberState, Noted, OnNewer, OwnRelease, Phase, Rollout,
    Rules, StoredMember,
};
use crate::proxy::targets::find;
use crate::store::Store;
use disk::crash_points;
use ground::ids::{DestinationName, ReleaseId};
use protocol::wire::{MemberName, RolloutState, TargetStatus};

/// Begins a rollout that waits, unless one of its group or members is under way.
pub(super) fn begin(turn: &Turn<'_>, rollout: &Rollout) -> Result<(), Error> {
    let fail = |reason| finish(turn, rollout.clone(), RolloutState::Failed { reason });
    let under_way = turn.book().under_way();
    let of_group = |other: &Rollout| other.is_of_same_group(rollout);
    if let Some((newer, _)) =
        under_way.iter().find(|(number, other)| *number > turn.number && of_group(other))
    {
        let by = turn.book().id(*newer).to_string();
        return finish(turn, rollout.clone(), RolloutState::Superseded { by });
    }
    // One that cannot begin takes nobody's place.
    let Some(group) = turn.shared.rollouts.group(&rollout.group) else {
        return fail("the group is not configured any more".to_owned());
    };
    let store = turn.store(rollout)?;
    if !store.records().has(&rollout.release, |app| *app == rollout.app) {
        return fail("the release was removed".to_owned());
    }
    let before = under_way.iter().find(|(number, other)| *number < turn.number && of_group(other));
    if let Some((number, other)) = before {
        return supersede(turn, *number, other);
    }
    let Rollout { space, app, group: name, .. } = rollout;
    let release = turn.book().release(space, app, name).map_err(boxed)?;
    let current = || store.records().standing(app).current;
    // One that was removed all the same is none to go back to.
    let is_stored = |release: &_| store.records().has(release, |other| other == app);
    let previous = release.map(|it| it.release).filter(is_stored).or_else(current);
    let last = turn.book().last_ended(space, app, name);
    let left = last.as_deref().filter(|last| last.left_members_apart());
    let looks = Looks { store: &store, rollout, previous, last: last.as_deref(), left };
    let mut found = Vec::new();
    let known = Known::of(turn.shared, rollout)?;
    for status in known.of_group(group) {
        found.push(looks.target(status)?);
    }
    let unseen = never_seen(turn.shared, space, group).map_err(boxed)?;
    let away = |target| Found { name: MemberName::Target(target), own: None, strayed: false };
    found.extend(unseen.into_iter().map(away));
    for destination in &group.destinations {
        found.push(looks.destination(destination)?);
    }
    // Targets first, by name, as they check themselves.
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found.dedup_by(|one, other| one.name == other.name);
    let ours: HashSet<&MemberName> = found.iter().map(|found| &found.name).collect();
    let is_taken = |other: &Rollout| {
        let mut theirs = other.members.iter();
        other.machine.is_some()
            && (&other.space, &other.app) == (space, app)
            && theirs.any(|theirs| ours.contains(&theirs.name))
    };
    let taken = under_way.iter().find(|(_, other)| is_taken(other));
    let behind = taken.map(|(number, _)| *number);
    turn.book().note(turn.number, Noted { behind, ..Noted::default() });
    if taken.is_some() {
        return Ok(());
    }
    if found.is_empty() || found.len() > MEMBERS_MAX {
        return fail(format!("the group has {} members, expected 1 to {MEMBERS_MAX}", found.len()));
    }
    let begun = looks.begun(group.rules.clone(), found);
    if !begun.fits() {
        let count = begun.members.len();
        return fail(format!(
            "the names of the group's {count} members, and what they had before, are too long together"
        ));
    }
    // From now on, no member overtakes the first ones.
    let id = turn.id();
    let first = previous.filter(|_| release.is_none()).map(|release| GroupRelease { release, rollout: id });
    turn.book().write(turn.number, begun, first, Vec::new()).map_err(boxed)?;
    turn.shared.targets.moved(space, app);
    crash_points::point("rollout.begun");
    Ok(())
}

/// Ends the rollout of the group that is under way, if it is to give way and does not go back: that is done first.
fn supersede(turn: &Turn<'_>, number: u64, other: &Rollout) -> Result<(), Error> {
    let Some(machine) = &other.machine else { return Ok(()) };
    if machine.rules().on_newer != OnNewer::Supersede || *machine.phase() != Phase::Forward {
        return Ok(());
    }
    let mut ended = other.clone();
    let by = turn.id().to_string();
    ended.machine.iter_mut().for_each(|machine| machine.end(RolloutState::Superseded { by: by.clone() }));
    turn.book().write(number, ended, None, Vec::new()).map_err(boxed)
}

/// A member, as its rollout finds it.
struct Found {
    name: MemberName,
    /// What it had, if that is not the group's.
    own: Option<OwnRelease>,
    /// True if it has what an unfinished rollout of the group left it with.
    strayed: bool,
}

/// Looks at what members have before a rollout.
struct Looks<'a> {
    store: &'a Store,
    rollout: &'a Rollout,
    /// The group's release.
    previous: Option<ReleaseId>,
    /// The group's last rollout that began.
    last: Option<&'a Rollout>,
    /// The same, if it ended without success and took nothing back.
    left: Option<&'a Rollout>,
}

impl Looks<'_> {
    /// A target had what a group assigned to it, else what its label means, else the group's.
    fn target(&self, status: &TargetStatus) -> Result<Found, Error> {
        let Rollout { app, group, .. } = self.rollout;
        let (mut own, mut strayed) = (None, false);
        let name = MemberName::Target(status.target.clone());
        match (&status.known.assigned, &status.known.follows) {
            // What it had before the last rollout, as its label's, was told to it in the name of the group.
            (Some(it), _) if self.had(&name) == Some((it.release, &it.group)) => {
                own = self.own(it.release, &it.group);
            }
            (Some(it), _) if it.group == *group => strayed = Some(it.release) != self.previous,
            (Some(it), _) => own = self.own(it.release, &it.group),
            (None, Some(label)) => {
                let record = find(self.store, app, Some(label.clone())).map_err(boxed)?;
                own = record.and_then(|record| self.own(record.release, group));
            }
            (None, None) => {}
        }
        Ok(Found { name, own, strayed })
    }

    /// A destination had what it shows, unless an unfinished rollout of the group left that there.
    fn destination(&self, name: &DestinationName) -> Result<Found, Error> {
        let Rollout { app, group, .. } = self.rollout;
        let member = MemberName::Destination(name.clone());
        let states = self
            .left
            .iter()
            .flat_map(|left| left.members.iter().zip(left.machine.iter().flat_map(Machine::members)));
        let strayed = states.into_iter().any(|(left, Member { state, strayed, .. })| {
            left.name == member
                && !matches!(state, MemberState::Returned)
                && (*strayed || *state != MemberState::Waiting)
        });
        let shows = self.store.records().shows(app, name).map_err(boxed)?;
        let own = shows.filter(|_| !strayed).and_then(|release| self.own(release, group));
        Ok(Found { name: member, own, strayed })
    }

    /// Returns what a member had before the group's last rollout.
    fn had(&self, name: &MemberName) -> Option<(ReleaseId, &DestinationName)> {
        let last = self.last?;
        last.before(last.members.iter().find(|member| member.name == *name)?)
    }

    fn own(&self, release: ReleaseId, group: &DestinationName) -> Option<OwnRelease> {
        let is_own = Some(release) != self.previous || *group != self.rollout.group;
        // One that was removed all the same is none to go back to.
        let is_there = || self.store.records().has(&release, |app| *app == self.rollout.app);
        (is_own && is_there()).then(|| OwnRelease { release, group: group.clone() })
    }

    /// Returns the rollout as it begins.
    fn begun(&self, rules: Rules, found: Vec<Found>) -> Rollout {
        let mut begun = Rollout { previous: self.previous, ..self.rollout.clone() };
        let mut members = Vec::new();
        for Found { name, own, strayed } in found {
            let place = own.map(|own| {
                let known = begun.own.iter().position(|other| *other == own);
                known.unwrap_or_else(|| {
                    begun.own.push(own);
                    begun.own.len() - 1
                })
            });
            let own = place.map(|place| u16::try_from(place).expect("there are fewer members"));
            let member = StoredMember { name, delivery: None, return_delivery: None, own };
            let before = begun.before(&member).map(|(release, _)| release);
            let stays = before.is_none_or(|before| before == begun.release);
            members.push(Member { strayed, stays, ..Member::default() });
            begun.members.push(member);
        }
        begun.machine = Some(Machine::new(rules, members));
        begun
    }
}
