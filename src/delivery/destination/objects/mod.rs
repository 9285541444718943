//! Releases as objects of a service, one for each file: what `http` and `s3` share.
//!
//! A reader that polls never meets a name that is not there yet: new files come first, then changed ones, then entry points;
//! each class is verified before the next begins, and deletions come last. What only older releases have stays as long as the
//! options say. Which objects are there is known from the ledger; where that knows nothing, they are compared instead of
//! written again.

mod bundled;
mod check;
mod copy;
mod decisions;
mod journal;
mod keys;
mod options;
mod place;
mod publish;
mod service;

pub use check::check;
pub use copy::copy;
pub use keys::deserialize;
pub use options::Options;
pub use place::Place;
pub use service::{Content, Listing, Metadata, Object, Service, Stored};

use super::{Delivered, Error, Job, Preview};

/// Makes the place show the job's release, as objects or as one bundle.
///
/// # Errors
/// As of each form. Trying again goes on where this try came to.
pub fn deliver(place: &Place<'_>, job: &Job<'_>) -> Result<Delivered, Error> {
    match place.options.bundle {
        None => publish::deliver(place, job),
        Some(bundle) => bundled::deliver(place, job, bundle),
    }
}

/// Says what [`deliver`] would do.
///
/// # Errors
/// As of [`deliver`].
pub fn plan(place: &Place<'_>, job: &Job<'_>) -> Result<Preview, Error> {
    match place.options.bundle {
        None => publish::plan(place, job),
        Some(_) => Ok(bundled::plan(place, job)),
    }
}
