//! A release that the proxy has from an earlier push: remembered from a scan, or in a store of this machine.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::agent::memory::Memory;
use crate::agent::{Error, Result};
use crate::restore::{ChunkReader, SharedSource, leaves};
use format::manifest::{NodeRef, Root, SegmentIndex};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::poison::Unpoisoned as _;

/// A release that the proxy has from an earlier push.
#[derive(Debug)]
pub enum Earlier {
    /// In the memory of the last push.
    Remembered(Arc<Memory>),
    /// In a store.
    Stored(StoredManifest),
}

impl Earlier {
    /// Returns the root of its manifest.
    pub fn root(&self) -> ChunkId {
        match self {
            Self::Remembered(memory) => memory.root().id(),
            Self::Stored(stored) => stored.root,
        }
    }

    /// Returns its segments, in order.
    pub fn segments(&self) -> &[NodeRef] {
        match self {
            Self::Remembered(memory) => memory.segments(),
            Self::Stored(stored) => &stored.segments,
        }
    }

    /// Returns the bytes of one of its segments.
    ///
    /// # Errors
    /// The segment cannot be read, or is damaged.
    pub fn segment(&self, index: SegmentIndex) -> Result<Vec<u8>> {
        match self {
            Self::Remembered(memory) => Ok(memory.segment(index)?),
            Self::Stored(stored) => stored.segment(index),
        }
    }
}

/// The manifest of a release in a store. Memory: 36 B for each segment, and some MB of decoded frames.
pub struct StoredManifest {
    root: ChunkId,
    segments: Vec<NodeRef>,
    reader: Mutex<Box<dyn ChunkReader + Send>>,
}

impl fmt::Debug for StoredManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredManifest").field("root", &self.root).finish_non_exhaustive()
    }
}

impl StoredManifest {
    /// Lists the segments of a stored release.
    ///
    /// # Errors
    /// A part of the manifest cannot be read, or is damaged.
    pub fn open(root: &Root, source: &Arc<dyn SharedSource>) -> Result<Self> {
        let mut reader = Arc::clone(source).shared_reader();
        let segments = leaves(root, &mut *reader)?;
        Ok(Self { root: root.id(), segments, reader: Mutex::new(reader) })
    }

    fn segment(&self, index: SegmentIndex) -> Result<Vec<u8>> {
        let NodeRef { id, bytes } = self.segments[usize::from(index)];
        let mut segment = Vec::new();
        let read = self.reader.lock().unpoisoned().read(&ChunkRef { id, bytes }, &mut segment);
        read.map_err(|error| Error::Rebuild(error.into())).map(|()| segment)
    }
}
