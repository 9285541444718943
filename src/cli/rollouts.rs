//! `whit rollouts`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::error::Error;
use super::follow::{self, Row, Rows};
use super::outcome::Outcome;
use super::output::{self, Output};
use super::progress::waiting;
use super::queries::ask;
use super::rollout_text::{member_rows, progress_text, state_text};
use crate::agent::{self, Session};
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, DestinationName, RolloutId};
use protocol::wire::{Answer, Operation, RolloutState, RolloutStatus, RolloutSteering};

const HELP: &str = "\
Lists rollouts that are under way and those that ended last, oldest first, of the applications and groups that the token \
allows; one that is named by its id with each member. --watch goes on with a line for each change, until Ctrl-C.

  whit push web ./dist --to production      (production is a group)
  whit rollouts web --watch
  whit rollouts 5499220e-17
  whit rollouts hold production

A token that may push or promote an application lists its user's own rollouts of it, read all of its groups. hold and abort of one's own \
need push; else promote or deliver, and the group among its --to.";

/// How long a rollout waits for a held one before a command ends: one that is to take its place does so sooner.
const HELD_UP_MAX: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// List rollouts, or hold, resume or end one.
#[derive(Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct RolloutsArgs {
    #[command(subcommand)]
    steer: Option<SteerCommand>,
    /// Only those of this application, or the one with this id, like 5499220e-17, and its members.
    #[arg(value_name = "APP|ID")]
    which: Option<String>,
    /// How many of those that ended to list first.
    #[arg(long, value_name = "N", default_value_t = 10)]
    last: usize,
    /// List each member.
    #[arg(long)]
    members: bool,
    /// Go on with each change.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Subcommand)]
enum SteerCommand {
    /// Begin no further batch.
    Hold(SteerArgs),
    /// Go on, whatever has failed so far.
    Resume(SteerArgs),
    /// End it: members that have the release keep it.
    Abort(SteerArgs),
    /// End it: members that have the release go back.
    Rollback(SteerArgs),
}

/// One rollout.
#[derive(Debug, Args)]
struct SteerArgs {
    /// Its id, like 5499220e-17, or its group.
    #[arg(value_name = "ID|GROUP")]
    which: String,
    /// Of a group that rolls out several applications: which.
    #[arg(long)]
    app: Option<AppName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: RolloutsArgs, output: &Output) -> Result<(), Error> {
    match arguments.steer {
        Some(SteerCommand::Hold(steered)) => steer(steered, RolloutSteering::Hold, output).await,
        Some(SteerCommand::Resume(steered)) => steer(steered, RolloutSteering::Resume, output).await,
        Some(SteerCommand::Abort(steered)) => steer(steered, RolloutSteering::Abort, output).await,
        Some(SteerCommand::Rollback(steered)) => steer(steered, RolloutSteering::Rollback, output).await,
        None if arguments.watch => watch(arguments, output).await,
        None => list(arguments, output).await,
    }
}

impl Row for RolloutStatus {
    type Key = u64;

    fn of(answer: Answer) -> Vec<Self> {
        if let Answer::Rollouts(rows) = answer { rows } else { Vec::new() }
    }

    fn key(&self) -> u64 {
        self.id.number
    }

    fn has_ended(&self) -> bool {
        self.state.is_last()
    }

    fn is_same(&self, before: &Self) -> bool {
        self == before
    }
}

/// Returns the application or the rollout that is named.
fn named(which: Option<&str>) -> Result<(Option<AppName>, Option<RolloutId>), Error> {
    let Some(which) = which else { return Ok((None, None)) };
    Ok(match which.parse() {
        Ok(id) => (None, Some(id)),
        Err(_) => (Some(which.parse()?), None),
    })
}

fn unknown(id: RolloutId) -> Error {
    Error::Message {
        fault: Fault::Missing,
        text: format!("there is no rollout {id} that the token may see, or it ended long ago"),
        hint: Some("`whit rollouts` lists those that are known".to_owned()),
    }
}

async fn list(arguments: RolloutsArgs, output: &Output) -> Result<(), Error> {
    let RolloutsArgs { which, last, members, access, .. } = arguments;
    let (app, id) = named(which.as_deref())?;
    let rows = follow::list(&access, &Operation::Rollouts { app, watch: false }, output).await?;
    let rows: Vec<&RolloutStatus> = match id {
        Some(id) => {
            vec![rows.all().find(|status: &&RolloutStatus| status.id == id).ok_or_else(|| unknown(id))?]
        }
        None => rows.last(last),
    };
    output.report(&rows, || {
        let table: Vec<Vec<String>> = rows.iter().map(|status| row(status)).collect();
        let mut text = output::table(&["ROLLOUT", "RELEASE", "TO", "ASKED", "BY", "BATCH", "STATE"], &table);
        for status in rows.iter().filter(|status| (members || id.is_some()) && !status.members.is_empty()) {
            let table = output::table(&["MEMBER", "STATE"], &member_rows(status));
            text = format!("{text}\n\n{}\n{table}", status.id);
        }
        text
    })
}

fn row(status: &RolloutStatus) -> Vec<String> {
    vec![
        status.id.to_string(),
        format!("{}@{}", status.app, status.release.short()),
        status.group.to_string(),
        output::time(status.asked),
        status.user.to_string(),
        format!("{}/{}", status.batch, status.batches),
        state_text(status),
    ]
}

