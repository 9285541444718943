//! Receives the list of a release's segments: as changes to those of the directory's release, or by names.

use std::collections::{HashMap, VecDeque};

use super::{Pulled, State, Step, Work};
use crate::likeness::{SegmentsReplaced, prefix_of};
use crate::pull::DirectoryView;
use crate::transfer::{SegmentBuffer, read_segment};
use crate::wire::{Batch, Marks, PullReply, PullRequest, SegmentBatch, unpack_names};
use crate::{Error, StorageView};
use format::manifest::{self, NodeRef, Outline, Root, SegmentIndex, SegmentName, Thin};
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::PULL_THIN_BYTES_MAX;

/// The segments of a release, in order.
#[derive(Debug)]
pub(super) struct Listing {
    /// Those that are known in full.
    pub nodes: Vec<Option<NodeRef>>,
    /// The others: they become whole with their chunks; the root then proves them. None where the root is proven already.
    pub thin: Option<HashMap<SegmentIndex, Thin>>,
}

impl Listing {
    /// Returns whether segments came thin.
    pub fn is_thin(&self) -> bool {
        self.thin.as_ref().is_some_and(|thin| !thin.is_empty())
    }
}

/// A list of names, and the segments that are here.
#[derive(Debug)]
pub(super) struct Naming {
    count: usize,
    names: Vec<SegmentName>,
    nodes: Vec<Option<NodeRef>>,
    /// Those that are to come.
    to_come: VecDeque<SegmentIndex>,
}

impl Naming {
    /// Begins a list of `count` segments.
    pub fn of(count: usize) -> Self {
        Self { count, names: Vec::new(), nodes: Vec::new(), to_come: VecDeque::new() }
    }
}

/// A list of changes to the segments of the directory's release.
#[derive(Debug)]
pub(super) struct Outlined {
    nodes: Vec<Option<NodeRef>>,
    thin: HashMap<SegmentIndex, Thin>,
    replaced: SegmentsReplaced,
    /// Those that are to come.
    to_come: VecDeque<SegmentIndex>,
    /// Of those that came.
    bytes: usize,
}

impl Work {
    /// Takes names, or how the segments follow from those of the directory's release.
    pub fn named(
        &mut self,
        pulled: Pulled,
        mut naming: Naming,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        match reply {
            // Empty parts could go on for ever.
            PullReply::Names(part) if !part.is_empty() => {
                naming.names.extend(unpack_names(&part)?);
                if naming.names.len() > naming.count {
                    return Err(Error::OutOfTurn("Names"));
                }
                if naming.names.len() < naming.count {
                    return Ok((State::Announced { pulled, naming }, Vec::new()));
                }
                self.resolve(pulled, naming, view)
            }
            PullReply::Outline(outline) if naming.names.is_empty() => {
                let outlined = self.outline(&outline, naming.count)?;
                self.go_on_outlined(pulled, outlined, view)
            }
            reply => Err(Error::OutOfTurn(reply.name())),
        }
    }

    fn outline(&self, outline: &Outline, count: usize) -> Result<Outlined, Error> {
        let nodes = outline
            .apply(&self.base, count)
            .ok_or(Error::OutOfTurn("an outline that does not fit the release"))?;
        let replaced = SegmentsReplaced::new(outline.gaps(self.base.len()));
        let to_come = missing(&nodes);
        Ok(Outlined { nodes, thin: HashMap::new(), replaced, to_come, bytes: 0 })
    }

    /// Takes new segments, compressed against those that they replace.
    pub fn outlined(
        &mut self,
        pulled: Pulled,
        mut outlined: Outlined,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        let PullReply::Thin(batch) = reply else { return Err(Error::OutOfTurn(reply.name())) };
        self.thin(&mut outlined, &batch, view)?;
        self.go_on_outlined(pulled, outlined, view)
    }

    fn thin(
        &mut self,
        outlined: &mut Outlined,
        batch: &SegmentBatch,
        view: &mut impl DirectoryView,
    ) -> Result<(), Error> {
        let indexes = next_of(&mut outlined.to_come, batch.lengths.len(), "Thin")?;
        let segment = |index: SegmentIndex| match self.base.get(usize::from(index)) {
            Some(node) => read_segment(node, view),
            None => Err(Error::OutOfTurn("an outline that does not fit the release")),
        };
        let prefix = prefix_of(outlined.replaced.by(&indexes).into_iter().map(segment))??;
        for (index, segment) in indexes.into_iter().zip(batch.open(&prefix)?) {
            outlined.bytes += segment.len();
            if outlined.bytes > PULL_THIN_BYTES_MAX {
                return Err(Error::Limit { what: "bytes of thin segments", max: PULL_THIN_BYTES_MAX });
            }
            outlined.thin.insert(index, Thin::decode(&segment)?);
        }
        Ok(())
    }

