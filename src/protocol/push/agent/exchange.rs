//! The middle of a push: segments go out, answers come, and the chunks that they ask for go out.

use std::collections::VecDeque;

use super::{Action, Known, Names, unproven};
use crate::likeness::SegmentsReplaced;
use crate::transfer::{Bounds, Credit};
use crate::wire::{BlockSums, Challenge, FromAgent, Marks, PushReply, RecordAnswer};
use crate::{Chunks, Error, InputView, Segments};
use format::manifest::SegmentIndex;
use ground::limits::{
    ANSWER_BYTES_MAX, ANSWER_SIGNED_MAX, PARCEL_SPANS_MAX, PUSH_STEPS_OPEN, RECORD_QUERIES_MAX,
};

/// Signatures that answer all steps under way, of some gigabyte: 32 MiB.
const BLOCK_SUMS: Bounds = Bounds { bytes: PUSH_STEPS_OPEN * ANSWER_SIGNED_MAX, ..Bounds::PUSH };

/// The release that the push builds on.
#[derive(Debug)]
pub(super) struct Base {
    /// Its segments that new ones replace.
    pub(super) replaced: SegmentsReplaced,
    /// True if chunks that it lacks are sent unasked.
    pub(super) is_eager: bool,
}

/// A manifest that is announced while the input is read.
#[derive(Debug)]
struct Growth {
    /// True if all of it is there.
    is_over: bool,
    /// Segments that are in batches already.
    batched: usize,
}

/// `Segments` that were sent and not yet answered.
#[derive(Debug)]
struct Unanswered {
    segments: Vec<SegmentIndex>,
    /// The chunks that were sent with them.
    eager: Option<Marks>,
    /// References that the proxy has asked a proof for.
    proven: usize,
}

/// Replies for the next `Missing` or `Alike`.
#[derive(Debug)]
struct Found {
    block_sums: Vec<BlockSums>,
    /// For the bytes of these, and of those of chunks that wait.
    credit: Credit,
    answers: Vec<RecordAnswer>,
    /// Of all answers to come.
    answer_bytes_left: usize,
}

/// Chunks that wait for similar content at the proxy, or for others that do: their order stays.
#[derive(Debug)]
struct Pending {
    chunks: Chunks,
    /// True if the proxy is looking for content similar to some of them.
    is_looked_for: bool,
}

/// How far the exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sending,
    Committing,
    /// A dry run that was answered.
    Over,
}

/// Segments and chunks on their way.
#[derive(Debug)]
pub(super) struct Exchange {
    stage: Stage,
    base: Option<Base>,
    growth: Option<Growth>,
    /// Batches of wanted segments that have not been sent.
    waiting: VecDeque<Vec<SegmentIndex>>,
    unanswered: VecDeque<Unanswered>,
    found: Found,
    /// True if the proxy can find content by sketches.
    wants_sketches: bool,
    pending: VecDeque<Pending>,
    /// True if the last chunks were said to go on: then the next come, even without chunks.
    goes_on: bool,
}

impl Exchange {
    fn new(base: Option<Base>, growth: Option<Growth>, waiting: VecDeque<Vec<SegmentIndex>>) -> Self {
        let (block_sums, answers) = (Vec::new(), Vec::new());
        Self {
            stage: Stage::Sending,
            base,
            growth,
            waiting,
            unanswered: VecDeque::new(),
            found: Found {
                block_sums,
                credit: Credit::new(BLOCK_SUMS),
                answers,
                answer_bytes_left: ANSWER_BYTES_MAX,
            },
            wants_sketches: false,
            pending: VecDeque::new(),
            goes_on: false,
        }
    }

    /// Begins with batches of the segments that the base lacks.
    pub(super) fn by_base(base: Base, waiting: VecDeque<Vec<SegmentIndex>>) -> Self {
        Self::new(Some(base), None, waiting)
    }

    /// Begins with batches of the segments that the proxy wants.
    pub(super) fn by_names(waiting: VecDeque<Vec<SegmentIndex>>) -> Self {
        Self::new(None, None, waiting)
    }

