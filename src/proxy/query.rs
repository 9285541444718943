//! Answers questions: applications, releases, differences, statistics; delivers again.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::audit::Entry;
use super::current_token::checks;
use super::follow::follow;
use super::{Granted, Owner, now, owner};
use crate::net::blocking;
use crate::net::link::Sender;
use crate::proxy::statistics;
use crate::proxy::{deliveries, difference, prime};
use crate::store::Store;
use ground::faults::{Fault, Faulty};
use ground::ids::{ActionName, AppName, DestinationName, Selector};
use ground::shares::Share;
use protocol::token::Action;
use protocol::wire::{Answer, ArchivesMet, Change, Operation, ProxyInfo, PushHint, Refusal};

/// Rows in one message: with paths of the longest kind still below its bound.
const ROWS_PER_MESSAGE: usize = 200;

/// Answers a question.
///
/// # Errors
/// The text for the agent.
pub async fn answer(granted: Arc<Granted>, question: Operation, sender: &mut Sender) -> Result<(), Refusal> {
    // These read whole releases, so only a few work at a time, shared by the users.
    let _desk = match &question {
        Operation::Difference { .. } | Operation::Statistics(_) | Operation::Prime { .. } => {
            Some(desk(&granted).await?)
        }
        _ => None,
    };
    let (answers_in, mut answers) = tokio::sync::mpsc::channel(4);
    let work = {
        let granted = Arc::clone(&granted);
        blocking::start(move || {
            work_out(&granted, question, |answer| answers_in.blocking_send(answer).is_ok())
        })
    };
    let mut checks = checks();
    let mut held = Ok(());
    loop {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) if sender.send(&answer).await.is_ok() => {}
                _ => break,
            },
            _ = checks.tick() => {
                held = granted.still_holds();
                if held.is_err() {
                    break;
                }
            }
        }
    }
    drop(answers);
    let worked_out = work.await.map_err(|error| Refusal::of(&error))?;
    held.and(worked_out)
}

/// Waits for a turn to read whole releases; refuses a user who already has too many questions there.
async fn desk(granted: &Granted) -> Result<(Share<Owner>, OwnedSemaphorePermit), Refusal> {
    let shared = &granted.shared;
    let Some(share) = shared.readers.take(&owner(&granted.grant), 1) else {
        let text = format!("user `{}` runs too many queries that read whole releases", granted.grant.user);
        return Err(Refusal { fault: Fault::Retry, text, hint: None });
    };
    let permit = Arc::clone(&shared.desks).acquire_owned().await;
    Ok((share, permit.expect("it is never closed")))
}

/// Computes the answer, in parts; `give` returns whether the agent still listens.
fn work_out(granted: &Granted, question: Operation, give: impl Fn(Answer) -> bool) -> Result<(), Refusal> {
    let refusal = |error: &dyn Faulty| Refusal::of(error);
    match question {
        Operation::Identify => {
            let grant = &granted.grant;
            give(Answer::Identity(ProxyInfo {
                whit: env!("CARGO_PKG_VERSION").to_owned(),
                user: grant.user.clone(),
                space: grant.space.clone(),
                expires: grant.expires,
                now: now(),
            }));
        }
        Operation::HintPush(app) => {
            granted.allow(Action::Push, Some(&app))?;
            let archives = archives_met(&*granted.store()?, &app, granted.shared.improves);
            let link = granted.shared.links.last(&owner(&granted.grant));
            give(Answer::PushHint(PushHint { link, archives }));
        }
        Operation::Applications => {
            granted.allow(Action::Read, None)?;
            let mut apps = granted.store()?.records().apps();
            apps.retain(|summary| granted.grant.allows(Action::Read, Some(&summary.app)));
            for part in apps.chunks(ROWS_PER_MESSAGE) {
                if !give(Answer::Applications(part.to_vec())) {
                    break;
                }
            }
        }
        Operation::Releases(app) => list_releases(granted, &app, &give)?,
        Operation::Difference { from, to } => {
            granted.allow(Action::Read, Some(&from.app))?;
            granted.allow(Action::Read, Some(&to.app))?;
            compare(&*granted.store()?, &from, &to, give)?;
        }
        Operation::Statistics(app) => {
            match &app {
                Some(app) => granted.allow(Action::Read, Some(app))?,
                None => granted.allow_whole_space(Action::Read)?,
            }
            let counted =
                statistics::count(&*granted.store()?, app.as_ref()).map_err(|error| refusal(&error))?;
            give(Answer::Statistics(Box::new(counted)));
        }
        Operation::Destinations => {
            for part in deliveries::destinations(granted).chunks(ROWS_PER_MESSAGE) {
                if !give(Answer::Destinations(part.to_vec())) {
                    break;
                }
            }
        }
        Operation::Groups(app) => {
            // With a thousand members each, one in a message.
            for group in super::rollouts::groups(granted, app.as_ref())? {
                if !give(Answer::Groups(vec![group])) {
                    break;
                }
            }
        }
        Operation::DropDestination(name) => {
            give(Answer::Dropped(deliveries::drop_destination(granted, name)?));
        }
        Operation::Collect { .. }
        | Operation::Verify { .. }
        | Operation::Remove { .. }
        | Operation::Pin { .. } => {
            for answer in super::maintenance::serve(granted, question)? {
                give(answer);
            }
        }
        Operation::Prime { app, destination } => {
            give(Answer::Primed(prime::prime(granted, &app, &destination)?));
        }
        Operation::Current { .. } | Operation::Label { .. } | Operation::Unlabel { .. } => {
            super::promotion::answer(granted, question, &give)?;
        }
        Operation::Push(_)
        | Operation::Pull { .. }
        | Operation::Deliver { .. }
        | Operation::Promote { .. }
        | Operation::Rollback { .. }
        | Operation::Deliveries(_)
        | Operation::Steer { .. }
        | Operation::CheckDestinations(_)
        | Operation::Watch(_)
        | Operation::Targets { .. }
        | Operation::ForgetTarget { .. }
        | Operation::UnassignTarget { .. }
        | Operation::Rollouts { .. }
        | Operation::SteerRollout { .. }
        | Operation::PlanDelivery { .. } => unreachable!("these are served by themselves"),
    }
    Ok(())
}

