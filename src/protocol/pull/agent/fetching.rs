//! Asks for chunks, proves those that come, and completes thin segments with them.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use super::listing::Listing;
use super::{Pulled, Received, State, Step, Work};
use crate::pull::DirectoryView;
use crate::transfer::{self, Complete, Incomplete, Regions, SegmentBuffer, read_segment};
use crate::wire::{Basis, Marks, PullReply, PullRequest};
use crate::{Error, StorageView};
use delta::compression::Codec;
use format::manifest::{self, NodeRef, Reference, SegmentIndex};
use format::pack::{Frame, FrameKind, split};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;

/// The chunks that one request asked for, in the order in which they come.
type Expected = VecDeque<Reference>;

/// The chunks that were asked for, and the segments that wait for them.
#[derive(Debug)]
pub(super) struct Fetching {
    listing: Listing,
    /// Thin segments whose chunks were asked for.
    incomplete: Incomplete,
    /// Chunks that were asked for, of segments that name them in full.
    asked: HashSet<ChunkId>,
    /// Requests that are not answered, in order.
    requests: VecDeque<Expected>,
    /// The first segment whose chunks were not asked for.
    next: usize,
    complete: SegmentBuffer,
    /// True if some segments came thin.
    was_thin: bool,
}

impl Fetching {
    /// Begins with the first segment.
    pub fn of(listing: Listing) -> Self {
        let (incomplete, asked, requests) = (Incomplete::default(), HashSet::new(), VecDeque::new());
        let (was_thin, complete) = (listing.is_thin(), SegmentBuffer::default());
        Self { listing, incomplete, asked, requests, next: 0, complete, was_thin }
    }
}

impl Work {
    /// Asks for chunks while few requests are open; ends the pull when all is here.
    pub fn go_on(&mut self, pulled: Pulled, mut fetching: Fetching, view: &mut impl DirectoryView) -> Step {
        let segments = fetching.listing.nodes.len();
        let mut requests = Vec::new();
        while self.credit.may_ask() && fetching.next < segments {
            let (first, end) = (fetching.next, segments.min(fetching.next + self.window.segments));
            fetching.next = end;
            let (marks, expected) = self.want(&mut fetching, first..end, view)?;
            if expected.is_empty() {
                continue;
            }
            let bytes = |one: &Reference| one.full().map_or(pulled.root.profile.average, |chunk| chunk.bytes);
            self.fetched.expected_bytes += expected.iter().map(|one| u64::from(bytes(one))).sum::<u64>();
            self.fetched.chunks += expected.len() as u64;
            let count = u32::try_from(end - first).expect("a window's segments are bounded");
            requests.push(PullRequest::WantChunks { first: SegmentIndex::of(first), count, marks });
            self.credit.ask().expect("there is credit");
            fetching.requests.push_back(expected);
        }
        if !fetching.requests.is_empty() {
            return Ok((State::Fetching { pulled, fetching }, requests));
        }
        self.finish(pulled, fetching, view)
    }

    /// Marks the references of some segments that are to be asked for, and returns the chunks that will come.
    ///
    /// Leaves out chunks that are here, and those that were asked for already.
    fn want(
        &mut self,
        fetching: &mut Fetching,
        segments: Range<usize>,
        view: &mut impl StorageView,
    ) -> Result<(Marks, Expected), Error> {
        let (mut marks, mut expected) = (Vec::new(), VecDeque::new());
        for index in SegmentIndex::range(segments) {
            let listing = &mut fetching.listing;
            let thin = listing.thin.as_mut().and_then(|thin| thin.remove(&index));
            let references: Vec<Reference> = match (&thin, listing.nodes[usize::from(index)]) {
                (Some(thin), _) => thin.references().collect(),
                (None, Some(node)) => {
                    let chunks = manifest::segment_chunks(&read_segment(&node, view)?)?;
                    chunks.into_iter().map(Reference::Full).collect()
                }
                (None, None) => return Err(Error::OutOfTurn("a segment that the release does not have")),
            };
            let known = view.find(&references).map_err(Error::Space)?;
            let asked = if let Some(thin) = thin {
                let (asked, complete) = fetching.incomplete.enter(index, thin, known)?;
                complete.map_or(Ok(()), |complete| self.complete(fetching, complete, view))?;
                asked
            } else {
                let is_new = |(one, known): (&Reference, Option<ChunkRef>)| {
                    known.is_none() && one.full().is_some_and(|chunk| fetching.asked.insert(chunk.id))
                };
                references.iter().zip(known).map(is_new).collect()
            };
            expected.extend(references.iter().zip(&asked).filter(|(_, asked)| **asked).map(|(one, _)| *one));
            marks.extend(asked);
        }
        Ok((marks.into_iter().collect(), expected))
    }

