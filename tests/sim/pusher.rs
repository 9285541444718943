//! A simulated push: both state machines, the proxy's real view, and the messages between them.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use delta::compression::{Codec, Compressor, LEVEL_DEFAULT, compress_against};
use delta::similar::Sketch;
use format::manifest::{SegmentIndex, shorten};
use ground::faults::Fault;
use ground::ids::{AppName, ChunkId};
use protocol::likeness::prefix_of;
use protocol::push::{Action, Agent, Opening, Proxy};
use protocol::wire::{
    Basis, Batch, Challenge, FromAgent, Marks, Open, Parcel, PushReply, SegmentBatch, Sketches, Span,
};
use protocol::{Chunks, Error, InputView, Segments};
use whit::net::link::{Backlog, replies};
use whit::proxy::StoreView;
use whit::store::Store;

use crate::content::{Build, Pool};
use crate::random::Random;

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Stepped {
    /// There is more to do.
    Going,
    /// The release has a record.
    Committed,
    /// The proxy asked for the push to be restarted, as it may after the lease lapsed.
    Again,
    /// The dry run has its answer.
    Answered,
}

/// A push under way.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each changes on its own")]
pub struct Pusher {
    pub number: u64,
    pub app: AppName,
    pub build: Rc<Build>,
    pub lapsed: bool,
    open: Option<Open>,
    agent: Agent,
    proxy: Option<Proxy>,
    view: StoreView,
    stored: Backlog,
    to_proxy: VecDeque<FromAgent>,
    to_agent: VecDeque<PushReply>,
    /// The chunks of each `Chunks` that the proxy received.
    received: Vec<Vec<ChunkId>>,
    /// The chunks of the parcels under way, and then the bytes left of the first one's payload.
    parcels: VecDeque<Vec<ChunkId>>,
    bytes_left: usize,
    base: Option<Rc<Build>>,
    begun: bool,
    offered: HashSet<ChunkId>,
    acknowledged: usize,
    dry_run: bool,
    answered: bool,
}

impl Pusher {
    /// Begins a push; `base` is the release that the agent remembers as confirmed.
    pub fn new(
        number: u64,
        app: &AppName,
        build: &Rc<Build>,
        base: Option<&Rc<Build>>,
        store: &Arc<Store>,
        dry_run: bool,
    ) -> Self {
        let open = Open { dry_run, ..build.open(app.clone()) };
        let opening =
            base.map_or(Opening::Short, |base| Opening::Base(base.release.into(), base.nodes.clone()));
        let (agent, open) = Agent::new(open, build.nodes.clone(), opening);
        let (replies, stored) = replies();
        let user = "sim".parse().expect("a name");
        Self {
            number,
            app: app.clone(),
            build: Rc::clone(build),
            lapsed: false,
            open: Some(open),
            agent,
            proxy: None,
            view: StoreView::new(Arc::clone(store), app.clone(), user, 1, replies).expect("a lease"),
            stored,
            to_proxy: VecDeque::new(),
            to_agent: VecDeque::new(),
            received: Vec::new(),
            parcels: VecDeque::new(),
            bytes_left: 0,
            base: base.map(Rc::clone),
            begun: false,
            offered: HashSet::new(),
            acknowledged: 0,
            dry_run,
            answered: false,
        }
    }

    /// Returns the chunks that the proxy acknowledged to the agent.
    pub fn acknowledged(&self) -> impl Iterator<Item = &ChunkId> {
        self.received[..self.acknowledged].iter().flatten()
    }

    /// Returns whether only the commit is left.
    pub fn is_at_commit(&self) -> bool {
        matches!(self.to_proxy.front(), Some(FromAgent::Commit))
    }

    /// Delivers one message in one of the two directions.
    pub fn step(&mut self, random: &mut Random, pool: &Pool) -> Result<Stepped, String> {
        if self.answered {
            return Ok(Stepped::Answered);
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.act(random, pool, |agent, input| agent.begin(input))?;
        }
        let up = !self.to_proxy.is_empty() && (self.to_agent.is_empty() || random.percent(50));
        if self.open.is_some() || up {
            return self.step_of_proxy();
        }
        let reply = self.to_agent.pop_front().ok_or_else(|| self.tell("nothing is under way"))?;
        if let PushReply::Stored(count) = &reply {
            self.acknowledged = usize::try_from(*count).unwrap_or(usize::MAX);
        }
        self.act(random, pool, |agent, input| agent.receive(reply, input))?;
        Ok(if self.answered { Stepped::Answered } else { Stepped::Going })
    }

