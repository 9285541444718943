//! Releases as objects of a service, one for each file: what `http` and `s3` share.
//!
//! A reader that polls never meets a name that is not there yet: new files come first, then changed ones, then entry points;
//! each class is verified before the next begins, and deletions come last. What only older releases have stays as long as the
//! options say. Which objects are there is known from the ledger; where that knows nothing, they are compared instead of
//! written again.

mod bundled;
mod check;
mod decisions;
mod journal;
mod keys;
mod options;
mod publish;
mod service;

pub use bundled::{deliver_bundle, plan_bundle};
pub use check::check;
pub use keys::deserialize;
pub use options::Options;
pub use publish::{Place, deliver, plan};
pub use service::{Content, Listing, Metadata, Object, Service, Stored};
