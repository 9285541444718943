//! `whit apps`, `releases`, `diff` and `stats`.

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::progress::waiting;
use crate::delivery::destination::Destinations;
use format::current::Standing;
use format::record::{AppSummary, Record};
use ground::escape;
use ground::ids::{AppName, Label, Selector};
use protocol::wire::{Answer, Change, ChangeKind, Operation, Statistics};

/// List applications.
#[derive(Debug, Args)]
pub struct AppsArgs {
    #[command(flatten)]
    access: AccessArgs,
}

/// List an application's releases, newest first.
#[derive(Debug, Args)]
pub struct ReleasesArgs {
    /// The application.
    app: AppName,
    #[command(flatten)]
    access: AccessArgs,
}

/// Show which files differ between two releases, and how many bytes of each the earlier one lacks.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier release: APP@LABEL, APP@RELEASE or APP@latest; APP alone is its current release.
    from: Selector,
    /// The later release.
    to: Selector,
    #[command(flatten)]
    access: AccessArgs,
}

/// Show what is stored and what was saved, of an application or of the whole space.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The application; the whole space where none is named.
    app: Option<AppName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Asks a question and gathers the answer's parts.
pub async fn ask(access: &AccessArgs, output: &Output, question: Operation) -> Result<Vec<Answer>, Error> {
    let open = access.open(output, Destinations::new()).await?;
    let mut answers = Vec::new();
    let (what, changes) = words(&question);
    if changes {
        output.note(&format!("{what} in {}", open.place));
    }
    let _waiting = waiting(output, what);
    open.run(async |session| Ok(session.ask(&question, |answer| answers.push(answer)).await?)).await?;
    Ok(answers)
}

/// Returns what the proxy does about a question, and whether that changes what is stored.
fn words(question: &Operation) -> (&'static str, bool) {
    match question {
        Operation::Verify { repair: false, .. } => ("verifying", false),
        Operation::Verify { repair: true, .. } => ("verifying and repairing", true),
        Operation::Collect { dry_run: true } => ("looking for garbage", false),
        Operation::Collect { dry_run: false } => ("collecting garbage", true),
        Operation::Remove { .. } => ("removing a release", true),
        Operation::Pin { pinned: true, .. } => ("pinning a release", true),
        Operation::Pin { pinned: false, .. } => ("unpinning a release", true),
        Operation::Label { .. } => ("labelling a release", true),
        Operation::Unlabel { .. } => ("taking labels away", true),
        _ => ("waiting for the answer", false),
    }
}

/// Runs `whit apps`.
pub async fn apps(arguments: AppsArgs, output: &Output) -> Result<(), Error> {
    let mut apps: Vec<AppSummary> = Vec::new();
    for answer in ask(&arguments.access, output, Operation::Applications).await? {
        if let Answer::Applications(part) = answer {
            apps.extend(part);
        }
    }
    let row = |app: &AppSummary| {
        vec![
            app.app.to_string(),
            app.releases.to_string(),
            format!("@{}", app.latest.release.short()),
            output::bytes(app.latest.totals.bytes),
            output::time(app.latest.created),
        ]
    };
    output.report(&apps, || {
        let rows: Vec<Vec<String>> = apps.iter().map(row).collect();
        output::table(&["APP", "PUSHES", "LATEST", "SIZE", "PUSHED"], &rows)
    })
}

/// Runs `whit releases`.
pub async fn releases(arguments: ReleasesArgs, output: &Output) -> Result<(), Error> {
    let (mut releases, mut standing) = (Vec::new(), Standing::default());
    for answer in ask(&arguments.access, output, Operation::Releases(arguments.app)).await? {
        match answer {
            Answer::Releases(part) => releases.extend(part),
            Answer::Standing(found) => standing = found,
            _ => {}
        }
    }
    let is_current = |record: &Record| standing.current == Some(record.release);
    let is_bad = |record: &Record| standing.bad.contains(&record.release);
    let as_json = |record: &Record| {
        let mut row = json!(record);
        (row["current"], row["bad"]) = (json!(is_current(record)), json!(is_bad(record)));
        row
    };
    let row = |record: &Record| {
        vec![
            record.sequence.to_string(),
            format!("@{}", record.release.short()),
            if is_current(record) {
                "current"
            } else if is_bad(record) {
                "bad"
            } else {
                ""
            }
            .to_owned(),
            output::time(record.created),
            record.user.to_string(),
            output::count(record.totals.files),
            output::bytes(record.totals.bytes),
            output::bytes(record.cost.unseen_bytes),
            output::bytes(record.cost.sent_bytes),
            record.labels.iter().map(Label::as_str).collect::<Vec<_>>().join(" "),
        ]
    };
    output.report(&releases.iter().map(as_json).collect::<Vec<_>>(), || {
        let rows: Vec<Vec<String>> = releases.iter().map(row).collect();
        let columns =
            ["#", "RELEASE", "STATE", "PUSHED", "USER", "FILES", "SIZE", "UNSEEN", "SENT", "LABELS"];
        output::table(&columns, &rows)
    })
}

