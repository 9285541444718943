//! `whit deliver`.

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::deliveries::{delivered_all, delivery_text, destinations};
use super::error::Error;
use super::links::WrittenLinks;
use super::output::Output;
use super::progress::waiting;
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
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: DeliverArgs, output: &Output) -> Result<(), Error> {
    let (destinations, local) = destinations(&arguments.to, arguments.links.into())?;
    let open = arguments.access.open(output, local).await?;
    let question = Operation::Deliver { release: arguments.release, destinations, then: arguments.then };
    let mut events: Vec<DeliveryEvent> = Vec::new();
    let waits = waiting(output, "delivering");
    open.run(async |session| {
        let take = |answer| {
            if let Answer::Delivery(event) = answer {
                if matches!(event.state, DeliveryState::Retrying { .. }) {
                    waits.note(&line(&event));
                }
                events.retain(|earlier: &DeliveryEvent| earlier.destination != event.destination);
                events.push(event);
            }
        };
        Ok(session.ask(&question, take).await?)
    })
    .await?;
    drop(waits);
    let ended = delivered_all(&events);
    // An array has no field for an error.
    let value = if ended.is_ok() { json!(events) } else { json!({ "delivered": events }) };
    output.report_with(&value, ended, || events.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Says how one delivery ended.
pub(super) fn line(event: &DeliveryEvent) -> String {
    let delivered = matches!(event.state, DeliveryState::Delivered(_));
    let to = if delivered { "delivered to " } else { "not delivered: " };
    format!("{to}{}", delivery_text(event))
}