    /// Takes chunks, which must be the next of the first open request.
    pub fn fetching(
        &mut self,
        pulled: Pulled,
        mut fetching: Fetching,
        reply: PullReply,
        view: &mut impl DirectoryView,
    ) -> Step {
        let Some(received) = self.gather(reply)? else {
            return Ok((State::Fetching { pulled, fetching }, Vec::new()));
        };
        let (lengths, frame) = self.decode(received, view)?;
        let plain = std::mem::take(&mut self.plain);
        let mut chunks = Vec::with_capacity(lengths.len());
        for part in split(&plain, &lengths) {
            chunks.push(self.arrive(&mut fetching, part, view)?);
        }
        self.fetched.bytes += plain.len() as u64;
        if let Some((codec, payload)) = frame {
            let frame = Frame { kind: FrameKind::Content, codec, chunks, payload };
            view.keep(frame).map_err(Error::Space)?;
        } else {
            let chunks: Vec<_> = chunks.into_iter().map(Some).collect();
            transfer::keep_chunks(&plain, &lengths, &chunks, &mut self.compressor, view)?;
        }
        self.plain = plain;
        if fetching.requests.front().is_some_and(VecDeque::is_empty) {
            fetching.requests.pop_front();
            self.credit.answered();
        }
        self.go_on(pulled, fetching, view)
    }

    /// Decodes content into `self.plain`; returns the lengths of its chunks, and the payload of a frame.
    #[expect(clippy::type_complexity, reason = "a frame's codec and payload, where it is one")]
    fn decode(
        &mut self,
        received: Received,
        view: &mut impl StorageView,
    ) -> Result<(Vec<u32>, Option<(Codec, Vec<u8>)>), Error> {
        match received {
            Received::Batch(batch) => {
                batch.open(&mut self.decompressor, &mut self.plain)?;
                Ok((batch.lengths, Some((batch.codec, batch.payload))))
            }
            Received::Parcel(parcel, payload) => {
                if !matches!(parcel.basis, Basis::Prefix(_) | Basis::Patch(_)) {
                    return Err(Error::OutOfTurn("a parcel of another kind"));
                }
                let regions = Regions::new();
                transfer::open_parcel(&parcel, &payload, &self.base, &regions, view, &mut self.plain)?;
                Ok((parcel.lengths, None))
            }
        }
    }

    /// Takes the next chunk, which must be the one that comes there.
    fn arrive(
        &mut self,
        fetching: &mut Fetching,
        bytes: &[u8],
        view: &mut impl StorageView,
    ) -> Result<ChunkRef, Error> {
        let expected = fetching.requests.front_mut().and_then(VecDeque::pop_front);
        let expected = expected.ok_or(Error::OutOfTurn("Chunks"))?;
        let chunk = ChunkRef::of(bytes);
        // The manifest may lie about a length: a frame kept with it could not be read back.
        let is_expected = match expected {
            Reference::Full(expected) => expected == chunk,
            Reference::Short(short) => short == chunk.id.into(),
        };
        if !is_expected {
            return Err(Error::Unasked(chunk.id));
        }
        fetching.asked.remove(&chunk.id);
        for complete in fetching.incomplete.arrive(chunk)?.into_iter().flatten() {
            self.complete(fetching, complete, view)?;
        }
        Ok(chunk)
    }

    /// Takes a segment that became whole; stores it with its neighbours.
    fn complete(
        &mut self,
        fetching: &mut Fetching,
        complete: Complete,
        view: &mut impl StorageView,
    ) -> Result<(), Error> {
        fetching.listing.nodes[usize::from(complete.index)] = Some(complete.node());
        fetching.complete.add(complete.bytes, &mut self.compressor, view)
    }

    /// Proves the root, where that was not done before.
    fn finish(&mut self, pulled: Pulled, mut fetching: Fetching, view: &mut impl DirectoryView) -> Step {
        fetching.complete.flush(&mut self.compressor, view)?;
        if fetching.listing.thin.is_some() {
            let nodes: Option<Vec<NodeRef>> = fetching.listing.nodes.iter().copied().collect();
            let nodes = nodes.ok_or(Error::OutOfTurn("the end before all chunks"))?;
            match self.prove(&pulled.root, &nodes, view) {
                // A short id met a wrong chunk.
                Err(Error::Manifest(manifest::Error::OtherRoot { .. })) if fetching.was_thin => {
                    return Err(Error::Mismatch);
                }
                proven => proven?,
            }
        }
        Ok((State::Finished { pulled }, Vec::new()))
    }
}
