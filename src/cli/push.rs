//! `whit push`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::output::{self, Output};
use super::progress::watched;
use super::{AccessArgs, Error, monitor, threads};
use crate::agent::push::{Explained, PushOptions, Reason, Receipt, push};
use crate::agent::scan::{Links, Selection};
use crate::config;
use crate::delivery::destination::{self, Destinations};
use crate::restore::OutsideLinks;
use format::record::{DeliveryEvent, DeliveryState};
use ground::escape;
use ground::faults::Fault;
use ground::ids::{AppName, DestinationName};

const HELP: &str = "\
PATH is a directory or a file. Files that match `.whitignore` (gitignore syntax, in any folder) or
--exclude stay out; the last pattern that matches counts, and one with `!` before it brings back. Kept: names
as bytes, content, permission bits, symbolic links inside the tree, hard links, holes, empty directories. Not
kept, and said where it is met: owners that differ, set-id and sticky bits, capabilities, ACLs, extended
attributes, FIFOs, sockets, devices. Times are not kept.

  whit push web ./dist --label v1.2.3 --to production
  whit push web ./dist --dry-run --json | jq .bytes.unseen
  whit push web ./dist --to dir:/srv/web          (without a proxy of your own)";

/// Push a directory or file as a release of an application.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct PushArgs {
    /// The application.
    app: String,
    /// A directory or a file.
    path: PathBuf,
    /// A label for the release, like v1.2.3; not 6 to 64 hexadecimal digits, as an id is. May be given several times.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Deliver the release there: a destination of the proxy, or dir:PATH where the proxy is inside the
    /// command; may be given several times.
    #[arg(long, value_name = "DEST")]
    to: Vec<String>,
    /// Leave out what matches, in gitignore syntax; may be given several times.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// How to treat symbolic links that lead outside the tree.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    links: LinksHow,
    /// Push a tree without files, too; it is refused otherwise.
    #[arg(long)]
    allow_empty: bool,
    /// Negotiate and report what would cross; store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Read every file, also those whose size and times are those of the last push.
    #[arg(long)]
    checksum: bool,
    /// Neither use nor keep what this host remembers of its pushes.
    #[arg(long)]
    no_memory: bool,
    /// How fast the link is, like 20mbit, instead of measuring it: decides how hard to compress.
    #[arg(long, value_name = "RATE")]
    link: Option<String>,
    /// Push archives (zip, jar, whl, tar.gz and the like) and executables as plain bytes, instead of as what is
    /// in them.
    #[arg(long)]
    raw: bool,
    /// Say, file by file, why bytes crossed, and what would have helped.
    #[arg(long)]
    explain: bool,
    /// Send no faster than that, like 20mbit.
    #[arg(long, value_name = "RATE")]
    limit_upload: Option<String>,
    /// How long to go on trying while nothing new gets stored, from the first connection on.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    retry_for: humantime::Duration,
    /// How much pushed content to keep on this host, in MiB for all applications: later pushes send what
    /// differs from it. 0 keeps none.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    keep_basis: u64,
    #[command(flatten)]
    access: AccessArgs,
}

/// How to treat links that lead outside the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LinksHow {
    /// List them and push nothing.
    #[default]
    Refuse,
    /// Push them as they are; a pull or delivery writes them only with `--links keep` or `outside_links`.
    Keep,
    /// Push what they lead to instead.
    Follow,
    /// Leave them out.
    Skip,
}

impl From<LinksHow> for Links {
    fn from(links: LinksHow) -> Self {
        match links {
            LinksHow::Refuse => Self::Refuse,
            LinksHow::Keep => Self::Keep,
            LinksHow::Follow => Self::Follow,
            LinksHow::Skip => Self::Skip,
        }
    }
}

