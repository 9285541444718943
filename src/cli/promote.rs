//! `whit promote`, `rollback` and `current`.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

use super::access::AccessArgs;
use super::deliver::line;
use super::deliveries::{delivered_all, destinations, interrupted};
use super::error::Error;
use super::links::WrittenLinks;
use super::output::{self, Output};
use super::progress::monitor;
use super::queries::ask;
use super::rollout_text::{ended_well, progress_text};
use super::rollouts;
use crate::agent::DeliveryProgress;
use format::current::Standing;
use format::record::DeliveryEvent;
use ground::escape;
use ground::ids::{ActionName, AppName, DestinationName, ReleaseId, RolloutId, Selector};
use protocol::wire::{Answer, GroupHas, LogEntry, Moved, Operation, RolloutState};

const PROMOTE_HELP: &str = "\
The current release is the one that APP alone means: in pull, cat, diff, deliver. Nothing is sent from here: the proxy \
has the release. A release that was rolled back is good again once it is promoted. If the release is current already, \
it is only delivered.

  whit promote web@v1.2.3 --to production --because 'v1.2.4 is slow'";

const ROLLBACK_HELP: &str = "\
Goes back to the last release that was current before, is still stored, and was not itself rolled back. The release \
that it leaves is bad from now on: later rollbacks pass it over, and a push of the same content needs --move, until it \
is promoted. Nothing is sent from here. `whit releases` shows which release is current, and which are bad. With --to \
GROUP, the last release that the group had before is rolled out to it; the one that it has is bad once that has succeeded, \
if it is the current one.

  whit rollback web --to production --because 'the cart is empty'";

/// Make a stored release current.
#[derive(Debug, Args)]
#[command(after_help = PROMOTE_HELP)]
pub struct PromoteArgs {
    /// APP@LABEL, APP@RELEASE or APP@latest.
    release: Selector,
    #[command(flatten)]
    how: MoveArgs,
}

/// Make the release current that was before.
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_HELP)]
pub struct RollbackArgs {
    /// The application.
    app: AppName,
    #[command(flatten)]
    how: MoveArgs,
}

