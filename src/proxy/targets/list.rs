//! Lists targets, and follows their changes.

use std::sync::Arc;

use super::wanted::{find, selector_of};
use crate::net::blocking;
use crate::net::link::Sender;
use crate::proxy::changes::{Changes, Next};
use crate::proxy::granted::Granted;
use ground::ids::{AppName, SpaceName};
use protocol::token::Action;
use protocol::wire::{Answer, ListedTarget, Refusal, TargetStatus};

/// Targets in one message: with reports of the longest kind still below its bound.
const ROWS_PER_MESSAGE: usize = 64;
/// The most labels of a target's release in its row.
const LABELS_PER_ROW: usize = 16;

/// Lists the targets that the token may see and, if that is wanted, each change until the agent is gone.
///
/// # Errors
/// The text for the agent.
pub(in crate::proxy) async fn list(
    granted: &Arc<Granted>,
    app: Option<&AppName>,
    watch: bool,
    sender: &mut Sender,
) -> Result<(), Refusal> {
    granted.allow(Action::Read, app)?;
    let mut changes = Changes::new(granted, granted.shared.targets.changes());
    loop {
        let (by, wanted) = (Arc::clone(granted), app.cloned());
        let all = blocking::start(move || all(&by, wanted.as_ref()));
        let all = all.await.map_err(|error| Refusal::of(&error))??;
        if let (true, Some(app)) = (all.is_empty(), app) {
            granted.has_app(app).await?;
        }
        for page in all.chunks(ROWS_PER_MESSAGE) {
            granted.still_holds()?;
            if sender.send(&Answer::Targets(page.to_vec())).await.is_err() {
                return Ok(());
            }
        }
        if !watch {
            return Ok(());
        }
        loop {
            let mut statuses = Vec::new();
            match changes.next(sender).await? {
                Next::Change(change) => {
                    statuses.extend(seen(granted, app, &change));
                    while statuses.len() < ROWS_PER_MESSAGE
                        && let Some(change) = changes.more()
                    {
                        statuses.extend(seen(granted, app, &change));
                    }
                    if statuses.is_empty() {
                        continue;
                    }
                }
                Next::Alive => {}
                Next::Missed => break,
                Next::Over => return Ok(()),
            }
            let by = Arc::clone(granted);
            let rows = blocking::start(move || rows(&by, statuses));
            let rows = rows.await.map_err(|error| Refusal::of(&error))??;
            if sender.send(&Answer::Targets(rows)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Returns a target that changed, if the token may see it.
fn seen(
    granted: &Granted,
    app: Option<&AppName>,
    (space, status): &(SpaceName, TargetStatus),
) -> Option<TargetStatus> {
    let is_seen = *space == granted.grant.space
        && app.is_none_or(|app| *app == status.app)
        && granted.grant.allows(Action::Read, Some(&status.app));
    is_seen.then(|| status.clone())
}

/// Returns all targets of an application, or of all, that the token may see.
fn all(granted: &Granted, app: Option<&AppName>) -> Result<Vec<ListedTarget>, Refusal> {
    let mut statuses = Vec::new();
    for app in apps(granted, app, Action::Read)? {
        let known = granted.shared.targets.known(&granted.grant.space, &app);
        statuses.extend(known.map_err(|error| Refusal::of(&error))?);
    }
    rows(granted, statuses)
}

/// Returns the applications that are meant and that the token allows.
pub(super) fn apps(
    granted: &Granted,
    app: Option<&AppName>,
    action: Action,
) -> Result<Vec<AppName>, Refusal> {
    if let Some(app) = app {
        return Ok(vec![app.clone()]);
    }
    let apps = granted.shared.targets.apps_of(&granted.grant.space);
    let mut apps = apps.map_err(|error| Refusal::of(&error))?;
    apps.retain(|app| granted.grant.allows(action, Some(app)));
    Ok(apps)
}

/// Returns targets with what is said of their releases.
pub(super) fn rows(granted: &Granted, statuses: Vec<TargetStatus>) -> Result<Vec<ListedTarget>, Refusal> {
    if statuses.is_empty() {
        return Ok(Vec::new());
    }
    let store = granted.store()?;
    let row = |status: TargetStatus| {
        let TargetStatus { app, known, .. } = &status;
        let labels = known.report.shown.map(|shown| store.records().labels(app, &shown));
        let mut labels = labels.unwrap_or_default();
        labels.truncate(LABELS_PER_ROW);
        let find = |at| find(&store, app, at).map_err(|error| Refusal::of(&error));
        let mut wants = match &known.assigned {
            Some(assigned) => find(Some(selector_of(assigned)))?,
            None => None,
        };
        if wants.is_none() {
            wants = find(known.follows.clone())?;
        }
        let wants = wants.map(|record| record.release);
        Ok(ListedTarget { labels, wants, status })
    };
    statuses.into_iter().map(row).collect()
}
