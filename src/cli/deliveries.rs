//! Destinations on the command line, and the outcome of deliveries for people.

use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::output;
use crate::delivery::destination::{self, Destinations};
use crate::restore::OutsideLinks;
use format::record::{ActionReport, DeliveryEvent, DeliveryReport, DeliveryState};
use ground::escape;
use ground::faults::Fault;
use ground::ids::{ActionName, DestinationName};

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
    for DeliveryEvent { destination, state, id } in deliveries {
        let follow = format!("`whit deliveries --to {destination}` shows delivery {id}");
        let (fault, reason, hint) = match state {
            DeliveryState::Delivered(report) => {
                let Some((action, reason)) = failed_action(report) else { continue };
                let text = format!("delivered to {destination}, but the action {action} failed: {reason}");
                let hint =
                    "the complete copy is there; remove the cause, then run `whit deliver` with `--then`";
                return Err(Error::Message { fault: Fault::Retry, text, hint: Some(hint.to_owned()) });
            }
            DeliveryState::Skipped { .. } => continue,
            DeliveryState::Failed { reason, fault: Fault::Corrupt }
            | DeliveryState::Retrying { reason, fault: Fault::Corrupt, .. } => (
                Fault::Corrupt,
                reason.clone(),
                "run `whit verify --repair`, then push the release again if content is still missing"
                    .to_owned(),
            ),
            DeliveryState::Failed { reason, .. } => {
                (Fault::Input, reason.clone(), "remove the cause, then run `whit deliver`".to_owned())
            }
            DeliveryState::Cancelled { by } => (
                Fault::Input,
                format!("{by} cancelled it"),
                "the release is stored; `whit deliver` delivers it".to_owned(),
            ),
            DeliveryState::Retrying { reason, .. } => (
                Fault::Retry,
                reason.clone(),
                format!("the release is stored; the proxy keeps trying to deliver it: {follow}"),
            ),
            DeliveryState::Queued | DeliveryState::Running(_) | DeliveryState::Stranded => (
                Fault::Retry,
                "it has not ended".to_owned(),
                format!("the release is stored; the proxy continues to deliver it: {follow}"),
            ),
        };
        let text = format!("delivery {id} to {destination} failed: {reason}");
        return Err(Error::Message { fault, text, hint: Some(hint) });
    }
    Ok(())
}

/// Adds to an interrupted command's error what goes on without it.
pub fn interrupted(error: Error, deliveries: &[DeliveryEvent]) -> Error {
    let goes_on = deliveries.iter().filter(|event| !event.state.is_last());
    let ids: Vec<String> = goes_on.map(|event| event.id.to_string()).collect();
    match (error, ids.first()) {
        (Error::Interrupted, Some(first)) => Error::Message {
            fault: Fault::Interrupted,
            text: "interrupted".to_owned(),
            hint: Some(format!(
                "the proxy goes on with delivery {}: `whit deliveries cancel {first}` ends it",
                ids.join(", ")
            )),
        },
        (error, _) => error,
    }
}

/// Returns the first action that failed after a delivery, and why.
fn failed_action(report: &DeliveryReport) -> Option<(&ActionName, &str)> {
    report.actions.iter().find_map(|done| Some((&done.action, done.failure.as_deref()?)))
}

/// Returns a delivery's state, for people.
pub fn delivery_text(event: &DeliveryEvent) -> String {
    let DeliveryEvent { destination, state, id } = event;
    let text = match state {
        DeliveryState::Delivered(report) => report_text(report),
        DeliveryState::Failed { reason, .. } => format!("{destination} failed: {reason}"),
        DeliveryState::Retrying { reason, .. } => {
            format!("{destination} failed: {reason}; delivery {id} is tried again")
        }
        DeliveryState::Queued => format!("{destination} waits, as delivery {id}"),
        DeliveryState::Running(_) => format!("{destination} is under way, as delivery {id}"),
        DeliveryState::Skipped { by } => format!("{destination} takes a later release, by delivery {by}"),
        DeliveryState::Cancelled { by } => format!("{destination} cancelled by {by}"),
        DeliveryState::Stranded => format!("{destination} is not configured any more"),
    };
    let mut lines = vec![escape::text(&text)];
    let DeliveryState::Delivered(report) = state else { return lines.concat() };
    let answer = report.answer.iter().flat_map(|answer| answer.lines());
    for (place, line) in answer.enumerate() {
        let name = if place == 0 { "answer" } else { "" };
        lines.push(format!("  {name:<10} {}", escape::text(line)));
    }
    lines.extend(report.notes.iter().map(|note| format!("  note       {}", escape::text(note))));
    for ActionReport { action, millis, failure, output } in &report.actions {
        let time = format!("{:.1} s", Duration::from_millis(*millis).as_secs_f64());
        let how = failure.as_ref().map(|reason| format!("failed: {reason} ")).unwrap_or_default();
        lines.push(format!("  then       {action} {}({time})", escape::text(&how)));
        lines.extend(output.lines().map(|line| format!("             {}", escape::text(line))));
    }
    lines.join("\n")
}

/// Returns what a delivery did, for people.
pub fn report_text(report: &DeliveryReport) -> String {
    let time = format!("{:.1} s", Duration::from_millis(report.millis).as_secs_f64());
    if report.already {
        return format!("{} has it already ({time})", report.place);
    }
    let (all, reused) = (output::bytes(report.bytes), output::bytes(report.reused_bytes));
    format!("{} ({all}, {reused} reused, {time})", report.place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::ids::DeliveryId;

    #[test]
    fn whoever_is_interrupted_reads_what_goes_on_and_how_to_end_it() {
        let event = |number, state| DeliveryEvent {
            destination: "web".parse().expect("a name"),
            state,
            id: DeliveryId { proxy: [0; 4], number },
        };
        let delivered = DeliveryState::Delivered(DeliveryReport::default());
        let hint =
            |events: &[DeliveryEvent]| interrupted(Error::Interrupted, events).advice().expect("a hint");
        let both = hint(&[event(1, delivered.clone()), event(2, DeliveryState::Queued)]);
        assert!(both.contains("delivery 00000000-2: `whit deliveries cancel 00000000-2`"), "{both}");
        assert!(hint(&[event(1, delivered)]).contains("run it again"));
    }

    #[test]
    fn each_note_of_a_delivery_is_a_line_and_no_name_in_it_makes_another() {
        let report = DeliveryReport {
            place: "/srv/web".to_owned(),
            answer: Some("stored\nas 17".to_owned()),
            notes: vec!["one\nforged".to_owned(), "two".to_owned()],
            ..DeliveryReport::default()
        };
        let destination = "web".parse().expect("a name");
        let id = DeliveryId { proxy: [0; 4], number: 1 };
        let text = delivery_text(&DeliveryEvent { destination, state: DeliveryState::Delivered(report), id });
        let lines: Vec<_> = text.lines().collect();
        let expected =
            ["  answer     stored", "             as 17", "  note       one\\nforged", "  note       two"];
        assert_eq!(lines[1..], expected);
    }
}
