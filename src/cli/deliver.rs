//! `whit deliver`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::deliveries::{delivered_all, delivery_text, destinations, interrupted};
use super::dry_run;
use super::error::Error;
use super::links::WrittenLinks;
use super::output::Output;
use super::progress::monitor;
use crate::agent::DeliveryProgress;
use format::record::{DeliveryEvent, DeliveryState};
use ground::ids::{ActionName, Selector};
use protocol::wire::{Answer, Operation};

/// Deliver a stored release to a destination. The current release stays as it is.
#[derive(Debug, Args)]
pub struct DeliverArgs {
    /// APP, APP@LABEL, APP@RELEASE or APP@latest; APP alone is its current release.
    release: Selector,
    /// A destination of the proxy, or dir:PATH with a proxy inside the command; may be given several times.
    #[arg(long, value_name = "DEST", required = true)]
    to: Vec<String>,
    /// An action of the proxy that is to follow each delivery, like restart; may be given several times.
    #[arg(long, value_name = "ACTION")]
    then: Vec<ActionName>,
    /// How to treat symbolic links that lead outside the release, at each dir:PATH; the configuration decides for other
    /// destinations.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    links: WrittenLinks,
    /// End once the deliveries are queued, without waiting for them.
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// List what would be written and removed, and count what stays; deliver nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: list all files, also those that stay, not only the first thousand of each kind.
    #[arg(long, requires = "dry_run")]
    all: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: DeliverArgs, output: &Output) -> Result<(), Error> {
    let (destinations, local) = destinations(&arguments.to, arguments.links.into())?;
    let open = arguments.access.open(output, local).await?;
    if arguments.dry_run {
        return dry_run::run(open, arguments.release, destinations, arguments.all, output).await;
    }
    let leaves_after = arguments.no_wait.then(|| destinations.iter().collect::<BTreeSet<_>>().len());
    let question = Operation::Deliver { release: arguments.release, destinations, then: arguments.then };
    let mut progress = DeliveryProgress::default();
    let monitor = monitor(output, "sending");
    open.run(async |session| {
        let take = |answer| {
            if let Answer::Delivery(event) = answer {
                progress.take(event, &*monitor);
            }
            leaves_after != Some(progress.deliveries().len())
        };
        Ok(session.ask_while(&question, take).await?)
    })
    .await
    .map_err(|error| interrupted(error, progress.deliveries()))?;
    drop(monitor);
    let events = progress.into_deliveries();
    let ended = if arguments.no_wait { Ok(()) } else { delivered_all(&events) };
    // An array has no field for an error.
    let value = if ended.is_ok() { json!(events) } else { json!({ "delivered": events }) };
    output.report_with(&value, ended, || events.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Says how one delivery ended.
pub(super) fn line(event: &DeliveryEvent) -> String {
    let to = match event.state {
        DeliveryState::Delivered(_) => "delivered to ",
        DeliveryState::Queued | DeliveryState::Running(_) => "delivery to ",
        _ => "not delivered: ",
    };
    format!("{to}{}", delivery_text(event))
}
