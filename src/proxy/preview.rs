//! Says what a delivery would do, and changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::granted::Granted;
use crate::delivery::Delivery;
use crate::delivery::destination::Preview;
use crate::net::blocking;
use crate::net::link::Sender;
use ground::faults::Fault;
use ground::ids::{DestinationName, Selector};
use protocol::token::Action;
use protocol::wire::{Answer, DeliveryPlan, Refusal};

/// Files of each list that are shown unless all are wanted.
const FILES_SHOWN: usize = 1000;
/// 256 KiB: the paths in one message.
const PART_BYTES: usize = 256 * 1024;
/// How long a service may take to say what it has.
const PLAN_TIME_MAX: Duration = Duration::from_secs(600);

/// Answers what delivering a release to destinations would do, one destination after the other.
///
/// # Errors
/// The text for the agent.
pub(super) async fn serve(
    granted: &Arc<Granted>,
    release: &Selector,
    destinations: &[DestinationName],
    all: bool,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    granted.allow(Action::Deliver, Some(&release.app))?;
    for name in destinations {
        granted.allow_destination(name)?;
        granted.is_no_group(name)?;
        granted.shared.deliveries.check(name).map_err(|error| Refusal::of(&error))?;
    }
    let (on_behalf, selector) = (Arc::clone(granted), release.clone());
    let record =
        blocking::start(move || on_behalf.store()?.select(&selector).map_err(|error| Refusal::of(&error)));
    let record = record.await.map_err(|error| Refusal::of(&error))??;
    if sender.send(&Answer::Meant(record.clone())).await.is_err() {
        return Ok(());
    }
    for name in destinations {
        let Some(destination) = granted.shared.destinations.get(name).map(Arc::clone) else { continue };
        granted.still_holds()?;
        let delivery =
            Delivery::new(granted.grant.space.clone(), record.app.clone(), record.release, name.clone());
        let cancelled = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(&granted.shared), Arc::clone(&cancelled));
        // No delivery has the number 0.
        let id = shared.deliveries.id(0);
        let planned =
            blocking::start(move || shared.executor.plan(id, &delivery, destination.as_ref(), &flag));
        let Ok(planned) = timeout(PLAN_TIME_MAX, planned).await else {
            cancelled.store(true, Ordering::Relaxed);
            let text = format!("destination `{name}` did not answer within {} s", PLAN_TIME_MAX.as_secs());
            return Err(Refusal { fault: Fault::Retry, text, hint: None });
        };
        let preview = planned.map_err(|error| Refusal::of(&error))?;
        let preview = preview.map_err(|failure| {
            let text = format!("destination `{name}`: {}", failure.reason);
            Refusal { fault: failure.fault, text, hint: None }
        })?;
        for part in parts(name, preview, if all { usize::MAX } else { FILES_SHOWN }) {
            if sender.send(&Answer::Planned(Box::new(part))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Cuts a preview into messages; each list has at most `most` files.
fn parts(destination: &DestinationName, preview: Preview, most: usize) -> Vec<DeliveryPlan> {
    let Preview { put, keep, delete } = preview;
    let bytes = |files: &[(String, u64)]| files.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let begin = DeliveryPlan {
        destination: destination.clone(),
        files: [put.len() as u64, keep.len() as u64, delete.len() as u64],
        bytes: [bytes(&put), bytes(&keep)],
        put: Vec::new(),
        keep: Vec::new(),
        delete: Vec::new(),
    };
    let (mut parts, mut part, mut weight) = (Vec::new(), begin.clone(), 0);
    let mut make_room = |part: &mut DeliveryPlan, path: &str| {
        weight += path.len() + 16;
        if weight > PART_BYTES {
            weight = path.len();
            parts.push(std::mem::replace(part, begin.clone()));
        }
    };
    for (path, bytes) in put.into_iter().take(most) {
        make_room(&mut part, &path);
        part.put.push((path, bytes));
    }
    for (path, bytes) in keep.into_iter().take(most) {
        make_room(&mut part, &path);
        part.keep.push((path, bytes));
    }
    for path in delete.into_iter().take(most) {
        make_room(&mut part, &path);
        part.delete.push(path);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_preview_comes_in_parts_that_have_all_of_it() {
        let path = |number: usize| format!("{number:0>1000}");
        let files: Vec<_> = (0..1500).map(|number| (path(number), 2)).collect();
        let preview = Preview { put: files.clone(), keep: files, delete: vec![path(1)] };
        let name = "edge".parse().expect("a name");
        let whole = parts(&name, preview.clone(), usize::MAX);
        assert!(whole.len() > 10 && whole.iter().all(|part| part.files == [1500, 1500, 1]));
        let put: Vec<_> = whole.iter().flat_map(|part| part.put.clone()).collect();
        assert_eq!((put, whole[0].bytes), (preview.put.clone(), [3000, 3000]));
        let some = parts(&name, preview, FILES_SHOWN);
        assert_eq!(some.iter().map(|part| part.keep.len()).sum::<usize>(), FILES_SHOWN);
    }
}
