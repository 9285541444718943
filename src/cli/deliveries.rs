//! Destinations on the command line, and the outcome of deliveries for people.

use std::path::Path;

use super::error::Error;
use super::output;
use crate::delivery::destination::{self, Destinations};
use crate::restore::OutsideLinks;
use format::record::{DeliveryEvent, DeliveryState};
use ground::escape;
use ground::faults::Fault;
use ground::ids::DestinationName;

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
                "run `whit verify --repair`, then push the release again if content is still missing",
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
                "the release is stored; the proxy continues to deliver it",
            ),
        };
        let text = format!("delivery to {} failed: {reason}", event.destination);
        return Err(Error::Message { fault, text, hint: Some(hint.to_owned()) });
    }
    Ok(())
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
            notes: vec!["one\nforged".to_owned(), "two".to_owned()],
            ..DeliveryReport::default()
        };
        let destination = "web".parse().expect("a name");
        let text = delivery_text(&DeliveryEvent { destination, state: DeliveryState::Delivered(report) });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1..], ["  note       one\\nforged", "  note       two"]);
    }
}
