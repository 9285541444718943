//! The proxy's half of a push.

mod opening;

use std::collections::{HashMap, HashSet, VecDeque};

use serde_bytes::{ByteArray, ByteBuf};

use super::block_sums::{self, BlockSumMaker};
use super::naming;
use super::opened::{OpenedBatch, Opener};
use super::proving::Proving;
use super::record_queries::{Listed, RecordQueries};
use crate::likeness::{self, SegmentsReplaced};
use crate::transfer::{self, Complete, Incomplete, Parcels, SegmentBuffer};
use crate::wire::{Basis, FromAgent, ManifestForm, Open, Parcel, PushReply, SegmentBatch};
use crate::{Error, Proposal, SpaceView};
use delta::compression::Compressor;
use format::manifest::{self, NodeRef, RefAt, Reference, Root, SegmentIndex, Thin};
use format::pack::{Frame, FrameKind, split};
use format::recipe::ChunkRef;
use format::record::Cost;
use ground::ids::ShortId;
use ground::limits::{PROGRESS_BYTES_MIN, PUSH_CHUNKS_IN_FLIGHT};

/// Returns whether the reference is in the release that the agent remembers.
fn needs_base(basis: &Basis) -> bool {
    matches!(basis, Basis::Prefix(_) | Basis::Patch(_) | Basis::Executable(..))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The names of the segments are coming.
    Naming,
    /// Segments and chunks are coming.
    Receiving,
    /// Committed, or a dry run that has been answered.
    Finished,
}

/// The proxy's half: messages of the agent in, replies out.
///
/// Memory: 44 B for each segment of the manifest, some 100 B for each reference of segments that wait for
/// chunks, and one parcel; all bounded.
#[derive(Debug)]
pub struct Proxy {
    open: Open,
    state: State,
    names: Vec<u8>,
    segments: Vec<Option<NodeRef>>,
    wanted: VecDeque<SegmentIndex>,
    /// The segments of the release that the push builds on.
    base: Vec<NodeRef>,
    /// Candidate base releases, until the first chunks decide.
    others: Vec<Vec<NodeRef>>,
    replaced: SegmentsReplaced,
    is_by_base: bool,
    block_sum_maker: BlockSumMaker,
    /// The agent's queries about executables.
    record_queries: RecordQueries,
    /// True if the agent's base is unknown here: messages that it sent before it learned so are ignored.
    base_refused: bool,
    waiting: Incomplete,
    /// The agent's proofs, where it may not read the whole space.
    proving: Option<Proving>,
    /// Chunks that the agent sends unasked.
    eager: HashSet<ShortId>,
    parcels: Parcels,
    commit_ordered: bool,
    /// Complete segments that are not stored yet.
    complete: SegmentBuffer,
    cost: Cost,
    progress: u64,
    opener: Opener,
    compressor: Compressor,
}

impl Proxy {
    /// Returns whether the push has ended.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Returns the cost of the push so far.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Returns the progress of the push, in bytes of new names, segments, sketches and content; other messages do not
    /// count. Bounded by the manifest's size.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Returns the bytes of memory that the push takes, about: what an agent can make it hold.
    pub fn memory_bytes(&self) -> usize {
        let segments =
            self.segments.len() + self.base.len() + self.others.iter().map(Vec::len).sum::<usize>();
        let names = self.names.len() + (self.wanted.len() + self.eager.len()) * size_of::<u64>();
        segments * size_of::<Option<NodeRef>>()
            + names
            + self.waiting.memory_bytes()
            + self.parcels.memory_bytes()
            + self.record_queries.memory_bytes()
            + self.block_sum_maker.memory_bytes()
            + self.proving.as_ref().map_or(0, Proving::memory_bytes)
            + self.complete.memory_bytes()
    }

