//! The parts of a store that may be outside its own folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::blobs::{Blobs, LocalBlobs};
use super::layout;
use crate::ledger::{FileLedger, Ledger};
use ground::ids::SpaceName;

/// The parts of a store outside its own folder, which has open packs, the index and caches.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its sealed packs.
    pub blobs: Arc<dyn Blobs>,
    /// Its records, pins and leases ...
    pub ledger: Arc<dyn Ledger>,
    /// ... under this name.
    pub space: SpaceName,
}

impl Backend {
    /// Sealed packs in a store's folder; its records, pins and leases in a ledger.
    pub fn new(folder: &Path, ledger: Arc<dyn Ledger>, space: SpaceName) -> Self {
        Self { blobs: Arc::new(LocalBlobs::new(folder.join(layout::PACKS))), ledger, space }
    }

    /// All in the folder of a store that stands alone. Its leases lapse by the clock `now`.
    pub fn in_folder(folder: &Path, now: fn() -> Instant) -> Self {
        Self::new(folder, Arc::new(FileLedger::of_space(folder, now)), "alone".parse().expect("a word"))
    }
}
