//! `whit label` and `unlabel`.

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::output::Output;
use super::queries::ask;
use ground::ids::{AppName, Label, Selector};
use protocol::wire::{Answer, Operation};

/// Give labels to a stored release.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// APP@RELEASE, APP@LABEL or APP@latest; APP alone is its current release.
    release: Selector,
    /// The labels.
    #[arg(value_name = "LABEL", required = true)]
    labels: Vec<Label>,
    /// Move labels that name other releases.
    #[arg(long = "move")]
    moves: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Take labels away from the releases that have them.
#[derive(Debug, Args)]
pub struct UnlabelArgs {
    /// The application.
    app: AppName,
    /// The labels.
    #[arg(value_name = "LABEL", required = true)]
    labels: Vec<Label>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit label`.
pub async fn label(arguments: LabelArgs, output: &Output) -> Result<(), Error> {
    let LabelArgs { release, labels, moves, access } = arguments;
    let given = words(&labels);
    for answer in ask(&access, output, Operation::Label { release, labels, moves }).await? {
        if let Answer::Done(record) = answer {
            return output
                .report(&record, || format!("labelled {}@{}: {given}", record.app, record.release.short()));
        }
    }
    Err(crate::agent::Error::Ended.into())
}

/// Runs `whit unlabel`.
pub async fn unlabel(arguments: UnlabelArgs, output: &Output) -> Result<(), Error> {
    let UnlabelArgs { app, labels, access } = arguments;
    for answer in ask(&access, output, Operation::Unlabel { app: app.clone(), labels }).await? {
        if let Answer::Unlabelled(labels) = answer {
            let value = json!({ "app": app, "unlabelled": labels });
            return output.report(&value, || format!("no release of {app} has now: {}", words(&labels)));
        }
    }
    Err(crate::agent::Error::Ended.into())
}

fn words(labels: &[Label]) -> String {
    labels.iter().map(Label::as_str).collect::<Vec<_>>().join(" ")
}