    /// Begins while the input is read, or once it `is_over`.
    pub(super) fn growing(is_over: bool) -> Self {
        Self::new(None, Some(Growth { is_over, batched: 0 }), VecDeque::new())
    }

    /// Takes the end of a manifest that was announced while the input was read.
    pub(super) fn end_growth(&mut self) {
        if let Some(growth) = &mut self.growth {
            growth.is_over = true;
        }
    }

    fn is_growing(&self) -> bool {
        self.growth.as_ref().is_some_and(|growth| !growth.is_over)
    }

    /// Returns whether the push is by a base.
    pub(super) fn is_based(&self) -> bool {
        self.base.is_some()
    }

    fn is_eager(&self) -> bool {
        self.base.as_ref().is_some_and(|base| base.is_eager)
    }

    /// Returns whether the commit was sent.
    pub(super) fn is_committing(&self) -> bool {
        self.stage == Stage::Committing
    }

    /// Returns whether the proxy may have the release already.
    pub(super) fn may_be_committed(&self) -> bool {
        self.is_committing() || self.is_based()
    }

    /// Returns whether all segments were sent and answered.
    pub(super) fn is_answered(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_empty()
    }

    /// Returns whether the agent waits for a reply.
    pub(super) fn awaits_reply(&self) -> bool {
        match self.stage {
            Stage::Sending => !self.unanswered.is_empty() || self.is_looked_for(),
            Stage::Committing => true,
            Stage::Over => false,
        }
    }

    fn is_looked_for(&self) -> bool {
        self.pending.iter().any(|pending| pending.is_looked_for)
    }

    /// Takes a reply that concerns what was sent.
    pub(super) fn receive<V: InputView>(
        &mut self,
        reply: PushReply,
        known: &mut Known,
        view: &mut V,
    ) -> Result<Vec<Action>, V::Error> {
        match reply {
            PushReply::WantSketches => self.wants_sketches = true,
            PushReply::Alike => self.alike(known, view)?,
            PushReply::RecordAnswer(answer) if known.takes_record_queries => self.found.answer(answer)?,
            PushReply::BlockSums(block_sums) => self.found.block_sums(block_sums)?,
            PushReply::Prove(challenge) => return self.prove(&challenge, view),
            PushReply::Missing(marks) => return self.missing(marks, known, view),
            PushReply::Mismatch if known.names == Names::Short => return Err(Error::Mismatch.into()),
            PushReply::Unproven(path) => return Err(unproven(path.into_vec()).into()),
            // A dry run is over for the proxy before the agent has compressed what it would have sent.
            PushReply::Done if known.is_dry_run && self.is_answered() => {}
            reply => return Err(Error::OutOfTurn(reply.name()).into()),
        }
        Ok(Vec::new())
    }

    /// Proves that this side has chunks of the `Segments` that the proxy answers next.
    fn prove<V: InputView>(&mut self, challenge: &Challenge, view: &mut V) -> Result<Vec<Action>, V::Error> {
        let asked = self.unanswered.front_mut().ok_or(Error::OutOfTurn("Prove"))?;
        // Each chunk is asked for once: no proxy has this machine read on and on.
        asked.proven += challenge.marks.marked();
        if challenge.marks.marked() == 0 || asked.proven > challenge.marks.count() {
            return Err(Error::OutOfTurn("Prove").into());
        }
        let proof = view.prove(&asked.segments, challenge)?;
        Ok(vec![Action::Send(FromAgent::Proof(proof.into()))])
    }

