//! Simulates a push: both machines in one thread, without sockets or files; dice decide whose turn it is.

use std::collections::{HashSet, VecDeque};

use delta::compression::{self, Codec, LEVEL_DEFAULT};
use delta::rsync::{Matcher, Signature};
use delta::similar::Sketch;
use format::manifest::{self, NodeRef, Root, SegmentIndex, Totals};
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use protocol::likeness::prefix_of;
use protocol::push::{Action, Agent, Opening, Proxy};
use protocol::wire::{
    Basis, BlockSums, Challenge, FromAgent, Marks, Open, Parcel, Possession, PushReply, Section,
    SegmentBatch, Sketches, Span,
};
use protocol::{Chunks, Error, InputView, Segments};

use crate::space_view::{Files, Memory, Release, open, release};
use crate::walker::raw;

/// xorshift: small choices of a conversation, from a number that the test gives.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (end.max(1) as u64)).expect("it is below a usize")
    }

    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Opens a push of a release whose segments are not read yet.
pub fn unread_yet(open: Open) -> Open {
    let root = Root::above(open.profile, open.shape, Totals::default(), Vec::new(), |_| {}).expect("nothing");
    Open { release: root.release(), totals: root.totals, segments: 0, ..open }
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Committed,
    Finished,
    BrokenOff,
    Mismatch,
    Refused(String),
}

/// The chunks that an agent sends with their segments, before they are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offering {
    /// Those that its base lacks.
    Right,
    /// Some that the proxy has, and not all that it lacks.
    Wrong,
}

/// The agent of one push.
pub struct Push<'a> {
    pub release: &'a Release,
    /// The release that the agent takes for the base.
    pub base: Option<&'a Release>,
    pub opening: Opening,
    pub offering: Offering,
    pub dry_run: bool,
    /// Chunks of the base that the proxy can read.
    pub readable: HashSet<ChunkId>,
    /// Chunks of segments that were sent.
    pub seen: HashSet<ChunkId>,
    /// True if it claims to have chunks that it does not have.
    pub bluffs: bool,
    /// Number of chunks that the proxy reported as missing.
    pub missing: usize,
}

impl<'a> Push<'a> {
    pub fn new(release: &'a Release, opening: Opening) -> Self {
        let (readable, seen) = (HashSet::new(), HashSet::new());
        Self {
            release,
            base: None,
            opening,
            offering: Offering::Right,
            dry_run: false,
            readable,
            seen,
            bluffs: false,
            missing: 0,
        }
    }

    /// Creates a push of changes to `base`; all of `memory` is readable.
    pub fn based(release: &'a Release, base: &'a Release, memory: &Memory) -> Self {
        let opening = Opening::Base(base.root.id(), base.segments.clone());
        let readable = memory.chunks.keys().copied().collect();
        Self { base: Some(base), readable, ..Self::new(release, opening) }
    }

