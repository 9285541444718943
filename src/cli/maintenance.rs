//! `whit gc`, `verify`, `rm`, `pin` and `unpin`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::access::AccessArgs;
use super::error::Error;
use super::output::{self, Output};
use super::queries::ask;
use format::maintenance::{Collected, LabelFate, Removal, Verified};
use ground::faults::Fault;
use ground::ids::Selector;
use protocol::wire::{Answer, Operation};

const GC_HELP: &str = "\
Runs beside pushes and may be interrupted at any point. What pushes and pulls under way may still need stays until \
the next run: for 5 minutes if they make no progress, else for an hour. Works on a full disk: it may use the \
configuration's reserve, removes packs with nothing in use first, and never needs more room in total than it frees.";

const VERIFY_HELP: &str = "\
Reads every pack, sealed or open, hashes every chunk, compares the index with the packs, reads the records of \
pushes and the cached archives, then looks for every chunk of every release. The next push of damaged content \
sends it again. --repair sets damaged packs aside once their intact chunks are copied, repairs the index and the \
records, and takes missing chunks from delivered copies, at destinations and from `push --to dir:PATH`. Only a \
push restores manifests, and chunks inside archives. \
Exit code 5 if anything is damaged or missing.";

const RM_HELP: &str = "\
Removes all pushes of the release's content to the application, with their labels. The next `whit gc` removes the \
content, unless other releases have it. If you name a label, and other labels name the same release or a label \
would then name an older release, whit lists those labels, removes nothing, and ends with exit code 2. The current \
release, the one that a rollback goes back to, and releases that a destination has or waits for stay without --force.";

/// Remove what no release needs any more.
#[derive(Debug, Args)]
#[command(after_help = GC_HELP)]
pub struct GcArgs {
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Check everything that is stored.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_HELP)]
pub struct VerifyArgs {
    /// Repair what can be repaired.
    #[arg(long)]
    repair: bool,
    /// Stop after this time, like `10m`; the next verify continues from there.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_duration: Option<Duration>,
    #[command(flatten)]
    access: AccessArgs,
}

/// One release.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// APP@RELEASE or APP@LABEL.
    release: Selector,
    #[command(flatten)]
    access: AccessArgs,
}