/// Runs the command.
pub async fn run(arguments: PushArgs, output: &Output) -> Result<(), Error> {
    let outside_links =
        if arguments.links == LinksHow::Keep { OutsideLinks::Keep } else { OutsideLinks::Refuse };
    let (destinations, local) = destinations(&arguments.to, outside_links)?;
    let app: AppName = arguments.app.parse()?;
    let folders = local.values().flat_map(|place| place.folders());
    let mut disjoint: Vec<(PathBuf, &str)> =
        folders.map(|folder| (folder.of(&app), "a destination of this push")).collect();
    disjoint.extend(arguments.access.data_inside()?.map(|data| (data, "the data folder of the proxy")));
    let state = if arguments.no_memory { None } else { config::state_folder() };
    disjoint.extend(state.clone().map(|state| (state, "the folder in which whit remembers its pushes")));
    let options = PushOptions {
        selection: Selection {
            exclude: arguments.exclude,
            ignore_files_off: false,
            links: arguments.links.into(),
            needs_files: !arguments.allow_empty,
            disjoint,
        },
        labels: arguments.label.iter().map(|label| label.parse()).collect::<Result<_, _>>()?,
        destinations,
        dry_run: arguments.dry_run,
        threads: threads(),
        link_rate: arguments.link.as_deref().map(link_rate).transpose()?,
        state,
        checksum: arguments.checksum,
        cache_bytes_max: arguments.keep_basis.saturating_mul(1024 * 1024),
        upload_rate_max: arguments.limit_upload.as_deref().map(link_rate).transpose()?,
        patience: arguments.retry_for.into(),
        raw: arguments.raw,
        explain: arguments.explain,
        ..PushOptions::new(app, arguments.path)
    };
    let open = arguments.access.open_within(options.patience, output, local).await?;
    let monitor = monitor(output, "sending");
    let receipt =
        open.run(async |session| Ok(watched(session, &*monitor, push(session, &options, &monitor)).await?));
    let receipt = receipt.await;
    drop(monitor);
    let receipt = receipt?;
    output.report_with(&receipt, delivered_all(&receipt.delivered), || receipt_text(&receipt))
}

/// Parses a rate in bits, like `20mbit`, `1gbit` or `500kbit`; returns bytes a second.
pub(super) fn link_rate(text: &str) -> Result<f64, Error> {
    let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    let lower = text.to_ascii_lowercase();
    let parsed = units.iter().find_map(|(unit, factor)| {
        let number: f64 = lower.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * factor / 8.0)
    });
    parsed
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| Error::input(format!("`{text}` is not a rate"), "write it like 20mbit"))
}

/// Returns the names to send, and the destinations that `dir:PATH` defines for the proxy inside the command.
///
/// Links that lead outside a release are written to these as `outside_links` says.
pub fn destinations(
    given: &[String],
    outside_links: OutsideLinks,
) -> Result<(Vec<DestinationName>, Destinations), Error> {
    let (mut names, mut local) = (Vec::new(), Destinations::new());
    for text in given {
        if let Some(path) = text.strip_prefix("dir:") {
            let path = std::path::absolute(path)
                .map_err(|_| Error::input(format!("`{text}` names no folder"), "write dir:PATH"))?;
            let name = local_name(&path)?;
            local.insert(name.clone(), destination::local(path, outside_links));
            names.push(name);
        } else {
            names.push(text.parse()?);
        }
    }
    Ok((names, local))
}

/// Returns a name for a directory that the admin has not named.
fn local_name(path: &Path) -> Result<DestinationName, Error> {
    use std::os::unix::ffi::OsStrExt;
    let hash = blake3::hash(path.as_os_str().as_bytes()).to_hex();
    Ok(format!("dir.{}", &hash[..16]).parse()?)
}

/// Returns an error if a delivery that was asked for was not made.
pub fn delivered_all(deliveries: &[DeliveryEvent]) -> Result<(), Error> {
    for event in deliveries {
        let (fault, reason, hint) = match &event.state {
            DeliveryState::Delivered(_) => continue,
            DeliveryState::Failed { reason, fault: Fault::Corrupt }
            | DeliveryState::Retrying { reason, fault: Fault::Corrupt, .. } => (
                Fault::Corrupt,
                reason.clone(),
                "run `whit verify --repair`, then push again what is still missing",
            ),
            DeliveryState::Failed { reason, .. } => {
                (Fault::Input, reason.clone(), "remove the cause, then run `whit deliver`")
            }
            DeliveryState::Retrying { reason, .. } => {
                (Fault::Retry, reason.clone(), "the release is stored; the proxy keeps trying to deliver it")
            }
            DeliveryState::Queued | DeliveryState::Running => (
                Fault::Retry,
                "it has not ended".to_owned(),
                "the release is stored; the proxy goes on delivering it",
            ),
        };
        let text = format!("delivery to {} failed: {reason}", event.destination);
        return Err(Error::Message { fault, text, hint: Some(hint.to_owned()) });
    }
    Ok(())
}