    fn go_on_outlined(&mut self, pulled: Pulled, outlined: Outlined, view: &mut impl DirectoryView) -> Step {
        if !outlined.to_come.is_empty() {
            return Ok((State::Outlined { pulled, outlined }, Vec::new()));
        }
        let Outlined { nodes, thin, .. } = outlined;
        self.listed(pulled, Listing { nodes, thin: Some(thin) }, view)
    }

    /// Asks for the segments that are not here.
    pub fn resolve(&mut self, pulled: Pulled, mut naming: Naming, view: &mut impl DirectoryView) -> Step {
        naming.nodes = view.resolve(&naming.names).map_err(Error::Space)?;
        naming.to_come = missing(&naming.nodes);
        if naming.to_come.is_empty() {
            return self.prove_named(pulled, naming, view);
        }
        let wanted: Marks = naming.nodes.iter().map(Option::is_none).collect();
        Ok((State::Named { pulled, naming }, vec![PullRequest::WantSegments(wanted)]))
    }

    /// Takes segments that were asked for.
    pub fn segments(
        &mut self,
        pulled: Pulled,
        mut naming: Naming,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        let PullReply::Segments(batch) = reply else { return Err(Error::OutOfTurn(reply.name())) };
        let indexes = next_of(&mut naming.to_come, batch.lengths.len(), "Segments")?;
        let nodes = self.keep_batch(batch, view)?;
        for (index, node) in indexes.into_iter().zip(nodes) {
            if node.name() != naming.names[usize::from(index)] {
                return Err(Error::Unasked(node.id));
            }
            naming.nodes[usize::from(index)] = Some(node);
        }
        if naming.to_come.is_empty() {
            return self.prove_named(pulled, naming, view);
        }
        Ok((State::Named { pulled, naming }, Vec::new()))
    }

    /// Stores a batch of segments in the frame that it came in.
    fn keep_batch(&mut self, batch: Batch, view: &mut impl StorageView) -> Result<Vec<NodeRef>, Error> {
        let parts = batch.open(&mut self.decompressor, &mut self.plain)?.into_iter().zip(&batch.lengths);
        let nodes = parts.map(|(part, bytes)| NodeRef { id: ChunkId::of(&self.plain[part]), bytes: *bytes });
        let nodes: Vec<NodeRef> = nodes.collect();
        let chunks = nodes.iter().copied().map(ChunkRef::from).collect();
        let (kind, codec, payload) = (FrameKind::Manifest, batch.codec, batch.payload);
        view.keep(Frame { kind, codec, chunks, payload }).map_err(Error::Space)?;
        Ok(nodes)
    }

    /// Proves the root before a chunk is asked for.
    fn prove_named(&mut self, pulled: Pulled, naming: Naming, view: &mut impl DirectoryView) -> Step {
        let nodes: Vec<NodeRef> = naming.nodes.iter().copied().flatten().collect();
        self.prove(&pulled.root, &nodes, view)?;
        self.listed(pulled, Listing { nodes: naming.nodes, thin: None }, view)
    }

    /// Proves that the segments make the root. Stores the nodes above them, and segments that only the directory's manifest
    /// has: the tree is rebuilt from what was kept.
    pub fn prove(
        &mut self,
        root: &Root,
        segments: &[NodeRef],
        view: &mut impl DirectoryView,
    ) -> Result<(), Error> {
        let mut above = Vec::new();
        let made = root.over(segments.to_vec(), |node| above.push(node.bytes))?;
        if made != *root {
            let (expected, found) = (root.id(), made.id());
            return Err(manifest::Error::OtherRoot { expected, found }.into());
        }
        let mut kept = SegmentBuffer::default();
        for bytes in above {
            kept.add(bytes, &mut self.compressor, view)?;
        }
        for segment in segments {
            if view.is_unkept(segment).map_err(Error::Space)? {
                let bytes = read_segment(segment, view)?;
                kept.add(bytes, &mut self.compressor, view)?;
            }
        }
        kept.flush(&mut self.compressor, view)
    }
}

fn missing(nodes: &[Option<NodeRef>]) -> VecDeque<SegmentIndex> {
    let missing = SegmentIndex::enumerate(nodes).filter(|(_, node)| node.is_none());
    missing.map(|(index, _)| index).collect()
}

/// Returns the segments that a batch of `count` brings.
fn next_of(
    to_come: &mut VecDeque<SegmentIndex>,
    count: usize,
    message: &'static str,
) -> Result<Vec<SegmentIndex>, Error> {
    if count == 0 || count > to_come.len() {
        return Err(Error::OutOfTurn(message));
    }
    Ok(to_come.drain(..count).collect())
}
