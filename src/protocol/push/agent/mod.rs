//! The agent's half of a push.

mod exchange;
mod opening;

pub use opening::Opening;

use self::exchange::Exchange;
use crate::wire::{FromAgent, Grown, PushReply};
use crate::{Error, InputView};
use format::manifest::{EntryPath, NodeRef, Root, SegmentIndex};
use format::record::{DeliveryEvent, Record};
use ground::ids::RolloutId;
use ground::limits::{PUSH_STEPS_OPEN, SEGMENT_BATCH_BYTES};

/// Segments in one batch; a frame holds no more parts.
const SEGMENTS_PER_BATCH: usize = 256;

/// The next step of the agent's driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(FromAgent),
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
    /// The release is rolled out.
    RollsOut(RolloutId),
    /// There is nothing more to do.
    Finish,
}

/// Bounds what an agent has under way at a time.
///
/// Any window will do; with a smaller one, a push waits for answers more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Steps: from 1 to [`PUSH_STEPS_OPEN`], which the proxy's credit is for.
    pub steps: usize,
    /// Plain bytes of the segments of one step.
    pub step_bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { steps: PUSH_STEPS_OPEN, step_bytes: SEGMENT_BATCH_BYTES }
    }
}

impl Window {
    /// Cuts the `wanted` ones of all `segments` into the batches of one step each.
    fn batches(
        self,
        segments: &[NodeRef],
        wanted: impl Iterator<Item = SegmentIndex>,
    ) -> impl Iterator<Item = Vec<SegmentIndex>> {
        let mut wanted = wanted.peekable();
        std::iter::from_fn(move || {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let fits = |index: &SegmentIndex, batch: &[SegmentIndex], bytes: &mut usize| {
                *bytes += segments[usize::from(*index)].bytes as usize;
                batch.is_empty() || (*bytes <= self.step_bytes && batch.len() < SEGMENTS_PER_BATCH)
            };
            while let Some(index) = wanted.next_if(|index| fits(index, &batch, &mut bytes)) {
                batch.push(index);
            }
            (!batch.is_empty()).then_some(batch)
        })
    }
}

/// How segments and chunks are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Short,
    Full,
}

/// What the agent knows in every state.
#[derive(Debug)]
struct Known {
    /// The manifest's segments, as far as they are read.
    segments: Vec<NodeRef>,
    window: Window,
    names: Names,
    is_dry_run: bool,
    /// True if the proxy accepts record queries.
    takes_record_queries: bool,
    /// Chunks that are being encoded, of so many steps.
    encoding: usize,
    round_trips: u32,
}

/// Where a push stands.
#[derive(Debug)]
enum State {
    /// Announced by names; the proxy has not answered.
    Opened,
    /// Announced as it is read; the proxy has not answered.
    Growing {
        /// True if all of the manifest is there.
        is_over: bool,
    },
    /// The proxy wants the names of a manifest that is still being read.
    NamesDue,
    /// All names are sent.
    Named,
    /// Segments and chunks are sent, or all are and the commit is.
    Exchanging(Box<Exchange>),
    /// All is safe; deliveries follow.
    Delivering,
    /// There is nothing more to do.
    Finished,
}

/// The agent's half: messages of the proxy in, actions out.
///
/// Memory: 36 B for each segment of the manifest, and 33 MiB of signatures and answers at most.
#[derive(Debug)]
pub struct Agent {
    known: Known,
    state: State,
}

impl Agent {
    /// Returns the round trips so far: how often the push had to wait for an answer, the
    /// batches of one step counted once.
    pub fn round_trips(&self) -> u32 {
        self.known.round_trips
    }

    /// Returns whether the agent waits for a reply of the proxy.
    pub fn awaits_reply(&self) -> bool {
        match &self.state {
            State::Opened | State::Named | State::Delivering => true,
            State::Growing { is_over } => *is_over,
            State::NamesDue | State::Finished => false,
            State::Exchanging(exchange) => exchange.awaits_reply(),
        }
    }

    /// Returns whether chunks are being encoded or sent.
    pub fn is_sending(&self) -> bool {
        self.known.encoding > 0
    }

    /// Returns whether the push is by a base, which then both sides have.
    pub fn is_based(&self) -> bool {
        matches!(&self.state, State::Exchanging(exchange) if exchange.is_based())
    }

    /// Returns whether the proxy has nothing more to say: a dry run, all of whose segments were answered.
    pub fn is_answered(&self) -> bool {
        matches!(&self.state, State::Exchanging(exchange) if self.known.is_dry_run && exchange.is_answered())
    }

    /// Returns the actions to take right after the request is sent.
    ///
    /// # Errors
    /// Those of the view.
    pub fn begin<V: InputView>(&mut self, view: &mut V) -> Result<Vec<Action>, V::Error> {
        self.proceed(view)
    }

