//! The agent's half of a push.

mod pending;
mod opening;
mod window;

pub use window::Window;

use std::collections::VecDeque;

use self::pending::Pending;
use crate::Error;
use crate::likeness::SegmentsReplaced;
use crate::wire::{BlockSums, Challenge, FromAgent, Marks, PushReply, RecordAnswer};
use format::manifest::{EntryPath, NodeRef, SegmentIndex};
use format::record::{DeliveryEvent, Record};
use ground::ids::ReleaseId;
use ground::limits::{
    ANSWER_BYTES_MAX, ANSWER_SIGNED_MAX, MESSAGE_ITEMS_MAX, PARCEL_SPANS_MAX, PUSH_STEPS_OPEN,
    RECORD_QUERIES_MAX,
};

/// Names in one message: 256 KiB at most.
const NAMES_PER_MESSAGE: usize = MESSAGE_ITEMS_MAX;
/// 32 MiB: signatures that answer all steps under way: of some gigabyte.
const BLOCK_SUMS_BYTES_MAX: usize = PUSH_STEPS_OPEN * ANSWER_SIGNED_MAX;
/// Segments in one batch; a frame holds no more parts.
const SEGMENTS_PER_BATCH: usize = 256;

/// The next step of the agent's driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(FromAgent),
    /// Send these segments as one `Segments`.
    SendSegments(Segments),
    /// Sketch those of these chunks that resemble nothing so far, if that may pay, then call [`Agent::sketched`].
    Sketch(Chunks),
    /// Send these chunks, then call [`Agent::chunks_sent`].
    SendChunks(Chunks),
    /// Prove that these segments' marked chunks are here, and send the answer as a `Proof`.
    Prove {
        /// The segments.
        segments: Vec<SegmentIndex>,
        /// The challenge.
        challenge: Challenge,
    },
    /// This number of `Chunks` and `Parcel`s is safe now.
    Stored(u64),
    /// The release is safe.
    Committed {
        /// The record that the proxy wrote.
        record: Record,
        /// True if the application's latest release was this one already.
        existing: bool,
    },
    /// The content is safe, without a release, until then: seconds since 1970.
    Cached(u64),
    /// A delivery has a new state.
    Delivery(DeliveryEvent),
    /// There is nothing more to do.
    Finish,
}

/// Chunks to send: the marked ones of all chunk references of some segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    /// The segments.
    pub segments: Vec<SegmentIndex>,
    /// Marks over their chunk references, in order.
    pub marks: Marks,
    /// Block sums of the proxy's content that some of them resemble.
    pub block_sums: Vec<BlockSums>,
    /// The records that the proxy has of executables that were queried.
    pub answers: Vec<RecordAnswer>,
    /// True if the segment after these is sent too, and its chunks with another of these.
    pub goes_on: bool,
}

/// Segments to send, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// Which.
    pub segments: Vec<SegmentIndex>,
    /// In full instead of thin.
    pub full: bool,
    /// The base's segments to compress them against; none without a base.
    pub against: Option<Vec<SegmentIndex>>,
    /// True if the driver marks the chunks that the base lacks and calls [`Agent::eager_marked`].
    pub eager: bool,
    /// True if the proxy accepts record queries about executables in them.
    pub executables: bool,
}

/// How an agent opens a push. The machine makes the [`ManifestForm`](crate::wire::ManifestForm) to send from it and the
/// segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// By the release that the proxy confirmed last time, and its segments.
    Base(ReleaseId, Vec<NodeRef>),
    /// The same after a push that broke off: new chunks may have crossed, so that none is sent unasked.
    Again(ReleaseId, Vec<NodeRef>),
    /// By short names.
    Short,
    /// In full, after an [`Error::Mismatch`].
    Full,
    /// As it is read: segments come by [`Agent::grow`], the end by [`Agent::grown`].
    Growing,
}

/// Where a push stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opened,
    Named,
    Sending,
    Committing,
    Delivering,
    Finished,
}

