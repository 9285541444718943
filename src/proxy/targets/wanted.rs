//! What a target is to show: what its group assigned to it, else its label's release, else the current one.

use std::sync::Arc;

use super::entered::Entered;
use super::resolved::Resolved;
use crate::net::blocking;
use crate::proxy::granted::Granted;
use crate::store::{self, Store};
use format::record::Record;
use format::target::Assignment;
use ground::faults::{Fault, Faulty as _};
use ground::ids::{AppName, Label, ReleaseId, Selector};
use protocol::wire::{Refusal, Wanted};

/// Returns what a target follows.
pub(super) fn followed(assigned: Option<&Assignment>, follows: Option<&Label>) -> Option<Label> {
    let of_release = |release: ReleaseId| release.to_string().parse().expect("64 digits are a word");
    assigned.map(|assigned| of_release(assigned.release)).or_else(|| follows.cloned())
}

/// Finds the record of what is followed; none where there is no such release. Blocks for the disk.
pub(super) fn find(store: &Store, app: &AppName, at: Option<Label>) -> store::Result<Option<Record>> {
    match store.select(&Selector { app: app.clone(), at }) {
        Ok(record) => Ok(Some(record)),
        Err(error) if matches!(error.fault(), Fault::Missing | Fault::Input) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what a target is to show after a number of moves; none where there is no such release.
pub(super) async fn wanted(
    granted: &Arc<Granted>,
    entered: &Entered,
    moves: u64,
) -> Result<Option<Wanted>, Refusal> {
    let assigned = entered.assigned();
    let at = followed(assigned.as_ref(), entered.follows.as_ref());
    let mut resolved = entered.resolved.lock().await;
    if resolved.moves < moves {
        *resolved = Resolved { moves, ..Resolved::default() };
    }
    let record = if let Some(record) = resolved.records.get(&at) {
        record.clone()
    } else {
        let (granted, app, wanted) = (Arc::clone(granted), entered.app().clone(), at.clone());
        let found = blocking::start(move || {
            find(&*granted.store()?, &app, wanted).map_err(|error| Refusal::of(&error))
        });
        let found = found.await.map_err(|error| Refusal::of(&error))??;
        resolved.records.insert(at, found.clone());
        found
    };
    Ok(record.map(|record| Wanted { record, assigned }))
}