async fn watch(arguments: RolloutsArgs, output: &Output) -> Result<(), Error> {
    let RolloutsArgs { which, last, access, .. } = arguments;
    let (app, id) = named(which.as_deref())?;
    let question = |watch| Operation::Rollouts { app: app.clone(), watch };
    let show = |row: &RolloutStatus| {
        let is_meant = id.is_none_or(|id| row.id == id);
        if is_meant { print(row, output) } else { Ok(()) }
    };
    let last = if id.is_some() { usize::MAX } else { last };
    follow::watch(&access, (&question(false), &question(true)), last, output, show).await
}

fn print(status: &RolloutStatus, output: &Output) -> Result<(), Error> {
    if output.is_json() {
        let line = serde_json::to_string(status).expect("a rollout is plain words and numbers");
        return output.line(&line);
    }
    output.line(&progress_text(status))
}

async fn steer(arguments: SteerArgs, how: RolloutSteering, output: &Output) -> Result<(), Error> {
    let SteerArgs { which, app, access } = arguments;
    let id = match which.parse::<RolloutId>() {
        Ok(id) => id,
        Err(_) => find(&which.parse()?, app, &access, output).await?,
    };
    let answers = ask(&access, output, Operation::SteerRollout { rollout: id, how }).await?;
    let status = answers.into_iter().flat_map(RolloutStatus::of).last().ok_or(agent::Error::Ended)?;
    output.report(&status, || progress_text(&status))
}

/// Finds the rollout of a group that is under way.
async fn find(
    group: &DestinationName,
    app: Option<AppName>,
    access: &AccessArgs,
    output: &Output,
) -> Result<RolloutId, Error> {
    let rows: Rows<RolloutStatus> =
        follow::list(access, &Operation::Rollouts { app, watch: false }, output).await?;
    let under_way = rows.all().filter(|status| status.group == *group && !status.state.is_last());
    let under_way: Vec<&RolloutStatus> = under_way.collect();
    // One that waits for the other is not meant.
    let begun =
        under_way.iter().copied().filter(|status| !matches!(status.state, RolloutState::Waiting { .. }));
    match (&begun.collect::<Vec<_>>()[..], &under_way[..]) {
        ([one], _) | ([], [one]) => Ok(one.id),
        ([], _) => Err(Error::Message {
            fault: Fault::Missing,
            text: format!("no rollout to `{group}` is under way"),
            hint: Some(
                "`whit rollouts` lists those that ended; `whit promote APP@RELEASE --to GROUP` begins one"
                    .to_owned(),
            ),
        }),
        (several, _) => {
            let ids: Vec<String> =
                several.iter().map(|status| format!("{} ({})", status.id, status.app)).collect();
            Err(Error::input(
                format!("several rollouts to `{group}` are under way: {}", ids.join(", ")),
                "give its id, or the application with --app",
            ))
        }
    }
}

/// Follows a rollout to its end, or until it or the one that it waits for is held, with a line for each change: also where the proxy is lost, for `patience` at a
/// time.
///
/// # Errors
/// The session's; the proxy does not know the rollout any more. What it came to is for [`ended_well`](super::rollout_text::ended_well).
pub async fn follow_to_end(
    session: &Session,
    app: &AppName,
    id: RolloutId,
    patience: Duration,
    output: &Output,
) -> Result<RolloutStatus, Error> {
    let question = Operation::Rollouts { app: Some(app.clone()), watch: true };
    let (mut last, mut said): (Option<RolloutStatus>, _) = (None, String::new());
    let mut shown = Some(waiting(output, "waiting for the rollout"));
    let mut held = BTreeSet::new();
    let (is_listed, blocked) = (Cell::new(false), Cell::new(None));
    let lost = |text: &str| {
        is_listed.set(false);
        output.note(text);
    };
    let take = |answer| {
        let rows = RolloutStatus::of(answer);
        // A message without rows comes after the list, where nothing changes.
        let is_missing = rows.is_empty() && !is_listed.get();
        for row in rows {
            let is_held = matches!(row.state, RolloutState::Held { .. });
            let _ = if is_held { held.insert(row.id) } else { held.remove(&row.id) };
            if row.id == id {
                is_listed.set(true);
                last = Some(row);
            }
        }
        let Some(status) = last.as_ref().filter(|_| is_listed.get()) else { return !is_missing };
        let is_blocked = match &status.state {
            RolloutState::Waiting { behind: Some(behind) } => held.contains(behind),
            _ => false,
        };
        blocked.set(is_blocked.then(|| blocked.get().unwrap_or_else(Instant::now)));
        let text = progress_text(status);
        let is_over = status.state.is_last() || matches!(status.state, RolloutState::Held { .. });
        if text != said && !is_over {
            // The line of progress goes before another is printed.
            drop(shown.take());
            // Each waits for a moment.
            if !matches!(status.state, RolloutState::Waiting { behind: None }) {
                output.note(&text);
            }
            shown = Some(waiting(output, text.clone()));
            said = text;
        }
        !is_over
    };
    let stays_blocked = async {
        while blocked.get().is_none_or(|since| since.elapsed() < HELD_UP_MAX) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        followed = session.follow(&question, patience, lost, take) => followed?,
        // A rollout that takes the place of a held one does so at once.
        () = stays_blocked => {}
    }
    drop(shown);
    last.filter(|_| is_listed.get()).ok_or_else(|| unknown(id))
}

/// Adds to the error of a command that was interrupted, or lost the proxy, which rollout goes on without it.
pub fn interrupted(error: Error, rollout: Option<RolloutId>) -> Error {
    match rollout {
        Some(id) if error.fault() != Fault::Missing => Error::Rollout {
            outcome: Outcome::UnderWay(error.fault()),
            text: error.to_string(),
            hint: format!(
                "the proxy goes on with rollout {id}: `whit rollouts --watch` shows it, `whit rollouts abort {id}` ends it"
            ),
        },
        _ => error,
    }
}
