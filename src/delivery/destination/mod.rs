//! Places for complete copies. A destination knows nothing of chunks: it shows one whole release at a time.
//!
//! The queue, the proxy and the command line know only the trait [`Destination`]. Each kind is a private module here;
//! [`Definition`], a destination in a configuration, alone creates kinds.

mod bundle;
mod definition;
mod driver;
mod http;
mod directory;
mod error;
mod far_proxy;
mod exec;
mod job;
mod mistake;
mod objects;
mod preview;
mod s3;
mod secret;
mod template;
mod web;

pub use definition::{
    Content, Definition, Directory, KEEP_DEFAULT, Kept, OpenDirectory, SharedPath, Showing, Steps,
    check_shared, local,
};
pub(super) use driver::Driver;
pub use error::Error;
pub use job::{Check, Delivered, Job, Preview, ShownLog};
pub use mistake::Mistake;
pub use template::{PLACEHOLDER, Template};
pub(super) use web::{Client, ClientOptions, retry_after};

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use format::manifest::EntryPath;
use ground::ids::{AppName, DestinationName, ReleaseId};

/// Destinations by name.
pub type Destinations = BTreeMap<DestinationName, Arc<dyn Destination>>;

/// A named place that shows one whole release of an application at a time.
///
/// The contract of every kind (tests/it/destinations.rs tests it):
/// - **Whole releases.** A reader sees the release that was there before or the new one, at every moment and after a crash
///   at any moment; never a part of one, nor a mixture.
/// - **All or nothing.** A delivery that fails or is cancelled leaves what was shown, and nothing that a later delivery
///   does not remove.
/// - **Idempotent.** The same release delivered again is shown still. Where the place has it whole, nothing is written.
/// - **In any order.** A release may come back: r1, r2, r1.
/// - **Durable.** What [`Destination::deliver`] reports is there after a power failure.
/// - **Nothing of the user's is deleted** that whit did not put there.
/// - **One delivery at a time.** The queue makes one after another for each name; a kind that several names or processes
///   may reach locks its place, and fails with a fault that is tried again.
pub trait Destination: Send + Sync + Debug {
    /// Shows the job's release in place of what was shown before.
    ///
    /// # Errors
    /// Readers still see what they saw before.
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error>;

    /// Says what [`Destination::deliver`] would do, and changes nothing.
    ///
    /// # Errors
    /// Those that would fail a delivery already now.
    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error>;

    /// Tries what a delivery needs, for real: one step after another until one fails. Ends soon after `cancelled` is set, but for a file system that hangs.
    fn check(&self, cancelled: &AtomicBool) -> Vec<Check>;

    /// Returns the kind's name in a definition.
    fn kind(&self) -> &'static str;

    /// Returns a hash of what else than the release decides what is shown, like metadata by pattern; zeros where nothing does.
    fn rules(&self) -> [u8; 32] {
        [0; 32]
    }

    /// Returns the complete copies of a release that are kept here, the best first; none if the service cannot be read.
    fn read_back(&self, app: &AppName, release: &ReleaseId) -> Vec<Box<dyn KeptCopy>>;

    /// Returns a folder of this machine with the files that readers of the application see, whoever put them there: the one in
    /// which the kind has them, or the one of `space`, which is empty, and to which it copies them, with so many bytes left free
    /// beside it; none where it cannot list them.
    ///
    /// # Errors
    /// There is nothing, it cannot be read, or `cancelled` is set.
    fn held(
        &self,
        _: &AppName,
        _space: (&Path, u64),
        _cancelled: &AtomicBool,
    ) -> Result<Option<PathBuf>, Error> {
        Ok(None)
    }

    /// Returns the place of an application's copies, for people; without an application, the place with `{app}` in it. Equal
    /// at every call, and without secrets.
    fn describe(&self, app: Option<&AppName>) -> String;

    /// Returns the folders of this machine that the copies lie in, so that none overlaps another or the proxy's data. A
    /// definition gives them by the key `path`.
    fn folders(&self) -> &[Template] {
        &[]
    }
}

/// A complete copy of a release that a destination keeps. Somebody may have changed it since it was delivered.
pub trait KeptCopy {
    /// Returns `bytes` bytes of the artifact at `path` from `offset` on; none if the copy lacks them. Nothing is verified.
    fn read(&self, path: &EntryPath, offset: u64, bytes: u32) -> Option<Vec<u8>>;
}
