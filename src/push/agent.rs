//! The agent's half of a push.

use std::collections::VecDeque;

use super::Error;
use crate::limits::{OPEN_NAMES_MAX, SEGMENT_BATCH_BYTES};
use crate::manifest::NodeRef;
use crate::record::{DeliveryEvent, Record};
use crate::wire::{FromAgent, Marks, Open, PushReply, pack_names};

/// `Segments` on their way at a time: bounds what the proxy has asked for and not yet got to some
/// 30,000 chunks, and keeps the link busy over any round trip.
const SEGMENT_BATCHES_OPEN: usize = 8;
/// Names in one message: 256 KiB.
const NAMES_PER_MESSAGE: usize = crate::limits::MESSAGE_ITEMS_MAX;
/// Segments in one batch; a frame holds no more parts.
const SEGMENTS_PER_BATCH: usize = 256;

/// What the agent is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(FromAgent),
    /// Send these segments, by place, as one `Segments`.
    SendSegments(Vec<u32>),
    /// Send the marked ones of all chunk references of these segments, then call [`Agent::chunks_sent`].
    SendChunks {
        /// The segments, by place.
        segments: Vec<u32>,
        /// Which of their chunk references, in order.
        marks: Marks,
    },
    /// So many `Chunks` messages are safe now.
    Stored(u64),
    /// The release is safe.
    Committed {
        /// What the proxy wrote.
        record: Record,
        /// Whether the application's latest release was this one already.
        existing: bool,
    },
    /// A delivery goes on.
    Delivery(DeliveryEvent),
    /// There is nothing more to do.
    Finish,
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

/// The agent's half: what the proxy says in, actions out. Memory: 36 B for each segment of the manifest.
#[derive(Debug)]
pub struct Agent {
    segments: Vec<NodeRef>,
    dry_run: bool,
    state: State,
    /// Batches of wanted segments that have not been sent.
    waiting: VecDeque<Vec<u32>>,
    /// Batches that were sent and not yet answered.
    unanswered: VecDeque<Vec<u32>>,
    /// `SendChunks` under way.
    sending: usize,
    round_trips: u32,
}

impl Agent {
    /// Begins a push of the manifest with these `segments`; fills in the names that `open` carries.
    pub fn new(mut open: Open, segments: Vec<NodeRef>) -> (Self, Open) {
        if segments.len() <= OPEN_NAMES_MAX {
            open.names = pack_names(segments.iter().map(|segment| segment.id.prefix()));
        }
        let agent = Self {
            segments,
            dry_run: open.dry_run,
            state: State::Opened,
            waiting: VecDeque::new(),
            unanswered: VecDeque::new(),
            sending: 0,
            round_trips: 0,
        };
        (agent, open)
    }

    /// Dependent exchanges with the proxy so far: how often the push had to wait for an answer, the
    /// batches of one step counted once.
    pub fn round_trips(&self) -> u32 {
        self.round_trips
    }

    /// What to do about what the proxy said.
    ///
    /// # Errors
    /// A refusal, or something that does not belong here.
    pub fn receive(&mut self, reply: PushReply) -> Result<Vec<Action>, Error> {
        match (self.state, reply) {
            (_, PushReply::Refused(refusal)) => Err(Error::Refused(refusal)),
            (State::Opened, PushReply::WantNames) => {
                self.turn(State::Named);
                Ok(self.names())
            }
            (State::Opened | State::Named, PushReply::WantSegments(marks))
                if marks.fits(self.segments.len()) =>
            {
                self.turn(State::Sending);
                self.queue(&marks);
                Ok(self.proceed())
            }
            (State::Sending, PushReply::Missing(marks)) => self.missing(marks),
            (State::Sending | State::Committing, PushReply::Stored(batches)) => {
                Ok(vec![Action::Stored(batches)])
            }
            (State::Opened | State::Committing, PushReply::Committed { record, existing }) => {
                self.turn(State::Delivering);
                Ok(vec![Action::Committed { record, existing }])
            }
            (State::Delivering, PushReply::Delivery(event)) => Ok(vec![Action::Delivery(event)]),
            // A dry run is over for the proxy before the agent has compressed what it would have sent.
            (State::Sending, PushReply::Done) if self.is_answered() => Ok(Vec::new()),
            (State::Delivering, PushReply::Done) => {
                self.state = State::Finished;
                Ok(vec![Action::Finish])
            }
            (_, reply) => Err(Error::OutOfTurn(name_of(&reply))),
        }
    }

    /// Whether the proxy has nothing more to say: a dry run, all of whose segments were answered.
    pub fn is_answered(&self) -> bool {
        self.dry_run && self.waiting.is_empty() && self.unanswered.is_empty()
    }

    /// One `SendChunks` is done.
    pub fn chunks_sent(&mut self) -> Vec<Action> {
        self.sending = self.sending.saturating_sub(1);
        self.proceed()
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.round_trips += 1;
    }

    fn names(&self) -> Vec<Action> {
        let names = |part: &[NodeRef]| pack_names(part.iter().map(|segment| segment.id.prefix()));
        self.segments
            .chunks(NAMES_PER_MESSAGE)
            .map(|part| Action::Send(FromAgent::Names(names(part))))
            .collect()
    }

    /// Cuts the wanted segments into batches.
    fn queue(&mut self, marks: &Marks) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for place in marks.places() {
            let length = self.segments[place as usize].bytes as usize;
            if !batch.is_empty()
                && (bytes + length > SEGMENT_BATCH_BYTES || batch.len() == SEGMENTS_PER_BATCH)
            {
                self.waiting.push_back(std::mem::take(&mut batch));
                bytes = 0;
            }
            batch.push(place);
            bytes += length;
        }
        if !batch.is_empty() {
            self.waiting.push_back(batch);
        }
    }

    fn missing(&mut self, marks: Marks) -> Result<Vec<Action>, Error> {
        let segments = self.unanswered.pop_front().ok_or(Error::OutOfTurn("Missing"))?;
        if self.waiting.is_empty() && self.unanswered.is_empty() {
            self.round_trips += 1;
        }
        self.sending += 1;
        let mut actions = vec![Action::SendChunks { segments, marks }];
        actions.extend(self.proceed());
        Ok(actions)
    }

    /// Sends further segments while few are open; commits, or ends a dry run, when all is sent.
    fn proceed(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.state == State::Sending && self.unanswered.len() + self.sending < SEGMENT_BATCHES_OPEN {
            let Some(batch) = self.waiting.pop_front() else { break };
            self.unanswered.push_back(batch.clone());
            actions.push(Action::SendSegments(batch));
        }
        let all_sent = self.waiting.is_empty() && self.unanswered.is_empty() && self.sending == 0;
        if self.state == State::Sending && all_sent {
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

fn name_of(reply: &PushReply) -> &'static str {
    match reply {
        PushReply::WantNames => "WantNames",
        PushReply::WantSegments(_) => "WantSegments",
        PushReply::Missing(_) => "Missing",
        PushReply::Stored(_) => "Stored",
        PushReply::Committed { .. } => "Committed",
        PushReply::Delivery(_) => "Delivery",
        PushReply::Done => "Done",
        PushReply::Refused(_) => "Refused",
    }
}
