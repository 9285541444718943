//! `whit targets`.

use clap::{Args, Subcommand};

use super::access::AccessArgs;
use super::error::Error;
use super::follow::{self, Row};
use super::output::{self, Output};
use super::queries::ask;
use format::record::Progress;
use format::target::{StoredTarget, TargetState};
use ground::escape;
use ground::ids::{AppName, ReleaseId, TargetName};
use protocol::wire::{Answer, ListedTarget, Operation, TargetStatus};

const HELP: &str = "\
A target is a machine that runs `whit pull --watch` with a token of its own (`whit token create --target NAME`). --watch \
goes on with a line for each change, until Ctrl-C.";

/// The heads of the columns.
const COLUMNS: [&str; 9] =
    ["TARGET", "RELEASE", "STATE", "SINCE", "PREVIOUS", "WANTS", "GROUP", "FETCHED", "WHIT"];

/// List the machines that watch the proxy, forget one that is gone, or take one out of a group's word.
#[derive(Debug, Args)]
#[command(after_help = HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TargetsArgs {
    #[command(subcommand)]
    command: Option<TargetsCommand>,
    /// Only those of this application.
    app: Option<AppName>,
    /// Go on with each change.
    #[arg(long)]
    watch: bool,
    /// Show the last lines of hooks and checks of all targets, not only of those that failed.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Debug, Subcommand)]
enum TargetsCommand {
    /// Forget a target that is gone for good: no release is kept for it any more.
    Forget(ForgetArgs),
    /// Let a target that has left its group follow its label or the current release again.
    Unassign(UnassignArgs),
}

/// The target that is gone.
#[derive(Debug, Args)]
struct ForgetArgs {
    /// Its name.
    name: TargetName,
    /// Only of this application [default: all that the token may deliver].
    #[arg(long)]
    app: Option<AppName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// The target that has left its group.
#[derive(Debug, Args)]
struct UnassignArgs {
    /// Its name.
    name: TargetName,
    /// Only of this application [default: all that the token may deliver].
    app: Option<AppName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: TargetsArgs, output: &Output) -> Result<(), Error> {
    match arguments.command {
        Some(TargetsCommand::Forget(forgotten)) => forget(forgotten, output).await,
        Some(TargetsCommand::Unassign(left)) => unassign(left, output).await,
        None if arguments.watch => watch(arguments, output).await,
        None => list(arguments, output).await,
    }
}

async fn list(arguments: TargetsArgs, output: &Output) -> Result<(), Error> {
    let TargetsArgs { app, verbose, access, .. } = arguments;
    let rows = follow::list(&access, &Operation::Targets { app, watch: false }, output).await?;
    let rows: Vec<&ListedTarget> = rows.all().collect();
    output.report(&rows, || {
        let cells: Vec<Vec<String>> = rows.iter().map(|listed| state_last(row(listed))).collect();
        let table = output::table(&state_last(COLUMNS.to_vec()), &cells);
        let mut lines = table.lines();
        let mut text: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
        for (line, listed) in lines.zip(&rows) {
            text.push(line.to_owned());
            text.extend(output_lines(listed, verbose));
        }
        text.join("\n")
    })
}

impl Row for ListedTarget {
    type Key = (AppName, TargetName);

    fn of(answer: Answer) -> Vec<Self> {
        if let Answer::Targets(rows) = answer { rows } else { Vec::new() }
    }