fn list_releases(granted: &Granted, app: &AppName, give: &impl Fn(Answer) -> bool) -> Result<(), Refusal> {
    granted.allow(Action::Read, Some(app))?;
    let store = granted.store()?;
    give(Answer::Standing(store.records().standing(app)));
    let mut before = u64::MAX;
    loop {
        let records = store.records().before(app, before, ROWS_PER_MESSAGE);
        let records = records.map_err(|error| Refusal::of(&error))?;
        let Some(last) = records.last() else { return Ok(()) };
        before = last.sequence;
        if !give(Answer::Releases(records)) {
            return Ok(());
        }
    }
}

fn compare(
    store: &Store,
    from: &Selector,
    to: &Selector,
    give: impl Fn(Answer) -> bool,
) -> Result<(), Refusal> {
    let root = |selector: &Selector| {
        let record = store.select(selector).map_err(|error| Refusal::of(&error))?;
        give(Answer::Meant(record.clone()));
        store.root(&record.release).map_err(|error| Refusal::of(&error))
    };
    let (before, after) = (root(from)?, root(to)?);
    let mut rows: Vec<Change> = Vec::new();
    let mut listening = true;
    let mut take = |change| {
        rows.push(change);
        if rows.len() == ROWS_PER_MESSAGE {
            listening = give(Answer::Changes(std::mem::take(&mut rows)));
        }
        listening
    };
    difference::compare(&before, &after, store, &mut take).map_err(|error| Refusal::of(&error))?;
    if !rows.is_empty() {
        give(Answer::Changes(rows));
    }
    Ok(())
}

/// Returns how the archives of an application's latest release are stored.
fn archives_met(store: &Store, app: &AppName, improves: bool) -> ArchivesMet {
    match store.records().latest(app) {
        None => ArchivesMet::Nothing,
        Some(latest) if improves && store.packed_only(&latest.release).is_some() => ArchivesMet::Packed,
        Some(latest) if improves && store.unpacked_only(&latest.release).is_some() => ArchivesMet::Unpacked,
        Some(_) => ArchivesMet::Lasting,
    }
}

/// Delivers a release again and reports its progress.
///
/// # Errors
/// The text for the agent.
pub async fn deliver(
    granted: &Arc<Granted>,
    release: &Selector,
    destinations: &[DestinationName],
    then: &[ActionName],
    sender: &mut Sender,
) -> Result<(), Refusal> {
    granted.allow(Action::Deliver, Some(&release.app))?;
    granted.allow_destinations(destinations)?;
    granted.allow_then(&release.app, destinations, then)?;
    let (granted, selector, wanted) = (Arc::clone(granted), release.clone(), destinations.to_vec());
    let then = then.to_vec();
    let on_behalf = Arc::clone(&granted);
    let queued = blocking::start(move || {
        let Granted { shared, grant, .. } = &*on_behalf;
        on_behalf.still_holds()?;
        let store = shared.spaces.open(&grant.space).map_err(|error| Refusal::of(&error))?;
        // Until it is queued, nobody removes the release.
        let _turn = store.records().turn();
        let record = store.select(&selector).map_err(|error| Refusal::of(&error))?;
        shared.audit.write(&Entry {
            destinations: &wanted,
            ..Entry::of(&on_behalf.grant, "deliver", &record.app, record.release)
        });
        let deliveries = on_behalf.deliveries(&record.app, record.release, &wanted, &[], &then);
        let events = shared.deliveries.add(deliveries).map_err(|error| Refusal::of(&error))?;
        Ok::<_, Refusal>((record, events))
    });
    let (record, events) = queued.await.map_err(|error| Refusal::of(&error))??;
    if sender.send(&Answer::Meant(record)).await.is_err() {
        return Ok(());
    }
    follow(events, &granted, sender).await
}