    /// Takes a message of the agent and returns the replies.
    ///
    /// # Errors
    /// A message that is out of turn, breaks a bound, or whose content does not match its name; a failing view.
    pub fn receive(
        &mut self,
        message: FromAgent,
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        match (self.state, message) {
            (State::Naming | State::Receiving, FromAgent::Grown(grown)) if self.is_growing() => {
                self.grown(grown, view)
            }
            (State::Naming, FromAgent::Names(names)) if !self.is_growing() => self.named(&names, view),
            // Sent before the agent learned that its base is unknown.
            (State::Naming, _) if self.base_refused => Ok(Vec::new()),
            (State::Receiving, FromAgent::RecordQuery(query)) if !self.is_by_base && !self.open.dry_run => {
                self.progress += query.names.len() as u64;
                self.record_queries.take(query)?;
                Ok(Vec::new())
            }
            (State::Receiving, FromAgent::Segments(batch)) if !self.commit_ordered => {
                self.segments(&batch, view)
            }
            (State::Receiving, FromAgent::Sketches(sketches)) if !self.open.dry_run => {
                self.progress += sketches.bytes() as u64;
                self.block_sum_maker.alike(&sketches, view)
            }
            (State::Receiving, FromAgent::Chunks(batch)) if !self.open.dry_run => {
                let opened = self.opener.open(batch)?;
                self.chunks(opened, view)
            }
            (State::Receiving, FromAgent::Parcel(parcel)) if !self.open.dry_run => {
                // One encoded against the unknown base is ignored, with its pieces.
                if !self.base_refused || !needs_base(&parcel.basis) {
                    self.parcels.begin(parcel)?;
                }
                Ok(Vec::new())
            }
            (State::Receiving, FromAgent::Piece(_)) if self.base_refused && !self.parcels.is_open() => {
                Ok(Vec::new())
            }
            (State::Receiving, FromAgent::Piece(piece)) => self.piece(&piece, view),
            (State::Receiving, FromAgent::Proof(proof)) => self.proof(&proof, view),
            (State::Receiving, FromAgent::Commit) if !self.open.dry_run && !self.is_growing() => {
                if !std::mem::replace(&mut self.commit_ordered, true) {
                    self.progress += PROGRESS_BYTES_MIN;
                }
                self.commit_if_due(view)
            }
            (_, message) => Err(Error::OutOfTurn(message.name())),
        }
    }

    /// Takes a message of chunks that was opened before.
    ///
    /// # Errors
    /// As [`Proxy::receive`].
    pub fn receive_chunks(
        &mut self,
        opened: OpenedBatch,
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        match self.state {
            State::Receiving if !self.open.dry_run => self.chunks(opened, view),
            State::Naming if self.base_refused => Ok(Vec::new()),
            _ => Err(Error::OutOfTurn("Chunks")),
        }
    }

    /// Takes the next wanted segments and says which of their chunks are missing.
    fn segments(&mut self, batch: &SegmentBatch, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let count = batch.lengths.len();
        if self.is_growing() {
            self.grow_to(self.segments.len() + count)?;
        }
        if count > self.wanted.len() {
            return Err(Error::OutOfTurn("Segments"));
        }
        let indexes: Vec<SegmentIndex> = self.wanted.drain(..count).collect();
        self.progress += batch.lengths.iter().map(|length| u64::from(*length)).sum::<u64>();
        let mut base = Vec::new();
        if batch.against_base {
            let replaced = self.replaced.by(&indexes).into_iter().map(|index| self.base[usize::from(index)]);
            base = likeness::prefix_of(replaced.map(|node| transfer::read_segment(&node, view)))??;
        }
        let (mut marks, mut chunks) = (Vec::new(), 0);
        let mut segments = Vec::with_capacity(count);
        for (index, bytes) in indexes.into_iter().zip(batch.open(&base)?) {
            let thin = Thin::decode(&bytes)?;
            let references: Vec<Reference> = thin.references().collect();
            let known = view.find(&references).map_err(Error::Space)?;
            segments.push((index, thin, known));
        }
        let challenges = match &mut self.proving {
            Some(proving) => proving.challenge(&mut segments, &batch.eager, self.open.dry_run, view)?,
            None => Vec::new(),
        };
        if !self.others.is_empty() {
            let known = segments.iter().flat_map(|(_, _, known)| known.iter().copied().flatten()).collect();
            naming::choose_base(&mut self.base, std::mem::take(&mut self.others), &known, view);
        }
        let listed = Listed::of(segments.iter().map(|(index, _, known)| (*index, known.as_slice())));
        let mut likenesses = if self.is_by_base || self.open.dry_run {
            // The agent knows by itself, or nothing will come.
            Vec::new()
        } else {
            let edges = self.record_queries.edges(&listed);
            self.block_sum_maker.likenesses(&self.base, &self.segments, &segments, &edges, view)?
        };
        let mut replies = challenges;
        replies.extend(self.record_queries.answer(&mut likenesses, &listed, &self.base, view));
        let (mut asked_at, mut unexplained) = (HashMap::new(), 0);
        for (index, thin, known) in segments {
            let references: Vec<Reference> = thin.references().collect();
            if self.open.dry_run {
                // Nothing will come, and the same chunk may be counted again.
                self.waiting.clear();
            }
            let eager: Vec<bool> = batch.eager.iter().skip(chunks).take(references.len()).collect();
            let by_short = references.iter().zip(&eager).filter(|(_, eager)| **eager);
            self.eager.extend(by_short.map(|(reference, _)| reference.short()));
            chunks += references.len();
            let (asked, complete) = self.waiting.enter(index, thin, known)?;
            self.cost.unseen_chunks += asked.iter().filter(|asked| **asked).count() as u64;
            for number in (0..).zip(&asked).filter(|(_, asked)| **asked).map(|(number, _)| number) {
                asked_at.insert(RefAt { segment: index, reference: number }, asked_at.len());
            }
            let is_eager = |number: usize| eager.get(number) == Some(&true);
            unexplained += (0..).zip(&asked).filter(|(number, asked)| **asked && !is_eager(*number)).count();
            marks.extend(asked);
            if let Some(complete) = complete.filter(|_| !self.open.dry_run) {
                self.take(complete, view)?;
            }
        }
        if self.eager.len() > PUSH_CHUNKS_IN_FLIGHT {
            return Err(Error::Limit { what: "chunks in flight", max: PUSH_CHUNKS_IN_FLIGHT });
        }
        if self.open.dry_run && self.wanted.is_empty() {
            self.state = State::Finished;
        }
        let signed = self.block_sum_maker.make(likenesses, &asked_at, view);
        unexplained -= signed.iter().map(|signed| signed.chunks as usize).sum::<usize>().min(unexplained);
        replies.extend(signed.into_iter().map(PushReply::BlockSums));
        if unexplained > 0 && !self.open.dry_run {
            replies.extend(self.block_sum_maker.want_sketches(view));
        }
        replies.push(PushReply::Missing(marks.into_iter().collect()));
        Ok(replies)
    }

