//! `whit destinations`.

use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::queries::ask;
use ground::escape;
use ground::faults::Fault;
use ground::ids::DestinationName;
use protocol::wire::{Answer, DestinationCheck, DestinationDropped, DestinationStatus, Operation};

/// List the proxy's destinations that the token allows, try them, or let go of one that is gone.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DestinationsArgs {
    #[command(subcommand)]
    command: Option<DestinationsCommand>,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Subcommand)]
enum DestinationsCommand {
    /// Try for real what a delivery needs, from the proxy. Exit code 2 if something fails.
    Check(CheckArgs),
    /// Let go of a destination that is not configured any more: end what waits for it, and keep no releases for it.
    Drop(DropArgs),
}

/// The destination that is gone.
#[derive(Debug, Args)]
struct DropArgs {
    /// Its name.
    name: DestinationName,
    #[command(flatten)]
    access: AccessArgs,
}

/// The destinations to try.
#[derive(Debug, Args)]
struct CheckArgs {
    /// One destination; all that the token allows where none is named.
    name: Option<DestinationName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: DestinationsArgs, output: &Output) -> Result<(), Error> {
    match arguments.command {
        Some(DestinationsCommand::Check(checked)) => check(checked, output).await,
        Some(DestinationsCommand::Drop(dropped)) => drop_destination(dropped, output).await,
        None => list(&arguments.access, output).await,
    }
}

async fn list(access: &AccessArgs, output: &Output) -> Result<(), Error> {
    let mut destinations: Vec<DestinationStatus> = Vec::new();
    for answer in ask(access, output, Operation::Destinations).await? {
        if let Answer::Destinations(part) = answer {
            destinations.extend(part);
        }
    }
    let row = |one: &DestinationStatus| {
        let (waiting, failing) = (output::count(one.waiting), output::count(one.failing));
        vec![one.name.to_string(), escape::text(&one.kind), escape::text(&one.place), waiting, failing]
    };
    output.report(&destinations, || {
        let rows: Vec<Vec<String>> = destinations.iter().map(row).collect();
        output::table(&["DESTINATION", "KIND", "PLACE", "WAITING", "FAILING"], &rows)
    })
}

async fn check(arguments: CheckArgs, output: &Output) -> Result<(), Error> {
    let mut checks: Vec<DestinationCheck> = Vec::new();
    let question = Operation::CheckDestinations(arguments.name);
    for answer in ask(&arguments.access, output, question).await? {
        if let Answer::Checked(checked) = answer {
            checks.push(checked);
        }
    }
    if checks.is_empty() {
        output
            .note("no destination to try: the proxy's configuration file defines none that the token allows");
    }
    let failed = checks.iter().find(|checked| checked.steps.iter().any(|step| step.failure.is_some()));
    let ended = match failed {
        Some(DestinationCheck { name, .. }) => Err(Error::Message {
            fault: Fault::Input,
            text: format!("destination {name} cannot be delivered to"),
            hint: Some("remove the cause on the proxy's host or at the service, then check again".to_owned()),
        }),
        None => Ok(()),
    };
    output.report_with(&checks, ended, || checks.iter().map(check_text).collect::<Vec<_>>().join("\n"))
}

async fn drop_destination(arguments: DropArgs, output: &Output) -> Result<(), Error> {
    let question = Operation::DropDestination(arguments.name);
    for answer in ask(&arguments.access, output, question).await? {
        if let Answer::Dropped(dropped) = answer {
            let DestinationDropped { name, deliveries, releases } = &dropped;
            let (deliveries, releases) = (output::count(*deliveries), output::count(*releases));
            return output.report(&dropped, || {
                format!(
                    "dropped {name}: {deliveries} deliveries ended, {releases} releases no longer kept for it"
                )
            });
        }
    }
    Ok(())
}

fn check_text(checked: &DestinationCheck) -> String {
    let mut text = checked.name.to_string();
    for step in &checked.steps {
        let (result, why) = match &step.failure {
            None => ("ok", String::new()),
            Some(failure) => ("failed", format!(": {}", escape::text(failure))),
        };
        text = format!("{text}\n  {result:<6} {}{why}", escape::text(&step.step));
    }
    text
}
