//! What a target is to show: what its group assigned to it, else its label's release, else the current one.

use std::sync::Arc;

use super::resolved::Resolved;
use super::target_stream::TargetStream;
use crate::net::blocking;
use crate::proxy::granted::Granted;
use crate::store::{self, Store};
use format::record::Record;
use format::target::Assignment;
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, Label, Selector};
use protocol::wire::{Refusal, Wanted};

/// Returns the selector of an assigned release.
pub(super) fn selector_of(assigned: &Assignment) -> Label {
    assigned.release.to_string().parse().expect("64 digits are a word")
}

/// Finds the record of what is followed; none where there is no such release. Blocks for the disk.
pub(in crate::proxy) fn find(
    store: &Store,
    app: &AppName,
    at: Option<Label>,
) -> store::Result<Option<Record>> {
    match store.select(&Selector { app: app.clone(), at }) {
        Ok(record) => Ok(Some(record)),
        Err(error) if matches!(error.fault(), Fault::Missing | Fault::Input) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what a target is to show after a number of moves; none where there is no such release.
pub(super) async fn wanted(
    granted: &Arc<Granted>,
    target_stream: &TargetStream,
    moves: u64,
) -> Result<Option<Wanted>, Refusal> {
    let mut resolved = target_stream.resolved.lock().await;
    if resolved.moves < moves {
        *resolved = Resolved { moves, ..Resolved::default() };
    }
    if let Some(assigned) = target_stream.assigned() {
        if let Some(record) =
            resolve(granted, target_stream.app(), Some(selector_of(&assigned)), &mut resolved).await?
        {
            target_stream.has_releases();
            return Ok(Some(Wanted { record, assigned: Some(assigned) }));
        }
        let (app, release) = (target_stream.app(), assigned.release.short());
        tracing::warn!(%app, group = %assigned.group, %release, "the release of a group is gone: its target shows what it follows");
    }
    let record = resolve(granted, target_stream.app(), target_stream.follows.clone(), &mut resolved).await?;
    if resolved.has_releases {
        target_stream.has_releases();
    }
    Ok(record.map(|record| Wanted { record, assigned: None }))
}

/// Finds the record of what is followed, unless somebody has since the last move.
async fn resolve(
    granted: &Arc<Granted>,
    app: &AppName,
    at: Option<Label>,
    resolved: &mut Resolved,
) -> Result<Option<Record>, Refusal> {
    if let Some(record) = resolved.records.get(&at) {
        return Ok(record.clone());
    }
    let (granted, app, wanted) = (Arc::clone(granted), app.clone(), at.clone());
    let found = blocking::start(move || {
        let store = granted.store()?;
        let found = find(&store, &app, wanted).map_err(|error| Refusal::of(&error))?;
        Ok::<_, Refusal>((found, store.records().latest(&app).is_some()))
    });
    let (found, has_releases) = found.await.map_err(|error| Refusal::of(&error))??;
    resolved.has_releases = has_releases;
    resolved.note(at, found.clone());
    Ok(found)
}