    fn key(&self) -> Self::Key {
        (self.status.app.clone(), self.status.target.clone())
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn is_same(&self, before: &Self) -> bool {
        line(self) == line(before)
    }
}

async fn watch(arguments: TargetsArgs, output: &Output) -> Result<(), Error> {
    let TargetsArgs { app, verbose, access, .. } = arguments;
    let question = |watch| Operation::Targets { app: app.clone(), watch };
    let print = |listed: &ListedTarget| print(listed, verbose, output);
    follow::watch(&access, (&question(false), &question(true)), usize::MAX, output, print).await
}

fn print(listed: &ListedTarget, verbose: bool, output: &Output) -> Result<(), Error> {
    if output.is_json() {
        let line = serde_json::to_string(listed).expect("a target is plain words and numbers");
        return output.line(&line);
    }
    output.line(&line(listed))?;
    output_lines(listed, verbose).into_iter().try_for_each(|line| output.line(&line))
}

async fn forget(arguments: ForgetArgs, output: &Output) -> Result<(), Error> {
    let ForgetArgs { name, app, access } = arguments;
    let question = Operation::ForgetTarget { target: name.clone(), app };
    let answers = ask(&access, output, question).await?;
    let rows: Vec<ListedTarget> = answers.into_iter().flat_map(ListedTarget::of).collect();
    let apps: Vec<&str> = rows.iter().map(|listed| listed.status.app.as_str()).collect();
    output.report(&rows, || format!("forgot {name} of {}", apps.join(", ")))
}

async fn unassign(arguments: UnassignArgs, output: &Output) -> Result<(), Error> {
    let UnassignArgs { name, app, access } = arguments;
    let answers = ask(&access, output, Operation::UnassignTarget { target: name.clone(), app }).await?;
    let rows: Vec<ListedTarget> = answers.into_iter().flat_map(ListedTarget::of).collect();
    output.report(&rows, || {
        let lines = rows.iter().map(|ListedTarget { status, wants, .. }| {
            let follows = status.known.follows.as_ref();
            let follows = follows.map_or("the current release".to_owned(), |at| format!("`{at}`"));
            let wants = wants.map_or("none".to_owned(), |release| release.short());
            escape::text(&format!("{name} of {} follows {follows}: {wants}", status.app))
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// Returns a target's line where each change is one.
fn line(listed: &ListedTarget) -> String {
    let cells = row(listed);
    let [target, release, state, ..] = &cells[..] else { unreachable!("a row has nine columns") };
    escape::text(&format!("{target} {release}: {state}"))
}

fn row(listed: &ListedTarget) -> Vec<String> {
    let ListedTarget { status, labels, wants } = listed;
    let TargetStatus { target, app, known, reachable } = status;
    let report = &known.report;
    let short =
        |release: Option<ReleaseId>| release.map_or_else(|| "-".to_owned(), |release| release.short());
    let label = labels.first().map(|label| format!(" ({label})")).unwrap_or_default();
    let wants = wants.filter(|wants| Some(*wants) != report.shown);
    let group = known.assigned.as_ref().map_or_else(|| "-".to_owned(), |assigned| assigned.group.to_string());
    let fetched = match (report.fetched_bytes, report.saved_bytes) {
        (0, 0) => "-".to_owned(),
        (fetched, saved) => {
            format!("{} of {}", output::bytes(fetched), output::bytes(fetched.saturating_add(saved)))
        }
    };
    let since = if *reachable { known.since } else { known.seen };
    vec![
        target.to_string(),
        format!("{app}@{}{label}", short(report.shown)),
        state(known, *reachable),
        if since == 0 { "-".to_owned() } else { output::time(since) },
        short(report.previous),
        short(wants),
        group,
        fetched,
        known.version.clone(),
    ]
}

/// Moves the state to the end of a line: its reason may be longer than all else.
fn state_last<T>(mut cells: Vec<T>) -> Vec<T> {
    cells[2..].rotate_left(1);
    cells
}

fn state(known: &StoredTarget, reachable: bool) -> String {
    let report = &known.report;
    let about = report.about.map(|about| format!(" from {}", about.short())).unwrap_or_default();
    let state = match &report.state {
        TargetState::Empty => "empty".to_owned(),
        TargetState::Fetching(progress) => {
            let held_up = report.held_up.as_ref().map(|why| format!(", held up: {why}")).unwrap_or_default();
            let Progress { bytes, total, .. } = *progress;
            let percent = u128::from(bytes.min(total)) * 100 / u128::from(total.max(1));
            let how_far = format!(" {percent} % of {}", output::bytes(total));
            format!("fetching{}{held_up}", if total > 0 { &how_far } else { "" })
        }
        TargetState::Switching => "switching".to_owned(),
        TargetState::Confirming => "confirming".to_owned(),
        TargetState::Confirmed => "confirmed".to_owned(),
        TargetState::RolledBack { reason } => format!("rolled back{about}: {reason}"),
        TargetState::Failed { reason, .. } => format!("failed: {reason}"),
    };
    match (reachable, known.seen) {
        (true, _) => state,
        (false, 0) => "never seen".to_owned(),
        (false, _) => format!("unreachable, was {state}"),
    }
}

/// Returns the last lines of a hook or check, below the line of their target.
fn output_lines(listed: &ListedTarget, verbose: bool) -> Vec<String> {
    let report = &listed.status.known.report;
    let has_failed = matches!(report.state, TargetState::RolledBack { .. } | TargetState::Failed { .. });
    if !verbose && !has_failed {
        return Vec::new();
    }
    report.output.lines().map(|line| format!("    {}", escape::text(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::target::TargetReport;

    fn listed(state: TargetState) -> ListedTarget {
        let report = TargetReport {
            shown: Some(ReleaseId::of(b"one")),
            about: Some(ReleaseId::of(b"two")),
            state,
            output: "no\u{1b}[2J\nroom".to_owned(),
            ..TargetReport::default()
        };
        let known = StoredTarget { report, since: 1, seen: 2, ..StoredTarget::default() };
        let target = "web-1".parse().expect("a name");
        let status = TargetStatus { target, app: "app".parse().expect("a name"), reachable: true, known };
        ListedTarget { status, labels: Vec::new(), wants: Some(ReleaseId::of(b"two")) }
    }

    #[test]
    fn a_state_says_how_far_a_target_is_and_why_it_is_not_further() {
        let progress = Progress { bytes: 5_160_000, total: 12_000_000, files: 1 };
        let mut fetching = listed(TargetState::Fetching(progress));
        assert_eq!(row(&fetching)[2], "fetching 43 % of 12.00 MB");
        assert_eq!(row(&fetching)[5], ReleaseId::of(b"two").short());
        assert!(output_lines(&fetching, false).is_empty());
        fetching.status.known.report.held_up = Some("the proxy is stopping".to_owned());
        assert_eq!(row(&fetching)[2], "fetching 43 % of 12.00 MB, held up: the proxy is stopping");
        fetching.status.known.report.held_up = None;
        fetching.status.reachable = false;
        assert_eq!(row(&fetching)[2], "unreachable, was fetching 43 % of 12.00 MB");
        let back = listed(TargetState::RolledBack { reason: "not healthy".to_owned() });
        let two = ReleaseId::of(b"two").short();
        assert_eq!(row(&back)[2], format!("rolled back from {two}: not healthy"));
        assert_eq!(output_lines(&back, false), ["    no\\x1b[2J", "    room"]);
    }
}
