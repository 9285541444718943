//! The receipt of a push, for people.

use super::deliveries::delivery_text;
use super::output;
use crate::agent::push::{Explained, Reason, Receipt};
use crate::agent::{Choice, LinkEstimate, Method, Origin, Prediction};

/// Returns a receipt for people.
pub fn receipt_text(receipt: &Receipt) -> String {
    let what = match (receipt.dry_run, receipt.unchanged) {
        _ if receipt.cached_until.is_some() => "cached",
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
    let left_packed = |choice: &&Choice| choice.method == Method::Archives && !choice.used;
    if let Some(choice) = receipt.choices.iter().find(left_packed) {
        let is_quicker = choice.seconds.plainly < choice.seconds.by_method;
        let why = if is_quicker { ", which is quicker on this link" } else { "" };
        line("archives", format!("{} as they are{why}", output::bytes(choice.bytes)));
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
    if let Some(until) = receipt.cached_until {
        line("kept", format!("without a release, until {}", output::time(until)));
    }
    for event in &receipt.delivered {
        line("delivery", delivery_text(event));
    }
    if !receipt.explained.is_empty() {
        lines.push(String::new());
        lines.push(explained_table(&receipt.explained));
    }
    lines.join("\n")
}

/// Returns what was chosen for this link, and why, for people.
pub fn choices_text(receipt: &Receipt) -> String {
    let mut lines = vec![
        format!("  {:<10} {}", "link", link_text(&receipt.link)),
        format!("  {:<10} {:.1} times the usual seconds", "processor", receipt.slowness),
    ];
    lines.extend(receipt.choices.iter().map(|choice| format!("  {:<10} {}", "chosen", choice_text(choice))));
    lines.join("\n")
}

/// Returns an estimate of a link for people.
fn link_text(link: &LinkEstimate) -> String {
    let origin = match link.origin {
        Origin::Told => "as told",
        Origin::Assumed => "assumed by the round trip",
        Origin::Remembered => "remembered from an earlier push",
        Origin::Measured => "measured",
    };
    format!("{}bit/s, {:.1} ms, {origin}", metric(link.rate * 8.0), link.round_trip * 1e3)
}

/// Returns a number with a decimal prefix, like `20 M`.
fn metric(number: f64) -> String {
    let (scale, prefix) = match number {
        number if number >= 1e9 => (1e9, "G"),
        number if number >= 1e6 => (1e6, "M"),
        _ => (1e3, "k"),
    };
    format!("{:.1} {prefix}", number / scale).replace(".0 ", " ")
}

/// Returns a choice for people.
fn choice_text(choice: &Choice) -> String {
    let Prediction { plainly, by_method } = choice.seconds;
    let what = match (choice.method, choice.used) {
        (Method::Archives, true) => "archives unpacked",
        (Method::Archives, false) => "archives sent as they are",
        (Method::Executables, true) => "executables by the functions that changed",
        (Method::Executables, false) => "executables sent as other files",
        (Method::Patches, true) => "changes as patches",
        (Method::Patches, false) => "changes compressed against older content",
        (Method::Sketches, true) => "new content sketched",
        (Method::Sketches, false) => "new content not sketched",
    };
    let (taken, otherwise) = if choice.used { (by_method, plainly) } else { (plainly, by_method) };
    let bytes = output::bytes(choice.bytes);
    let why = if taken > otherwise { ", for fewer bytes now or in the next push" } else { "" };
    format!("{what} ({bytes}): about {taken:.1} s instead of {otherwise:.1} s{why}")
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
