//! A release as one object.

use super::super::bundle::Bundle;
use super::super::{Delivered, Error, Job, Preview};
use super::place::Place;
use super::service::{Content, Object, Source};
use ground::escape;

/// Makes the place show the job's release as one object, unless the ledger says that it does.
///
/// # Errors
/// The service does not take it, or the probe does not find it.
pub fn deliver(place: &Place<'_>, job: &Job<'_>, bundle: Bundle) -> Result<Delivered, Error> {
    let key = place.bundle_key;
    let (files, bytes) = (job.root.totals.files, job.root.totals.bytes);
    let shown = Delivered { place: place.service.describe(key), files, bytes, ..Delivered::default() };
    let shown = Delivered { kept: vec![job.release()], ..shown };
    let log = job.shown.shown();
    let current = log.current().filter(|entry| entry.release == job.release() && *entry.rules == place.rules);
    // A later delivery that did not end may have replaced it.
    let is_alone = log.partial().all(|entry| entry.delivery == job.id.number);
    if current.is_some() && is_alone {
        place.probe(job)?;
        return Ok(Delivered { reused_bytes: bytes, already: true, ..shown });
    }
    if let Some(reason) = place.service.refuses(key) {
        return Err(Error::KeyName { path: escape::text(key), reason });
    }
    let begun = place.service.requests();
    let metadata = place.options.metadata_of(key);
    let object = Object { key, size: None, metadata: &metadata };
    let mut content = Content::unsent(Source::Bundle(bundle, job), job.cancelled);
    let stored = place.service.put(&object, &mut content)?;
    let object = Object { size: Some(stored.bytes), ..object };
    if !place.service.verify(&object, &stored, &mut content)? {
        return Err(Error::Unverified(place.service.describe(key)));
    }
    place.probe(job)?;
    let requests = place.service.requests() - begun;
    Ok(Delivered { sent_bytes: stored.bytes, requests, ..shown })
}

/// Says what [`deliver`] would do.
pub fn plan(place: &Place<'_>, job: &Job<'_>) -> Preview {
    let key = place.bundle_key;
    let object = (escape::text(&place.service.describe(key)), job.root.totals.bytes);
    let log = job.shown.shown();
    let is_shown =
        log.current().is_some_and(|entry| entry.release == job.release() && *entry.rules == place.rules);
    let (put, keep) = if is_shown { (Vec::new(), vec![object]) } else { (vec![object], Vec::new()) };
    Preview { put, keep, delete: Vec::new() }
}
