//! The proxy's half of a pull.

mod base;
mod relinked;
mod unit;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use self::base::{Base, Outlining};
use self::unit::{Ramp, Unit};
use super::{Method, ReleaseView};
use crate::Error;
use crate::likeness::{Edges, Likeness, NewSegment};
use crate::transfer::{Bounds, Credit, Encoding, read_segment};
use crate::wire::{Basis, Batch, Marks, Parcel, PullReply, PullRequest, pack_names};
use delta::compression::{self, Codec, Compressor, LEVEL_DEFAULT, LEVEL_FAST};
use delta::{patch, probe};
use format::manifest::{NodeRef, RefAt, Root, SegmentIndex, Thin};
use format::pack::FrameKind;
use format::recipe::ChunkRef;
use format::record::Record;
use ground::limits::{
    FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, MESSAGE_ITEMS_MAX, PARCEL_PIECE_BYTES, SEGMENT_BATCH_BYTES,
};

/// 1 MiB: content that may be sent as a patch to each machine (10 MB take a second); more only over slow links, once
/// for all.
const PATCH_BYTES: usize = 1024 * 1024;
/// Runs of a unit's chunks that say whether it is worth compressing.
const SAMPLES: usize = 3;
/// Chunks of each run, some 64 KiB.
const SAMPLE_CHUNKS: usize = 4;

/// The release that is pulled.
#[derive(Debug)]
pub struct Release {
    /// Its record.
    pub record: Record,
    /// Its root.
    pub root: Root,
    /// All segments of its manifest, in order.
    pub segments: Vec<NodeRef>,
}

/// What is being answered: each makes one reply at a time.
#[derive(Debug)]
enum Answer {
    /// One message.
    Reply(PullReply),
    /// The names of all segments from this one on.
    Names(usize),
    /// New segments.
    Outlining(Outlining),
    /// Segments or chunks in frames.
    Frames(FrameKind, VecDeque<ChunkRef>),
    /// Chunks that may resemble older ones.
    Units(VecDeque<Unit>),
    /// The rest of a parcel's payload, from this byte on.
    Pieces(Arc<Vec<u8>>, usize),
}

/// The proxy's half: requests of the agent in, replies out, one at a time.
///
/// Memory: 36 B for each segment of the manifest, 72 B and the changed part for each of the base's, and one parcel of a few
/// MiB, or the payloads of executables that were asked for; all bounded.
#[derive(Debug)]
pub struct Proxy {
    segments: Vec<NodeRef>,
    base: Option<Base>,
    credit: Credit,
    /// Requests that were not begun.
    requests: VecDeque<PullRequest>,
    /// True while a request is being answered.
    is_answering: bool,
    /// What is being answered, the next first.
    answers: VecDeque<Answer>,
    /// True if executables may be asked for: once, and where the agent holds older ones.
    may_ask: bool,
    /// True if the agent's link is slow: it asked for executables.
    is_slow: bool,
    ramp: Ramp,
    /// For segments.
    compressor: Compressor,
    /// For chunks over links that are faster than what compresses harder.
    fast: Compressor,
}

impl Proxy {
    /// Begins to answer with `release`; `base` are the segments of the release that the agent says it has, if they are
    /// here and the agent may read them. `bounds` say how much the agent may have under way.
    pub fn open(
        release: Release,
        base: Option<Vec<NodeRef>>,
        bounds: Bounds,
        view: &mut impl ReleaseView,
    ) -> Self {
        let Release { record, root, segments } = release;
        let count = u32::try_from(segments.len()).expect("a manifest's segments are bounded");
        let base = base.and_then(|base| Base::open(base, &segments, view));
        let opened = PullReply::Release { record, root: root.encode(), segments: count };
        let mut answers = VecDeque::from([Answer::Reply(opened)]);
        let outlined = base.as_ref().and_then(|base| base.outline(&segments));
        let may_ask = outlined.is_some();
        match outlined {
            Some((outline, outlining)) => {
                answers.push_back(Answer::Reply(PullReply::Outline(outline)));
                answers.push_back(Answer::Outlining(outlining));
            }
            None => answers.push_back(Answer::Names(0)),
        }
        let ramp = Ramp::begin(base.is_some());
        let (compressor, fast) = (Compressor::new(LEVEL_DEFAULT), Compressor::new(LEVEL_FAST));
        Self {
            segments,
            base,
            credit: Credit::new(bounds),
            requests: VecDeque::new(),
            is_answering: false,
            answers,
            may_ask,
            is_slow: false,
            ramp,
            compressor,
            fast,
        }
    }

