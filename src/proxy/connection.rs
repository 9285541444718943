//! Serves connections and their requests: checks the token, takes a share, then reads the rest of the request.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::Instrument;

use super::admission::{self, Admitted};
use super::current_token::CurrentToken;
use super::granted::Granted;
use super::promotion::{self, Target, Wanted};
use super::refusal::refuse_unread;
use super::{Shared, deliveries, end, preview, pull, push, query, refuse, rollouts, targets};
use crate::net::link::{Connection, Receiver, Sender};
use crate::net::link_estimate::Link;
use ground::faults::Fault;
use ground::limits::STRANGER_WINDOW;
use protocol::token::Grant;
use protocol::wire::{Open, Operation, Refusal, Request};

/// Serves one connection until it ends; its requests run side by side.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection) {
    let Some(Admitted { first, share: _share, window: _window }) =
        admission::admit(&shared, &connection).await
    else {
        return;
    };
    let mut requests = JoinSet::new();
    let is_target = first.2.target.is_some();
    let mut stopping = shared.targets.stopping();
    let link = Link::of(&connection);
    let (sender, receiver, grant) = first;
    requests.spawn(go_on(Arc::clone(&shared), link.clone(), sender, receiver, grant).in_current_span());
    loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Ok(Some((sender, receiver))) => {
                    requests.spawn(answer(Arc::clone(&shared), link.clone(), sender, receiver).in_current_span());
                }
                Ok(None) | Err(_) => break,
            },
            Some(_) = requests.join_next() => {}
            // A target's connection lasts for ever: nobody waits for it.
            () = stopping.begun(), if is_target && requests.is_empty() => {
                connection.close(Fault::Retry, "the proxy is stopping");
                break;
            }
        }
    }
    // The agent is gone; its requests end by themselves at their next message.
    while requests.join_next().await.is_some() {}
}

/// Answers one request on a connection that has shown a good token.
async fn answer(shared: Arc<Shared>, link: Link, sender: Sender, mut receiver: Receiver) {
    match admission::check_head(&shared, &mut receiver).await {
        Ok(Some(grant)) => go_on(shared, link, sender, receiver, grant).await,
        Ok(None) => {}
        Err(refusal) => refuse_unread(sender, receiver, refusal, STRANGER_WINDOW).await,
    }
}

/// Answers one request with a good token, whose rest is read only now that it has a share.
async fn go_on(shared: Arc<Shared>, link: Link, mut sender: Sender, mut receiver: Receiver, grant: Grant) {
    let holder = admission::holder(&grant);
    let Some(turn) = shared.turns.take(&holder, 1) else {
        let held = shared.turns.held_by(&holder);
        let text =
            format!("user `{}` has {held} requests under way, the limit while others need some", grant.user);
        let refusal = Refusal { fault: Fault::Retry, text, hint: None };
        return refuse_unread(sender, receiver, refusal, STRANGER_WINDOW).await;
    };
    let operation = match receiver.receive::<Request>().await {
        Ok(Some(request)) => request.operation(),
        Ok(None) => return,
        Err(error) => Err(Refusal::of(&error)),
    };
    let operation = match operation {
        Ok(operation) => each_destination_once(operation),
        Err(refusal) => return refuse(sender, refusal).await,
    };
    let token = CurrentToken::new(grant.clone());
    let granted = Arc::new(Granted { shared: Arc::clone(&shared), grant, token });
    match operation {
        Operation::Push(open) => push::serve(granted, open, link, sender, receiver).await,
        Operation::Pull { release, have, unpacked } => {
            let wanted = pull::Wanted { release, have, unpacked, link };
            let _share = if granted.grant.target.is_some() {
                drop(turn);
                match targets::queue(&granted, &mut sender).await {
                    Ok(Some(share)) => Some(share),
                    Ok(None) => return,
                    Err(refusal) => return refuse(sender, refusal).await,
                }
            } else {
                None
            };
            pull::serve(granted, wanted, sender, receiver).await;
        }
        Operation::Deliver { release, destinations, then } => {
            let delivered = query::deliver(&granted, &release, &destinations, &then, &mut sender).await;
            end(sender, delivered).await;
        }
        Operation::Promote { release, destinations, because, then } => {
            let wanted = Wanted { target: Target::Promote(release), destinations, because, then };
            let moved = promotion::serve(&granted, wanted, &mut sender).await;
            end(sender, moved).await;
        }
        Operation::Rollback { app, destinations, because, then } => {
            let wanted = Wanted { target: Target::Rollback(app), destinations, because, then };
            let moved = promotion::serve(&granted, wanted, &mut sender).await;
            end(sender, moved).await;
        }
        Operation::Deliveries(wanted) => {
            let listed = deliveries::list(&granted, &wanted, &mut sender).await;
            end(sender, listed).await;
        }
        Operation::Steer { delivery, how } => {
            let steered = deliveries::steer(&granted, delivery, how, &mut sender).await;
            end(sender, steered).await;
        }
        Operation::CheckDestinations(name) => {
            let checked = deliveries::check(&granted, name.as_ref(), &mut sender).await;
            end(sender, checked).await;
        }
        Operation::PlanDelivery { release, destinations, all } => {
            let planned = preview::serve(&granted, &release, &destinations, all, &mut sender).await;
            end(sender, planned).await;
        }
        Operation::Watch(watching) => {
            // It mostly waits, and has a share of its own.
            drop(turn);
            targets::serve(granted, *watching, sender, receiver).await;
        }
        Operation::Targets { app, watch } => {
            let listed = targets::list(&granted, app.as_ref(), watch, &mut sender).await;
            end(sender, listed).await;
        }
        Operation::ForgetTarget { target, app } => {
            let forgotten = targets::forget(&granted, &target, app.as_ref(), &mut sender).await;
            end(sender, forgotten).await;
        }
        Operation::UnassignTarget { target, app } => {
            let unassigned = targets::unassign(&granted, &target, app.as_ref(), &mut sender).await;
            end(sender, unassigned).await;
        }
        Operation::Rollouts { app, watch } => {
            let listed = rollouts::list(&granted, app.as_ref(), watch, &mut sender).await;
            end(sender, listed).await;
        }
        Operation::SteerRollout { rollout, how } => {
            let steered = rollouts::steer(&granted, rollout, how, &mut sender).await;
            end(sender, steered).await;
        }
        question => {
            let answered = query::answer(granted, question, &mut sender).await;
            end(sender, answered).await;
        }
    }
}

/// A destination that is named twice gets one delivery, an action that is named twice follows once.
fn each_destination_once(mut operation: Operation) -> Operation {
    if let Operation::PlanDelivery { destinations, .. } = &mut operation {
        let mut named = HashSet::new();
        destinations.retain(|destination| named.insert(destination.clone()));
    }
    if let Operation::Push(Open { destinations, then, .. })
    | Operation::Deliver { destinations, then, .. }
    | Operation::Promote { destinations, then, .. }
    | Operation::Rollback { destinations, then, .. } = &mut operation
    {
        let mut named = HashSet::new();
        destinations.retain(|destination| named.insert(destination.clone()));
        let mut named = HashSet::new();
        then.retain(|action| named.insert(action.clone()));
    }
    operation
}