/// The release to remove.
#[derive(Debug, Args)]
#[command(after_help = RM_HELP)]
pub struct RemoveArgs {
    /// APP@RELEASE or APP@LABEL.
    release: Selector,
    /// Remove the release although other labels name it too.
    #[arg(long)]
    all_labels: bool,
    /// Remove the release although it is current, or the one before, or at a destination. Copies stay where they are.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs `whit gc`.
pub async fn gc(arguments: GcArgs, output: &Output) -> Result<(), Error> {
    let question = Operation::Collect { dry_run: arguments.dry_run };
    for answer in ask(&arguments.access, output, question).await? {
        if let Answer::Collected(collected) = answer {
            return output.report(&collected, || collected_text(&collected, arguments.dry_run));
        }
    }
    Err(crate::agent::Error::Ended.into())
}

fn collected_text(collected: &Collected, dry_run: bool) -> String {
    let would = if dry_run { "would remove" } else { "removed" };
    let mut text = format!(
        "{would} {} of {} packs and {} chunks: {} of disk\n{} chunks are in use; {} unused ones stay in packs that are mostly in use",
        output::count(collected.packs_removed),
        output::count(collected.packs),
        output::count(collected.removed_chunks),
        output::bytes(collected.reclaimed_bytes),
        output::count(collected.live_chunks),
        output::count(collected.dead_chunks_left),
    );
    if collected.unreadable > 0 {
        let these = some(collected.unreadable, "release cannot", "releases cannot");
        text = format!("{these} be read: nothing is removed, as the chunks they need are unknown\n{text}");
    }
    if collected.packs_without_room > 0 {
        let these = some(collected.packs_without_room, "pack", "packs");
        text = format!("{text}\nno room on the disk to rewrite {these}, which would reclaim more");
    }
    if collected.waits_for_pushes {
        text.push_str("\npushes or pulls under way may need more of it: the next run removes the rest");
    }
    text
}

/// Returns a number and its noun.
fn some(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", output::count(count), if count == 1 { one } else { many })
}

/// Runs `whit verify`.
pub async fn verify(arguments: VerifyArgs, output: &Output) -> Result<(), Error> {
    let seconds_max = arguments.max_duration.map(|time| time.as_secs());
    let question = Operation::Verify { repair: arguments.repair, seconds_max };
    for answer in ask(&arguments.access, output, question).await? {
        if let Answer::Verified(verified) = answer {
            let ended = failure(&verified, arguments.repair).map_or(Ok(()), Err);
            return output.report_with(&verified, ended, || verified_text(&verified, arguments.repair));
        }
    }
    Err(crate::agent::Error::Ended.into())
}

/// Returns the error to end with, where anything is damaged or missing after all repairs.
fn failure(verified: &Verified, repair: bool) -> Option<Error> {
    let still_damaged = !verified.damaged.is_empty() && !repair;
    let hint = if still_damaged {
        "run `whit verify --repair`; the next push of the content resends what that cannot repair"
    } else if !verified.incomplete.is_empty() || verified.records_let_go > 0 {
        "push these releases again from where they were built"
    } else {
        return None;
    };
    let text = "stored data is damaged or missing".to_owned();
    Some(Error::Message { fault: Fault::Corrupt, text, hint: Some(hint.to_owned()) })
}

fn verified_text(verified: &Verified, repair: bool) -> String {
    let mut lines = vec![format!(
        "read {}, {}, {}{}",
        some(verified.packs, "pack", "packs"),
        some(verified.chunks, "chunk", "chunks"),
        output::bytes(verified.bytes),
        if verified.finished { "" } else { "; the next verify continues from there" },
    )];
    for damage in &verified.damaged {
        let costs = match damage.chunks {
            0 => String::new(),
            chunks => format!(" ({})", some(chunks, "chunk", "chunks")),
        };
        lines.push(format!("damaged: {} at byte {}: {}{costs}", damage.file, damage.offset, damage.what));
    }
    let mut mended = |count: u64, one: &str, many: &str| {
        if count > 0 {
            lines.push(some(count, one, many));
        }
    };
    let aside = "set aside; its intact chunks were copied";
    mended(verified.set_aside, &format!("damaged pack was {aside}"), &format!("damaged packs were {aside}"));
    let index =
        if repair { "wrong or missing in the index: repaired" } else { "wrong or missing in the index" };
    mended(verified.indexed, &format!("entry was {index}"), &format!("entries were {index}"));
    let copies = "taken from delivered copies";
    mended(verified.healed_chunks, &format!("chunk was {copies}"), &format!("chunks were {copies}"));
    let let_go = "of a push cannot be repaired; that push is lost from the history";
    mended(verified.records_let_go, &format!("record {let_go}"), &format!("records {let_go}"));
    for release in &verified.incomplete {
        let lacks = release
            .missing_chunks
            .map_or("parts of its manifest".to_owned(), |count| some(count, "chunk", "chunks"));
        lines.push(format!("incomplete: {}@{} lacks {lacks}", release.app, release.release.short()));
    }
    if verified.finished && verified.incomplete.is_empty() {
        lines.push(match (verified.damaged.is_empty(), repair) {
            (true, _) => "every chunk of every release is present".to_owned(),
            (false, false) => "no release needs the damaged data".to_owned(),
            (false, true) => "the damage is repaired: every chunk of every release is present".to_owned(),
        });
    }
    lines.join("\n")
}

/// Runs `whit rm`.
pub async fn remove(arguments: RemoveArgs, output: &Output) -> Result<(), Error> {
    let RemoveArgs { release, all_labels, force, access } = arguments;
    if release.at.is_none() {
        return Err(Error::input("no release given, only an application", "give APP@RELEASE or APP@LABEL"));
    }
    let question = Operation::Remove { release: release.clone(), all_labels, force };
    for answer in ask(&access, output, question).await? {
        if let Answer::Removed(removal) = answer {
            let others = removal.labels.iter().filter(|fate| !fate.named);
            let labels: Vec<&str> = others.map(|fate| fate.label.as_str()).collect();
            let ended = if removal.removed {
                Ok(())
            } else {
                Err(Error::input(
                    format!(
                        "removing `{release}` would also change or remove the labels {}",
                        labels.join(", ")
                    ),
                    "to remove the release with all its labels, add --all-labels",
                ))
            };
            return output.report_with(&removal_fields(&removal), ended, || removal_text(&removal));
        }
    }
    Err(crate::agent::Error::Ended.into())
}

/// Returns the fields of the record, and what goes with the release.
fn removal_fields(removal: &Removal) -> serde_json::Value {
    let Removal { record, pushes, labels, latest, removed } = removal;
    let mut value = json!(record);
    value["pushes"] = json!(pushes);
    value["meanings"] = json!(labels);
    value["latest"] = json!(latest);
    value["removed"] = json!(removed);
    value
}

fn removal_text(removal: &Removal) -> String {
    let Removal { record, pushes, labels, latest, removed } = removal;
    let what = if *removed { "removed" } else { "not removed:" };
    let mut lines = vec![format!("{what} {}@{}, pushes: {pushes}", record.app, record.release.short())];
    for LabelFate { label, sequence, then, .. } in labels {
        let then = then.map_or("nothing".to_owned(), |release| format!("release {}", release.short()));
        let tense = if *removed { "now means" } else { "would mean" };
        lines.push(format!("  label {label}, given by #{sequence}, {tense} {then}"));
    }
    if *removed {
        let latest = latest.map_or("none".to_owned(), |release| release.short());
        lines.push(format!("  the latest release is {latest}"));
    }
    lines.join("\n")
}

/// Runs `whit pin` and `whit unpin`.
pub async fn pin(arguments: ReleaseArgs, pinned: bool, output: &Output) -> Result<(), Error> {
    let what = if pinned { "pinned" } else { "unpinned" };
    change(&arguments.access, Operation::Pin { release: arguments.release, pinned }, what, output).await
}

async fn change(access: &AccessArgs, question: Operation, what: &str, output: &Output) -> Result<(), Error> {
    for answer in ask(access, output, question).await? {
        if let Answer::Done(record) = answer {
            let text = || format!("{what} {}@{}", record.app, record.release.short());
            return output.report(&record, text);
        }
    }
    Err(crate::agent::Error::Ended.into())
}