/// A manifest that is announced while the input is read.
#[derive(Debug, Clone, Copy, Default)]
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
    eager: Option<Marks>,
    /// References that the proxy has asked a proof for.
    proven: usize,
}

/// The agent's half: messages of the proxy in, actions out.
///
/// Memory: 36 B for each segment of the manifest, and 33 MiB of signatures and answers at most.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each changes on its own")]
pub struct Agent {
    segments: Vec<NodeRef>,
    window: Window,
    dry_run: bool,
    full: bool,
    growth: Option<Growth>,
    /// The base's segments that new ones replace, while the push is by a base.
    replaced: Option<SegmentsReplaced>,
    state: State,
    /// Batches of wanted segments that have not been sent.
    waiting: VecDeque<Vec<SegmentIndex>>,
    unanswered: VecDeque<Unanswered>,
    /// Signatures for the next `Missing`, and their bytes.
    block_sums: Vec<BlockSums>,
    block_sums_bytes: usize,
    /// Answers for the next `Missing`.
    answers: Vec<RecordAnswer>,
    /// Of all answers to come.
    answer_bytes_left: usize,
    /// True if chunks that the base lacks are sent unasked.
    eager: bool,
    /// True if the proxy accepts record queries.
    wants_record_queries: bool,
    /// True if the proxy can find content by sketches.
    wants_sketches: bool,
    /// Chunks that wait for similar content, or for others that do: their order stays.
    pending: VecDeque<Pending>,
    /// `SendChunks` under way.
    sending: usize,
    /// True if the last one was said to go on: then the next comes, even without chunks.
    goes_on: bool,
    round_trips: u32,
}

impl Agent {
    /// Returns the round trips so far: how often the push had to wait for an answer, the
    /// batches of one step counted once.
    pub fn round_trips(&self) -> u32 {
        self.round_trips
    }

    /// Returns whether the agent waits for a reply of the proxy.
    pub fn awaits_reply(&self) -> bool {
        let looked_for = self.pending.iter().any(|pending| pending.is_looked_for);
        match self.state {
            State::Opened | State::Named => !self.is_growing(),
            State::Sending => !self.unanswered.is_empty() || looked_for,
            State::Committing | State::Delivering => true,
            State::Finished => false,
        }
    }

    /// Returns whether chunks are being prepared or sent.
    pub fn is_sending(&self) -> bool {
        self.sending > self.pending.len()
    }

    /// Returns whether the push is by a base, which then both sides have.
    pub fn is_based(&self) -> bool {
        self.replaced.is_some()
    }

