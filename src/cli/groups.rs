//! `whit groups`, and the groups of a configuration that is checked.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::queries::ask;
use crate::delivery::rollout::{Group, Groups, shared};
use ground::escape;
use ground::ids::{AppName, DestinationName};
use ground::pattern::Pattern;
use protocol::wire::{Answer, GroupApp, GroupStatus, Operation};

/// Members that are away and named in one line.
const NAMED_MAX: usize = 3;

/// List the proxy's groups that the token allows: rules, members now, release, rollout under way.
#[derive(Debug, Args)]
pub struct GroupsArgs {
    /// Only what concerns this application.
    app: Option<AppName>,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub async fn run(arguments: GroupsArgs, output: &Output) -> Result<(), Error> {
    let GroupsArgs { app, access } = arguments;
    let answers = ask(&access, output, Operation::Groups(app)).await?;
    let groups: Vec<GroupStatus> = answers
        .into_iter()
        .flat_map(|answer| if let Answer::Groups(part) = answer { part } else { Vec::new() })
        .collect();
    output.report(&groups, || {
        if groups.is_empty() {
            return "no group: the proxy's configuration file defines none that the token allows".to_owned();
        }
        let rows: Vec<Vec<String>> = groups.iter().flat_map(rows).collect();
        let table = output::table(&["GROUP", "APP", "RELEASE", "MEMBERS", "ROLLOUT"], &rows);
        let rules = groups.iter().map(|group| {
            let targets: Vec<&str> = group.targets.iter().map(Pattern::as_str).collect();
            let edges: Vec<&str> = group.destinations.iter().map(DestinationName::as_str).collect();
            escape::text(&text(group.name.as_str(), &targets, &edges, &group.rules))
        });
        let rules = rules.collect::<Vec<_>>().join("\n");
        format!("{table}\n\n{rules}")
    })
}

fn rows(group: &GroupStatus) -> Vec<Vec<String>> {
    let row = |app: String, release: String, members: String, rollout: String| {
        vec![group.name.to_string(), app, release, members, rollout]
    };
    let dash = || "-".to_owned();
    if group.apps.is_empty() {
        return vec![row(dash(), dash(), dash(), dash())];
    }
    let of = |it: &GroupApp| {
        let release = it.release.map_or_else(dash, |release| format!("@{}", release.short()));
        let rollout = it.rollout.map_or_else(dash, |rollout| rollout.to_string());
        row(it.app.to_string(), release, members(it), rollout)
    };
    group.apps.iter().map(of).collect()
}

/// Returns how many members an application has, and who is away.
fn members(app: &GroupApp) -> String {
    let away: Vec<&str> =
        app.members.iter().filter(|member| member.away).map(|member| member.name.as_str()).collect();
    if away.is_empty() {
        return app.members.len().to_string();
    }
    let more = if away.len() > NAMED_MAX { ", …" } else { "" };
    let named = away[..away.len().min(NAMED_MAX)].join(", ");
    format!("{}, {} away: {named}{more}", app.members.len(), away.len())
}

/// Returns a line with a group's members and rules.
fn text(name: &str, targets: &[&str], destinations: &[&str], rules: &BTreeMap<String, String>) -> String {
    let members = [("targets", targets), ("destinations", destinations)];
    let members = members.iter().filter(|(_, names)| !names.is_empty());
    let members = members.map(|(what, names)| format!("{what} {}", names.join(", ")));
    let rules = rules.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ");
    format!("{name}: {}; {rules}", members.collect::<Vec<_>>().join("; "))
}

/// Returns the groups of a configuration, for JSON.
pub fn configured(groups: &Groups) -> Value {
    let fields = |(name, group): (&DestinationName, &Group)| {
        let fields = json!({
            "targets": group.targets, "destinations": group.destinations, "rules": group.rules.by_key(),
        });
        (name.to_string(), fields)
    };
    groups.iter().map(fields).collect()
}

/// Returns a line for each group of a configuration.
pub fn configured_lines(groups: &Groups) -> Vec<String> {
    let line = |(name, group): (&DestinationName, &Group)| {
        let targets: Vec<&str> = group.targets.iter().map(Pattern::as_str).collect();
        let edges: Vec<&str> = group.destinations.iter().map(DestinationName::as_str).collect();
        text(name.as_str(), &targets, &edges, &group.rules.by_key())
    };
    groups.iter().map(line).collect()
}

/// Returns a note for each name that two groups share, where that can be seen.
pub fn shared_notes(groups: &Groups) -> Vec<String> {
    let note = |(one, other, what): (DestinationName, DestinationName, String)| {
        format!(
            "groups `{one}` and `{other}` share {what}: a rollout of one waits for that of the other, and the last one \
             that told a member what to show counts"
        )
    };
    shared(groups).into_iter().map(note).collect()
}
