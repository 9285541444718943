//! What the halves of a pull need of the directory that is pulled into, and of the release that is pulled.

use std::sync::Arc;

use crate::transfer::Encoding;
use crate::wire::{PullRequest, Refusal};
use crate::{ContentView, Error, StorageView};
use format::manifest::{NodeRef, Root, SegmentName};
use format::pack::FrameKind;
use format::recipe::ChunkRef;
use format::record::Record;

/// The directory that is pulled into, and what was fetched before, as the agent's half sees them.
pub trait DirectoryView: StorageView {
    /// Takes the release that the proxy answers with.
    ///
    /// # Errors
    /// It is not the one that was asked for, or there is no room for it.
    fn announced(&mut self, record: &Record, root: &Root) -> Result<(), Refusal>;

    /// Returns the segment of each name that is here.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal>;

    /// Returns whether a segment that is here is to be given to keep: the tree is rebuilt from what was kept.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn is_unkept(&mut self, segment: &NodeRef) -> Result<bool, Refusal>;

    /// Returns whether executables are worth asking for: the link is slow, as making them takes both sides seconds.
    fn wants_executables(&self) -> bool {
        false
    }
}

/// How a payload is made that may serve many agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A patch.
    Patch,
    /// A relinked executable.
    Relinked,
}

/// The content of the release, as the proxy's half of a pull sees it.
pub trait ReleaseView: ContentView {
    /// Notes that the answer to a request begins.
    fn begin(&mut self, _: &PullRequest) {}

    /// Returns whether the agent still waits, and there is time for another executable.
    fn goes_on(&mut self) -> bool {
        true
    }

    /// Returns how content that resembles nothing is encoded for the agent's link.
    fn encoding(&mut self) -> Encoding {
        Encoding::LIGHT
    }

    /// Returns the payload of a frame of `chunks`, made now, or earlier for another agent that pulls at the same time.
    ///
    /// # Errors
    /// Those of `make`.
    fn frame(
        &mut self,
        kind: FrameKind,
        chunks: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Result<Vec<u8>, Error>,
    ) -> Result<Arc<Vec<u8>>, Error>
    where
        Self: Sized,
    {
        let _ = (kind, chunks);
        make(self).map(Arc::new)
    }

    /// Returns the payload of a parcel of `chunks` alone, made now or earlier, for this agent or another.
    ///
    /// # Errors
    /// Those of `make`, which the payload is then not cached for.
    fn parcel(
        &mut self,
        chunks: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Result<Vec<u8>, Error>,
    ) -> Result<Arc<Vec<u8>>, Error>
    where
        Self: Sized,
    {
        let _ = chunks;
        make(self).map(Arc::new)
    }

    /// Returns the payload that encodes `new` against `old`, made now or earlier, for this agent or another. An empty one
    /// means that none pays, `None` that other heavy work did not end in time.
    fn payload(
        &mut self,
        method: Method,
        old: &[ChunkRef],
        new: &[ChunkRef],
        make: impl FnOnce(&mut Self) -> Option<Vec<u8>>,
    ) -> Option<Arc<Vec<u8>>>
    where
        Self: Sized,
    {
        let _ = (method, old, new);
        Some(Arc::new(make(self).unwrap_or_default()))
    }
}