/// How to move the current release.
#[derive(Debug, Args)]
struct MoveArgs {
    /// Deliver the release there: a destination of the proxy, or dir:PATH with a proxy inside the command; may be given
    /// several times. A group of the proxy: roll it out there, and follow that.
    #[arg(long, value_name = "DEST")]
    to: Vec<String>,
    /// An action of the proxy that is to follow each delivery, like restart; may be given several times.
    #[arg(long, value_name = "ACTION")]
    then: Vec<ActionName>,
    /// Why, for `whit current --log` and the audit log.
    #[arg(long, value_name = "TEXT")]
    because: Option<String>,
    /// How to treat symbolic links that lead outside the release, at each dir:PATH; the configuration decides for other
    /// destinations.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    links: WrittenLinks,
    /// End once the deliveries are queued, without waiting for them.
    #[arg(long, requires = "to")]
    no_wait: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Show which release of an application is current, and why.
#[derive(Debug, Args)]
pub struct CurrentArgs {
    /// The application.
    app: AppName,
    /// List every move, newest first; the proxy keeps the last 1,000.
    #[arg(long)]
    log: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit promote`.
pub async fn promote(arguments: PromoteArgs, output: &Output) -> Result<(), Error> {
    let PromoteArgs { release, how } = arguments;
    if release.is_current() {
        return Err(Error::input(
            "no release given, only an application",
            "give APP@RELEASE, APP@LABEL or APP@latest",
        ));
    }
    let app = release.app.clone();
    let question = |destinations, because, then| Operation::Promote { release, destinations, because, then };
    move_current(app, how, output, question).await
}

/// Runs `whit rollback`.
pub async fn rollback(arguments: RollbackArgs, output: &Output) -> Result<(), Error> {
    let RollbackArgs { app, how } = arguments;
    let of = app.clone();
    let question = |destinations, because, then| Operation::Rollback { app, destinations, because, then };
    move_current(of, how, output, question).await
}

async fn move_current(
    app: AppName,
    how: MoveArgs,
    output: &Output,
    question: impl FnOnce(Vec<DestinationName>, Option<String>, Vec<ActionName>) -> Operation,
) -> Result<(), Error> {
    let (destinations, local) = destinations(&how.to, how.links.into())?;
    let mut leaves_after = how.no_wait.then(|| destinations.iter().collect::<BTreeSet<_>>().len());
    let question = question(destinations, how.because, how.then);
    let open = how.access.open(output, local).await?;
    let patience = open.patience;
    let mut moved: Option<Box<Moved>> = None;
    let mut rollout: Option<RolloutId> = None;
    let mut progress = DeliveryProgress::default();
    let followed = open
        .run(async |session| {
            let monitor = monitor(output, "sending");
            let take = |answer| {
                match answer {
                    Answer::Moved(found) => moved = Some(found),
                    Answer::RollsOut(id) => {
                        rollout = Some(id);
                        // It is named like a destination, and has no delivery of its own here.
                        leaves_after = leaves_after.map(|places| places.saturating_sub(1));
                    }
                    Answer::Delivery(event) => progress.take(event, &*monitor),
                    _ => {}
                }
                leaves_after != Some(progress.deliveries().len())
            };
            session.ask_while(&question, take).await?;
            drop(monitor);
            match rollout.filter(|_| !how.no_wait) {
                Some(id) => Ok(Some(rollouts::follow_to_end(session, &app, id, patience, output).await?)),
                None => Ok(None),
            }
        })
        .await;
    let followed = followed.map_err(|error| match rollout {
        Some(_) => rollouts::interrupted(error, rollout),
        None => interrupted(error, progress.deliveries()),
    });
    let Some(moved) = moved else {
        return followed.and(Err(crate::agent::Error::Ended.into()));
    };
    let events = progress.into_deliveries();
    let Some(id) = rollout else {
        if events.is_empty() && followed.is_ok() {
            output.note("nothing is delivered without --to: destinations show what they showed before");
        }
        let ended = followed.and_then(|_| if how.no_wait { Ok(()) } else { delivered_all(&events) });
        return output.report_with(&moved_fields(&moved, &events), ended, || moved_text(&moved, &events));
    };
    // The rollout goes on, whatever became of following it.
    let (ended, followed) = match followed {
        Ok(ended) => {
            let rolled_out = ended.as_ref().map_or(Ok(()), ended_well);
            (ended, rolled_out)
        }
        Err(error) => (None, Err(error)),
    };
    let mut value = moved_fields(&moved, &events);
    let has_moved = ended
        .as_ref()
        .is_some_and(|status| status.state == RolloutState::Succeeded && status.current_stays.is_none());
    value["moved"] = json!(has_moved && moved.from != Some(moved.record.release));
    value["rollout"] = json!(id);
    value["rolled_out"] = json!(ended);
    let result = if how.no_wait { Ok(()) } else { delivered_all(&events).and(followed) };
    output.report_with(&value, result, || {
        let first = ended.as_ref().map_or_else(|| format!("rollout {id} goes on"), progress_text);
        [first].into_iter().chain(events.iter().map(line)).collect::<Vec<_>>().join("\n")
    })
}

/// Returns the fields of the record, and what moved.
fn moved_fields(moved: &Moved, events: &[DeliveryEvent]) -> Value {
    let Moved { record, from, number, rolled_back, groups } = moved;
    let mut value = json!(record);
    value["moved"] = json!(number.is_some());
    value["number"] = json!(number);
    value["from"] = json!(from);
    value["rolled_back"] = json!(rolled_back);
    value["groups"] = json!(groups);
    value["delivered"] = json!(events);
    value
}

fn moved_text(moved: &Moved, events: &[DeliveryEvent]) -> String {
    let Moved { record, from, number, rolled_back, groups } = moved;
    let is = if number.is_some() { "is current" } else { "is current already" };
    let mut lines = vec![format!("{}@{} {is}", record.app, record.release.short())];
    if let Some(from) = from.filter(|_| number.is_some()) {
        let bad = if *rolled_back { ", which is bad from now on" } else { "" };
        lines.push(format!("  before     @{}{bad}", from.short()));
    }
    lines.extend(groups.iter().map(|GroupHas { group, release }| {
        let (app, has, current) = (&record.app, release.short(), record.release.short());
        format!("  group      {group} keeps @{has}; `whit promote {app}@{current} --to {group}` rolls the current one out")
    }));
    lines.extend(events.iter().map(line));
    lines.join("\n")
}

/// Runs `whit current`.
pub async fn current(arguments: CurrentArgs, output: &Output) -> Result<(), Error> {
    let CurrentArgs { app, log, access } = arguments;
    let (mut standing, mut entries) = (Standing::default(), Vec::new());
    for answer in ask(&access, output, Operation::Current { app: app.clone(), log }).await? {
        match answer {
            Answer::Standing(found) => standing = found,
            Answer::Log(part) => entries.extend(part),
            _ => {}
        }
    }
    let Standing { current, previous, bad } = &standing;
    let value = json!({ "app": app, "current": current, "previous": previous, "bad": bad, "log": entries });
    output.report(&value, || {
        if log {
            let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
            return output::table(&["#", "RELEASE", "SINCE", "BY", "USER", "BEFORE", "BECAUSE"], &rows);
        }
        current_text(&app, &standing, entries.first())
    })
}

fn row(entry: &LogEntry) -> Vec<String> {
    vec![
        entry.number.to_string(),
        format!("@{}", entry.release.short()),
        output::time(entry.time),
        entry.by.as_str().to_owned(),
        entry.user.to_string(),
        entry.from.map(|from| format!("@{}", from.short())).unwrap_or_default(),
        entry.because.as_deref().map(escape::text).unwrap_or_default(),
    ]
}

fn current_text(app: &AppName, standing: &Standing, last: Option<&LogEntry>) -> String {
    let short = |release: &ReleaseId| format!("@{}", release.short());
    let none = || ": no release is current, as its first has yet to be rolled out".to_owned();
    let mut lines = vec![format!("{app}{}", standing.current.as_ref().map_or_else(none, short))];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    if standing.current.is_none() {
        line(
            "next",
            format!(
                "`whit rollouts {app}` shows how far it is; `whit promote {app}@RELEASE` makes one current"
            ),
        );
    }
    if let Some(last) = last.filter(|last| Some(last.release) == standing.current) {
        line("since", format!("{}, {} by {}", output::time(last.time), last.by.as_str(), last.user));
        if let Some(because) = &last.because {
            line("because", escape::text(because));
        }
    }
    if let Some(previous) = &standing.previous {
        line("before", short(previous));
    }
    if !standing.bad.is_empty() {
        line("bad", standing.bad.iter().map(short).collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}
