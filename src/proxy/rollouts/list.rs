//! Lists rollouts, and steers them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::super::audit::Entry;
use super::super::changes::{Changes, Next};
use super::super::granted::Granted;
use crate::net::blocking;
use crate::net::link::Sender;
use ground::ids::{AppName, DestinationName, RolloutId, UserName};
use protocol::token::Action;
use protocol::wire::{Answer, Refusal, RolloutSteering};

/// Rollouts in one message: with a thousand members that all failed for long reasons still below its bound.
const ROWS_PER_MESSAGE: usize = 1;

/// How long one that is aborted may take to end before its state is sent all the same.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Lists the rollouts of the space that the token may see and, if that is wanted, each change until the agent is gone.
///
/// # Errors
/// The text for the agent.
pub async fn list(
    granted: &Arc<Granted>,
    app: Option<&AppName>,
    watch: bool,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let (rollouts, space) = (&granted.shared.rollouts, &granted.grant.space);
    let is_wanted = |of: &AppName, group: &DestinationName, user: &UserName| {
        app.is_none_or(|app| app == of) && is_seen(granted, of, group, user)
    };
    let mut changes = Changes::new(granted, rollouts.watch());
    let mut is_empty = true;
    loop {
        let mut after = 0;
        loop {
            let page = rollouts.book.page(space, after, ROWS_PER_MESSAGE, |rollout| {
                is_wanted(&rollout.app, &rollout.group, &rollout.user)
            });
            let Some(last) = page.last() else { break };
            after = last.id.number;
            is_empty = false;
            granted.still_holds()?;
            if sender.send(&Answer::Rollouts(page)).await.is_err() {
                return Ok(());
            }
        }
        if let (true, Some(app)) = (is_empty, app) {
            // Who may push or promote sees their own rollouts.
            if ![Action::Push, Action::Promote].iter().any(|action| granted.grant.allows(*action, Some(app)))
            {
                granted.allow(Action::Read, Some(app))?;
            }
            granted.has_app(app).await?;
        }
        if !watch {
            return Ok(());
        }
        loop {
            let rows = match changes.next(sender).await? {
                Next::Change(change) => {
                    let (of_space, row) = &*change;
                    if of_space != space || !is_wanted(&row.app, &row.group, &row.user) {
                        continue;
                    }
                    vec![row.clone()]
                }
                Next::Alive => Vec::new(),
                Next::Missed => break,
                Next::Over => return Ok(()),
            };
            if sender.send(&Answer::Rollouts(rows)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Returns whether a token may see a rollout, of an application that it may read and a group that it may name, or of its own user
/// and an application that it may push or promote.
fn is_seen(granted: &Granted, app: &AppName, group: &DestinationName, user: &UserName) -> bool {
    let grant = &granted.grant;
    let allows = |action| grant.allows(action, Some(app));
    let is_own = *user == grant.user && (allows(Action::Push) || allows(Action::Promote));
    grant.target.is_none() && (is_own || (allows(Action::Read) && grant.allows_destination(group)))
}

/// Holds, resumes or ends a rollout, and answers with how far it is then.
///
/// # Errors
/// The text for the agent.
pub async fn steer(
    granted: &Arc<Granted>,
    id: RolloutId,
    how: RolloutSteering,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    let rollouts = &granted.shared.rollouts;
    let found = rollouts.book.get(id.number).filter(|it| {
        rollouts.book.id(id.number) == id
            && it.space == granted.grant.space
            && is_seen(granted, &it.app, &it.group, &it.user)
    });
    let rollout = found.ok_or_else(|| super::driver::missing(id))?;
    // Who began one by a push may stop it.
    let stops = matches!(how, RolloutSteering::Hold | RolloutSteering::Abort);
    let is_own = stops && rollout.user == granted.grant.user;
    if !(is_own && granted.grant.allows(Action::Push, Some(&rollout.app))) {
        granted.allow(Action::Promote, Some(&rollout.app))?;
    }
    granted.allow_destination(&rollout.group)?;
    let by = Arc::clone(granted);
    let mut changes = rollouts.watch();
    let steered = blocking::start(move || {
        by.still_holds()?;
        by.shared.rollouts.steer(id.number, how, &by.grant.user)?;
        let action = match how {
            RolloutSteering::Hold => "hold",
            RolloutSteering::Resume => "resume",
            RolloutSteering::Abort => "abort",
            RolloutSteering::Rollback => "rollback",
        };
        by.shared.audit.write(&Entry {
            destinations: std::slice::from_ref(&rollout.group),
            ..Entry::of(&by.grant, action, &rollout.app, rollout.release)
        });
        Ok::<_, Refusal>(())
    });
    steered.await.map_err(|error| Refusal::of(&error))??;
    let has_ended = || rollouts.book.get(id.number).is_none_or(|it| it.ended.is_some());
    let ends = async {
        // What it says of others counts as well: one that was missed is looked up.
        while !has_ended() && !matches!(changes.recv().await, Err(RecvError::Closed)) {}
    };
    if how == RolloutSteering::Abort {
        // Past this time it is said to be under way, as it is.
        drop(timeout(END_TIME_MAX, ends).await);
    }
    let is_it = |number: u64| number == id.number;
    let before = id.number.saturating_sub(1);
    let page = rollouts.book.page(&granted.grant.space, before, 1, |_| true);
    let page: Vec<_> = page.into_iter().filter(|status| is_it(status.id.number)).collect();
    drop(sender.send(&Answer::Rollouts(page)).await);
    Ok(())
}