    /// Takes a reply of the proxy and returns the actions to take.
    ///
    /// # Errors
    /// A refusal; a message out of turn.
    pub fn receive(&mut self, reply: PushReply) -> Result<Vec<Action>, Error> {
        match (self.state, reply) {
            (_, PushReply::Refused(refusal)) => Err(Error::Refused(refusal)),
            (State::Opened, PushReply::WantNames) if self.growth.is_some() => {
                // Nobody waited: the input was read meanwhile. Names come with its end.
                self.state = State::Named;
                if self.is_growing() {
                    return Ok(Vec::new());
                }
                self.growth = None;
                Ok(self.names())
            }
            (State::Opened, PushReply::WantNames) => {
                self.turn(State::Named);
                Ok(self.names())
            }
            (State::Opened, PushReply::WantSegments(marks)) if self.growth.is_some() && marks.fits(0) => {
                self.state = State::Sending;
                Ok(self.proceed())
            }
            (State::Sending | State::Committing, PushReply::WantNames) if self.is_based() => {
                // The proxy does not have the base: the push starts over, and the proxy ignores what was sent.
                (self.replaced, self.eager) = (None, false);
                self.goes_on = false;
                self.waiting.clear();
                self.unanswered.clear();
                self.turn(State::Named);
                Ok(self.names())
            }
            (State::Opened | State::Named, PushReply::WantRecordQueries) => {
                self.wants_record_queries = true;
                Ok(Vec::new())
            }
            (State::Sending | State::Committing, PushReply::WantSketches) => {
                self.wants_sketches = true;
                Ok(Vec::new())
            }
            (State::Sending | State::Committing, PushReply::Alike) => self.alike(),
            (State::Sending | State::Committing, PushReply::RecordAnswer(answer))
                if self.wants_record_queries && self.answers.len() < RECORD_QUERIES_MAX =>
            {
                let limit = Error::Limit { what: "bytes of record answers", max: ANSWER_BYTES_MAX };
                self.answer_bytes_left =
                    self.answer_bytes_left.checked_sub(answer.answer.len()).ok_or(limit)?;
                self.answers.push(answer);
                Ok(Vec::new())
            }
            (State::Opened | State::Named, PushReply::WantSegments(marks))
                if marks.fits(self.segments.len()) =>
            {
                self.turn(State::Sending);
                self.queue(marks.places().map(SegmentIndex::new));
                Ok(self.proceed())
            }
            (State::Sending | State::Committing, PushReply::BlockSums(block_sums))
                if self.block_sums.len() < PARCEL_SPANS_MAX =>
            {
                // What has no room is sent without a signature.
                let bytes = self.block_sums_bytes + block_sums.signature.len();
                if bytes <= BLOCK_SUMS_BYTES_MAX {
                    self.block_sums_bytes = bytes;
                    self.block_sums.push(block_sums);
                }
                Ok(Vec::new())
            }
            (State::Sending | State::Committing, PushReply::Prove(challenge)) => {
                let asked = self.unanswered.front_mut().ok_or(Error::OutOfTurn("Prove"))?;
                // Each chunk is asked for once: no proxy has this machine read on and on.
                asked.proven += challenge.marks.marked();
                if challenge.marks.marked() == 0 || asked.proven > challenge.marks.count() {
                    return Err(Error::OutOfTurn("Prove"));
                }
                Ok(vec![Action::Prove { segments: asked.segments.clone(), challenge }])
            }
            (State::Sending | State::Committing, PushReply::Missing(marks)) => self.missing(&marks),
            (State::Sending | State::Committing, PushReply::Mismatch) if !self.full => Err(Error::Mismatch),
            (State::Sending | State::Committing, PushReply::Unproven(path)) => {
                Err(match EntryPath::new(path.into_vec()) {
                    Ok(path) => Error::Unproven(path),
                    Err(error) => error.into(),
                })
            }
            (
                State::Opened | State::Named | State::Sending | State::Committing,
                PushReply::Committed { record, existing },
            ) if !self.is_growing() && (self.state != State::Sending || self.is_based()) => {
                Ok(self.safe(Action::Committed { record, existing }))
            }
            (State::Committing, PushReply::Cached(until)) => Ok(self.safe(Action::Cached(until))),
            (State::Delivering, PushReply::Delivery(event)) => Ok(vec![Action::Delivery(event)]),
            // Also from a proxy that only says that it is at work.
            (
                State::Opened | State::Named | State::Sending | State::Committing | State::Delivering,
                PushReply::Stored(messages),
            ) => Ok(vec![Action::Stored(messages)]),
            // A dry run is over for the proxy before the agent has compressed what it would have sent.
            (State::Sending, PushReply::Done) if self.is_answered() => Ok(Vec::new()),
            (State::Delivering, PushReply::Done) => {
                self.state = State::Finished;
                Ok(vec![Action::Finish])
            }
            (_, reply) => Err(Error::OutOfTurn(reply.name())),
        }
    }

    /// Notes that the proxy has all that it wants.
    fn safe(&mut self, action: Action) -> Vec<Action> {
        self.waiting.clear();
        self.turn(State::Delivering);
        vec![action]
    }

    /// Returns whether the proxy has nothing more to say: a dry run, all of whose segments were answered.
    pub fn is_answered(&self) -> bool {
        self.dry_run && self.waiting.is_empty() && self.unanswered.is_empty()
    }