    /// Runs both machines; `dice` decides whose turn it is. Stops after `steps` turns.
    pub fn talk(&mut self, memory: &mut Memory, dice: &mut Dice, steps: usize) -> End {
        let begin = open(self.release, self.dry_run);
        // The segments that the agent has not read yet; none once it has said that there are no more.
        let mut unread = (self.opening == Opening::Growing).then(|| self.release.segments.iter().copied());
        let read = if unread.is_some() { Vec::new() } else { self.release.segments.clone() };
        let begin = if unread.is_some() { unread_yet(begin) } else { begin };
        let (mut agent, begin) = Agent::new(begin, read, self.opening.clone());
        let mut to_proxy: VecDeque<FromAgent> = VecDeque::new();
        // The agent's compression jobs: their messages, then the end of each.
        let mut feeding: VecDeque<Option<FromAgent>> = VecDeque::new();
        let first = agent.begin(&mut self.view(&mut feeding, dice)).expect("a whole input");
        let mut committed = take(first, &mut to_proxy);
        let (mut proxy, first) = Proxy::open(begin, memory).expect("an honest agent");
        let mut to_agent: VecDeque<PushReply> = first.into();
        for _ in 0..steps {
            let mut actions = Vec::new();
            let all_wait = to_proxy.is_empty() && to_agent.is_empty() && feeding.is_empty();
            if let Some(rest) = unread.as_mut().filter(|_| all_wait || dice.percent(30)) {
                let some: Vec<NodeRef> = rest.take(dice.below(5)).collect();
                let is_over = rest.len() == 0 && dice.percent(50);
                let root = &self.release.root;
                let view = &mut self.view(&mut feeding, dice);
                actions = agent.grow(some, view).expect("a whole input");
                if is_over {
                    unread = None;
                    actions.extend(agent.grown(root, view).expect("a whole input"));
                }
            } else if !to_proxy.is_empty()
                && (dice.percent(50) || (to_agent.is_empty() && feeding.is_empty()))
            {
                if proxy.is_finished() {
                    // The proxy no longer reads.
                    to_proxy.clear();
                    continue;
                }
                let message = to_proxy.pop_front().expect("there is one");
                match proxy.receive(message, memory) {
                    Ok(replies) => to_agent.extend(replies),
                    Err(error) => return End::Refused(error.to_string()),
                }
            } else if !to_agent.is_empty() && (feeding.is_empty() || dice.percent(50)) {
                let reply = to_agent.pop_front().expect("there is one");
                match agent.receive(reply, &mut self.view(&mut feeding, dice)) {
                    Ok(received) => actions = received,
                    Err(Error::Mismatch) => return End::Mismatch,
                    Err(error) => panic!("an honest proxy: {error}"),
                }
            } else if let Some(fed) = feeding.pop_front() {
                if let Some(message) = fed {
                    to_proxy.push_back(message);
                } else {
                    let sent = agent.chunks_sent(&mut self.view(&mut feeding, dice));
                    actions = sent.expect("a whole input");
                }
            } else if committed {
                return End::Committed;
            } else if to_proxy.is_empty() {
                panic!("both wait for the other");
            }
            if actions.contains(&Action::Finish) {
                return if committed { End::Committed } else { End::Finished };
            }
            committed |= take(actions, &mut to_proxy);
        }
        End::BrokenOff
    }

