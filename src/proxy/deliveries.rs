//! Lists deliveries and destinations, follows and steers deliveries, and tries destinations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::audit::Entry;
use super::changes::{Changes, Next};
use super::current_token::checks;
use super::follow::{Following, Unheard};
use super::granted::Granted;
use crate::delivery::destination::{Check, Destination};
use crate::net::blocking::{self, CancelOnDrop};
use crate::net::link::Sender;
use ground::ids::{AppName, DeliveryId, DestinationName};
use protocol::token::Action;
use protocol::wire::{
    Answer, CheckStep, DeliveriesWanted, DeliveryStatus, DestinationCheck, DestinationDropped,
    DestinationStatus, Refusal, Steering,
};

/// Deliveries in one message: with reports, notes and outputs of the longest kind still below its bound.
const ROWS_PER_MESSAGE: usize = 16;
/// How long all steps of trying one destination may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(60);
/// How long they may take to end after that.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(2);

/// Lists the deliveries of the space that the token may see and, if that is wanted, each change until the agent is gone.
///
/// # Errors
/// The text for the agent.
pub(super) async fn list(
    granted: &Granted,
    wanted: &DeliveriesWanted,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    granted.allow(Action::Read, wanted.app.as_ref())?;
    let deliveries = &granted.shared.deliveries;
    let space = &granted.grant.space;
    let is_wanted =
        |app: &AppName, destination: &DestinationName| is_wanted(granted, wanted, app, destination);
    let mut changes = Changes::new(granted, deliveries.watch());
    loop {
        let mut after = 0;
        loop {
            let page = deliveries.page(space, after, ROWS_PER_MESSAGE, is_wanted);
            let Some(last) = page.last() else { break };
            after = last.id.number;
            granted.still_holds()?;
            if sender.send(&Answer::Deliveries(page)).await.is_err() {
                return Ok(());
            }
        }
        if !wanted.watch {
            return Ok(());
        }
        loop {
            let rows = match changes.next(sender).await? {
                Next::Change(change) => {
                    let (of_space, row) = &*change;
                    if of_space != space || !is_wanted(&row.app, &row.destination) {
                        continue;
                    }
                    vec![row.clone()]
                }
                Next::Alive => Vec::new(),
                Next::Missed => break,
                Next::Over => return Ok(()),
            };
            if sender.send(&Answer::Deliveries(rows)).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn is_wanted(
    granted: &Granted,
    wanted: &DeliveriesWanted,
    app: &AppName,
    destination: &DestinationName,
) -> bool {
    wanted.app.as_ref().is_none_or(|wanted| wanted == app)
        && wanted.destination.as_ref().is_none_or(|wanted| wanted == destination)
        && granted.grant.allows(Action::Read, Some(app))
        && granted.grant.allows_destination(destination)
}

/// Retries, cancels or drops a delivery, and answers with its status afterwards: one under way is waited for until it has ended.
///
/// # Errors
/// The text for the agent.
pub(super) async fn steer(
    granted: &Arc<Granted>,
    id: DeliveryId,
    how: Steering,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let status = status(granted, id)?;
    granted.allow(Action::Deliver, Some(&status.app))?;
    granted.allow_destination(&status.destination)?;
    let by = Arc::clone(granted);
    let steered = blocking::start(move || {
        let (deliveries, user) = (&by.shared.deliveries, &by.grant.user);
        let (action, events) = match how {
            Steering::Retry => ("retry", deliveries.retry(id)),
            Steering::Cancel => ("cancel", deliveries.cancel(id, user)),
            Steering::Drop => ("drop", deliveries.drop_stranded(id, user)),
        };
        let events = events.map_err(|error| Refusal::of(&error))?;
        by.audit_delivery(action, &status);
        Ok::<_, Refusal>(events)
    });
    let events = steered.await.map_err(|error| Refusal::of(&error))??;
    if how != Steering::Retry {
        let (mut following, mut checks) = (Following::new(vec![events]), checks());
        loop {
            match following.next(granted, &mut checks).await {
                Ok(Some(event)) if event.state.is_last() => break,
                // It is still alive, and ends soon.
                Ok(Some(_)) => {
                    if sender.send(&Answer::Deliveries(Vec::new())).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) | Err(Unheard::Gone) => break,
                Err(Unheard::Refused(refusal)) => return Err(refusal),
            }
        }
    }
    let status = self::status(granted, id)?;
    drop(sender.send(&Answer::Deliveries(vec![status])).await);
    Ok(())
}

/// Returns a delivery that the token may see; none other exists for its user.
fn status(granted: &Granted, id: DeliveryId) -> Result<DeliveryStatus, Refusal> {
    let missing = || Refusal::of(&crate::delivery::Error::NoDelivery(id));
    let status = granted.shared.deliveries.status(&granted.grant.space, id);
    let status = status.map_err(|error| Refusal::of(&error))?;
    let is_seen = is_wanted(granted, &DeliveriesWanted::default(), &status.app, &status.destination)
        || granted.grant.allows(Action::Deliver, Some(&status.app));
    if is_seen { Ok(status) } else { Err(missing()) }
}

/// Lists the destinations that the token allows.
pub(super) fn destinations(granted: &Granted) -> Vec<DestinationStatus> {
    let shared = &granted.shared;
    let allowed = shared.destinations.iter().filter(|(name, _)| granted.grant.allows_destination(name));
    let status = |(name, destination): (&DestinationName, &Arc<dyn Destination>)| {
        let is_seen = |app: &AppName| granted.grant.allows(Action::Read, Some(app));
        let (waiting, failing) = shared.deliveries.count(&granted.grant.space, name, is_seen);
        DestinationStatus {
            name: name.clone(),
            kind: destination.kind().to_owned(),
            place: destination.describe(None),
            waiting: waiting as u64,
            failing: failing as u64,
        }
    };
    allowed.map(status).collect()
}

/// Lets go of a destination that is not configured any more, of the applications that the token allows.
///
/// # Errors
/// The text for the agent.
pub(super) fn drop_destination(
    granted: &Granted,
    name: DestinationName,
) -> Result<DestinationDropped, Refusal> {
    granted.allow(Action::Deliver, None)?;
    granted.allow_destination(&name)?;
    let Granted { shared, grant, .. } = granted;
    let is_wanted = |app: &AppName| grant.allows(Action::Deliver, Some(app));
    let ended = shared.deliveries.drop_destination(&grant.space, &name, &grant.user, is_wanted);
    let ended = ended.map_err(|error| Refusal::of(&error))?;
    let store = granted.store()?;
    let forgotten = store.records().forget_shown(&name, is_wanted).map_err(|error| Refusal::of(&error))?;
    if ended.is_empty() && forgotten.is_empty() {
        return Err(Refusal::of(&crate::delivery::Error::Unknown(name)));
    }
    for status in &ended {
        granted.audit_delivery("drop", status);
    }
    let destinations = std::slice::from_ref(&name);
    for (app, release) in &forgotten {
        shared.audit.write(&Entry { destinations, ..Entry::of(grant, "drop", app, *release) });
    }
    let (deliveries, releases) = (ended.len() as u64, forgotten.len() as u64);
    Ok(DestinationDropped { name, deliveries, releases })
}

/// Tries one destination, or all that the token allows, and answers with the steps of each. One hangs no other up: each has a
/// thread and a minute.
///
/// # Errors
/// The text for the agent.
pub(super) async fn check(
    granted: &Granted,
    name: Option<&DestinationName>,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    granted.allow(Action::Deliver, None)?;
    let shared = &granted.shared;
    let names: BTreeSet<DestinationName> = match name {
        Some(name) => {
            granted.allow_destination(name)?;
            shared.deliveries.check(name).map_err(|error| Refusal::of(&error))?;
            [name.clone()].into()
        }
        None => destinations(granted).into_iter().map(|status| status.name).collect(),
    };
    for name in names {
        let Some(destination) = shared.destinations.get(&name).map(Arc::clone) else { continue };
        granted.still_holds()?;
        // Also when the agent is gone.
        let cancel = CancelOnDrop::default();
        let cancelled = cancel.cancelled();
        let mut checking = blocking::start(move || destination.check(&cancelled));
        let checked = timeout(CHECK_TIME_MAX, &mut checking).await;
        let is_late = checked.is_err();
        drop(cancel);
        let checked = match checked {
            Ok(checked) => checked,
            // It says which step it was at, unless a file system hangs.
            Err(_) => timeout(CANCEL_TIME_MAX, checking).await.unwrap_or(Ok(Vec::new())),
        };
        let checked = checked.map_err(|error| Refusal::of(&error))?;
        let step = |check: Check| CheckStep { step: check.step, failure: check.failure };
        let mut steps: Vec<CheckStep> = checked.into_iter().map(step).collect();
        if is_late {
            let failure = format!("it did not end within {} s", CHECK_TIME_MAX.as_secs());
            steps.push(CheckStep { step: "answer in time".to_owned(), failure: Some(failure) });
        }
        if sender.send(&Answer::Checked(DestinationCheck { name, steps })).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
