//! Rollouts, for people.

use super::error::Error;
use super::outcome::Outcome;
use super::output::time;
use ground::escape;
use ground::faults::Fault;
use protocol::wire::{RolloutMember, RolloutMemberState, RolloutState, RolloutStatus, RolloutWait};

/// Members that are named in one line.
const NAMED_MAX: usize = 3;

/// Returns one line on how far a rollout is.
pub fn progress_text(status: &RolloutStatus) -> String {
    format!("rollout {}", rollout_text(status))
}

/// Returns the same below a heading that says what it is.
pub fn rollout_text(status: &RolloutStatus) -> String {
    let RolloutStatus { id, app, release, group, batch, batches, members, canaries, .. } = status;
    let mut begun = if *batch > 0 { format!(" batch {batch} of {batches},") } else { String::new() };
    if *batch > 0 && members.len() > 1 && *canaries as usize >= members.len() {
        begun = format!(" all {} members are canaries,", members.len());
    }
    format!("{id} of {app}@{} to {group}:{begun} {}", release.short(), state_text(status))
}

/// Returns how far a rollout is.
pub fn state_text(status: &RolloutStatus) -> String {
    let count = |is_counted: fn(&RolloutMemberState) -> bool| {
        status.members.iter().filter(|member| is_counted(&member.state)).count()
    };
    let confirmed = count(|state| *state == RolloutMemberState::Confirmed);
    let of = format!("{confirmed} of {} confirmed", status.members.len());
    let (failed, who) = failures(status);
    let failures = if failed > 0 { format!(", {failed} failed{who}") } else { String::new() };
    let text = match &status.state {
        RolloutState::Waiting { behind: Some(behind) } => format!("waits for rollout {behind}"),
        RolloutState::Waiting { behind: None } => format!("waits{}", wait_text(status)),
        RolloutState::Running => format!("{of}{failures}{}", wait_text(status)),
        // A person's reason says it already.
        RolloutState::Held { reason } if reason.starts_with("held") => format!("{reason}; {of}{failures}"),
        RolloutState::Held { reason } => format!("held: {reason}; {of}{failures}"),
        RolloutState::RollingBack { reason } => {
            let back = count(|state| *state == RolloutMemberState::Returned);
            let going = count(|state| *state == RolloutMemberState::Returning);
            format!("goes back, {back} are back, {going} to go, as {reason}{who}{}", wait_text(status))
        }
        RolloutState::Succeeded => {
            let stays = status.current_stays.map_or_else(String::new, |current| {
                format!("; current stays @{}, which was asked for later", current.short())
            });
            format!("succeeded, {of}{failures}{stays}")
        }
        RolloutState::RolledBack { reason } => {
            let away = count(|state| matches!(state, RolloutMemberState::NotReturned { .. }));
            let away = if away > 0 { format!("; {away} go back when they can") } else { String::new() };
            format!("rolled back, as {reason}{who}{away}")
        }
        RolloutState::Failed { reason } => format!("failed: {reason}{who}"),
        RolloutState::Aborted { by } => format!("ended by {by}, {of}{failures}"),
        RolloutState::Superseded { by } => format!("superseded by {by}, {of}{failures}"),
    };
    escape::text(&text)
}

/// Returns what it waits for, besides members.
fn wait_text(status: &RolloutStatus) -> String {
    match &status.waits {
        None => String::new(),
        Some(RolloutWait::ComesBack { until }) => {
            format!("; after its start the proxy waits for members to come back, until {}", time(*until))
        }
        Some(RolloutWait::Bakes { until }) => format!("; bakes until {}", time(*until)),
        Some(RolloutWait::MinHealthy { until }) => {
            format!("; waits for more members to be well (min_healthy), until {}", time(*until))
        }
        Some(RolloutWait::Trouble { reason }) => format!("; cannot go on, and tries again: {reason}"),
    }
}

/// Returns how many members failed, and in parentheses the first of them with why.
fn failures(status: &RolloutStatus) -> (usize, String) {
    let why = |member: &RolloutMember| {
        Some(match member.failure()? {
            "" => member.name.as_str().to_owned(),
            reason => format!("{}: {reason}", member.name.as_str()),
        })
    };
    let failed: Vec<String> = status.members.iter().filter_map(why).collect();
    let mut named = failed[..failed.len().min(NAMED_MAX)].join("; ");
    let more = failed.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        named = format!("{named}; and {more} more");
    }
    (failed.len(), if failed.is_empty() { named } else { format!(" ({named})") })
}

/// Returns a row for each member.
pub fn member_rows(status: &RolloutStatus) -> Vec<Vec<String>> {
    let members = status.members.iter();
    members.map(|member| vec![member.name.as_str().to_owned(), escape::text(&member_text(member))]).collect()
}

fn member_text(member: &RolloutMember) -> String {
    let until = member.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
    let text = match &member.state {
        RolloutMemberState::Updating | RolloutMemberState::Proving if member.away => {
            format!("unreachable, is waited for{until}")
        }
        RolloutMemberState::Returning if member.away => {
            format!("unreachable, is to go back, waited for{until}")
        }
        RolloutMemberState::Waiting => "waits".to_owned(),
        RolloutMemberState::Updating => format!("updating, waited for{until}"),
        RolloutMemberState::Proving => format!("confirmed, to stay so{until}"),
        RolloutMemberState::Confirmed => "confirmed".to_owned(),
        RolloutMemberState::Failed { reason } => return format!("failed: {reason}"),
        RolloutMemberState::Returning => "goes back".to_owned(),
        RolloutMemberState::Returned => "is back".to_owned(),
        RolloutMemberState::NotReturned { reason } => format!("{reason}; goes back when it can"),
    };
    match member.failure() {
        Some(reason) => format!("{text}; had failed: {reason}"),
        None => text,
    }
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
    let RolloutStatus { id, app, .. } = status;
    format!("the current release of {app} did not move; `whit rollouts {id}` shows each member")
}
