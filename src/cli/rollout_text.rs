//! Rollouts, for people.

use super::error::Error;
use super::outcome::Outcome;
use ground::escape;
use ground::faults::Fault;
use protocol::wire::{RolloutMemberState, RolloutState, RolloutStatus};

/// Members that are named in one line.
const NAMED_MAX: usize = 3;

/// Returns one line on how far a rollout is.
pub fn progress_text(status: &RolloutStatus) -> String {
    format!("rollout {}", rollout_text(status))
}

/// Returns the same below a heading that says what it is.
pub fn rollout_text(status: &RolloutStatus) -> String {
    let RolloutStatus { id, app, release, group, batch, batches, .. } = status;
    let begun = if *batch > 0 { format!(" batch {batch} of {batches},") } else { String::new() };
    format!("{id} of {app}@{} to {group}:{begun} {}", release.short(), state_text(status))
}

/// Returns how far a rollout is.
pub fn state_text(status: &RolloutStatus) -> String {
    let count = |is_counted: fn(&RolloutMemberState) -> bool| {
        status.members.iter().filter(|member| is_counted(&member.state)).count()
    };
    let confirmed = count(|state| *state == RolloutMemberState::Confirmed);
    let of = format!("{confirmed} of {} confirmed", status.members.len());
    let failed: Vec<_> = status
        .members
        .iter()
        .filter_map(|member| match &member.state {
            RolloutMemberState::Failed { reason } => Some(format!("{} {reason}", member.name.as_str())),
            _ => None,
        })
        .collect();
    let more = failed.len().saturating_sub(NAMED_MAX);
    let mut failures = match failed.len() {
        0 => String::new(),
        few => format!(", {few} failed: {}", failed[..few.min(NAMED_MAX)].join("; ")),
    };
    if more > 0 {
        failures = format!("{failures}; and {more} more");
    }
    let text = match &status.state {
        RolloutState::Waiting { behind: Some(behind) } => format!("waits for rollout {behind}"),
        RolloutState::Waiting { behind: None } => "waits".to_owned(),
        RolloutState::Running => format!("{of}{failures}"),
        // A person's reason says it already.
        RolloutState::Held { reason } if reason.starts_with("held") => format!("{reason}; {of}{failures}"),
        RolloutState::Held { reason } => format!("held: {reason}; {of}{failures}"),
        RolloutState::RollingBack { reason } => {
            let back = count(|state| *state == RolloutMemberState::Returned);
            let going = count(|state| *state == RolloutMemberState::Returning);
            format!("goes back, as {reason}: {back} are back, {going} to go")
        }
        RolloutState::Succeeded => format!("succeeded, {of}{failures}"),
        RolloutState::RolledBack { reason } => {
            let away = count(|state| matches!(state, RolloutMemberState::NotReturned { .. }));
            let away = if away > 0 { format!("; {away} go back when they can") } else { String::new() };
            format!("rolled back, as {reason}{away}")
        }
        RolloutState::Failed { reason } => format!("failed: {reason}{failures}"),
        RolloutState::Aborted { by } => format!("ended by {by}, {of}"),
        RolloutState::Superseded { by } => format!("superseded by {by}"),
    };
    escape::text(&text)
}

/// Returns a row for each member.
pub fn member_rows(status: &RolloutStatus) -> Vec<Vec<String>> {
    let state = |state: &RolloutMemberState| match state {
        RolloutMemberState::Waiting => "waits".to_owned(),
        RolloutMemberState::Updating => "updating".to_owned(),
        RolloutMemberState::Proving => "confirmed, to stay so".to_owned(),
        RolloutMemberState::Confirmed => "confirmed".to_owned(),
        RolloutMemberState::Failed { reason } => format!("failed: {reason}"),
        RolloutMemberState::Returning => "goes back".to_owned(),
        RolloutMemberState::Returned => "is back".to_owned(),
        RolloutMemberState::NotReturned { reason } => format!("{reason}; goes back when it can"),
    };
    let members = status.members.iter();
    members.map(|member| vec![member.name.as_str().to_owned(), escape::text(&state(&member.state))]).collect()
}

/// Returns an error if a rollout did not succeed, or is held. One that waits was left as the one that it waits for is held.
pub fn ended_well(status: &RolloutStatus) -> Result<(), Error> {
    let RolloutStatus { id, app, group, .. } = status;
    let steer = |id| {
        format!("`whit rollouts resume {id}` goes on, `rollback` takes it back, `abort` leaves it as it is")
    };
    let mut text = progress_text(status);
    let (outcome, hint) = match &status.state {
        RolloutState::Succeeded => return Ok(()),
        RolloutState::Superseded { by } => {
            (Outcome::Superseded, format!("rollout {by} goes on: `whit rollouts {app} --watch` shows it"))
        }
        RolloutState::RolledBack { .. } => (Outcome::RolledBack, unmoved(status)),
        RolloutState::Failed { .. } => (Outcome::Failed, unmoved(status)),
        RolloutState::Aborted { .. } => {
            (Outcome::Aborted, format!("`whit promote {app}@RELEASE --to {group}` begins another"))
        }
        RolloutState::Held { .. } => (Outcome::Held, steer(*id)),
        RolloutState::Waiting { behind: Some(behind) } => {
            text.push_str(", which is held");
            (Outcome::Held, steer(*behind))
        }
        RolloutState::Waiting { behind: None } | RolloutState::Running | RolloutState::RollingBack { .. } => {
            (
                Outcome::UnderWay(Fault::Retry),
                format!("the proxy goes on with it: `whit rollouts {app} --watch` shows it"),
            )
        }
    };
    Err(Error::Rollout { outcome, text, hint })
}

fn unmoved(status: &RolloutStatus) -> String {
    let app = &status.app;
    format!(
        "the current release of {app} is the one of before; `whit targets {app}` shows why targets refused it"
    )
}
