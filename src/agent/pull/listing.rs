//! Receives the list of a release's segments: as changes to those of the directory's release, or by names.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::local_chunks::DirectoryChunks;
use super::stream::PullStream;
use crate::agent::{Error, Result, blocking};
use crate::store::Store;
use delta::compression::{Compressor, Decompressor, LEVEL_FAST};
use format::manifest::{self, NodeRef, Outline, Root, SegmentIndex, SegmentName, Thin};
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use format::record::Record;
use ground::ids::{ChunkId, Selector};
use ground::limits::{MANIFEST_SEGMENTS_MAX, PULL_THIN_BYTES_MAX};
use protocol::likeness::{SegmentsReplaced, prefix_of};
use protocol::wire::{Batch, Marks, PullReply, PullRequest, unpack_names};

/// The segments of a release, in order.
#[derive(Debug)]
pub(super) struct Listing {
    /// Those that are known in full.
    pub nodes: Vec<Option<NodeRef>>,
    /// The others: they become whole with their chunks; the root then proves them.
    pub thin: HashMap<SegmentIndex, Thin>,
}

impl Listing {
    /// Returns all segments, once none is thin any more.
    pub fn whole(&self) -> Option<Vec<NodeRef>> {
        self.nodes.iter().copied().collect()
    }
}

impl PullStream {
    /// Receives the record and root of the release that was asked for, and how its segments will come.
    pub async fn listing(
        &mut self,
        asked: &Selector,
        present: &Arc<DirectoryChunks>,
        store: &Arc<Store>,
    ) -> Result<(Record, Root, Listing)> {
        let PullReply::Release { record, root, segments } = self.reply().await? else {
            return Err(Error::OutOfTurn("another message before the release"));
        };
        crate::agent::check_meant(&record, asked)?;
        let root = Root::decode(&root)?;
        let (expected, found) = (record.release.into(), root.release().into());
        if expected != found {
            return Err(manifest::Error::OtherRoot { expected, found }.into());
        }
        let count = segments as usize;
        if count > MANIFEST_SEGMENTS_MAX {
            return Err(manifest::Error::TooLarge(MANIFEST_SEGMENTS_MAX).into());
        }
        let mut names = Vec::new();
        while names.len() < count {
            match self.reply().await? {
                // Empty parts could go on for ever.
                PullReply::Names(part) if !part.is_empty() => names.extend(unpack_names(&part)?),
                PullReply::Outline(outline) if names.is_empty() => {
                    let listing = self.thin(&outline, count, present).await?;
                    return Ok((record, root, listing));
                }
                _ => return Err(Error::OutOfTurn("another message before the names")),
            }
        }
        if names.len() != count {
            return Err(Error::OutOfTurn("Names"));
        }
        let segments = self.named(&names, present, store).await?;
        let root = {
            let (segments, present, store) = (segments.clone(), Arc::clone(present), Arc::clone(store));
            blocking(move || keep_nodes(&root, &segments, &present, &store).map(|()| root)).await?
        };
        let listing = Listing { nodes: segments.into_iter().map(Some).collect(), thin: HashMap::new() };
        Ok((record, root, listing))
    }

    /// Receives the new segments, thin, each batch compressed against the segments that they replace.
    async fn thin(&mut self, outline: &Outline, count: usize, present: &DirectoryChunks) -> Result<Listing> {
        let base = present.release_segments();
        let nodes =
            outline.apply(base, count).ok_or(Error::OutOfTurn("an outline that does not fit the release"))?;
        let replaced = SegmentsReplaced::new(outline.gaps(base.len()));
        let mut listing = Listing { nodes, thin: HashMap::new() };
        let missing = SegmentIndex::enumerate(&listing.nodes).filter(|(_, node)| node.is_none());
        let mut indexes: VecDeque<SegmentIndex> = missing.map(|(index, _)| index).collect();
        let mut bytes = 0;
        while !indexes.is_empty() {
            let PullReply::Thin(batch) = self.reply().await? else {
                return Err(Error::OutOfTurn("another message before the segments"));
            };
            if batch.lengths.is_empty() || batch.lengths.len() > indexes.len() {
                return Err(Error::OutOfTurn("Thin"));
            }
            let some: Vec<SegmentIndex> = indexes.drain(..batch.lengths.len()).collect();
            let segment = |index: SegmentIndex| {
                let node = base.get(usize::from(index)).and_then(|node| present.segment(node.name()));
                node.map(|(_, bytes)| bytes.clone())
                    .ok_or(Error::OutOfTurn("an outline that does not fit the release"))
            };
            let prefix = prefix_of(replaced.by(&some).into_iter().map(segment))??;
            for (index, segment) in some.into_iter().zip(batch.open(&prefix)?) {
                bytes += segment.len();
                if bytes > PULL_THIN_BYTES_MAX {
                    let what = "bytes of thin segments";
                    return Err(protocol::Error::Limit { what, max: PULL_THIN_BYTES_MAX }.into());
                }
                listing.thin.insert(index, Thin::decode(&segment)?);
            }
        }
        Ok(listing)
    }

