//! The stream of a target that watches: it says what it does, and hears what it is to show.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::target_stream::TargetStream;
use super::wanted::wanted;
use crate::net::blocking;
use crate::net::link::{Receiver, Sender};
use crate::proxy::current_token::checks;
use crate::proxy::granted::Granted;
use crate::proxy::stopping::stopping;
use crate::proxy::{end, owner};
use ground::faults::Fault;
use ground::ids::TargetName;
use ground::limits::{
    TARGET_ALIVE_EVERY, TARGET_MESSAGE_BYTES_MAX, TARGET_OUTPUT_BYTES_MAX, TARGET_REASON_BYTES_MAX,
};
use protocol::token::Action;
use protocol::wire::{FromTarget, Refusal, ToTarget, Wanted, Watching};

/// Bytes of the version that a target says it has.
const VERSION_BYTES_MAX: usize = 64;
/// The least time between two messages that are taken: who sends more waits.
const MESSAGE_EVERY: Duration = Duration::from_millis(100);

/// Serves a target until it is gone, another stream takes its place, or the proxy stops.
pub(in crate::proxy) async fn serve(
    granted: Arc<Granted>,
    watching: Watching,
    mut sender: Sender,
    receiver: Receiver,
) {
    let receiver = receiver.with_message_max(TARGET_MESSAGE_BYTES_MAX);
    let watched = watch(&granted, watching, &mut sender, receiver).await;
    end(sender, watched).await;
}

async fn watch(
    granted: &Arc<Granted>,
    watching: Watching,
    sender: &mut Sender,
    mut receiver: Receiver,
) -> Result<(), Refusal> {
    let shared = &granted.shared;
    let mut stops = shared.targets.stopping();
    let target = target_of(granted)?.clone();
    granted.allow(Action::Pull, Some(&watching.app))?;
    check(&watching)?;
    let share = shared.targets.watchers.take(&owner(&granted.grant), 1);
    let _share = share.ok_or_else(|| too_many(granted))?;
    let mut target_stream = enter(granted, &target, watching).await?;
    let mut checks = checks();
    let mut alive = interval(TARGET_ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (replaced, told) = (Arc::clone(&target_stream.replaced), Arc::clone(&target_stream.told));
    let (mut heard, mut taken) = (Instant::now(), Instant::now());
    let mut last: Option<Wanted> = None;
    loop {
        let moves = *target_stream.moves.borrow_and_update();
        let next = wanted(granted, &target_stream, moves).await?;
        if let Some(next) = next.filter(|next| last.as_ref().is_none_or(|last| !is_same(last, next))) {
            if sender.send(&ToTarget::Wanted(Box::new(next.clone()))).await.is_err() {
                return Ok(());
            }
            last = Some(next);
        }
        loop {
            let is_due = Instant::now() >= taken;
            tokio::select! {
                changed = target_stream.moves.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    break;
                }
                () = told.notified() => break,
                message = receiver.receive::<FromTarget>(), if is_due => {
                    heard = Instant::now();
                    taken = heard + MESSAGE_EVERY;
                    match message {
                        Ok(Some(FromTarget::Report(report))) => {
                            check_report(report.is_bounded())?;
                            target_stream.report(*report);
                        }
                        Ok(Some(FromTarget::Alive)) => target_stream.alive(),
                        Ok(Some(FromTarget::Renew(token))) => granted.renew(&token)?,
                        Ok(None) => return Ok(()),
                        Err(error) => return Err(Refusal::of(&error)),
                    }
                }
                () = sleep_until(taken), if !is_due => {}
                _ = alive.tick() => {
                    if sender.send(&ToTarget::Alive).await.is_err() {
                        return Ok(());
                    }
                }
                () = sleep_until(heard + shared.target_patience) => {
                    let text = format!("nothing was heard for {} s", shared.target_patience.as_secs());
                    return Err(Refusal { fault: Fault::Retry, text, hint: None });
                }
                () = replaced.notified() => {
                    let text = format!("a newer stream of target `{target}` took the place of this one");
                    return Err(Refusal { fault: Fault::Retry, text, hint: None });
                }
                _ = checks.tick() => granted.still_holds()?,
                () = stops.begun() => return Err(stopping()),
            }
        }
    }
}

/// Says that the proxy stops.
/// Returns the target that the token is of.
fn target_of(granted: &Granted) -> Result<&TargetName, Refusal> {
    granted.grant.target.as_ref().ok_or_else(|| Refusal {
        fault: Fault::Denied,
        text: "the token is of no target".to_owned(),
        hint: Some("ask the proxy's admin for one that is (`whit token create --target NAME`)".to_owned()),
    })
}

/// Checks the lengths of what a target says at the beginning.
fn check(watching: &Watching) -> Result<(), Refusal> {
    if watching.version.len() > VERSION_BYTES_MAX {
        let found = watching.version.len();
        let text = format!("the target's version has {found} B, expected at most {VERSION_BYTES_MAX} B");
        return Err(Refusal { fault: Fault::Input, text, hint: None });
    }
    check_report(watching.report.is_bounded())
}

fn check_report(is_bounded: bool) -> Result<(), Refusal> {
    if is_bounded {
        return Ok(());
    }
    let text = format!(
        "the target's report is too long: expected at most {TARGET_REASON_BYTES_MAX} B of a reason, \
         {TARGET_OUTPUT_BYTES_MAX} B of output"
    );
    Err(Refusal { fault: Fault::Input, text, hint: None })
}

fn too_many(granted: &Granted) -> Refusal {
    let held = granted.shared.targets.watchers.held_by(&owner(&granted.grant));
    let user = &granted.grant.user;
    let text = format!("user `{user}` has {held} targets that watch, the limit while others need some");
    Refusal { fault: Fault::Retry, text, hint: None }
}

/// Notes the stream, and gives a target without an assignment what its group has.
async fn enter(
    granted: &Arc<Granted>,
    target: &TargetName,
    watching: Watching,
) -> Result<TargetStream, Refusal> {
    let (space, app) = (&granted.grant.space, &watching.app);
    let targets = &granted.shared.targets;
    let is_assigned = targets.is_loaded(space, app) && targets.assigned(space, app, target).is_some();
    if !is_assigned {
        let (granted, app, target) = (Arc::clone(granted), app.clone(), target.clone());
        let joined = blocking::start(move || {
            let (targets, space) = (&granted.shared.targets, &granted.grant.space);
            targets.join(space, &app, &target).map_err(|error| Refusal::of(&error))
        });
        joined.await.map_err(|error| Refusal::of(&error))??;
    }
    TargetStream::begin(targets, space, target, watching).map_err(|error| Refusal::of(&error))
}

/// Returns whether nothing is new to the target.
fn is_same(last: &Wanted, next: &Wanted) -> bool {
    (last.record.release, &last.assigned) == (next.record.release, &next.assigned)
}