    /// Takes the answer to the next challenge. A wrong answer may come of a short id that two chunks share: the push
    /// then begins again with full ids, and there a wrong answer is refused.
    fn proof(&mut self, proof: &ByteArray<32>, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let proving = self.proving.as_mut().ok_or(Error::OutOfTurn("Proof"))?;
        if proving.answered(proof, view)? {
            return self.commit_if_due(view);
        }
        if matches!(self.open.manifest, ManifestForm::Full(_)) {
            Err(Error::NotProven)
        } else {
            Ok(self.mismatch())
        }
    }

    /// Takes requested or eager chunks in the frame that they came in.
    fn chunks(&mut self, opened: OpenedBatch, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let (arrived, complete) = self.arrive(opened.chunks())?;
        let (batch, chunks) = opened.into_parts();
        self.cost.sent_bytes += batch.payload.len() as u64;
        let wanted = chunks.into_iter().zip(&arrived).filter(|(_, arrived)| arrived.is_some());
        view.sketch(wanted.filter_map(|((chunk, sketch), _)| Some((chunk.id.into(), sketch?))).collect());
        if arrived.iter().all(Option::is_some) {
            let chunks = arrived.into_iter().flatten().collect();
            let frame =
                Frame { kind: FrameKind::Content, codec: batch.codec, chunks, payload: batch.payload };
            view.keep(frame).map_err(Error::Space)?;
        } else {
            let plain = self.opener.plain(&batch)?;
            transfer::keep_chunks(plain, &batch.lengths, &arrived, &mut self.compressor, view)?;
        }
        self.end_message(complete, view)
    }

    fn piece(&mut self, piece: &[u8], view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let whole = self.parcels.piece(piece)?;
        self.progress += piece.len() as u64;
        let Some((parcel, payload)) = whole else { return Ok(Vec::new()) };
        self.parcel(&parcel, &payload, view)
    }