    /// Returns the bytes of memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |base| base.release.memory_bytes());
        let payloads = self.answers.iter().map(|answer| match answer {
            Answer::Pieces(payload, _) => payload.len(),
            _ => 0,
        });
        self.segments.len() * size_of::<NodeRef>() + base + payloads.sum::<usize>()
    }

    /// Takes a request, to be answered after those before it.
    ///
    /// # Errors
    /// [`Error::OutOfTurn`] for more requests than an agent may have open.
    pub fn receive(&mut self, request: PullRequest) -> Result<(), Error> {
        self.credit.ask().map_err(|_| Error::OutOfTurn("more requests than allowed at a time"))?;
        self.requests.push_back(request);
        Ok(())
    }

    /// Makes the next reply; `None` once all requests are answered.
    ///
    /// # Errors
    /// A request that the release does not fit, or that may not be made twice; a failing view.
    pub fn next(&mut self, view: &mut impl ReleaseView) -> Result<Option<PullReply>, Error> {
        loop {
            while let Some(answer) = self.answers.pop_front() {
                let reply = self.reply(answer, view)?;
                if self.answers.is_empty() {
                    self.answered();
                }
                if reply.is_some() {
                    return Ok(reply);
                }
            }
            self.answered();
            let Some(request) = self.requests.pop_front() else { return Ok(None) };
            self.is_answering = true;
            view.begin(&request);
            self.begin(request, view)?;
        }
    }

    /// Notes that a request was answered whole: with its last reply the agent may ask again.
    fn answered(&mut self) {
        if std::mem::take(&mut self.is_answering) {
            self.credit.answered();
        }
    }

    fn begin(&mut self, request: PullRequest, view: &mut impl ReleaseView) -> Result<(), Error> {
        match request {
            // Whoever reads the link takes it.
            PullRequest::Renew(_) => {}
            PullRequest::WantSegments(marks) if marks.fits(self.segments.len()) => {
                let parts = marks.places().map(|place| self.segments[place as usize].into()).collect();
                self.answers.push_back(Answer::Frames(FrameKind::Manifest, parts));
            }
            PullRequest::WantExecutables if std::mem::take(&mut self.may_ask) => {
                self.is_slow = true;
                let payloads = match &self.base {
                    Some(base) => relinked::encode(base, &self.segments, view),
                    None => Vec::new(),
                };
                let count = u32::try_from(payloads.len()).expect("they are bounded");
                self.answers.push_back(Answer::Reply(PullReply::Executables(count)));
                for (parcel, payload) in payloads {
                    self.answers.push_back(Answer::Reply(PullReply::Parcel(parcel)));
                    self.answers.push_back(Answer::Pieces(payload, 0));
                }
            }
            PullRequest::WantChunks { first, count, marks } => {
                let units = self.units(first, count, &marks, view)?;
                self.answers.push_back(Answer::Units(units));
            }
            PullRequest::WantSegments(_) => return Err(Error::OutOfTurn("WantSegments")),
            PullRequest::WantExecutables => return Err(Error::OutOfTurn("WantExecutables")),
        }
        Ok(())
    }

    /// Makes one reply of an answer, and puts what is left of the answer back.
    fn reply(&mut self, answer: Answer, view: &mut impl ReleaseView) -> Result<Option<PullReply>, Error> {
        match answer {
            Answer::Reply(reply) => Ok(Some(reply)),
            Answer::Names(first) => {
                let rest = &self.segments[first..];
                if rest.is_empty() {
                    return Ok(None);
                }
                let some = &rest[..rest.len().min(MESSAGE_ITEMS_MAX)];
                let names = PullReply::Names(pack_names(some.iter().map(NodeRef::name)));
                self.answers.push_front(Answer::Names(first + some.len()));
                Ok(Some(names))
            }
            Answer::Outlining(mut outlining) => {
                let base = self.base.as_ref().expect("an outline is of a base");
                let batch = outlining.next(base, &self.segments, view)?;
                Ok(batch.map(|batch| {
                    self.answers.push_front(Answer::Outlining(outlining));
                    PullReply::Thin(batch)
                }))
            }
            Answer::Frames(kind, parts) => self.frame(kind, parts, view),
            Answer::Units(mut units) => {
                let Some(unit) = units.pop_front() else { return Ok(None) };
                if !units.is_empty() {
                    self.answers.push_front(Answer::Units(units));
                }
                self.unit(unit, view)
            }
            Answer::Pieces(payload, sent) => {
                let end = payload.len().min(sent + PARCEL_PIECE_BYTES);
                let piece = payload[sent..end].to_vec();
                if end < payload.len() {
                    self.answers.push_front(Answer::Pieces(payload, end));
                }
                Ok(Some(PullReply::Piece(piece)))
            }
        }
    }

    /// Makes the next frame of some parts.
    fn frame(
        &mut self,
        kind: FrameKind,
        mut parts: VecDeque<ChunkRef>,
        view: &mut impl ReleaseView,
    ) -> Result<Option<PullReply>, Error> {
        let (compressor, target, reply) = match kind {
            FrameKind::Manifest => {
                let reply = PullReply::Segments as fn(Batch) -> PullReply;
                (&mut self.compressor, SEGMENT_BATCH_BYTES, reply)
            }
            FrameKind::Content => (&mut self.fast, FRAME_PLAIN_TARGET, PullReply::Chunks as _),
        };
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        while bytes < target
            && chunks.len() < FRAME_CHUNKS_MAX
            && let Some(part) = parts.pop_front()
        {
            bytes += part.bytes as usize;
            chunks.push(part);
        }
        if chunks.is_empty() {
            return Ok(None);
        }
        if !parts.is_empty() {
            self.answers.push_front(Answer::Frames(kind, parts));
        }
        let payload = view.frame(kind, &chunks, |view| {
            let mut plain = Vec::with_capacity(bytes);
            chunks.iter().try_for_each(|chunk| view.read(chunk, &mut plain)).map_err(Error::Space)?;
            Ok(compressor.compress(&plain).1)
        })?;
        let codec = if payload.len() == bytes { Codec::Raw } else { Codec::Zstd };
        let lengths = chunks.iter().map(|chunk| chunk.bytes).collect();
        Ok(Some(reply(Batch { codec, lengths, payload: Arc::unwrap_or_clone(payload) })))
    }

    /// Gathers the marked chunks of some segments in units, neighbouring ones together, with what they resemble.
    fn units(
        &mut self,
        first: SegmentIndex,
        count: u32,
        marks: &Marks,
        view: &mut impl ReleaseView,
    ) -> Result<VecDeque<Unit>, Error> {
        let end = first.get().checked_add(count).map_or(usize::MAX, |end| end as usize);
        let segments = self.segments.get(first.into()..end).filter(|some| some.len() <= MESSAGE_ITEMS_MAX);
        let segments = segments.ok_or(Error::OutOfTurn("WantChunks"))?;
        let mut marks = marks.iter();
        let (mut wanted, mut asked) = (Vec::new(), HashMap::new());
        let mut new: Vec<NewSegment> = Vec::with_capacity(segments.len());
        for (index, node) in SegmentIndex::range(first.into()..end).zip(segments) {
            let thin = Thin::decode(&read_segment(node, view)?)?;
            let mut known = Vec::new();
            for (number, chunk) in (0..).zip(thin.references().filter_map(|reference| reference.full())) {
                let missing = marks.next() == Some(true);
                if missing {
                    asked.insert(RefAt { segment: index, reference: number }, wanted.len());
                    wanted.push(chunk);
                }
                known.push((!missing).then_some(chunk));
            }
            new.push((index, thin, known));
        }
        let mut likenesses = self.likenesses(&new, &asked, view).into_iter().peekable();
        let (mut units, mut unit) = (VecDeque::new(), Unit::default());
        for (number, chunk) in wanted.into_iter().enumerate() {
            if let Some((_, likeness)) = likenesses.next_if(|(first, _)| *first == number) {
                if !unit.takes(&likeness) {
                    units.push_back(std::mem::take(&mut unit));
                }
                unit.add_basis(likeness);
            }
            unit.add(chunk);
            if unit.is_full(self.ramp) {
                units.push_back(std::mem::take(&mut unit));
                self.ramp.advance();
            }
        }
        if !unit.chunks.is_empty() {
            units.push_back(unit);
        }
        Ok(units)
    }

    /// Returns the runs of the agent's release that the wanted chunks resemble, each with the first of these chunks.
    fn likenesses(
        &self,
        new: &[NewSegment],
        asked: &HashMap<RefAt, usize>,
        view: &mut impl ReleaseView,
    ) -> Vec<(usize, Likeness)> {
        let Some(Base { release: base, .. }) = &self.base else { return Vec::new() };
        let node = |index: SegmentIndex| self.segments.get(usize::from(index)).copied();
        // Without them the chunks go whole.
        let found = base.likenesses(new, &Edges::new(), node, |_, node| read_segment(node, view));
        let first =
            |likeness: Likeness| Some((*likeness.new.iter().filter_map(|at| asked.get(at)).min()?, likeness));
        let mut found: Vec<_> = found.unwrap_or_default().into_iter().filter_map(first).collect();
        found.sort_by_key(|(first, _)| *first);
        found.dedup_by_key(|(first, _)| *first);
        found
    }

    /// Begins to send a unit, encoded against its basis where it has one.
    fn unit(&mut self, unit: Unit, view: &mut impl ReleaseView) -> Result<Option<PullReply>, Error> {
        if unit.spans.is_empty() {
            let harder = matches!(view.encoding(), Encoding::Parcels { .. });
            if harder && !is_dense(&unit, view)? {
                return self.parcel(&unit, view).map(Some);
            }
            return self.frame(FrameKind::Content, unit.chunks.into(), view);
        }
        let (mut plain, mut older) = (Vec::with_capacity(unit.bytes), Vec::with_capacity(unit.basis_bytes));
        for chunk in &unit.basis {
            view.read(chunk, &mut older).map_err(Error::Space)?;
        }
        for chunk in &unit.chunks {
            view.read(chunk, &mut plain).map_err(Error::Space)?;
        }
        let (basis, codec, payload) = if let Some(patch) = self.patch(&unit, &plain, &older, view) {
            (Basis::Patch(unit.spans), Codec::Raw, patch)
        } else {
            let payload = compression::compress_against(&older, &plain, LEVEL_DEFAULT);
            (Basis::Prefix(unit.spans), Codec::Zstd, Arc::new(payload))
        };
        Ok(Some(self.begin_parcel(&unit.chunks, basis, codec, payload)))
    }

    /// Begins to send a unit that resembles nothing, over a long window.
    fn parcel(&mut self, unit: &Unit, view: &mut impl ReleaseView) -> Result<PullReply, Error> {
        let payload = view.parcel(&unit.chunks, |view| {
            let mut plain = Vec::with_capacity(unit.bytes);
            unit.chunks.iter().try_for_each(|chunk| view.read(chunk, &mut plain)).map_err(Error::Space)?;
            let (Encoding::Frames { level } | Encoding::Parcels { level }) = view.encoding();
            let encoded = compression::compress_against(&[], &plain, level);
            Ok(if encoded.len() < plain.len() { encoded } else { plain })
        })?;
        let codec = if payload.len() == unit.bytes { Codec::Raw } else { Codec::Zstd };
        Ok(self.begin_parcel(&unit.chunks, Basis::Prefix(Vec::new()), codec, payload))
    }

    fn begin_parcel(
        &mut self,
        chunks: &[ChunkRef],
        basis: Basis,
        codec: Codec,
        payload: Arc<Vec<u8>>,
    ) -> PullReply {
        let payload_bytes = u32::try_from(payload.len()).expect("a unit is some MiB");
        let lengths = chunks.iter().map(|chunk| chunk.bytes).collect();
        self.answers.push_front(Answer::Pieces(payload, 0));
        PullReply::Parcel(Parcel { lengths, basis, codec, payload_bytes })
    }

    /// Returns the patch for a unit, if it is worth the time.
    fn patch(
        &self,
        unit: &Unit,
        plain: &[u8],
        older: &[u8],
        view: &mut impl ReleaseView,
    ) -> Option<Arc<Vec<u8>>> {
        // Each side takes a second for 10 MB, in which a fast link carries more than a patch saves.
        if !self.is_slow && matches!(view.encoding(), Encoding::Frames { .. }) {
            return None;
        }
        let make = || Some(patch::compress(plain, older).expect("a unit's basis is within a patch's"));
        if plain.len() <= PATCH_BYTES {
            return make().map(Arc::new);
        }
        if !self.is_slow {
            return None;
        }
        view.payload(Method::Patch, &unit.basis, &unit.chunks, |_| make())
    }
}

/// Returns whether a sample of a unit's chunks does not shrink: compressed content, on which no level gains anything.
fn is_dense(unit: &Unit, view: &mut impl ReleaseView) -> Result<bool, Error> {
    let mut sample = Vec::new();
    for run in unit.chunks.chunks((unit.chunks.len() / SAMPLES).max(SAMPLE_CHUNKS)) {
        let run = &run[..run.len().min(SAMPLE_CHUNKS)];
        run.iter().try_for_each(|chunk| view.read(chunk, &mut sample)).map_err(Error::Space)?;
    }
    Ok(probe::is_dense(&sample, 0))
}