    /// Notes that the last segments are sent, and that their chunks with these marks will be, unasked.
    pub fn eager_marked(&mut self, marks: Marks) -> Vec<Action> {
        let Some(last) = self.unanswered.back_mut() else { return Vec::new() };
        let segments = last.segments.clone();
        last.eager = Some(marks.clone());
        let goes_on = Self::is_next(self.waiting.front(), &segments);
        if marks.marked() == 0 && !self.goes_on {
            return self.proceed();
        }
        self.goes_on = goes_on;
        self.sending += 1;
        let (block_sums, answers) = (Vec::new(), Vec::new());
        let mut actions = vec![Action::SendChunks(Chunks { segments, marks, block_sums, answers, goes_on })];
        actions.extend(self.proceed());
        actions
    }

    /// One `SendChunks` is done.
    pub fn chunks_sent(&mut self) -> Vec<Action> {
        self.sending = self.sending.saturating_sub(1);
        self.proceed()
    }

    /// Returns whether the segments `next` follow those `before` them.
    fn is_next(next: Option<&Vec<SegmentIndex>>, before: &[SegmentIndex]) -> bool {
        let first = next.and_then(|next| next.first());
        before.last().is_some_and(|last| first == Some(&last.next()))
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.round_trips += 1;
    }

    fn missing(&mut self, marks: &Marks) -> Result<Vec<Action>, Error> {
        let Unanswered { segments, eager, .. } =
            self.unanswered.pop_front().ok_or(Error::OutOfTurn("Missing"))?;
        if self.waiting.is_empty() && self.unanswered.is_empty() && !self.eager && !self.is_growing() {
            self.round_trips += 1;
        }
        let mut block_sums = std::mem::take(&mut self.block_sums);
        self.count_block_sums();
        let answers = std::mem::take(&mut self.answers);
        let was_eager = eager.is_some();
        let marks = match eager {
            None => marks.clone(),
            // Eager chunks are on their way already.
            Some(eager) => {
                // Places among all that are missing say nothing of the rest.
                block_sums.clear();
                let rest = marks.iter().zip(eager.iter().chain(std::iter::repeat(false)));
                rest.map(|(missing, eager)| missing && !eager).collect()
            }
        };
        let mut actions = Vec::new();
        // The rest of what was queried stands alone: the queries say what continues.
        let next = self.unanswered.front().map(|next| &next.segments).or(self.waiting.front());
        let goes_on = !was_eager && Self::is_next(next, &segments);
        if marks.marked() > 0 || (self.goes_on && !was_eager) {
            if self.eager {
                self.round_trips += 1;
            }
            if !was_eager {
                self.goes_on = goes_on;
            }
            self.sending += 1;
            let chunks = Chunks { segments, marks, block_sums, answers, goes_on };
            let may_be_like = self.wants_sketches && !self.dry_run;
            actions.push(if may_be_like { Action::Sketch(chunks) } else { Action::SendChunks(chunks) });
        }
        actions.extend(self.proceed());
        Ok(actions)
    }

    /// Sends further segments while few are open; commits, or ends a dry run, when all is sent.
    fn proceed(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.state != State::Sending {
            return actions;
        }
        self.batch_grown();
        if self.unanswered.len() + self.sending < self.window.steps
            && let Some(batch) = self.waiting.pop_front()
        {
            let eager = self.eager;
            self.unanswered.push_back(Unanswered { segments: batch.clone(), eager: None, proven: 0 });
            let against = self.replaced.as_ref().map(|replaced| replaced.by(&batch));
            actions.push(Action::SendSegments(Segments {
                segments: batch,
                full: self.full,
                against,
                eager,
                executables: self.wants_record_queries,
            }));
            if eager {
                // It continues once the query is made.
                return actions;
            }
            actions.extend(self.proceed());
            return actions;
        }
        let none_open = self.unanswered.is_empty() || (self.is_based() && !self.dry_run);
        if self.waiting.is_empty() && none_open && self.sending == 0 && !self.is_growing() {
            if self.dry_run {
                self.state = State::Finished;
                actions.push(Action::Finish);
            } else {
                self.state = State::Committing;
                actions.push(Action::Send(FromAgent::Commit));
            }
        }
        actions
    }
}