    /// Takes the chunks of a whole parcel and re-frames them.
    fn parcel(
        &mut self,
        parcel: &Parcel,
        payload: &[u8],
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        let mut plain = Vec::new();
        let is_executable = matches!(parcel.basis, Basis::Executable(..) | Basis::Records(..));
        let opened = match &parcel.basis {
            Basis::Executable(spans, cuts) => {
                transfer::open_kept(parcel, spans, cuts, payload, &self.base, view, &mut plain)
            }
            Basis::Records(file, cuts) => transfer::open_records(
                parcel,
                self.record_queries.answered(*file),
                cuts,
                payload,
                view,
                &mut plain,
            ),
            _ => transfer::open_parcel(
                parcel,
                payload,
                &self.base,
                self.block_sum_maker.regions(),
                view,
                &mut plain,
            ),
        };
        match opened {
            Err(Error::Mismatch) => return Ok(self.mismatch()),
            opened => opened?,
        }
        let (arrived, complete) = match self.arrive(split(&plain, &parcel.lengths).map(ChunkRef::of)) {
            // It was made from another reference than the agent's: the push is repeated without this method.
            Err(Error::Unasked(_)) if is_executable => return Ok(self.mismatch()),
            arrived => arrived?,
        };
        self.cost.sent_bytes += payload.len() as u64;
        block_sums::keep_sketches(&plain, &parcel.lengths, &arrived, view);
        transfer::keep_chunks(&plain, &parcel.lengths, &arrived, &mut self.compressor, view)?;
        self.end_message(complete, view)
    }

    /// Ends the push; the agent repeats it in full.
    fn mismatch(&mut self) -> Vec<PushReply> {
        self.state = State::Finished;
        vec![PushReply::Mismatch]
    }

    /// Finds the received chunks that a segment waits for; returns the segments that they complete.
    fn arrive(
        &mut self,
        chunks: impl Iterator<Item = ChunkRef>,
    ) -> Result<(Vec<Option<ChunkRef>>, Vec<Complete>), Error> {
        let (mut arrived, mut completed) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let was_eager = self.eager.remove(&chunk.id.into());
            match self.waiting.arrive(chunk)? {
                Some(complete) => {
                    self.cost.unseen_bytes += u64::from(chunk.bytes);
                    if let Some(proving) = &mut self.proving {
                        proving.sent(&chunk);
                    }
                    self.progress += u64::from(chunk.bytes);
                    completed.extend(complete);
                    arrived.push(Some(chunk));
                }
                None if was_eager || self.base_refused => arrived.push(None),
                None => return Err(Error::Unasked(chunk.id)),
            }
        }
        Ok((arrived, completed))
    }

    /// Ends a message of content.
    fn end_message(
        &mut self,
        complete: Vec<Complete>,
        view: &mut impl SpaceView,
    ) -> Result<Vec<PushReply>, Error> {
        view.kept_message();
        for complete in complete {
            self.take(complete, view)?;
        }
        self.commit_if_due(view)
    }

    /// Takes a complete segment; keeps it with its neighbours.
    fn take(&mut self, complete: Complete, view: &mut impl SpaceView) -> Result<(), Error> {
        self.segments[usize::from(complete.index)] = Some(complete.node());
        self.complete.add(complete.bytes, &mut self.compressor, view)
    }

    /// Commits where that was ordered and nothing is missing.
    fn commit_if_due(&mut self, view: &mut impl SpaceView) -> Result<Vec<PushReply>, Error> {
        let is_unproven = self.proving.as_ref().is_some_and(Proving::is_open);
        if !self.commit_ordered || is_unproven || self.waiting.asked() > 0 || self.parcels.is_open() {
            return Ok(Vec::new());
        }
        let segments: Vec<NodeRef> = self.segments.iter().copied().flatten().collect();
        if segments.len() != self.segments.len() {
            return Err(Error::Incomplete(self.segments.len() - segments.len()));
        }
        let Open { profile, shape, totals, release, root: named, .. } = self.open;
        let root = Root::above(profile, shape, totals, segments.clone(), |_| {})?;
        let root = Root { named: named.map(|_| release), ..root };
        let (expected, found) = (named.unwrap_or_else(|| release.into()), root.id());
        if expected != found {
            if matches!(self.open.manifest, ManifestForm::Full(_)) {
                return Err(manifest::Error::OtherRoot { expected, found }.into());
            }
            return Ok(self.mismatch());
        }
        self.complete.flush(&mut self.compressor, view)?;
        let proposal = Proposal { open: self.open.clone(), root, segments, cost: self.cost };
        if self.open.cache_only {
            let until = view.cache(&proposal).map_err(Error::Space)?;
            self.state = State::Finished;
            return Ok(vec![PushReply::Cached(until)]);
        }
        if let Some(path) = view.prove(&proposal).map_err(Error::Space)? {
            self.state = State::Finished;
            return Ok(vec![PushReply::Unproven(ByteBuf::from(path.as_bytes().to_vec()))]);
        }
        let (record, existing) = view.commit(proposal).map_err(Error::Space)?;
        self.state = State::Finished;
        Ok(vec![PushReply::Committed { record, existing }])
    }
}
