//! The part of a space that a token may read: the releases of its applications.

use std::collections::{HashMap, HashSet};

use crate::restore::ChunkReader;
use crate::store::Store;
use format::manifest::{self, NodeRef, Root, SegmentName};
use format::recipe::ChunkRef;
use ground::ids::{AppName, ChunkId};
use ground::limits::READABLE_CHUNKS_MAX;
use ground::pattern::Pattern;
use protocol::token::Grant;

/// The applications that a token may read.
#[derive(Debug, Clone, Default)]
pub struct ReadScope {
    /// The applications; none for all present and future ones.
    applications: Option<Vec<Pattern>>,
}

impl ReadScope {
    /// Returns the applications that a grant allows.
    pub fn of(grant: &Grant) -> Self {
        let all = grant.has_all_applications();
        Self { applications: (!all).then(|| grant.applications.clone()) }
    }

    /// Returns whether the token may read the whole space.
    pub fn is_whole(&self) -> bool {
        self.applications.is_none()
    }

    /// Returns whether the manifest with this root is one of a release that the token may read.
    pub fn has_manifest(&self, store: &Store, root: &Root) -> bool {
        let (records, release) = (store.records(), root.release());
        let is_made_by = || records.roots(&release).is_ok_and(|roots| roots.contains(&root.id()));
        records.has(&release, |app| self.has(app)) && is_made_by()
    }

    /// Returns whether the token may read the application.
    pub fn has(&self, app: &AppName) -> bool {
        let matches = |patterns: &Vec<Pattern>| patterns.iter().any(|pattern| pattern.matches(app.as_str()));
        self.applications.as_ref().is_none_or(matches)
    }
}

/// The content of the releases that a push builds on, which its token may read. Memory: 80 B for each segment and 32 B
/// for each chunk, up to a bound.
#[derive(Debug, Default)]
pub struct Readable {
    /// Segments by the beginnings of their names.
    nodes: HashMap<SegmentName, NodeRef>,
    /// Segments whose chunks are not read yet.
    unread: Vec<NodeRef>,
    chunks: HashSet<ChunkId>,
}

impl Readable {
    /// Adds a release's segments.
    pub fn add(&mut self, segments: &[NodeRef]) {
        for node in segments {
            if self.nodes.insert(node.name(), *node) != Some(*node) {
                self.unread.push(*node);
            }
        }
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        (self.nodes.len() + self.unread.len() + self.chunks.len()) * size_of::<NodeRef>()
    }

    /// Returns the segment whose name begins with these bytes.
    pub fn segment(&self, name: SegmentName) -> Option<NodeRef> {
        self.nodes.get(&name).copied()
    }

    /// Returns whether one of the releases has the chunk. Chunks of a segment that cannot be read count as absent, and
    /// are proven.
    pub fn has(&mut self, chunk: &ChunkRef, reader: &mut impl ChunkReader) -> bool {
        for node in std::mem::take(&mut self.unread) {
            let mut bytes = Vec::new();
            if self.chunks.len() < READABLE_CHUNKS_MAX && reader.read(&node.into(), &mut bytes).is_ok() {
                let chunks = manifest::segment_chunks(&bytes).unwrap_or_default();
                self.chunks.extend(chunks.into_iter().map(|chunk| chunk.id));
            }
        }
        self.chunks.contains(&chunk.id)
    }
}
