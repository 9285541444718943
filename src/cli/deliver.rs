//! `whit deliver`.

use clap::Args;

use super::output::Output;
use super::push::{delivered_all, delivery_text, destinations};
use super::{AccessArgs, Error};
use crate::ids::Selector;
use crate::record::DeliveryEvent;
use crate::wire::{Answer, Operation};

/// Deliver a release again, without any agent's bytes.
#[derive(Debug, Args)]
pub struct DeliverArgs {
    /// APP, APP@LABEL or APP@RELEASE; the latest release where none is named.
    release: Selector,
    /// A destination of the proxy, or dir:PATH where the proxy is inside the command; may be given several times.
    #[arg(long, value_name = "DEST", required = true)]
    to: Vec<String>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: DeliverArgs, output: &Output) -> Result<(), Error> {
    let (destinations, local) = destinations(&arguments.to)?;
    let open = arguments.access.open(output, local).await?;
    let question = Operation::Deliver { release: arguments.release, destinations };
    let mut events: Vec<DeliveryEvent> = Vec::new();
    open.run(async |session| {
        let take = |answer| {
            if let Answer::Delivery(event) = answer {
                events.retain(|earlier: &DeliveryEvent| earlier.destination != event.destination);
                events.push(event);
            }
        };
        Ok(session.ask(&question, take).await?)
    })
    .await?;
    output.report(&events, || {
        events
            .iter()
            .map(|event| format!("delivered to {}", delivery_text(event)))
            .collect::<Vec<_>>()
            .join("\n")
    });
    delivered_all(&events)
}
