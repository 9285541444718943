//! `whit deliveries`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::deliveries::report_text;
use super::error::Error;
use super::follow::{self, Row};
use super::output::{self, Output};
use super::queries::ask;
use crate::agent;
use format::record::DeliveryState;
use ground::escape;
use ground::faults::Fault;
use ground::ids::{AppName, DeliveryId, DestinationName};
use protocol::wire::{Answer, DeliveriesWanted, DeliveryStatus, Operation, Steering};

const HELP: &str = "\
Lists what waits, what is under way and what ended last, oldest first, of the applications and destinations that the \
token allows. --watch goes on with a line for each change, until Ctrl-C.";

/// List deliveries, or retry or end one.
#[derive(Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct DeliveriesArgs {
    #[command(subcommand)]
    steer: Option<SteerCommand>,
    /// Only those to this destination.
    #[arg(long, value_name = "DEST")]
    to: Option<DestinationName>,
    /// Only those of this application.
    #[arg(long)]
    app: Option<AppName>,
    /// How many of those that ended to list first.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
    /// Go on with each change.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Subcommand)]
enum SteerCommand {
    /// Try a waiting delivery now, not after its wait.
    Retry(SteerArgs),
    /// End a delivery: one that waits is taken out of the queue, one under way is stopped.
    Cancel(SteerArgs),
    /// End a delivery whose destination is not configured any more.
    Drop(SteerArgs),
}

/// One delivery.
#[derive(Debug, Args)]
struct SteerArgs {
    /// Its id, like 5499220e-17.
    id: DeliveryId,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: DeliveriesArgs, output: &Output) -> Result<(), Error> {
    match arguments.steer {
        Some(SteerCommand::Retry(steered)) => steer(steered, Steering::Retry, output).await,
        Some(SteerCommand::Cancel(steered)) => steer(steered, Steering::Cancel, output).await,
        Some(SteerCommand::Drop(steered)) => steer(steered, Steering::Drop, output).await,
        None if arguments.watch => watch(arguments, output).await,
        None => list(arguments, output).await,
    }
}

impl Row for DeliveryStatus {
    type Key = u64;

    fn of(answer: Answer) -> Vec<Self> {
        if let Answer::Deliveries(rows) = answer { rows } else { Vec::new() }
    }

    fn key(&self) -> u64 {
        self.id.number
    }

    fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    fn is_same(&self, before: &Self) -> bool {
        self.state == before.state
    }
}

async fn list(arguments: DeliveriesArgs, output: &Output) -> Result<(), Error> {
    let DeliveriesArgs { to, app, last, access, .. } = arguments;
    let question = Operation::Deliveries(DeliveriesWanted { app, destination: to, watch: false });
    let rows = follow::list(&access, &question, output).await?;
    let rows: Vec<&DeliveryStatus> = rows.last(last);
    output.report(&rows, || {
        let rows: Vec<Vec<String>> = rows.iter().map(|status| row(status)).collect();
        output::table(&["DELIVERY", "RELEASE", "TO", "ASKED", "BY", "STATE"], &rows)
    })
}

async fn watch(arguments: DeliveriesArgs, output: &Output) -> Result<(), Error> {
    let DeliveriesArgs { to, app, last, access, .. } = arguments;
    let wanted = |watch| DeliveriesWanted { app: app.clone(), destination: to.clone(), watch };
    let (once, on) = (Operation::Deliveries(wanted(false)), Operation::Deliveries(wanted(true)));
    follow::watch(&access, (&once, &on), last, output, |row| print(row, output)).await
}

fn print(status: &DeliveryStatus, output: &Output) -> Result<(), Error> {
    if output.is_json() {
        let line = serde_json::to_string(status).expect("a delivery is plain words and numbers");
        return output.line(&line);
    }
    let [id, release, to, _, by, state] = &row(status)[..] else { unreachable!("a row has six columns") };
    output.line(&format!("{id} {release} to {to} by {by}: {state}"))
}