    fn step_of_proxy(&mut self) -> Result<Stepped, String> {
        let replies = if let Some(open) = self.open.take() {
            Proxy::open(open, &mut self.view).map(|(proxy, replies)| {
                self.proxy = Some(proxy);
                replies
            })
        } else {
            let message = self.to_proxy.pop_front().expect("the caller looked");
            self.count(&message);
            let proxy = self.proxy.as_mut().expect("it was opened first");
            proxy.receive(message, &mut self.view)
        };
        let replies = match replies {
            Ok(replies) => replies,
            Err(Error::Space(refusal)) if refusal.fault == Fault::Retry && self.lapsed => {
                return Ok(Stepped::Again);
            }
            Err(error) => return Err(self.tell(&format!("the proxy refused: {error}"))),
        };
        while let Some(stored) = self.stored.try_next() {
            self.to_agent.push_back(stored);
        }
        let committed = replies.iter().any(|reply| matches!(reply, PushReply::Committed { .. }));
        self.to_agent.extend(replies);
        Ok(match committed {
            // A dry run of a known release is answered from its record, and writes none.
            true if self.dry_run => Stepped::Answered,
            true => Stepped::Committed,
            false => Stepped::Going,
        })
    }

    /// Counts the content of a message that the proxy is about to receive.
    fn count(&mut self, message: &FromAgent) {
        match message {
            FromAgent::Chunks(batch) => self.received.push(ids(batch)),
            FromAgent::Parcel(parcel) => self.bytes_left = parcel.payload_bytes as usize,
            FromAgent::Piece(piece) => {
                self.bytes_left -= piece.len();
                if self.bytes_left == 0 {
                    self.received.push(self.parcels.pop_front().expect("its chunks were written down"));
                }
            }
            FromAgent::Names(_) if self.agent.round_trips() == 1 && self.base.is_some() => {
                // The base is unknown: the proxy ignored everything sent before.
                self.received.clear();
            }
            FromAgent::Names(_)
            | FromAgent::Grown(_)
            | FromAgent::Segments(_)
            | FromAgent::Sketches(_)
            | FromAgent::Proof(_)
            | FromAgent::Renew(_)
            | FromAgent::Commit
            | FromAgent::LinkSeen(_)
            | FromAgent::RecordQuery(_) => {}
        }
    }

    /// Has the agent do something, and encodes at once what it asks for.
    fn act(
        &mut self,
        random: &mut Random,
        pool: &Pool,
        first: impl FnOnce(&mut Agent, &mut Input<'_>) -> Result<Vec<Action>, Error>,
    ) -> Result<(), String> {
        let (build, base) = (Rc::clone(&self.build), self.base.clone());
        let mut input = Input {
            build: &build,
            base: base.as_deref(),
            pool,
            random,
            offered: std::mem::take(&mut self.offered),
            encoded: VecDeque::new(),
            parcels: std::mem::take(&mut self.parcels),
        };
        let mut actions = first(&mut self.agent, &mut input);
        loop {
            for action in actions.map_err(|error| self.tell(&error.to_string()))? {
                match action {
                    Action::Send(message) => self.to_proxy.push_back(message),
                    Action::Finish => self.answered = true,
                    Action::Stored(_)
                    | Action::Committed { .. }
                    | Action::Cached(_)
                    | Action::Delivery(_)
                    | Action::RollsOut(_) => {}
                }
            }
            let Some(messages) = input.encoded.pop_front() else { break };
            self.to_proxy.extend(messages);
            actions = self.agent.chunks_sent(&mut input);
        }
        (self.offered, self.parcels) = (input.offered, input.parcels);
        Ok(())
    }

    fn tell(&self, what: &str) -> String {
        format!("push {} of {} {}: {what}", self.number, self.app, self.build.release.short())
    }
}

/// The input of a push, as the agent sees it.
struct Input<'a> {
    build: &'a Build,
    base: Option<&'a Build>,
    pool: &'a Pool,
    random: &'a mut Random,
    offered: HashSet<ChunkId>,
    /// The messages of each step's chunks.
    encoded: VecDeque<Vec<FromAgent>>,
    /// The chunks of each parcel among them.
    parcels: VecDeque<Vec<ChunkId>>,
}

impl InputView for Input<'_> {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        let known: HashSet<ChunkId> = self.base.iter().flat_map(|base| base.chunks()).collect();
        let offers = |chunk: ChunkId| !known.contains(&chunk) && self.offered.insert(chunk);
        Ok(segment_batch(self.build, self.base, wanted, offers))
    }

    fn prove(&mut self, _: &[SegmentIndex], _: &Challenge) -> Result<[u8; 32], Error> {
        unreachable!("the view lets everything be read")
    }

    fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>, Error> {
        let missing = wanted(self.build, &chunks.segments, &chunks.marks);
        let sketch = |id: &ChunkId| Sketch::of(self.pool.bytes(id));
        let sketches = Sketches::new(&missing.iter().map(sketch).collect::<Vec<_>>());
        Ok(self.random.percent(70).then_some(sketches))
    }

    fn encode(&mut self, Chunks { segments, marks, is_based, .. }: Chunks) -> Result<(), Error> {
        let missing = wanted(self.build, &segments, &marks);
        let (mut rest, mut messages) = (missing.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (frame, after) = rest.split_at(rest.len().min(1 + self.random.below(6)));
            let chunks: Vec<&[u8]> = frame.iter().map(|id| self.pool.bytes(id)).collect();
            if self.random.percent(50) {
                messages.push(FromAgent::Chunks(batch(chunks.into_iter())));
            } else {
                let base = self.base.filter(|_| is_based);
                let (parcel, payload) = parcel(&chunks, base, self.random, self.pool);
                self.parcels.push_back(frame.to_vec());
                messages.push(FromAgent::Parcel(parcel));
                messages.extend(payload.chunks(700).map(|piece| FromAgent::Piece(piece.to_vec())));
            }
            rest = after;
        }
        self.encoded.push_back(messages);
        Ok(())
    }
}