/// Runs `whit diff`.
pub async fn diff(arguments: DiffArgs, output: &Output) -> Result<(), Error> {
    let mut changes: Vec<Change> = Vec::new();
    let question = Operation::Difference { from: arguments.from, to: arguments.to };
    for answer in ask(&arguments.access, output, question).await? {
        if let Answer::Changes(part) = answer {
            changes.extend(part);
        }
    }
    let unseen: u64 = changes.iter().map(|change| change.unseen_bytes).sum();
    let as_json = |change: &Change| {
        let mut row = json!({
            "kind": change.kind, "path": escape::json_path(&change.path),
            "bytes": change.bytes, "unseen": change.unseen_bytes,
        });
        if std::str::from_utf8(&change.path).is_err() {
            row["path_hex"] = json!(escape::hex(&change.path));
        }
        row
    };
    let value = json!({ "changes": changes.iter().map(as_json).collect::<Vec<_>>(), "unseen": unseen });
    output.report(&value, || {
        let mut rows: Vec<Vec<String>> = changes.iter().map(change_row).collect();
        rows.push(vec!["total".to_owned(), String::new(), output::bytes(unseen), String::new()]);
        output::table(&["WHAT", "SIZE", "UNSEEN", "PATH"], &rows)
    })
}

fn change_row(change: &Change) -> Vec<String> {
    let kind = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Changed => "changed",
        ChangeKind::Removed => "removed",
    };
    let path = escape::bytes(&change.path);
    vec![kind.to_owned(), output::bytes(change.bytes), output::bytes(change.unseen_bytes), path]
}

/// Runs `whit stats`.
pub async fn stats(arguments: StatsArgs, output: &Output) -> Result<(), Error> {
    let answers = ask(&arguments.access, output, Operation::Statistics(arguments.app)).await?;
    let Some(Answer::Statistics(statistics)) = answers.into_iter().next() else {
        return Err(crate::agent::Error::Ended.into());
    };
    output.report(&statistics, || stats_text(&statistics))
}

fn stats_text(statistics: &Statistics) -> String {
    let whole = "all applications".to_owned();
    let mut lines = vec![statistics.app.as_ref().map_or(whole, ToString::to_string)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    line(
        "pushes",
        format!("{} of {} files", output::count(statistics.releases), output::count(statistics.files)),
    );
    line("logical", output::bytes(statistics.logical_bytes));
    let by = output::ratio(statistics.logical_bytes, statistics.unique_bytes);
    line(
        "unique",
        format!(
            "{} in {} chunks: {by} deduplicated",
            output::bytes(statistics.unique_bytes),
            output::count(statistics.chunks)
        ),
    );
    let by = output::ratio(statistics.logical_bytes, statistics.stored_bytes);
    line("stored", format!("{}: {by} smaller in all", output::bytes(statistics.stored_bytes)));
    lines.push("  chunks by size".to_owned());
    for class in statistics.sizes.iter().filter(|class| class.chunks > 0) {
        let (chunks, bytes) = (output::count(class.chunks), output::bytes(class.bytes));
        lines.push(format!("    up to {:>3} KiB  {chunks:>10}  {bytes:>10}", class.up_to / 1024));
    }
    if let Some(archives) = statistics.archives.as_ref().filter(|archives| archives.files > 0) {
        let (files, bytes) = (output::count(archives.files), output::bytes(archives.bytes));
        let inside = output::bytes(archives.stream_bytes);
        lines.push(format!("  archives   {files} of {bytes}, unpacked to {inside}"));
        for method in &archives.methods {
            let (streams, bytes) = (output::count(method.streams), output::bytes(method.bytes));
            let method = escape::text(&method.method);
            lines.push(format!("    {method:<40} {streams:>9} streams  {bytes:>10}"));
        }
    }
    lines.push("  users".to_owned());
    for user in &statistics.users {
        let (pushes, pushed) = (output::count(user.pushes), output::bytes(user.pushed_bytes));
        let cached = match user.cached_bytes {
            0 => String::new(),
            bytes => format!(", {} cached", output::bytes(bytes)),
        };
        lines.push(format!(
            "    {}: {pushes} pushes of {pushed}, {} saved{cached}",
            user.user,
            output::bytes(user.saved_bytes)
        ));
    }
    lines.join("\n")
}