async fn steer(arguments: SteerArgs, how: Steering, output: &Output) -> Result<(), Error> {
    let SteerArgs { id, access } = arguments;
    let answers = ask(&access, output, Operation::Steer { delivery: id, how }).await?;
    let status = answers.into_iter().flat_map(DeliveryStatus::of).last().ok_or(agent::Error::Ended)?;
    let made = match (&status.state, how) {
        (DeliveryState::Delivered(_), Steering::Cancel) => Err(Error::Message {
            fault: Fault::Input,
            text: format!("delivery {id} was made before it could be cancelled"),
            hint: Some("`whit deliver` delivers another release".to_owned()),
        }),
        _ => Ok(()),
    };
    output.report_with(&status, made, || {
        let [id, release, to, _, _, state] = &row(&status)[..] else { unreachable!("a row has six columns") };
        // The state may still be that before: its destination's worker takes it now.
        let state = if how == Steering::Retry { "is tried now" } else { state };
        format!("{id} {release} to {to}: {state}")
    })
}

fn row(status: &DeliveryStatus) -> Vec<String> {
    let DeliveryStatus { id, app, release, destination, user, behalf, asked, .. } = status;
    let user = user.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let by = behalf.first().map_or_else(|| user.clone(), |first| format!("{} (by {user})", first.user));
    let asked = if *asked == 0 { "?".to_owned() } else { output::time(*asked) };
    let release = format!("{app}@{}", release.short());
    vec![id.to_string(), release, destination.to_string(), asked, by, escape::text(&state_text(status))]
}

fn state_text(status: &DeliveryStatus) -> String {
    let tries = match status.tries {
        0 => String::new(),
        1 => " once".to_owned(),
        tries => format!(" {tries} times"),
    };
    match &status.state {
        DeliveryState::Queued => "waits".to_owned(),
        DeliveryState::Running(progress) if progress.total > 0 => {
            format!("running, {} of {}", output::bytes(progress.bytes), output::bytes(progress.total))
        }
        DeliveryState::Running(_) => "running".to_owned(),
        DeliveryState::Delivered(report) => report_text(report),
        DeliveryState::Retrying { reason, seconds, .. } => {
            let wait = humantime::format_duration(Duration::from_secs(*seconds));
            format!("failed{tries}: {reason}; next try in {wait}")
        }
        DeliveryState::Failed { reason, .. } => format!("failed: {reason}"),
        DeliveryState::Skipped { by } => format!("skipped: delivery {by} has a later release"),
        DeliveryState::Cancelled { by } => format!("cancelled by {by}"),
        DeliveryState::Stranded => format!(
            "stranded: the destination is not configured any more; `whit deliveries drop {}` ends it",
            status.id
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::record::Progress;
    use ground::ids::ReleaseId;

    fn status() -> DeliveryStatus {
        DeliveryStatus {
            id: DeliveryId { proxy: [0x54, 0x99, 0x22, 0x0e], number: 17 },
            destination: "edge".parse().expect("a name"),
            app: "web".parse().expect("a name"),
            release: ReleaseId::of(b"a root"),
            user: Some("ada".parse().expect("a name")),
            token: None,
            behalf: Vec::new(),
            then: Vec::new(),
            asked: 0,
            started: None,
            ended: None,
            tries: 3,
            state: DeliveryState::Retrying {
                reason: "full\nforged".to_owned(),
                seconds: 75,
                fault: Fault::Full,
            },
        }
    }

    #[test]
    fn a_state_says_what_happens_next() {
        let mut status = status();
        let id = status.id;
        assert_eq!(row(&status)[5], "failed 3 times: full\\nforged; next try in 1m 15s");
        status.state = DeliveryState::Running(Progress { bytes: 1_000_000, total: 2_000_000, files: 1 });
        assert_eq!(row(&status)[5], "running, 1.00 MB of 2.00 MB");
        status.state = DeliveryState::Stranded;
        assert!(row(&status)[5].contains("whit deliveries drop 5499220e-17"));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