    /// Takes the answer to the first `Segments` without one.
    fn missing<V: InputView>(
        &mut self,
        marks: Marks,
        known: &mut Known,
        view: &mut V,
    ) -> Result<Vec<Action>, V::Error> {
        let Unanswered { segments, eager, .. } =
            self.unanswered.pop_front().ok_or(Error::OutOfTurn("Missing"))?;
        if self.is_answered() && !self.is_eager() && !self.is_growing() {
            known.round_trips += 1;
        }
        let was_eager = eager.is_some();
        let (block_sums, answers) = self.found.take(was_eager);
        let marks = match eager {
            None => marks,
            // Eager chunks are on their way already.
            Some(eager) => {
                let rest = marks.iter().zip(eager.iter().chain(std::iter::repeat(false)));
                rest.map(|(missing, eager)| missing && !eager).collect()
            }
        };
        // The rest of what was queried stands alone: the queries say what continues.
        let next = self.unanswered.front().map(|next| &next.segments).or(self.waiting.front());
        let goes_on = !was_eager && follows(next, &segments);
        if marks.marked() == 0 && (was_eager || !self.goes_on) {
            self.found.let_go(&block_sums);
            return self.proceed(known, view);
        }
        if self.is_eager() {
            known.round_trips += 1;
        }
        if !was_eager {
            self.goes_on = goes_on;
        }
        let is_based = self.is_based();
        let chunks = Chunks { segments, marks, block_sums, answers, is_based, goes_on };
        if self.wants_sketches && !known.is_dry_run {
            return self.sketch(chunks, known, view);
        }
        self.encode(chunks, known, view)?;
        self.proceed(known, view)
    }

    /// Sends sketches of chunks that resemble nothing known, where that may pay; the chunks wait for the answer.
    fn sketch<V: InputView>(
        &mut self,
        chunks: Chunks,
        known: &mut Known,
        view: &mut V,
    ) -> Result<Vec<Action>, V::Error> {
        let sketches = view.sketch(&chunks)?;
        if sketches.is_some() && !self.is_looked_for() {
            known.round_trips += 1;
        }
        self.pending.push_back(Pending { chunks, is_looked_for: sketches.is_some() });
        // The next segments need not wait for these chunks.
        let mut actions = self.proceed(known, view)?;
        actions.extend(sketches.map(|sketches| Action::Send(FromAgent::Sketches(sketches))));
        self.release(known, view)?;
        Ok(actions)
    }

    /// Takes the block sums for the chunks that were looked for first.
    fn alike<V: InputView>(&mut self, known: &mut Known, view: &mut V) -> Result<(), V::Error> {
        let pending = self.pending.iter_mut().find(|pending| pending.is_looked_for);
        let pending = pending.ok_or(Error::OutOfTurn("Alike"))?;
        pending.is_looked_for = false;
        pending.chunks.block_sums.append(&mut self.found.block_sums);
        pending.chunks.block_sums.sort_by_key(|sums| sums.first);
        self.release(known, view)
    }

    /// Encodes what no longer waits.
    fn release<V: InputView>(&mut self, known: &mut Known, view: &mut V) -> Result<(), V::Error> {
        let waits = self.pending.iter().position(|pending| pending.is_looked_for);
        let free: Vec<Pending> = self.pending.drain(..waits.unwrap_or(self.pending.len())).collect();
        free.into_iter().try_for_each(|pending| self.encode(pending.chunks, known, view))
    }

    fn encode<V: InputView>(
        &mut self,
        chunks: Chunks,
        known: &mut Known,
        view: &mut V,
    ) -> Result<(), V::Error> {
        self.found.let_go(&chunks.block_sums);
        known.encoding += 1;
        view.encode(chunks)
    }

    /// Sends further segments while few steps are open; commits, or ends a dry run, when all is sent.
    pub(super) fn proceed<V: InputView>(
        &mut self,
        known: &mut Known,
        view: &mut V,
    ) -> Result<Vec<Action>, V::Error> {
        let mut actions = Vec::new();
        if self.stage != Stage::Sending {
            return Ok(actions);
        }
        self.batch_grown(known);
        while self.steps(known) < known.window.steps
            && let Some(batch) = self.waiting.pop_front()
        {
            self.send_segments(batch, known, view, &mut actions)?;
            self.batch_grown(known);
        }
        let none_open = self.unanswered.is_empty() || (self.is_based() && !known.is_dry_run);
        let none_sent = known.encoding + self.pending.len() == 0;
        if self.waiting.is_empty() && none_open && none_sent && !self.is_growing() {
            self.stage = if known.is_dry_run { Stage::Over } else { Stage::Committing };
            let is_over = self.stage == Stage::Over;
            actions.push(if is_over { Action::Finish } else { Action::Send(FromAgent::Commit) });
        }
        Ok(actions)
    }