    /// Takes a reply of the proxy and returns the actions to take.
    ///
    /// # Errors
    /// A refusal; a message out of turn; those of the view.
    pub fn receive<V: InputView>(&mut self, reply: PushReply, view: &mut V) -> Result<Vec<Action>, V::Error> {
        match (&mut self.state, reply) {
            (_, PushReply::Refused(refusal)) => Err(Error::Refused(refusal).into()),
            (State::Finished, reply) => Err(Error::OutOfTurn(reply.name()).into()),
            // Also from a proxy that only says that it is at work.
            (_, PushReply::Stored(messages)) => Ok(vec![Action::Stored(messages)]),
            (State::Exchanging(exchange), PushReply::WantNames) if exchange.is_based() => {
                // The proxy does not have the base: the push starts over, and the proxy ignores what was sent.
                Ok(self.name())
            }
            (State::Exchanging(exchange), PushReply::Committed { record, existing })
                if exchange.may_be_committed() =>
            {
                Ok(self.safe(Action::Committed { record, existing }))
            }
            (State::Exchanging(exchange), PushReply::Cached(until)) if exchange.is_committing() => {
                Ok(self.safe(Action::Cached(until)))
            }
            (State::Exchanging(exchange), reply) => exchange.receive(reply, &mut self.known, view),
            (State::Delivering, reply) => Ok(self.delivering(reply)?),
            (State::Opened | State::Growing { .. } | State::NamesDue | State::Named, reply) => {
                self.opening(reply, view)
            }
        }
    }

    /// Takes the answer to the request, or to the names.
    fn opening<V: InputView>(&mut self, reply: PushReply, view: &mut V) -> Result<Vec<Action>, V::Error> {
        match (&self.state, reply) {
            (_, PushReply::WantRecordQueries) => {
                self.known.takes_record_queries = true;
                Ok(Vec::new())
            }
            (State::Opened, PushReply::WantNames) => Ok(self.name()),
            // Nobody waited: the input was read meanwhile. Names come with its end.
            (State::Growing { is_over: false }, PushReply::WantNames) => {
                self.state = State::NamesDue;
                Ok(Vec::new())
            }
            (State::Growing { is_over: true }, PushReply::WantNames) => {
                self.state = State::Named;
                Ok(self.known.names.messages(&self.known.segments))
            }
            (State::Growing { is_over }, PushReply::WantSegments(marks)) if marks.fits(0) => {
                self.state = State::Exchanging(Box::new(Exchange::growing(*is_over)));
                self.proceed(view)
            }
            (State::Opened | State::Named, PushReply::WantSegments(marks))
                if marks.fits(self.known.segments.len()) =>
            {
                let wanted = marks.places().map(SegmentIndex::new);
                let waiting = self.known.window.batches(&self.known.segments, wanted).collect();
                self.turn(State::Exchanging(Box::new(Exchange::by_names(waiting))));
                self.proceed(view)
            }
            (
                State::Opened | State::Named | State::Growing { is_over: true },
                PushReply::Committed { record, existing },
            ) => Ok(self.safe(Action::Committed { record, existing })),
            (_, reply) => Err(Error::OutOfTurn(reply.name()).into()),
        }
    }

    /// Takes news of deliveries.
    fn delivering(&mut self, reply: PushReply) -> Result<Vec<Action>, Error> {
        match reply {
            PushReply::Delivery(event) => Ok(vec![Action::Delivery(event)]),
            PushReply::RollsOut(rollout) => Ok(vec![Action::RollsOut(rollout)]),
            PushReply::Done => {
                self.state = State::Finished;
                Ok(vec![Action::Finish])
            }
            reply => Err(Error::OutOfTurn(reply.name())),
        }
    }

    /// Takes the next segments of a manifest that is announced while the input is read.
    ///
    /// # Errors
    /// Those of the view.
    pub fn grow<V: InputView>(
        &mut self,
        segments: impl IntoIterator<Item = NodeRef>,
        view: &mut V,
    ) -> Result<Vec<Action>, V::Error> {
        self.known.segments.extend(segments);
        self.proceed(view)
    }

    /// Takes the end of such a manifest: its root.
    ///
    /// # Errors
    /// Those of the view.
    pub fn grown<V: InputView>(&mut self, root: &Root, view: &mut V) -> Result<Vec<Action>, V::Error> {
        let segments = u32::try_from(self.known.segments.len()).expect("a manifest's segments are bounded");
        let (release, totals, root) = (root.release(), root.totals, root.named.map(|_| root.id()));
        let mut actions = vec![Action::Send(FromAgent::Grown(Grown { release, totals, segments, root }))];
        match &mut self.state {
            State::Growing { is_over } => *is_over = true,
            State::NamesDue => {
                self.state = State::Named;
                actions.extend(self.known.names.messages(&self.known.segments));
            }
            State::Exchanging(exchange) => exchange.end_growth(),
            State::Opened | State::Named | State::Delivering | State::Finished => {}
        }
        actions.extend(self.proceed(view)?);
        Ok(actions)
    }

    /// The chunks of one step are encoded and sent.
    ///
    /// # Errors
    /// Those of the view.
    pub fn chunks_sent<V: InputView>(&mut self, view: &mut V) -> Result<Vec<Action>, V::Error> {
        self.known.encoding = self.known.encoding.saturating_sub(1);
        self.proceed(view)
    }

    fn proceed<V: InputView>(&mut self, view: &mut V) -> Result<Vec<Action>, V::Error> {
        match &mut self.state {
            State::Exchanging(exchange) => exchange.proceed(&mut self.known, view),
            _ => Ok(Vec::new()),
        }
    }

    /// Sends all names, for which the proxy waits.
    fn name(&mut self) -> Vec<Action> {
        self.turn(State::Named);
        self.known.names.messages(&self.known.segments)
    }

    /// Notes that the proxy has all that it wants.
    fn safe(&mut self, action: Action) -> Vec<Action> {
        self.turn(State::Delivering);
        vec![action]
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.known.round_trips += 1;
    }
}

/// Returns the error that sends an archive as it is the next time.
fn unproven(path: Vec<u8>) -> Error {
    EntryPath::new(path).map_or_else(Error::from, Error::Unproven)
}
