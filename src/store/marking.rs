//! Finds the live chunks: those that some release names.

use std::collections::HashSet;

use super::Store;
use crate::restore::{ChunkReader, SourceError};
use format::manifest::{self, NodeRef, Root};
use ground::ids::{ChunkId, ReleaseId};

/// The names of all live chunks: 8 bytes each. A dead chunk that shares its name with a live one stays.
#[derive(Debug, Default)]
pub struct Live {
    names: Vec<u64>,
    /// Releases whose manifest cannot be read whole: some chunks that they name are unknown.
    pub unreadable: Vec<ReleaseId>,
}

impl Live {
    /// Returns whether some release names the chunk.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.names.binary_search(&id.prefix()).is_ok()
    }

    /// The number of distinct chunks that are named.
    pub fn len(&self) -> usize {
        self.names.len()
    }
}

/// Marks all chunks of `releases`: content, segments, nodes and roots of all their manifests; and those of the manifests of the
/// roots `cached`, as far as these can be read.
///
/// Each distinct segment is read once. Memory: 8 B for each chunk reference of distinct segments.
pub fn mark(store: &Store, releases: &HashSet<ReleaseId>, cached: &HashSet<ChunkId>) -> Live {
    let mut marking = Marking { store, names: Vec::new(), bytes: None, seen: HashSet::new() };
    let mut reader = super::StoreReader::new(store);
    let mut unreadable = Vec::new();
    for release in releases {
        if marking.release(release, &mut reader).is_err() {
            unreadable.push(*release);
        }
    }
    for cached in cached {
        if let Err(error) = marking.manifest(cached, &mut reader) {
            tracing::debug!(root = ?cached, %error, "cached content cannot be read; some of it will be sent again");
        }
    }
    let mut names = marking.names;
    names.sort_unstable();
    names.dedup();
    Live { names, unreadable }
}

/// Returns the bytes of all distinct chunks that some releases name, as far as their manifests can be read.
pub fn plain_bytes<'a>(store: &Store, releases: impl Iterator<Item = &'a ReleaseId>) -> u64 {
    let mut marking = Marking { store, names: Vec::new(), bytes: Some(Vec::new()), seen: HashSet::new() };
    let mut reader = super::StoreReader::new(store);
    for release in releases {
        if let Err(error) = marking.release(release, &mut reader) {
            tracing::debug!(?release, %error, "a release cannot be read; its size is underestimated");
        }
    }
    let mut bytes = marking.bytes.unwrap_or_default();
    bytes.sort_unstable();
    bytes.dedup_by_key(|(name, _)| *name);
    bytes.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
}

struct Marking<'a> {
    store: &'a Store,
    names: Vec<u64>,
    /// The ids and bytes of content chunks, if wanted.
    bytes: Option<Vec<(u64, u32)>>,
    /// Nodes and segments that were read already.
    seen: HashSet<ChunkId>,
}

impl Marking<'_> {
    fn release(
        &mut self,
        release: &ReleaseId,
        reader: &mut super::StoreReader<&super::Store>,
    ) -> Result<(), SourceError> {
        let roots = self.store.records().roots(release)?;
        roots.iter().map(|root| self.manifest(root, reader)).fold(Ok(()), Result::and)
    }

    fn manifest(
        &mut self,
        root: &ChunkId,
        reader: &mut super::StoreReader<&super::Store>,
    ) -> Result<(), SourceError> {
        self.names.push(root.prefix());
        let root: Root = self.store.root_at(root)?;
        self.level(&root.children, root.depth, reader)
    }

    fn level(
        &mut self,
        nodes: &[NodeRef],
        depth: u8,
        reader: &mut super::StoreReader<&super::Store>,
    ) -> Result<(), SourceError> {
        let mut first_error = Ok(());
        for node in nodes {
            self.names.push(node.id.prefix());
            if self.seen.insert(node.id) {
                // The rest of a damaged release stays alive.
                if let Err(error) = self.node(node, depth, reader) {
                    self.seen.remove(&node.id);
                    first_error = first_error.and(Err(error));
                }
            }
        }
        first_error
    }

    fn node(
        &mut self,
        node: &NodeRef,
        depth: u8,
        reader: &mut super::StoreReader<&super::Store>,
    ) -> Result<(), SourceError> {
        let mut bytes = Vec::new();
        reader.read(&(*node).into(), &mut bytes)?;
        let damaged =
            |error: manifest::Error| SourceError::Damaged { id: node.id, location: error.to_string() };
        if depth > 0 {
            let children = manifest::decode_node(&bytes).map_err(damaged)?;
            return self.level(&children, depth - 1, reader);
        }
        let chunks = manifest::segment_chunks(&bytes).map_err(damaged)?;
        match &mut self.bytes {
            Some(bytes) => bytes.extend(chunks.iter().map(|chunk| (chunk.id.prefix(), chunk.bytes))),
            None => self.names.extend(chunks.iter().map(|chunk| chunk.id.prefix())),
        }
        Ok(())
    }
}