    /// Returns the steps under way.
    fn steps(&self, known: &Known) -> usize {
        self.unanswered.len() + known.encoding + self.pending.len()
    }

    fn send_segments<V: InputView>(
        &mut self,
        segments: Vec<SegmentIndex>,
        known: &mut Known,
        view: &mut V,
        actions: &mut Vec<Action>,
    ) -> Result<(), V::Error> {
        if known.takes_record_queries {
            let queries = view.record_queries(&segments)?.into_iter();
            actions.extend(queries.map(|query| Action::Send(FromAgent::RecordQuery(query))));
        }
        let against = self.base.as_ref().map(|base| base.replaced.by(&segments));
        let (full, is_eager) = (known.names == Names::Full, self.is_eager());
        let wanted = Segments { segments, full, against, eager: is_eager };
        let batch = view.segments(&wanted)?;
        let segments = wanted.segments;
        let eager = is_eager.then(|| batch.eager.clone());
        actions.push(Action::Send(FromAgent::Segments(batch)));
        self.unanswered.push_back(Unanswered { segments: segments.clone(), eager: eager.clone(), proven: 0 });
        match eager {
            Some(marks) if marks.marked() > 0 || self.goes_on => {
                self.goes_on = follows(self.waiting.front(), &segments);
                let (block_sums, answers, goes_on) = (Vec::new(), Vec::new(), self.goes_on);
                let chunks = Chunks { segments, marks, block_sums, answers, is_based: true, goes_on };
                self.encode(chunks, known, view)
            }
            _ => Ok(()),
        }
    }

    /// Batches new segments where they fill a batch, where nothing else is under way, or where they are the last.
    fn batch_grown(&mut self, known: &Known) {
        let is_idle = self.is_answered() && known.encoding + self.pending.len() == 0;
        let Some(growth) = &mut self.growth else { return };
        let new = &known.segments[growth.batched..];
        let bytes: usize = new.iter().map(|segment| segment.bytes as usize).sum();
        if bytes > known.window.step_bytes || is_idle || growth.is_over {
            let end = known.segments.len();
            let new = SegmentIndex::range(growth.batched..end);
            self.waiting.extend(known.window.batches(&known.segments, new));
            growth.batched = end;
        }
    }
}

impl Found {
    fn answer(&mut self, answer: RecordAnswer) -> Result<(), Error> {
        if self.answers.len() == RECORD_QUERIES_MAX {
            return Err(Error::OutOfTurn("RecordAnswer"));
        }
        let limit = Error::Limit { what: "bytes of record answers", max: ANSWER_BYTES_MAX };
        self.answer_bytes_left = self.answer_bytes_left.checked_sub(answer.answer.len()).ok_or(limit)?;
        self.answers.push(answer);
        Ok(())
    }

    fn block_sums(&mut self, block_sums: BlockSums) -> Result<(), Error> {
        if self.block_sums.len() == PARCEL_SPANS_MAX {
            return Err(Error::OutOfTurn("BlockSums"));
        }
        // What has no room is sent without a signature.
        if self.credit.hold(block_sums.signature.len()).is_ok() {
            self.block_sums.push(block_sums);
        }
        Ok(())
    }

    /// Returns what a `Missing` ends. Of chunks of which some `were_eager` it drops the block sums, which name places among
    /// all that are missing and say nothing of the rest.
    fn take(&mut self, were_eager: bool) -> (Vec<BlockSums>, Vec<RecordAnswer>) {
        let mut block_sums = std::mem::take(&mut self.block_sums);
        if were_eager {
            self.let_go(&block_sums);
            block_sums.clear();
        }
        (block_sums, std::mem::take(&mut self.answers))
    }

    /// Stops counting block sums: those of chunks that are being encoded are the encoders'.
    fn let_go(&mut self, block_sums: &[BlockSums]) {
        self.credit.release(block_sums.iter().map(|sums| sums.signature.len()).sum());
    }
}

/// Returns whether the segments `next` follow those `before` them.
fn follows(next: Option<&Vec<SegmentIndex>>, before: &[SegmentIndex]) -> bool {
    let first = next.and_then(|next| next.first());
    before.last().is_some_and(|last| first == Some(&last.next()))
}
