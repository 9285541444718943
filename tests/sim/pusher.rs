//! One simulated push: both state machines, the proxy's real shelf, and the messages between them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use whit::compression::{Compressor, LEVEL_DEFAULT};
use whit::faults::Fault;
use whit::ids::{AppName, ChunkId};
use whit::proxy::SpaceShelf;
use whit::push::{Action, Agent, Error, Proxy};
use whit::store::Store;
use whit::wire::{Batch, FromAgent, Marks, Open, PushReply};

use crate::content::{Build, Pool};
use crate::random::Random;

/// More than one push of the simulation ever says.
const REPLIES_MAX: usize = 10_000;

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Stepped {
    /// There is more to do.
    Going,
    /// The release has a record.
    Committed,
    /// The proxy asked for the push to be begun again, as it may where the lease lapsed.
    Again,
    /// A dry run has its answer.
    Answered,
}

/// A push under way.
#[derive(Debug)]
pub struct Pusher {
    pub number: u64,
    pub app: AppName,
    pub build: Rc<Build>,
    pub lapsed: bool,
    open: Option<Open>,
    agent: Agent,
    proxy: Option<Proxy>,
    shelf: SpaceShelf,
    stored: mpsc::Receiver<PushReply>,
    to_proxy: VecDeque<FromAgent>,
    to_agent: VecDeque<PushReply>,
    /// The chunks of each `Chunks` that the proxy received.
    received: Vec<Vec<ChunkId>>,
    acknowledged: usize,
    dry_run: bool,
    answered: bool,
}

impl Pusher {
    pub fn new(number: u64, app: &AppName, build: &Rc<Build>, store: &Arc<Store>, dry_run: bool) -> Self {
        let open = Open {
            app: app.clone(),
            labels: Vec::new(),
            destinations: Vec::new(),
            release: build.release,
            profile: build.root.profile,
            shape: build.root.shape,
            totals: build.root.totals,
            segments: u32::try_from(build.nodes.len()).expect("few"),
            names: Vec::new(),
            dry_run,
        };
        let (agent, open) = Agent::new(open, build.nodes.clone());
        let (replies, stored) = mpsc::channel(REPLIES_MAX);
        let user = "sim".parse().expect("a name");
        Self {
            number,
            app: app.clone(),
            build: Rc::clone(build),
            lapsed: false,
            open: Some(open),
            agent,
            proxy: None,
            shelf: SpaceShelf::new(Arc::clone(store), user, 1, replies),
            stored,
            to_proxy: VecDeque::new(),
            to_agent: VecDeque::new(),
            received: Vec::new(),
            acknowledged: 0,
            dry_run,
            answered: false,
        }
    }

    /// The chunks that the agent was told are safe.
    pub fn acknowledged(&self) -> impl Iterator<Item = &ChunkId> {
        self.received[..self.acknowledged].iter().flatten()
    }

    /// Whether all is said but the commit.
    pub fn is_at_commit(&self) -> bool {
        matches!(self.to_proxy.front(), Some(FromAgent::Commit))
    }

    /// Delivers one message, in one of the two directions.
    pub fn step(&mut self, random: &mut Random, pool: &Pool) -> Result<Stepped, String> {
        if self.answered {
            return Ok(Stepped::Answered);
        }
        let up = !self.to_proxy.is_empty() && (self.to_agent.is_empty() || random.percent(50));
        if self.open.is_some() || up {
            return self.step_of_proxy();
        }
        let reply = self.to_agent.pop_front().ok_or_else(|| self.tell("nothing is under way"))?;
        if let PushReply::Stored(count) = &reply {
            self.acknowledged = usize::try_from(*count).unwrap_or(usize::MAX);
        }
        let actions = self.agent.receive(reply).map_err(|error| self.tell(&error.to_string()))?;
        self.act(actions, random, pool);
        Ok(if self.answered { Stepped::Answered } else { Stepped::Going })
    }

    fn step_of_proxy(&mut self) -> Result<Stepped, String> {
        let replies = if let Some(open) = self.open.take() {
            Proxy::open(open, &mut self.shelf).map(|(proxy, replies)| {
                self.proxy = Some(proxy);
                replies
            })
        } else {
            let message = self.to_proxy.pop_front().expect("the caller looked");
            if let FromAgent::Chunks(batch) = &message {
                self.received.push(ids(batch));
            }
            let proxy = self.proxy.as_mut().expect("it was opened first");
            proxy.receive(message, &mut self.shelf)
        };
        let replies = match replies {
            Ok(replies) => replies,
            Err(Error::Shelf(refusal)) if refusal.fault == Fault::Retry && self.lapsed => {
                return Ok(Stepped::Again);
            }
            Err(error) => return Err(self.tell(&format!("the proxy refused: {error}"))),
        };
        while let Ok(stored) = self.stored.try_recv() {
            self.to_agent.push_back(stored);
        }
        let committed = replies.iter().any(|reply| matches!(reply, PushReply::Committed { .. }));
        self.to_agent.extend(replies);
        Ok(match committed {
            // A dry run of a known release is answered by its record, and writes none.
            true if self.dry_run => Stepped::Answered,
            true => Stepped::Committed,
            false => Stepped::Going,
        })
    }

    fn act(&mut self, actions: Vec<Action>, random: &mut Random, pool: &Pool) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => self.to_proxy.push_back(message),
                Action::SendSegments(places) => {
                    let parts = places.iter().map(|place| self.build.segments[*place as usize].0.as_slice());
                    let batch = batch(parts);
                    self.to_proxy.push_back(FromAgent::Segments(batch));
                }
                Action::SendChunks { segments, marks } => {
                    let missing = wanted(&self.build, &segments, &marks);
                    let mut rest = missing.as_slice();
                    while !rest.is_empty() {
                        let (frame, after) = rest.split_at(rest.len().min(1 + random.below(6)));
                        let batch = batch(frame.iter().map(|id| pool.bytes(id)));
                        self.to_proxy.push_back(FromAgent::Chunks(batch));
                        rest = after;
                    }
                    actions.extend(self.agent.chunks_sent());
                }
                Action::Finish => self.answered = true,
                Action::Stored(_) | Action::Committed { .. } | Action::Delivery(_) => {}
            }
        }
    }

    fn tell(&self, what: &str) -> String {
        format!("push {} of {} {}: {what}", self.number, self.app, self.build.release.short())
    }
}

/// The marked ones of all chunk references of some segments.
pub fn wanted(build: &Build, segments: &[u32], marks: &Marks) -> Vec<ChunkId> {
    let references = segments.iter().flat_map(|place| &build.segments[*place as usize].1);
    references.zip(marks.iter()).filter_map(|(chunk, missing)| missing.then_some(chunk.id)).collect()
}

/// Parts compressed together.
pub fn batch<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Batch {
    let mut plain = Vec::new();
    let mut lengths = Vec::new();
    for part in parts {
        lengths.push(u32::try_from(part.len()).expect("parts are small"));
        plain.extend_from_slice(part);
    }
    let (codec, payload) = Compressor::new(LEVEL_DEFAULT).compress(&plain);
    Batch { codec, lengths, payload }
}

/// The names of a batch's parts.
fn ids(batch: &Batch) -> Vec<ChunkId> {
    let mut plain = Vec::new();
    let parts =
        batch.open(&mut whit::compression::Decompressor::new(), &mut plain).expect("it was made here");
    parts.into_iter().map(|part| ChunkId::of(&plain[part])).collect()
}