    /// Returns the agent's view of its input; `feeding` takes the messages of each compression job, then its end.
    pub fn view<'v>(
        &'v mut self,
        feeding: &'v mut VecDeque<Option<FromAgent>>,
        dice: &'v mut Dice,
    ) -> View<'v, 'a> {
        View { push: self, feeding, dice }
    }

    fn batch(&mut self, wanted: &Segments, dice: &mut Dice) -> SegmentBatch {
        let parts = wanted.segments.iter().map(|index| &self.release.parts[usize::from(*index)]);
        let (mut bytes, mut offered) = (Vec::new(), Vec::new());
        let known: HashSet<ChunkId> =
            self.base.iter().flat_map(|base| base.content.keys()).copied().collect();
        for (segment, chunks) in parts {
            bytes.push(if wanted.full {
                segment.clone()
            } else {
                manifest::shorten(segment).expect("a segment")
            });
            for chunk in chunks {
                let right = !known.contains(&chunk.id);
                // The agent offers a chunk only where it occurs first.
                let first = wanted.eager && self.seen.insert(chunk.id);
                let offers = if self.offering == Offering::Wrong { dice.percent(50) } else { right };
                offered.push(first && offers);
            }
        }
        let prefix = wanted.against.as_ref().zip(self.base).map(|(segments, base)| {
            let segments =
                segments.iter().map(|index| Ok::<_, Error>(base.parts[usize::from(*index)].0.clone()));
            prefix_of(segments).expect("in memory").expect("segments")
        });
        let offered = if wanted.eager { offered.into_iter().collect() } else { Marks::default() };
        SegmentBatch::new(&bytes, prefix.as_deref(), offered)
    }

    /// Proves that the agent has the chunks that the challenge marks.
    fn proof(&self, segments: &[SegmentIndex], challenge: &Challenge) -> [u8; 32] {
        let all = segments.iter().flat_map(|index| &self.release.parts[usize::from(*index)].1);
        let mut possession = Possession::new(&challenge.nonce);
        for (chunk, _) in all.zip(challenge.marks.iter()).filter(|(_, mark)| *mark) {
            possession.add(if self.bluffs { b"a guess" } else { &self.release.content[&chunk.id] });
        }
        possession.proof().into_array()
    }

    /// Sketches the chunks that have no block sums.
    fn sketches(&self, chunks: &Chunks) -> Sketches {
        let all = chunks.segments.iter().flat_map(|index| &self.release.parts[usize::from(*index)].1);
        let missing = all.zip(chunks.marks.iter()).filter(|(_, mark)| *mark);
        let sketch = |(at, (chunk, _)): (usize, (&ChunkRef, bool))| {
            let is_in = |signed: &BlockSums| {
                (signed.first..signed.first + signed.chunks).contains(&u32::try_from(at).expect("few"))
            };
            if chunks.block_sums.iter().any(is_in) {
                None
            } else {
                Sketch::of(&self.release.content[&chunk.id])
            }
        };
        Sketches::new(&missing.enumerate().map(sketch).collect::<Vec<_>>())
    }

    /// Sends the marked chunks of some segments, in messages of any kind that fits.
    fn chunks(
        &self,
        segments: &[SegmentIndex],
        marks: &Marks,
        signed: &[BlockSums],
        is_based: bool,
        dice: &mut Dice,
    ) -> Vec<FromAgent> {
        let all = segments.iter().flat_map(|index| &self.release.parts[usize::from(*index)].1);
        let missing: Vec<Vec<u8>> = all
            .zip(marks.iter())
            .filter(|(_, mark)| *mark)
            .map(|(chunk, _)| self.release.content[&chunk.id].clone())
            .collect();
        if !signed.is_empty() && missing.len() <= 2048 && dice.percent(80) {
            let (parcel, payload) = encode_deltas(&missing, signed);
            return in_pieces(parcel, &payload, dice);
        }
        let mut messages = Vec::new();
        for some in missing.chunks(1 + dice.below(6)) {
            let (spans, prefix) =
                if is_based && dice.percent(50) { self.prefix(dice) } else { Default::default() };
            if spans.is_empty() && dice.percent(50) {
                messages.push(FromAgent::Chunks(raw(some)));
                continue;
            }
            let basis = if spans.is_empty() { Basis::None } else { Basis::Prefix(spans) };
            let plain = some.concat();
            let (codec, payload) = if basis == Basis::None && dice.percent(30) {
                (Codec::Raw, plain)
            } else {
                (Codec::Zstd, compression::compress_against(&prefix, &plain, LEVEL_DEFAULT))
            };
            messages.extend(in_pieces(parcel(some, basis, codec, &payload), &payload, dice));
        }
        messages
    }

    /// Draws runs of the base's chunks, and their bytes; none if the proxy lacks one of them.
    fn prefix(&self, dice: &mut Dice) -> (Vec<Span>, Vec<u8>) {
        let Some(base) = self.base.filter(|base| !base.parts.is_empty()) else { return Default::default() };
        let (mut spans, mut prefix) = (Vec::new(), Vec::new());
        for _ in 0..=dice.below(3) {
            let segment = dice.below(base.parts.len());
            let first = dice.below(base.parts[segment].1.len() + 1);
            let rest = base.parts[segment..].iter().flat_map(|part| &part.1).skip(first);
            let chunks: Vec<_> = rest.take(1 + dice.below(60)).collect();
            if chunks.is_empty() || !chunks.iter().all(|chunk| self.readable.contains(&chunk.id)) {
                return Default::default();
            }
            prefix.extend(chunks.iter().flat_map(|chunk| &base.content[&chunk.id]));
            let number = |value: usize| u32::try_from(value).expect("few");
            spans.push(Span {
                segment: SegmentIndex::of(segment),
                first: number(first),
                count: number(chunks.len()),
            });
        }
        (spans, prefix)
    }
}

/// The input of one push.
pub struct View<'v, 'a> {
    push: &'v mut Push<'a>,
    feeding: &'v mut VecDeque<Option<FromAgent>>,
    dice: &'v mut Dice,
}

