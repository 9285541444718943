//! Fills the cache with what a destination holds: read, cut and stored here, as a push of it into the cache would.

use std::sync::atomic::Ordering;

use super::Granted;
use super::audit::Entry;
use super::taking::{Error, Taking};
use crate::agent::scan::{Archives, Reader, Selection};
use format::chunking::Profile;
use ground::faults::{Fault, Faulty};
use ground::ids::{AppName, DestinationName};
use ground::monitor::Silent;
use protocol::token::Action;
use protocol::wire::{Primed, Refusal};

/// Workers that read and cut files: a proxy serves pushes meanwhile.
const THREADS: usize = 1;

/// Takes what a destination holds of an application into the cache.
///
/// Time O(bytes held). Memory: as a scan. It makes no release: nobody can pull it.
///
/// # Errors
/// The token does not allow it, the destination cannot be read back, or the disk's.
pub fn prime(granted: &Granted, app: &AppName, destination: &DestinationName) -> Result<Primed, Refusal> {
    granted.allow(Action::Push, Some(app))?;
    granted.allow_destination(destination)?;
    let refusal = |error: &dyn Faulty| Refusal::of(error);
    let shared = &granted.shared;
    let place = shared.destinations.get(destination).ok_or_else(|| Refusal {
        fault: Fault::Missing,
        text: format!("there is no destination `{destination}`"),
        hint: Some("`whit destinations` lists those that the token allows".to_owned()),
    })?;
    let store = granted.store()?;
    store.check_cache().map_err(|error| refusal(&error))?;
    // Not where the system has its temporary files, which may be in memory.
    let (scratch, reserve_bytes) = store.scratch().map_err(|error| refusal(&error))?;
    let space = tempfile::tempdir_in(scratch).map_err(|source| refusal(&Error::Space(source)))?;
    let held = place.held(app, (space.path(), reserve_bytes), &shared.stopping);
    let folder = held.map_err(|error| match error.fault() {
        Fault::Missing => Refusal {
            text: format!("destination `{destination}` holds nothing of `{app}`"),
            hint: Some("give a directory that holds an older copy: `whit prime APP DIR`".to_owned()),
            ..refusal(&error)
        },
        _ => refusal(&error),
    })?;
    let folder = folder.ok_or_else(|| Refusal {
        fault: Fault::Input,
        text: format!("destination `{destination}`, of kind {}, cannot list what it has", place.kind()),
        hint: Some("give a directory that has the same files: `whit prime APP DIR`".to_owned()),
    })?;
    let selection = Selection { needs_files: true, ..Selection::everything() };
    let archives = Archives::leaving(scratch.to_owned(), reserve_bytes);
    let reader = Reader {
        selection: &selection,
        profile: Profile::DEFAULT,
        threads: THREADS,
        memory: None,
        archives: Some(&archives),
        on_segment: None,
        monitor: &Silent,
    };
    let primed = (|| {
        let scan = reader.scan(&folder)?;
        let mut taking = Taking::begin(&store)?;
        let is_stopping = || shared.stopping.load(Ordering::Relaxed);
        taking.take(&scan, is_stopping)?;
        store.sync()?;
        Ok((scan.root, taking))
    })();
    let (root, taking) = primed.map_err(|error: Error| refusal(&error))?;
    granted.still_holds()?;
    if !taking.lease.renew() {
        return Err(refusal(&Error::Lapsed));
    }
    let (release, totals) = (root.release(), root.totals);
    let until = store.cache(app, &root.id(), &granted.grant.user, [totals.bytes, 0]);
    let until = until.map_err(|error| refusal(&error))?;
    store.sketches().flush();
    let destinations = std::slice::from_ref(destination);
    shared.audit.write(&Entry { destinations, ..Entry::of(&granted.grant, "prime", app, release) });
    let (files, bytes, unseen_bytes) = (totals.files, totals.bytes, taking.unseen_bytes);
    Ok(Primed { release, files, bytes, unseen_bytes, until })
}
