//! The end of a rollout: what follows from it, and who is told.

use super::super::audit::Entry;
use super::super::now;
use super::members::{Error, boxed, settle};
use super::turn::Turn;
use crate::delivery::actions::{Changed, Event, Happened, Planned};
use crate::delivery::rollout::{GroupRelease, Rollout};
use crate::store::{Mover, Together};
use disk::crash_points;
use ground::ids::ReleaseId;
use protocol::wire::RolloutState;

/// Does what follows from the end of a rollout in a last state and then, in one transaction with what actions are told, writes the
/// end down.
pub(super) fn finish(turn: &Turn<'_>, mut rollout: Rollout, mut state: RolloutState) -> Result<(), Error> {
    let (shared, id) = (turn.shared, turn.id());
    let mut release = None;
    if state == RolloutState::Succeeded {
        let moved = move_current(turn, &rollout)?;
        if let Err(reason) = moved {
            state = RolloutState::Failed { reason };
        } else {
            rollout.current_stays = moved.ok().flatten();
            if let Some(group) = shared.rollouts.group(&rollout.group) {
                settle(shared, id, group, &rollout)?;
            }
            release = Some(GroupRelease { release: rollout.release, rollout: id });
        }
        crash_points::point("rollout.current");
    }
    rollout.ended = Some((state.clone(), now()));
    let (action, event, reason) = match &state {
        RolloutState::RolledBack { reason } => {
            ("rolled_back", Some(Event::RolledBack), Some(reason.as_str()))
        }
        RolloutState::Failed { reason } => ("rollout_failed", Some(Event::GivenUp), Some(reason.as_str())),
        RolloutState::Aborted { .. } => ("rollout_aborted", None, None),
        RolloutState::Superseded { .. } => ("rollout_superseded", None, None),
        _ => ("rollout", None, None),
    };
    let told = event.map(|event| happened(turn, &rollout, event, reason));
    write_told(turn, rollout.clone(), release, told)?;
    if let (Some(_), Some(group)) = (release, shared.rollouts.group(&rollout.group)) {
        // One that came between the look and the write was told what the group had before.
        settle(shared, id, group, &rollout)?;
    }
    crash_points::point("rollout.ended");
    let Rollout { space, app, group, release, user, token, .. } = &rollout;
    shared.targets.moved(space, app);
    tracing::info!(%id, %group, %app, ?state, "a rollout has ended");
    shared.audit.write(&Entry {
        time: now(),
        action,
        user,
        space,
        app,
        release: *release,
        destinations: std::slice::from_ref(group),
        token: *token,
        behalf: &[],
        labels: &[],
        because: reason,
    });
    Ok(())
}

/// Makes the release current, unless somebody asked for the one that is current after the rollout was asked for: then that stays,
/// and is returned. Returns why it cannot be, if the release is gone.
fn move_current(turn: &Turn<'_>, rollout: &Rollout) -> Result<Result<Option<ReleaseId>, String>, Error> {
    let Rollout { app, release, user, token, group, because, .. } = rollout;
    let store = turn.store(rollout)?;
    let records = store.records();
    let _turn = records.turn();
    if !records.has(release, |other| other == app) {
        return Ok(Err("the release was removed before it could be made current".to_owned()));
    }
    if !rollout.moves_current || records.standing(app).current == Some(*release) {
        return Ok(Ok(None));
    }
    let id = turn.id();
    let moved = records.log(app, u64::MAX, 1).map_err(boxed)?;
    let last = moved.first().filter(|(_, last)| last.time > rollout.asked);
    if let Some((time, current)) = last.and_then(|(_, last)| Some((last.time, last.release?)))
        && !turn.book().came_before(turn.number, rollout, current, time)
    {
        let current_id = current.short();
        tracing::warn!(%id, %app, current_id, "the current release was asked for after the rollout, and stays");
        return Ok(Ok(Some(current)));
    }
    let said = because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
    let because = format!("rollout {id} to {group}{said}");
    let token = token.to_string();
    let mover = Mover { user, token: &token, time: now(), because: Some(&because) };
    let Some(left) = rollout.takes_back.filter(|left| records.standing(app).current == Some(*left)) else {
        records.promote(app, release, &mover, Vec::new).map_err(boxed)?;
        return Ok(Ok(None));
    };
    let (actions, mut notices) = (&turn.shared.actions, Planned::default());
    let more = |number, _: &_| {
        let told = happened(turn, rollout, Event::RolledBack, rollout.because.as_deref());
        notices = actions.plan(&Happened { previous: Some(left), ..told }, &[], Some(number));
        Together { before: notices.changes(), after: Vec::new() }
    };
    if let Err(error) = records.roll_back(app, (&left, release), &mover, more) {
        actions.settle(notices);
        return Err(boxed(error));
    }
    actions.enter(notices);
    Ok(Ok(None))
}

/// Writes down how far a rollout is and, in the same transaction and before that, the hooks and webhooks that are to hear of it. A crash
/// between the two leaves these alone: what was decided is decided again, and they hear of it once.
pub(super) fn write_told(
    turn: &Turn<'_>,
    rollout: Rollout,
    release: Option<GroupRelease>,
    told: Option<Happened>,
) -> Result<(), Error> {
    let actions = &turn.shared.actions;
    let planned = told.map(|happened| actions.plan(&happened, &[], None)).unwrap_or_default();
    match turn.book().write(turn.number, rollout, release, planned.changes()) {
        Ok(()) => {
            actions.enter(planned);
            Ok(())
        }
        Err(error) => {
            actions.withdraw(&planned);
            Err(boxed(error))
        }
    }
}

/// Returns what hooks and webhooks hear of a rollout.
pub(super) fn happened(turn: &Turn<'_>, rollout: &Rollout, event: Event, reason: Option<&str>) -> Happened {
    Happened {
        event,
        time: now(),
        id: turn.id().to_string(),
        space: rollout.space.clone(),
        app: rollout.app.clone(),
        release: rollout.release,
        labels: Vec::new(),
        previous: rollout.previous,
        destination: Some(rollout.group.clone()),
        place: None,
        user: Some(rollout.user.clone()),
        reason: reason.map(str::to_owned),
        changed: Changed::default(),
    }
}