impl InputView for View<'_, '_> {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        Ok(self.push.batch(wanted, self.dice))
    }

    fn prove(&mut self, segments: &[SegmentIndex], challenge: &Challenge) -> Result<[u8; 32], Error> {
        Ok(self.push.proof(segments, challenge))
    }

    fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>, Error> {
        Ok(self.dice.percent(70).then(|| self.push.sketches(chunks)))
    }

    fn encode(&mut self, chunks: Chunks) -> Result<(), Error> {
        let Chunks { segments, marks, block_sums, is_based, .. } = chunks;
        self.push.missing += marks.marked();
        if !self.push.dry_run {
            let messages = self.push.chunks(&segments, &marks, &block_sums, is_based, self.dice);
            self.feeding.extend(messages.into_iter().map(Some));
        }
        self.feeding.push_back(None);
        Ok(())
    }
}

/// Queues what is to be sent; returns whether the release is committed.
pub fn take(actions: Vec<Action>, to_proxy: &mut VecDeque<FromAgent>) -> bool {
    let mut committed = false;
    for action in actions {
        match action {
            Action::Send(message) => to_proxy.push_back(message),
            Action::Committed { .. } => committed = true,
            Action::Stored(_)
            | Action::Cached(_)
            | Action::Delivery(_)
            | Action::RollsOut(_)
            | Action::Finish => {}
        }
    }
    committed
}

pub fn parcel(chunks: &[Vec<u8>], basis: Basis, codec: Codec, payload: &[u8]) -> Parcel {
    let lengths = chunks.iter().map(|chunk| u32::try_from(chunk.len()).expect("small")).collect();
    Parcel { lengths, basis, codec, payload_bytes: u32::try_from(payload.len()).expect("small") }
}

fn in_pieces(parcel: Parcel, payload: &[u8], dice: &mut Dice) -> Vec<FromAgent> {
    let pieces = payload.chunks(1 + dice.below(payload.len()).min(200_000));
    std::iter::once(FromAgent::Parcel(parcel))
        .chain(pieces.map(|piece| FromAgent::Piece(piece.to_vec())))
        .collect()
}

/// Encodes all chunks in one parcel, as deltas where the proxy has sent block sums.
fn encode_deltas(chunks: &[Vec<u8>], signed: &[BlockSums]) -> (Parcel, Vec<u8>) {
    let (mut sections, mut literals, mut copied, mut done) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for signed in signed {
        let (first, count) = (signed.first as usize, signed.chunks as usize);
        if first < done {
            continue;
        }
        let signature =
            Signature::decode(&mut signed.signature.as_slice(), 1 << 24).expect("an honest proxy");
        literals.extend(chunks[done..first].concat());
        let new = chunks[first..first + count].concat();
        let found = Matcher::new(&signature).delta(&new, &mut literals);
        for (range, _) in found.copies() {
            let at = |offset: u64| usize::try_from(offset).expect("small");
            copied.extend_from_slice(&new[at(range.start)..at(range.end)]);
        }
        let mut delta = Vec::new();
        found.encode(&mut delta);
        let whole = u32::try_from(first - done).expect("few");
        sections.push(Section { whole, region: signed.region, chunks: signed.chunks, delta });
        done = first + count;
    }
    literals.extend(chunks[done..].concat());
    let payload = compression::compress_against(&copied, &literals, LEVEL_DEFAULT);
    (parcel(chunks, Basis::BlockSums(sections), Codec::Zstd, &payload), payload)
}

pub fn numbered(files: &[Vec<u16>]) -> Files {
    (0..).zip(files.iter().cloned()).collect()
}

/// Returns a release of one file of text chunks, and the next one, in which every third differs a little.
pub fn edited(chunks: u16) -> (Release, Release) {
    let old: Vec<u16> = (0..chunks).collect();
    let mut new = old.clone();
    new.iter_mut().skip(1).step_by(3).for_each(|chunk| *chunk += 300);
    (release(&numbered(&[old])), release(&numbered(&[new])))
}
