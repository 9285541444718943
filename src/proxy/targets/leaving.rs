//! Forgets targets that are gone, and takes others out of the word of a group that they have left.

use std::sync::Arc;

use super::list::{apps, rows};
use crate::net::blocking;
use crate::net::link::Sender;
use crate::proxy::audit::Entry;
use crate::proxy::granted::Granted;
use ground::faults::Fault;
use ground::ids::{AppName, TargetName};
use protocol::token::Action;
use protocol::wire::{Answer, ListedTarget, Refusal, TargetStatus};

/// What is done to a target, of an application or of all; returns what is known of it.
type Leaving = fn(&Granted, &TargetName, Option<&AppName>) -> Result<Vec<ListedTarget>, Refusal>;

/// Forgets a target that is gone, and answers with what was known of it.
///
/// # Errors
/// The text for the agent.
pub(in crate::proxy) async fn forget(
    granted: &Arc<Granted>,
    target: &TargetName,
    app: Option<&AppName>,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    leave(granted, target, app, sender, remove).await
}

/// Lets a target want its label or the current release again, and answers with what is known of it then.
///
/// # Errors
/// The text for the agent.
pub(in crate::proxy) async fn unassign(
    granted: &Arc<Granted>,
    target: &TargetName,
    app: Option<&AppName>,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    leave(granted, target, app, sender, take_out).await
}

/// Lets go of a target, by `how`, and answers with what that returns.
async fn leave(
    granted: &Arc<Granted>,
    target: &TargetName,
    app: Option<&AppName>,
    sender: &mut Sender,
    how: Leaving,
) -> Result<(), Refusal> {
    granted.allow(Action::Deliver, app)?;
    let (by, target, app) = (Arc::clone(granted), target.clone(), app.cloned());
    let left = blocking::start(move || how(&by, &target, app.as_ref()));
    let left = left.await.map_err(|error| Refusal::of(&error))??;
    drop(sender.send(&Answer::Targets(left)).await);
    Ok(())
}

/// Returns what is known of a target, of each application that is meant and that the token may deliver.
fn find(granted: &Granted, target: &TargetName, app: Option<&AppName>) -> Result<Vec<TargetStatus>, Refusal> {
    let (targets, space) = (&granted.shared.targets, &granted.grant.space);
    let mut found = Vec::new();
    for app in apps(granted, app, Action::Deliver)? {
        let known = targets.known(space, &app).map_err(|error| Refusal::of(&error))?;
        found.extend(known.into_iter().filter(|status| status.target == *target));
    }
    if found.is_empty() {
        let text = format!("there is no target `{target}`");
        let hint = Some("`whit targets` lists what there is".to_owned());
        return Err(Refusal { fault: Fault::Missing, text, hint });
    }
    Ok(found)
}

fn remove(
    granted: &Granted,
    target: &TargetName,
    app: Option<&AppName>,
) -> Result<Vec<ListedTarget>, Refusal> {
    let (targets, space) = (&granted.shared.targets, &granted.grant.space);
    let found = find(granted, target, app)?;
    let watches = |status: &TargetStatus| Refusal {
        fault: Fault::Input,
        text: format!("target `{target}` watches `{}` now", status.app),
        hint: Some(
            "end its `whit pull --watch`, or revoke its token (`whit token revoke`), first".to_owned(),
        ),
    };
    if let Some(status) = found.iter().find(|status| status.reachable) {
        return Err(watches(status));
    }
    for status in &found {
        if !targets.remove(space, &status.app, target).map_err(|error| Refusal::of(&error))? {
            return Err(watches(status));
        }
        if let Some(release) = status.known.report.shown {
            granted.shared.audit.write(&Entry::of(&granted.grant, "forget", &status.app, release));
        }
    }
    rows(granted, found)
}

fn take_out(
    granted: &Granted,
    target: &TargetName,
    app: Option<&AppName>,
) -> Result<Vec<ListedTarget>, Refusal> {
    let (targets, rollouts) = (&granted.shared.targets, &granted.shared.rollouts);
    let space = &granted.grant.space;
    let refused = |text: String, hint: String| Refusal { fault: Fault::Input, text, hint: Some(hint) };
    let mut found = find(granted, target, app)?;
    // It would be told again as soon as it connects, or the group rolls out.
    if let Some(group) = rollouts.group_of(target) {
        let text = format!("target `{target}` is in group `{group}`");
        return Err(refused(text, "take it out of the group in the proxy's configuration first".to_owned()));
    }
    for status in &found {
        if let Some(id) = rollouts.under_way_with(space, &status.app, target) {
            let text = format!("rollout {id} counts target `{target}`");
            return Err(refused(text, format!("wait for its end, or `whit rollouts abort {id}`")));
        }
    }
    for status in &mut found {
        let Some(assigned) = status.known.assigned.take() else { continue };
        let told = targets.assign(space, &status.app, &[(target.clone(), None)]);
        told.map_err(|error| Refusal::of(&error))?;
        let entry = Entry::of(&granted.grant, "unassign", &status.app, assigned.release);
        granted.shared.audit.write(&Entry { destinations: std::slice::from_ref(&assigned.group), ..entry });
    }
    rows(granted, found)
}
