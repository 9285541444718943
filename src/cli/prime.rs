//! `whit prime`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::progress::{monitor, waiting, watched};
use super::receipt::receipt_text;
use super::workers::threads;
use crate::agent::push::{PushOptions, push};
use crate::agent::scan::{Links, Selection};
use crate::config;
use crate::delivery::destination::Destinations;
use ground::ids::{AppName, DestinationName};
use protocol::wire::{Answer, Operation, Primed};

const HELP: &str = "\
FROM is a directory of this host, or a destination of the proxy of kind dir or s3: what somebody put there by rsync or \
`aws s3 sync`, say. A word without `/` that is no directory here is a destination. No release is made, and nothing can be \
pulled: the proxy keeps the content for a time (`cache_hours`), and the next push of the application \
sends what differs from it.

  whit prime web ./dist-of-last-week
  whit prime web production";

/// Fill the proxy's cache with an older copy, so that even a first push sends only what changed.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct PrimeArgs {
    /// The application.
    app: AppName,
    /// A directory of this host, or a destination of the proxy.
    #[arg(value_name = "DIR|DEST")]
    from: String,
    /// Leave out matching paths of a directory, in gitignore syntax; may be given several times.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// How long to retry without progress, once the first connection was made.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    retry_for: humantime::Duration,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: PrimeArgs, output: &Output) -> Result<(), Error> {
    let PrimeArgs { app, from, exclude, retry_for, access } = arguments;
    let path = Path::new(&from);
    let destination: Option<DestinationName> = if path.is_dir() { None } else { from.parse().ok() };
    let Some(destination) = destination else {
        let options = PushOptions {
            selection: Selection { exclude, links: Links::Keep, needs_files: true, ..Selection::default() },
            threads: threads(),
            state: config::state_folder(),
            patience: retry_for.into(),
            cache_only: true,
            ..PushOptions::new(app, path.to_owned())
        };
        let open = access.open_within(options.patience, output, Destinations::new()).await?;
        let monitor = monitor(output, "sending");
        let receipt = open
            .run(async |session| Ok(watched(session, &*monitor, push(session, &options, &monitor)).await?));
        let receipt = Box::pin(receipt).await;
        drop(monitor);
        let receipt = receipt?;
        return output.report_with(&receipt, Ok(()), || receipt_text(&receipt));
    };
    let open = access.open(output, Destinations::new()).await?;
    let question = Operation::Prime { app: app.clone(), destination: destination.clone() };
    let mut primed: Option<Primed> = None;
    let waits = waiting(output, "reading what the destination holds");
    open.run(async |session| {
        let take = |answer| {
            if let Answer::Primed(found) = answer {
                primed = Some(found);
            }
        };
        Ok(session.ask(&question, take).await?)
    })
    .await?;
    drop(waits);
    let Primed { release, files, bytes, unseen_bytes, until } = primed.ok_or(crate::agent::Error::Ended)?;
    let fields = json!({
        "app": app, "destination": destination, "release": release, "files": files, "bytes": bytes,
        "unseen_bytes": unseen_bytes, "cached_until": until,
    });
    output.report(&fields, || {
        format!(
            "cached {app} from {destination}, release {}\n  content    {} in {} files\n  unseen     {}\n  kept       \
             without a release, until {}",
            release.short(),
            output::bytes(bytes),
            output::count(files),
            output::bytes(unseen_bytes),
            output::time(until)
        )
    })
}