/// Returns a receipt for people.
pub fn receipt_text(receipt: &Receipt) -> String {
    let what = match (receipt.dry_run, receipt.unchanged) {
        (true, _) => "would push",
        (false, true) => "unchanged",
        (false, false) => "pushed",
    };
    let number = receipt.sequence.map(|number| format!(" #{number}")).unwrap_or_default();
    let mut lines = vec![format!("{what} {}{number}, release {}", receipt.app, receipt.release.short())];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10} {text}"));
    line(
        "content",
        format!("{} in {} files", output::bytes(receipt.bytes.logical), output::count(receipt.files)),
    );
    if receipt.files_remembered > 0 {
        line(
            "unread",
            format!("{} files look as they did at the last push", output::count(receipt.files_remembered)),
        );
    }
    if receipt.archives.files > 0 {
        let (bytes, files) = (output::bytes(receipt.archives.bytes), output::count(receipt.archives.files));
        let packed = match receipt.archives.packed_streams {
            0 => String::new(),
            streams => format!(
                ", but for {} in {} streams that cannot be reproduced",
                output::bytes(receipt.archives.packed_bytes),
                output::count(streams)
            ),
        };
        line("archives", format!("{bytes} in {files} files, unpacked{packed}"));
    }
    line(
        "unseen",
        format!(
            "{} in {} of {} chunks, {} compressed",
            output::bytes(receipt.bytes.unseen),
            output::count(receipt.chunks.unseen),
            output::count(receipt.chunks.total),
            output::bytes(receipt.bytes.sent)
        ),
    );
    line(
        "wire",
        format!(
            "{} up, {} down, {} round trips",
            output::bytes(receipt.wire.up),
            output::bytes(receipt.wire.down),
            receipt.round_trips
        ),
    );
    line("time", format!("{:.2} s", receipt.seconds));
    for event in &receipt.delivered {
        line("delivery", delivery_text(event));
    }
    if !receipt.explained.is_empty() {
        lines.push(String::new());
        lines.push(explained_table(&receipt.explained));
    }
    lines.join("\n")
}

/// Files shown of an explanation; `--json` has all.
const EXPLAINED_ROWS: usize = 40;

/// Returns the reasons why bytes crossed, for people.
fn explained_table(explained: &[Explained]) -> String {
    let reason = |file: &Explained| match (file.reason, &file.older) {
        (Reason::New, _) => "new: nothing older resembles it".to_owned(),
        (Reason::Incompressible, _) => "compressed already".to_owned(),
        (Reason::Evicted, _) => "evicted: the proxy had it once".to_owned(),
        (Reason::ChangedInPlace, None) => "changed in place".to_owned(),
        (Reason::ChangedInPlace, Some(older)) => format!("changed in place, in {older}"),
        (Reason::ChangedFile, _) => "changed file".to_owned(),
        (Reason::MovedCode, _) => "moved code".to_owned(),
        (Reason::SimilarName, older) => {
            format!("similar name: {}", older.as_deref().unwrap_or("an older file"))
        }
        (Reason::SimilarContent, _) => "similar content of the space".to_owned(),
    };
    let mut rows = Vec::new();
    for file in explained.iter().take(EXPLAINED_ROWS) {
        let mut why = reason(file);
        if let Some(advice) = file.advice {
            why = format!("{why} ({advice})");
        }
        rows.push(vec![output::bytes(file.sent), output::bytes(file.plain), file.path.clone(), why]);
    }
    let mut text = output::table(&["SENT", "CHANGED", "FILE", "WHY"], &rows);
    if explained.len() > EXPLAINED_ROWS {
        let rest: u64 = explained.iter().skip(EXPLAINED_ROWS).map(|file| file.sent).sum();
        let count = explained.len() - EXPLAINED_ROWS;
        text = format!("{text}\n… and {count} more that sent {}", output::bytes(rest));
    }
    text
}

/// Returns a delivery's state, for people.
pub fn delivery_text(event: &DeliveryEvent) -> String {
    let text = match &event.state {
        DeliveryState::Delivered(report) if report.already => format!("{} has it already", report.place),
        DeliveryState::Delivered(report) => {
            let taken_over = output::bytes(report.reused_bytes);
            format!("{} ({}, {taken_over} of it taken over)", report.place, output::bytes(report.bytes))
        }
        DeliveryState::Failed { reason, .. } | DeliveryState::Retrying { reason, .. } => {
            format!("{} failed: {reason}", event.destination)
        }
        DeliveryState::Queued | DeliveryState::Running => format!("{} is under way", event.destination),
    };
    let notes =
        if let DeliveryState::Delivered(report) = &event.state { report.notes.as_slice() } else { &[] };
    notes
        .iter()
        .fold(escape::text(&text), |text, note| format!("{text}\n  note       {}", escape::text(note)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use format::record::DeliveryReport;

    #[test]
    fn each_note_of_a_delivery_is_a_line_and_no_name_in_it_makes_another() {
        let report = DeliveryReport {
            place: "/srv/web".to_owned(),
            files: 1,
            bytes: 2,
            reused_bytes: 0,
            already: false,
            notes: vec!["one\nforged".to_owned(), "two".to_owned()],
        };
        let destination = "web".parse().expect("a name");
        let text = delivery_text(&DeliveryEvent { destination, state: DeliveryState::Delivered(report) });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1..], ["  note       one\\nforged", "  note       two"]);
    }
}
