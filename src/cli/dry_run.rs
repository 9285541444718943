//! `whit deliver --dry-run`.

use serde_json::{Value, json};

use super::access::OpenSession;
use super::error::Error;
use super::output::{self, Output};
use super::progress::waiting;
use ground::escape;
use ground::ids::{DestinationName, Selector};
use protocol::wire::{Answer, DeliveryPlan, Operation};

/// Asks what a delivery would do, and reports it: what changes, and with `all` also what stays.
pub async fn run(
    open: OpenSession,
    release: Selector,
    destinations: Vec<DestinationName>,
    all: bool,
    output: &Output,
) -> Result<(), Error> {
    let question = Operation::PlanDelivery { release, destinations, all };
    let mut plans: Vec<DeliveryPlan> = Vec::new();
    let waits = waiting(output, "comparing");
    let take = |answer| {
        let Answer::Planned(part) = answer else { return };
        match plans.last_mut().filter(|plan| plan.destination == part.destination) {
            Some(plan) => {
                plan.put.extend(part.put);
                plan.keep.extend(part.keep);
                plan.delete.extend(part.delete);
            }
            None => plans.push(*part),
        }
    };
    open.run(async |session| Ok(session.ask(&question, take).await?)).await?;
    drop(waits);
    let value: Vec<Value> = plans.iter().map(plan_json).collect();
    output.report(&value, || plans.iter().map(|plan| plan_text(plan, all)).collect::<Vec<_>>().join("\n"))
}

fn plan_json(plan: &DeliveryPlan) -> Value {
    let list = |files: &[(String, u64)]| -> Vec<Value> {
        files.iter().map(|(path, bytes)| json!({ "path": path, "bytes": bytes })).collect()
    };
    let counts =
        |files: u64, bytes: u64, list: Value| json!({ "files": files, "bytes": bytes, "list": list });
    json!({
        "destination": plan.destination,
        "put": counts(plan.files[0], plan.bytes[0], json!(list(&plan.put))),
        "keep": counts(plan.files[1], plan.bytes[1], json!(list(&plan.keep))),
        "delete": { "files": plan.files[2], "list": plan.delete },
    })
}

fn plan_text(plan: &DeliveryPlan, all: bool) -> String {
    let [put, keep, delete] = plan.files;
    let [put_bytes, keep_bytes] = plan.bytes.map(output::bytes);
    let mut lines = vec![format!(
        "{}: put {} files ({put_bytes}), keep {} ({keep_bytes}), delete {}",
        plan.destination,
        output::count(put),
        output::count(keep),
        output::count(delete)
    )];
    let mut list = |what: &str, paths: Vec<&String>, all: u64| {
        let shown = paths.len() as u64;
        lines.extend(paths.into_iter().map(|path| format!("  {what:<6} {}", escape::text(path))));
        if shown < all {
            lines.push(format!("  {what:<6} … and {} more (--all lists them)", output::count(all - shown)));
        }
    };
    list("put", plan.put.iter().map(|(path, _)| path).collect(), put);
    list("delete", plan.delete.iter().collect(), delete);
    if all {
        list("keep", plan.keep.iter().map(|(path, _)| path).collect(), keep);
    }
    lines.join("\n")
}