/// The input of a push without a base, over a network.
pub struct Whole<'a> {
    build: &'a Build,
    /// The chunks of each step that are to be sent.
    pub encoding: VecDeque<Vec<ChunkId>>,
}

impl<'a> Whole<'a> {
    pub fn new(build: &'a Build) -> Self {
        Self { build, encoding: VecDeque::new() }
    }
}

impl InputView for Whole<'_> {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        Ok(segment_batch(self.build, None, wanted, |_| false))
    }

    fn prove(&mut self, _: &[SegmentIndex], _: &Challenge) -> Result<[u8; 32], Error> {
        unreachable!("nothing here is to be proven")
    }

    fn encode(&mut self, Chunks { segments, marks, .. }: Chunks) -> Result<(), Error> {
        self.encoding.push_back(wanted(self.build, &segments, &marks));
        Ok(())
    }
}

/// Encodes segments as the agent sends them; `offers` decides which of their chunks are offered.
fn segment_batch(
    build: &Build,
    base: Option<&Build>,
    wanted: &Segments,
    mut offers: impl FnMut(ChunkId) -> bool,
) -> SegmentBatch {
    let parts: Vec<_> = wanted.segments.iter().map(|index| &build.segments[usize::from(*index)]).collect();
    let chunks = parts.iter().flat_map(|(_, chunks)| chunks).filter(|_| wanted.eager);
    let offered = chunks.map(|chunk| offers(chunk.id)).collect();
    let bytes = parts
        .iter()
        .map(|(bytes, _)| if wanted.full { bytes.clone() } else { shorten(bytes).expect("a segment") });
    let prefix = wanted.against.as_ref().zip(base).map(|(segments, base)| {
        let segments =
            segments.iter().map(|index| Ok::<_, Error>(base.segments[usize::from(*index)].0.clone()));
        prefix_of(segments).expect("in memory").expect("segments")
    });
    SegmentBatch::new(&bytes.collect::<Vec<_>>(), prefix.as_deref(), offered)
}

/// Encodes chunks as a parcel, sometimes against chunks of the base.
fn parcel(chunks: &[&[u8]], base: Option<&Build>, random: &mut Random, pool: &Pool) -> (Parcel, Vec<u8>) {
    let (mut basis, mut prefix) = (Basis::None, Vec::new());
    if let Some(base) = base.filter(|base| !base.segments.is_empty()) {
        let segment = random.below(base.segments.len());
        let older = &base.segments[segment].1;
        if !older.is_empty() {
            prefix = older.iter().flat_map(|chunk| pool.bytes(&chunk.id)).copied().collect();
            let count = u32::try_from(older.len()).expect("few");
            basis = Basis::Prefix(vec![Span { segment: SegmentIndex::of(segment), first: 0, count }]);
        }
    }
    let payload = compress_against(&prefix, &chunks.concat(), LEVEL_DEFAULT);
    let lengths = chunks.iter().map(|chunk| u32::try_from(chunk.len()).expect("chunks are small")).collect();
    let payload_bytes = u32::try_from(payload.len()).expect("it is small");
    (Parcel { lengths, basis, codec: Codec::Zstd, payload_bytes }, payload)
}

/// Returns the marked chunks among all chunk references of some segments.
fn wanted(build: &Build, segments: &[SegmentIndex], marks: &Marks) -> Vec<ChunkId> {
    let references = segments.iter().flat_map(|index| &build.segments[usize::from(*index)].1);
    references.zip(marks.iter()).filter_map(|(chunk, missing)| missing.then_some(chunk.id)).collect()
}

/// Compresses parts together.
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

/// Returns the ids of a batch's parts.
fn ids(batch: &Batch) -> Vec<ChunkId> {
    let mut plain = Vec::new();
    let parts =
        batch.open(&mut delta::compression::Decompressor::new(), &mut plain).expect("it was made here");
    parts.into_iter().map(|part| ChunkId::of(&plain[part])).collect()
}