    /// Fetches the segments of these names that are not here.
    async fn named(
        &mut self,
        names: &[SegmentName],
        present: &Arc<DirectoryChunks>,
        store: &Arc<Store>,
    ) -> Result<Vec<NodeRef>> {
        let found = {
            let (names, present, store) = (names.to_vec(), Arc::clone(present), Arc::clone(store));
            blocking(move || find_named(&names, &present, &store))
        };
        let mut nodes = found.await?;
        let wanted: Marks = nodes.iter().map(Option::is_none).collect();
        let mut indexes: VecDeque<SegmentIndex> = wanted.places().map(SegmentIndex::new).collect();
        if !indexes.is_empty() {
            self.ask(&PullRequest::WantSegments(wanted)).await?;
        }
        while !indexes.is_empty() {
            let PullReply::Segments(batch) = self.reply().await? else {
                return Err(Error::OutOfTurn("another message before the segments"));
            };
            if batch.lengths.len() > indexes.len() {
                return Err(Error::OutOfTurn("Segments"));
            }
            let some: Vec<SegmentIndex> = indexes.drain(..batch.lengths.len()).collect();
            let expected: Vec<SegmentName> = some.iter().map(|index| names[usize::from(*index)]).collect();
            let store = Arc::clone(store);
            let kept = blocking(move || keep_batch(batch, &expected, &store)).await?;
            for (index, node) in some.into_iter().zip(kept) {
                nodes[usize::from(index)] = Some(node);
            }
        }
        Ok(nodes.into_iter().flatten().collect())
    }
}

/// Returns the segments of these names that are here.
fn find_named(
    names: &[SegmentName],
    present: &DirectoryChunks,
    store: &Store,
) -> Result<Vec<Option<NodeRef>>> {
    let find = |name: &SegmentName| match present.segment(*name) {
        Some((node, _)) => Ok(Some(*node)),
        None => Ok(store.find_name(*name)?),
    };
    names.iter().map(find).collect()
}

/// Stores a batch of segments, which must have these names.
fn keep_batch(batch: Batch, expected: &[SegmentName], store: &Store) -> Result<Vec<NodeRef>> {
    let (mut decompressor, mut plain) = (Decompressor::new(), Vec::new());
    let parts = batch.open(&mut decompressor, &mut plain)?.into_iter().zip(&batch.lengths);
    let nodes = parts.map(|(part, bytes)| NodeRef { id: ChunkId::of(&plain[part]), bytes: *bytes });
    let nodes: Vec<NodeRef> = nodes.collect();
    if !nodes.iter().map(NodeRef::name).eq(expected.iter().copied()) {
        return Err(Error::WrongChunk);
    }
    let chunks = nodes.iter().copied().map(ChunkRef::from).collect();
    let (kind, codec, payload) = (FrameKind::Manifest, batch.codec, batch.payload);
    store.append(&Frame { kind, codec, chunks, payload })?;
    Ok(nodes)
}

/// Proves that the segments make the root. Stores the nodes above them, and segments that only the directory's manifest has:
/// the rebuild reads all of them from the store.
pub(super) fn keep_nodes(
    root: &Root,
    segments: &[NodeRef],
    present: &DirectoryChunks,
    store: &Store,
) -> Result<()> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let made =
        Root::above(root.profile, root.shape, root.totals, segments.to_vec(), |node| parts.push(node.bytes))?;
    if made != *root {
        let (expected, found) = (root.release().into(), made.release().into());
        return Err(manifest::Error::OtherRoot { expected, found }.into());
    }
    for segment in segments {
        if let Some((_, bytes)) = present.segment(segment.name())
            && store.find(&segment.id)?.is_none()
        {
            parts.push(bytes.clone());
        }
    }
    keep_parts(&parts, store)?;
    Ok(())
}

/// Stores segments and nodes.
pub(super) fn keep_parts(parts: &[Vec<u8>], store: &Store) -> crate::store::Result<()> {
    let mut compressor = Compressor::new(LEVEL_FAST);
    for some in parts.chunks(8) {
        store.append(&Frame::compress(
            FrameKind::Manifest,
            some.iter().map(Vec::as_slice),
            &mut compressor,
        ))?;
    }
    Ok(())
}
