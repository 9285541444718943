//! A release in a store of this machine, as the input of a push: nothing is scanned, hashed or unpacked again.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::base::Base;
use super::earlier::{Earlier, StoredManifest};
use super::source::Scanned;
use crate::agent::Result;
use crate::agent::chunk_cache::ChunkCache;
use crate::agent::scan::{StoredScan, list_stored};
use crate::restore::SharedSource;
use format::manifest::{NodeRef, Root};

/// A release in a store, and what the proxy is known to have of it.
#[derive(Clone)]
pub struct StoredRelease {
    /// The release's root.
    pub root: Root,
    /// Holds its chunks, and those of `base`.
    pub source: Arc<dyn SharedSource>,
    /// A release of the application that the proxy confirmed, and that is still stored here.
    pub base: Option<Root>,
    /// True if an earlier push of this release broke off: the proxy has some of its chunks, which are not sent unasked.
    pub was_cut: bool,
}

impl fmt::Debug for StoredRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRelease").field("release", &self.root.release()).finish_non_exhaustive()
    }
}

impl StoredRelease {
    /// Lists the release. Blocks.
    ///
    /// # Errors
    /// Its manifest cannot be read.
    pub(super) fn scanned(&self) -> Result<Scanned> {
        let StoredScan { segments, spool, unpacked } = list_stored(&self.root, &self.source)?;
        let (root, dropped, seen) = (self.root.clone(), Vec::new(), Mutex::new(None));
        Ok(Scanned { root, segments, spool, unpacked, dropped, seen, memory: None, streams: None })
    }

    /// Returns the content that chunks are encoded against, and the base where it can be read. Blocks.
    pub(super) fn basis(&self, segments: &[NodeRef]) -> (Arc<ChunkCache>, Option<Base>) {
        let cache = Arc::new(ChunkCache::Stored(Arc::clone(&self.source)));
        let open = |root| StoredManifest::open(root, &self.source).ok();
        let earlier = self.base.as_ref().and_then(open).map(Earlier::Stored);
        let base = earlier.and_then(|earlier| Base::new(earlier, segments, Some(Arc::clone(&cache))));
        (cache, base)
    }
}
