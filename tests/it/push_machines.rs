//! The two halves of a push against one another and against anything at all, without sockets or files.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use serde_bytes::ByteArray;

use delta::compression::{self, Codec, LEVEL_DEFAULT};
use delta::rsync::{Matcher, Signature};
use delta::similar::Sketch;
use format::manifest::{self, NodeRef, Root, SegmentIndex, Totals};
use format::recipe::ChunkRef;
use format::record::{DeliveryEvent, DeliveryState};
use ground::ids::{ChunkId, ReleaseId, ShortId};
use protocol::Error;
use protocol::likeness::prefix_of;
use protocol::push::{Action, Agent, Chunks, Opening, Proxy, Segments};
use protocol::wire::{
    Basis, Batch, BlockSums, Challenge, FromAgent, Grown, ManifestForm, Marks, Open, Parcel, Possession,
    PushReply, Section, SegmentBatch, Sketches, Span,
};

use crate::space_view::{Files, Memory, Release, open, release};
use crate::walker::{raw, raw_segments};

/// xorshift: small choices of a conversation, from a number of the test's.
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

/// How a push opens that is told while it is read.
fn unread_yet(open: Open) -> Open {
    let root = Root::above(open.profile, open.shape, Totals::default(), Vec::new(), |_| {}).expect("nothing");
    Open { release: root.release(), totals: root.totals, segments: 0, ..open }
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Committed,
    Finished,
    BrokenOff,
    Mismatch,
    Refused(String),
}

/// Which chunks an agent offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offering {
    /// Those that its base lacks.
    Right,
    /// Some that the proxy has, and not all that it lacks.
    Wrong,
}

/// One push, and how it is told.
pub struct Push<'a> {
    release: &'a Release,
    /// What the agent believes to be the base.
    base: Option<&'a Release>,
    pub opening: Opening,
    offering: Offering,
    dry_run: bool,
    /// Chunks of the base that the proxy can read.
    readable: HashSet<ChunkId>,
    /// Chunks of segments that were sent.
    seen: HashSet<ChunkId>,
    /// True if it proves by what it does not have.
    bluffs: bool,
    /// How many chunks the proxy said were missing.
    missing: usize,
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

    /// Told by `base`, all of which `memory` has but what it says otherwise.
    pub fn based(release: &'a Release, base: &'a Release, memory: &Memory) -> Self {
        let opening = Opening::Base(base.root.release(), base.segments.clone());
        let readable = memory.chunks.keys().copied().collect();
        Self { base: Some(base), readable, ..Self::new(release, opening) }
    }

    /// Lets the two talk; `dice` decides whose turn it is. Breaks off after `steps` turns.
    fn talk(&mut self, memory: &mut Memory, dice: &mut Dice, steps: usize) -> End {
        let begin = open(self.release, self.dry_run);
        // What the agent has not read yet; none once it has said so.
        let mut unread = (self.opening == Opening::Growing).then(|| self.release.segments.iter().copied());
        let read = if unread.is_some() { Vec::new() } else { self.release.segments.clone() };
        let begin = if unread.is_some() { unread_yet(begin) } else { begin };
        let (mut agent, begin, first) = Agent::new(begin, read, self.opening.clone());
        let mut to_proxy: VecDeque<FromAgent> = VecDeque::new();
        // What the agent is still compressing: messages, then that a job is done.
        let mut feeding: VecDeque<Option<FromAgent>> = VecDeque::new();
        let mut committed = self.act(&mut agent, first, &mut to_proxy, &mut feeding, dice);
        let (mut proxy, first) = Proxy::open(begin, memory).expect("an honest agent");
        let mut to_agent: VecDeque<PushReply> = first.into();
        for _ in 0..steps {
            let mut actions = Vec::new();
            let all_wait = to_proxy.is_empty() && to_agent.is_empty() && feeding.is_empty();
            if let Some(rest) = unread.as_mut().filter(|_| all_wait || dice.percent(30)) {
                let some: Vec<NodeRef> = rest.take(dice.below(5)).collect();
                let is_over = rest.len() == 0 && dice.percent(50);
                actions = agent.grow(some);
                if is_over {
                    unread = None;
                    let root = &self.release.root;
                    actions.extend(agent.grown(root.release(), root.totals));
                }
            } else if !to_proxy.is_empty()
                && (dice.percent(50) || (to_agent.is_empty() && feeding.is_empty()))
            {
                if proxy.is_finished() {
                    // The proxy listens no longer.
                    to_proxy.clear();
                    continue;
                }
                let message = to_proxy.pop_front().expect("there is one");
                match proxy.receive(message, memory) {
                    Ok(replies) => to_agent.extend(replies),
                    Err(error) => return End::Refused(error.to_string()),
                }
            } else if !to_agent.is_empty() && (feeding.is_empty() || dice.percent(50)) {
                match agent.receive(to_agent.pop_front().expect("there is one")) {
                    Ok(received) => actions = received,
                    Err(Error::Mismatch) => return End::Mismatch,
                    Err(error) => panic!("an honest proxy: {error}"),
                }
            } else if let Some(fed) = feeding.pop_front() {
                match fed {
                    Some(message) => to_proxy.push_back(message),
                    None => actions = agent.chunks_sent(),
                }
            } else if committed {
                return End::Committed;
            } else if to_proxy.is_empty() {
                panic!("both wait for the other");
            }
            if actions.contains(&Action::Finish) {
                return if committed { End::Committed } else { End::Finished };
            }
            committed |= self.act(&mut agent, actions, &mut to_proxy, &mut feeding, dice);
        }
        End::BrokenOff
    }

    /// Does what is to be done; whether the release is safe.
    pub fn act(
        &mut self,
        agent: &mut Agent,
        actions: Vec<Action>,
        to_proxy: &mut VecDeque<FromAgent>,
        feeding: &mut VecDeque<Option<FromAgent>>,
        dice: &mut Dice,
    ) -> bool {
        let mut committed = false;
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send(message) => to_proxy.push_back(message),
                Action::SendSegments(segments) => {
                    let batch = self.batch(&segments, dice);
                    let offered = batch.eager.clone();
                    to_proxy.push_back(FromAgent::Segments(batch));
                    if segments.eager {
                        actions.extend(agent.eager_marked(offered));
                    }
                }
                Action::Sketch(chunks) => {
                    let sketches = dice.percent(70).then(|| self.sketches(&chunks));
                    actions.extend(agent.sketched(chunks, sketches));
                }
                Action::SendChunks(Chunks { segments, marks, block_sums, .. }) => {
                    self.missing += marks.marked();
                    if !self.dry_run {
                        let messages = self.chunks(&segments, &marks, &block_sums, agent.is_based(), dice);
                        feeding.extend(messages.into_iter().map(Some));
                    }
                    feeding.push_back(None);
                }
                Action::Prove { segments, challenge } => {
                    to_proxy.push_back(FromAgent::Proof(self.proof(&segments, &challenge)));
                }
                Action::Committed { .. } => committed = true,
                Action::Stored(_) | Action::Delivery(_) | Action::Finish => {}
            }
        }
        committed
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
                // An agent decides where a chunk stands first.
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

    /// What proves that the agent has what it is asked for.
    fn proof(&self, segments: &[SegmentIndex], challenge: &Challenge) -> ByteArray<32> {
        let all = segments.iter().flat_map(|index| &self.release.parts[usize::from(*index)].1);
        let mut possession = Possession::new(&challenge.nonce);
        for (chunk, _) in all.zip(challenge.marks.iter()).filter(|(_, mark)| *mark) {
            possession.add(if self.bluffs { b"a guess" } else { &self.release.content[&chunk.id] });
        }
        possession.proof()
    }

    /// Sketches of all that nothing was signed for.
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

    /// The marked chunks of some segments, as messages of any kind that fits.
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
            let (parcel, payload) = told_by_deltas(&missing, signed);
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

    /// Runs of the base's chunks, and their bytes; none where the proxy lacks one of them.
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

fn parcel(chunks: &[Vec<u8>], basis: Basis, codec: Codec, payload: &[u8]) -> Parcel {
    let lengths = chunks.iter().map(|chunk| u32::try_from(chunk.len()).expect("small")).collect();
    Parcel { lengths, basis, codec, payload_bytes: u32::try_from(payload.len()).expect("small") }
}

fn in_pieces(parcel: Parcel, payload: &[u8], dice: &mut Dice) -> Vec<FromAgent> {
    let pieces = payload.chunks(1 + dice.below(payload.len()).min(200_000));
    std::iter::once(FromAgent::Parcel(parcel))
        .chain(pieces.map(|piece| FromAgent::Piece(piece.to_vec())))
        .collect()
}

/// All chunks in one parcel, those that a signature is for as deltas.
fn told_by_deltas(chunks: &[Vec<u8>], signed: &[BlockSums]) -> (Parcel, Vec<u8>) {
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

fn files() -> impl Strategy<Value = Vec<Vec<u16>>> {
    prop_oneof![
        4 => proptest::collection::vec(proptest::collection::vec(0u16..300, 0..20), 0..60),
        // Many segments.
        1 => (4000u16..9000).prop_map(|files| (0..files).map(|file| vec![file % 300, file % 299]).collect()),
    ]
}

fn numbered(files: &[Vec<u16>]) -> Files {
    (0..).zip(files.iter().cloned()).collect()
}

/// The files after some changes: other chunks, more, fewer, copies.
fn changed(files: &Files, changes: &[(usize, u8)]) -> Files {
    let mut files: BTreeMap<u32, Vec<u16>> = files.clone();
    for (at, kind) in changes {
        let Some(key) = files.keys().nth(at % files.len().max(1)).copied() else { continue };
        let chunks = files.get_mut(&key).expect("just found");
        let place = at / 7 % (chunks.len() + 1);
        match kind % 5 {
            0 | 1 if place < chunks.len() => chunks[place] += 300,
            2 => chunks.insert(place, 600 + u16::try_from(at % 300).expect("small")),
            3 => drop(files.remove(&key)),
            _ => {
                let copy = chunks.clone();
                files.insert(1_000_000 + key, copy);
            }
        }
    }
    files
}

/// Never in any of [`files`] with fewer turns than this.
const ENDLESS: usize = 1_000_000;

/// Pushes until it is committed, as an agent does: in full after a mismatch.
fn push_through(push: &mut Push<'_>, memory: &mut Memory, dice: &mut Dice) {
    let mut end = push.talk(memory, dice, ENDLESS);
    if end == End::Mismatch {
        (push.opening, push.base) = (Opening::Full, None);
        end = push.talk(memory, dice, ENDLESS);
    }
    assert_eq!(end, End::Committed);
}

/// Asserts that all is there, that nothing was kept twice and nothing that was there before.
fn assert_kept(memory: &Memory, release: &Release, before: &HashSet<ChunkId>, brought: &HashSet<ChunkId>) {
    assert!(memory.releases.contains_key(&release.root.release()));
    let kept: HashSet<ChunkId> = memory.content_kept.iter().copied().collect();
    assert_eq!(kept.len(), memory.content_kept.len(), "none was kept twice");
    assert!(kept.is_disjoint(before), "none was kept that was there");
    for id in release.content.keys() {
        assert!(memory.chunks.contains_key(id));
        assert!(kept.contains(id) || before.contains(id) || brought.contains(id));
    }
    assert!(kept.iter().all(|id| release.content.contains_key(id)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_push_ends_committed_with_exactly_the_missing_chunks_kept_once(
        files in files(),
        known in 0u8..200,
        seed in 1u64..,
        opening in 0u8..3,
        broken_off in 0usize..60,
    ) {
        let release = release(&numbered(&files));
        let (mut memory, mut dice) = (Memory::default(), Dice(seed));
        memory.chunks.extend(release.content.clone().into_iter().filter(|(id, _)| id.as_bytes()[0] < known));
        let before: HashSet<ChunkId> = memory.chunks.keys().copied().collect();
        let opening = [Opening::Full, Opening::Short, Opening::Growing][usize::from(opening)].clone();
        let mut push = Push::new(&release, opening);
        push.talk(&mut memory, &mut dice, broken_off);
        push_through(&mut push, &mut memory, &mut dice);
        assert_kept(&memory, &release, &before, &HashSet::new());
        // And once more: recognized at once.
        prop_assert_eq!(push.talk(&mut memory, &mut dice, ENDLESS), End::Committed);
    }

    #[test]
    fn a_push_after_another_keeps_exactly_what_changed_however_it_is_told(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..30),
        opening in 0u8..6,
        wrong_offers: bool,
        evicting: bool,
        bringing: bool,
        seed in 1u64..,
        broken_off in 0usize..40,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let (mut memory, mut dice) = (Memory::holding(&old), Dice(seed));
        if evicting {
            // No chunk of a segment that stays: these the proxy has, or it does not know the base.
            let stay: HashSet<_> = new.segments.iter().collect();
            let parts = old.segments.iter().zip(&old.parts).filter(|(node, _)| stay.contains(node));
            let needed: HashSet<ChunkId> = parts.flat_map(|(_, part)| &part.1).map(|chunk| chunk.id).collect();
            memory.chunks.retain(|id, _| needed.contains(id) || id.as_bytes()[0] < 128);
        }
        let before: HashSet<ChunkId> = memory.chunks.keys().copied().collect();
        let mut push = match opening {
            0 => Push::new(&new, Opening::Short),
            1 => Push::new(&new, Opening::Full),
            3 => {
                let again = Opening::Again(old.root.release(), old.segments.clone());
                Push { opening: again, ..Push::based(&new, &old, &memory) }
            }
            5 => Push::new(&new, Opening::Growing),
            2 => {
                let unknown = Opening::Base(ReleaseId::of(b"unknown"), old.segments.clone());
                Push { opening: unknown, ..Push::based(&new, &old, &memory) }
            }
            _ => Push::based(&new, &old, &memory),
        };
        if wrong_offers {
            push.offering = Offering::Wrong;
        }
        let mut brought = HashSet::new();
        if push.talk(&mut memory, &mut dice, broken_off) == End::BrokenOff && bringing {
            // Another push brings some of the chunks before this one comes again.
            for (id, bytes) in &new.content {
                if id.as_bytes()[1] < 128 && !memory.chunks.contains_key(id) {
                    memory.chunks.insert(*id, bytes.clone());
                    brought.insert(*id);
                }
            }
        }
        push.seen.clear();
        push_through(&mut push, &mut memory, &mut dice);
        assert_kept(&memory, &new, &before, &brought);
    }

    #[test]
    fn what_begins_alike_ends_in_a_push_in_full(
        files in proptest::collection::vec(proptest::collection::vec(0u16..300, 1..20), 1..30),
        changes in proptest::collection::vec((any::<usize>(), Just(0u8)), 1..30),
        by_base: bool,
        seed in 1u64..,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let (mut memory, mut dice) = (Memory::holding(&old), Dice(seed));
        // The first chunk that is new to the space is taken for another that begins alike.
        let chunks = new.parts.iter().flat_map(|part| &part.1);
        let Some(unseen) = chunks.copied().find(|chunk| !memory.chunks.contains_key(&chunk.id)) else {
            return Ok(());
        };
        let other = old.parts.iter().flat_map(|part| &part.1).next().copied().expect("a chunk");
        memory.alike.insert(ShortId::from(unseen.id), other);
        let before: HashSet<ChunkId> = memory.chunks.keys().copied().collect();
        let mut push =
            if by_base { Push::based(&new, &old, &memory) } else { Push::new(&new, Opening::Short) };
        prop_assert_eq!(push.talk(&mut memory, &mut dice, ENDLESS), End::Mismatch);
        prop_assert!(!memory.releases.contains_key(&new.root.release()));
        (push.opening, push.base) = (Opening::Full, None);
        push_through(&mut push, &mut memory, &mut dice);
        assert_kept(&memory, &new, &before, &HashSet::new());
    }

    #[test]
    fn what_may_not_be_read_is_proven_without_its_bytes_and_a_bluff_records_nothing(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..30),
        elsewhere in 0u8..255,
        opening in 0u8..4,
        seed in 1u64..,
        broken_off in 0usize..40,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let (mut memory, mut dice) = (Memory::holding(&old), Dice(seed));
        // Some of what is new is there, but not for this token.
        let held: HashSet<ChunkId> = memory.chunks.keys().copied().collect();
        let hidden: HashMap<ChunkId, Vec<u8>> = new
            .content
            .clone()
            .into_iter()
            .filter(|(id, _)| !held.contains(id) && id.as_bytes()[1] < elsewhere)
            .collect();
        memory.unreadable = Some(hidden.keys().copied().collect());
        memory.chunks.extend(hidden.clone());
        let before: HashSet<ChunkId> = memory.chunks.keys().copied().collect();
        let mut push = match opening {
            0 => Push::new(&new, Opening::Short),
            1 => Push::new(&new, Opening::Full),
            2 => Push::new(&new, Opening::Growing),
            _ => {
                let again = Opening::Again(old.root.release(), old.segments.clone());
                Push { opening: again, ..Push::based(&new, &old, &memory) }
            }
        };
        if !hidden.is_empty() {
            push.bluffs = true;
            let end = push.talk(&mut memory.clone(), &mut dice, ENDLESS);
            let refused = End::Refused(Error::NotProven.to_string());
            prop_assert_eq!(end, if opening == 1 { refused } else { End::Mismatch });
            push.bluffs = false;
            push.seen.clear();
        }
        push.talk(&mut memory, &mut dice, broken_off);
        push.seen.clear();
        // What a push that broke off has sent counts as anybody's: it is proven too.
        let sent: Vec<ChunkId> = memory.content_kept.clone();
        memory.unreadable.as_mut().expect("there is some").extend(sent);
        push_through(&mut push, &mut memory, &mut dice);
        assert_kept(&memory, &new, &before, &HashSet::new());
    }

    #[test]
    fn a_dry_run_tells_nothing_of_what_may_not_be_read(files in files(), seed in 1u64..) {
        let release = release(&numbered(&files));
        let answer = |hidden: bool| {
            let mut memory = Memory::default();
            memory.unreadable = Some(HashSet::new());
            if hidden {
                memory.unreadable = Some(release.content.keys().copied().collect());
                memory.chunks.clone_from(&release.content);
            }
            let mut push = Push { dry_run: true, ..Push::new(&release, Opening::Short) };
            let end = push.talk(&mut memory, &mut Dice(seed), ENDLESS);
            (end, push.missing)
        };
        prop_assert_eq!(answer(true), answer(false));
    }

    #[test]
    fn a_base_that_is_not_what_the_agent_believes_commits_nothing_wrong(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..30),
        believed in files(),
        seed in 1u64..,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new, believed) = (release(&old), release(&new), release(&numbered(&believed)));
        let (mut memory, mut dice) = (Memory::holding(&old), Dice(seed));
        let opening = Opening::Base(old.root.release(), believed.segments.clone());
        let mut push = Push { opening, ..Push::based(&new, &believed, &memory) };
        // The view holds whatever is committed to what was meant.
        let end = push.talk(&mut memory, &mut dice, ENDLESS);
        prop_assert!(matches!(end, End::Committed | End::Mismatch | End::Refused(_)), "{:?}", end);
        let mut push = Push::new(&new, Opening::Full);
        push_through(&mut push, &mut memory, &mut dice);
    }

    #[test]
    fn a_dry_run_ends_and_keeps_nothing(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..10),
        by_base: bool,
        seed in 1u64..,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let mut memory = if by_base { Memory::holding(&old) } else { Memory::default() };
        let mut push =
            if by_base { Push::based(&new, &old, &memory) } else { Push::new(&new, Opening::Short) };
        push.dry_run = true;
        let end = push.talk(&mut memory, &mut Dice(seed), ENDLESS);
        let known = by_base && old.root.release() == new.root.release();
        prop_assert_eq!(end, if known { End::Committed } else { End::Finished });
        prop_assert!(memory.content_kept.is_empty() && memory.releases.len() == usize::from(by_base));
    }
}

/// A release of one file of text chunks, and the next one, in which each is a little different.
fn edited(chunks: u16) -> (Release, Release) {
    let old: Vec<u16> = (0..chunks).collect();
    let mut new = old.clone();
    new.iter_mut().skip(1).step_by(3).for_each(|chunk| *chunk += 300);
    (release(&numbered(&[old])), release(&numbered(&[new])))
}

#[test]
fn chunks_that_changed_a_little_are_signed_and_come_as_deltas() {
    let (old, new) = edited(20);
    let mut memory = Memory::holding(&old);
    // Both where the agent has no base, and where its base is gone and the application has another release.
    for opening in [Opening::Short, Opening::Base(ReleaseId::of(b"gone"), old.segments.clone())] {
        let mut memory = memory.clone();
        let mut push = Push { base: Some(&old), opening, ..Push::new(&new, Opening::Short) };
        // Dice that always fall so that deltas are sent.
        for seed in 1..20 {
            if push.talk(&mut memory, &mut Dice(seed), ENDLESS) == End::Committed {
                break;
            }
        }
        assert!(memory.releases.contains_key(&new.root.release()));
    }
    let (mut proxy, replies) = {
        let (_, begin, _) = Agent::new(open(&new, false), new.segments.clone(), Opening::Short);
        Proxy::open(begin, &mut memory).expect("an honest agent")
    };
    assert!(matches!(replies.as_slice(), [PushReply::WantRecordQueries, PushReply::WantSegments(_)]));
    let parts: Vec<Vec<u8>> = new.parts.iter().map(|part| part.0.clone()).collect();
    let replies = proxy.receive(FromAgent::Segments(raw_segments(&parts)), &mut memory).expect("honest");
    let signed: Vec<&BlockSums> = replies
        .iter()
        .filter_map(|reply| if let PushReply::BlockSums(signed) = reply { Some(signed) } else { None })
        .collect();
    assert!(!signed.is_empty() && matches!(replies.last(), Some(PushReply::Missing(_))), "{replies:?}");
}

#[test]
fn an_agent_proves_each_chunk_once() {
    let (_, new) = edited(20);
    let (mut agent, _, _) = Agent::new(open(&new, false), new.segments.clone(), Opening::Short);
    let wants = PushReply::WantSegments(new.segments.iter().map(|_| true).collect());
    let actions = agent.receive(wants).expect("in turn");
    let sends = |action: &Action| matches!(action, Action::SendSegments(_));
    assert!(actions.iter().any(sends), "{actions:?}");
    let prove = |marks: [bool; 3]| PushReply::Prove(Challenge::new([1; 32], marks.into_iter().collect()));
    for marks in [[true, false, false], [false, true, true]] {
        let actions = agent.receive(prove(marks)).expect("honest");
        assert!(matches!(actions.as_slice(), [Action::Prove { .. }]), "{actions:?}");
    }
    for marks in [[true, false, false], [false; 3]] {
        assert!(agent.receive(prove(marks)).is_err(), "it would read on and on");
    }
}

/// A proxy that waits for the chunks of `new`, told by its base or by names; with what it said last.
fn waiting(old: &Release, new: &Release, by_base: bool) -> (Memory, Proxy, Vec<PushReply>) {
    let mut memory = Memory::holding(old);
    let opening = Opening::Base(old.root.release(), old.segments.clone());
    let opening = if by_base { opening } else { Opening::Short };
    let (_, begin, _) = Agent::new(open(new, false), new.segments.clone(), opening);
    let (mut proxy, _) = Proxy::open(begin, &mut memory).expect("an honest agent");
    let parts: Vec<Vec<u8>> = new.parts.iter().map(|part| part.0.clone()).collect();
    let replies = proxy.receive(FromAgent::Segments(raw_segments(&parts)), &mut memory).expect("honest");
    (memory, proxy, replies)
}

#[test]
fn parcels_that_lie_are_refused_and_nothing_of_them_is_kept() {
    let (old, new) = edited(20);
    let missing: Vec<Vec<u8>> = {
        let all = new.parts.iter().flat_map(|part| &part.1);
        let unseen = all.filter(|chunk| !old.content.contains_key(&chunk.id));
        unseen.map(|chunk| new.content[&chunk.id].clone()).collect()
    };
    let plain = missing.concat();
    let zstd = |prefix: &[u8], plain: &[u8]| compression::compress_against(prefix, plain, LEVEL_DEFAULT);
    let span = |segment, first, count| {
        Basis::Prefix(vec![Span { segment: SegmentIndex::new(segment), first, count }])
    };
    let section = |whole, region, chunks, delta: &[u8]| {
        Basis::BlockSums(vec![Section { whole, region, chunks, delta: delta.to_vec() }])
    };
    let honest = |basis, payload: &[u8]| parcel(&missing, basis, Codec::Zstd, payload);
    let whole = zstd(&[], &plain);
    // Of its own memory: zstd takes no prefix that overlaps what it compresses.
    let against = zstd(&plain.clone(), &plain);
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("zeros compress");
    let few = u32::try_from(missing.len()).expect("few");
    let cases: Vec<(&str, Parcel, Vec<u8>)> = vec![
        ("a span behind the base", honest(span(9000, 0, 1), &whole), whole.clone()),
        ("a span that ends behind it", honest(span(0, 0, 1000), &whole), whole.clone()),
        ("a span that begins behind its segment", honest(span(0, u32::MAX, u32::MAX), &whole), whole.clone()),
        ("another prefix", honest(span(0, 0, 3), &against), against.clone()),
        ("a patch of nothing", honest(Basis::Patch(Vec::new()), &whole), whole.clone()),
        (
            "a patch that is none",
            honest(Basis::Patch(vec![Span { segment: SegmentIndex::new(0), first: 0, count: 3 }]), &whole),
            whole.clone(),
        ),
        (
            "a patch behind the base",
            honest(Basis::Patch(vec![Span { segment: SegmentIndex::new(7), first: 0, count: 3 }]), &whole),
            whole.clone(),
        ),
        ("a region that was never signed", honest(section(0, 77, few, &[0]), &whole), whole.clone()),
        ("a delta that is none", honest(section(0, 0, few, &[0xff; 4]), &whole), whole.clone()),
        ("a delta of nothing", honest(section(0, 0, few, &[]), &whole), whole.clone()),
        ("a delta and more", honest(section(0, 0, 0, &[0, 0, 0]), &whole), whole.clone()),
        (
            "sections past the chunks",
            honest(section(u32::MAX, 0, u32::MAX, &[0, 0, 0]), &whole),
            whole.clone(),
        ),
        (
            "a payload cut short",
            honest(Basis::None, &whole[..whole.len() - 1]),
            whole[..whole.len() - 1].to_vec(),
        ),
        ("a bomb", honest(Basis::None, &bomb), bomb.clone()),
        ("raw bytes too few", parcel(&missing, Basis::None, Codec::Raw, &plain[1..]), plain[1..].to_vec()),
        (
            "chunks that nobody asked for",
            parcel(&[b"alien".to_vec()], Basis::None, Codec::Raw, b"alien"),
            b"alien".to_vec(),
        ),
        ("no chunks", parcel(&[], Basis::None, Codec::Raw, b"x"), b"x".to_vec()),
        ("no payload", parcel(&missing, Basis::None, Codec::Raw, b""), Vec::new()),
        ("an empty chunk", Parcel { lengths: vec![0, 5], ..honest(Basis::None, &whole) }, whole.clone()),
        (
            "a chunk of a gigabyte",
            Parcel { lengths: vec![1 << 30], ..honest(Basis::None, &whole) },
            whole.clone(),
        ),
        ("too many chunks", Parcel { lengths: vec![1; 3000], ..honest(Basis::None, &whole) }, whole.clone()),
        ("9 MiB", Parcel { lengths: vec![65536; 144], ..honest(Basis::None, &whole) }, whole.clone()),
        (
            "a payload of gigabytes",
            Parcel { payload_bytes: u32::MAX, ..honest(Basis::None, &whole) },
            whole.clone(),
        ),
        (
            "too many spans",
            honest(
                Basis::Prefix(vec![Span { segment: SegmentIndex::new(0), first: 0, count: 1 }; 5000]),
                &whole,
            ),
            whole.clone(),
        ),
    ];
    for by_base in [true, false] {
        for (what, parcel, payload) in &cases {
            let (mut memory, mut proxy, _) = waiting(&old, &new, by_base);
            let mut result = proxy.receive(FromAgent::Parcel(parcel.clone()), &mut memory);
            for piece in payload.chunks(200_000) {
                if result.is_err() {
                    break;
                }
                result = proxy.receive(FromAgent::Piece(piece.to_vec()), &mut memory);
            }
            assert!(result.is_err(), "{what}: {result:?}");
            assert!(memory.content_kept.is_empty(), "{what}");
        }
    }
}

#[test]
fn pieces_come_after_their_parcel_and_no_longer_than_it_said() {
    let (old, new) = edited(20);
    let (mut memory, mut proxy, _) = waiting(&old, &new, false);
    assert!(proxy.receive(FromAgent::Piece(vec![1]), &mut memory).is_err(), "a piece of nothing");
    let some = parcel(&[vec![7; 50]], Basis::None, Codec::Raw, &[7; 50]);
    for pieces in [vec![vec![7; 51]], vec![vec![7; 49], vec![7; 2]], vec![vec![]], vec![vec![7; 300 << 10]]] {
        let (mut memory, mut proxy, _) = waiting(&old, &new, false);
        proxy.receive(FromAgent::Parcel(some.clone()), &mut memory).expect("within bounds");
        let mut results = pieces.into_iter().map(|piece| proxy.receive(FromAgent::Piece(piece), &mut memory));
        assert!(results.any(|result| result.is_err()));
    }
    let (mut memory, mut proxy, _) = waiting(&old, &new, false);
    proxy.receive(FromAgent::Parcel(some.clone()), &mut memory).expect("within bounds");
    let second = proxy.receive(FromAgent::Parcel(some), &mut memory);
    assert!(matches!(second, Err(Error::OutOfTurn("Parcel"))), "{second:?}");
}

#[test]
fn a_parcel_under_way_holds_the_commit_back() {
    let (old, new) = edited(20);
    let (mut memory, mut proxy, replies) = waiting(&old, &new, true);
    let Some(PushReply::Missing(marks)) = replies.last() else { panic!("{replies:?}") };
    let all = new.parts.iter().flat_map(|part| &part.1).zip(marks.iter());
    let missing: Vec<Vec<u8>> =
        all.filter(|(_, mark)| *mark).map(|(chunk, _)| new.content[&chunk.id].clone()).collect();
    let payload = missing.concat();
    let parcel = parcel(&missing, Basis::None, Codec::Raw, &payload);
    let (half, rest) = payload.split_at(payload.len() / 2);
    for message in [FromAgent::Parcel(parcel), FromAgent::Piece(half.to_vec()), FromAgent::Commit] {
        assert_eq!(proxy.receive(message, &mut memory).expect("honest"), []);
    }
    let replies = proxy.receive(FromAgent::Piece(rest.to_vec()), &mut memory).expect("honest");
    assert!(matches!(replies.as_slice(), [PushReply::Committed { .. }]), "{replies:?}");
}

#[test]
fn a_segment_that_gives_a_chunk_another_length_is_refused() {
    let chunk = |bytes: &[u8], length| (ChunkId::of(bytes), length);
    let replies =
        Memory::holding_one(b"held!").push_of(&[chunk(b"held!", 5), chunk(b"new", 3), chunk(b"new", 3)]);
    let expected = PushReply::Missing([false, true, false].into_iter().collect());
    assert_eq!(replies.expect("the truth"), [expected]);
    let lie = Memory::holding_one(b"held!").push_of(&[chunk(b"new", 3), chunk(b"new", 2)]);
    assert!(matches!(lie, Err(Error::Length { .. })), "{lie:?}");
    // A held chunk under another length counts as unseen: no bytes will fit both name and length.
    let lie = Memory::holding_one(b"held!").push_of(&[chunk(b"held!", 6)]).expect("it is asked for");
    assert_eq!(lie, [PushReply::Missing([true].into_iter().collect())]);
}

/// Messages near those of an honest push of `release`, and some far from any.
fn message(release: &Release, which: u8, at: usize, noise: Vec<u8>) -> FromAgent {
    let part = |at: usize| release.parts.get(at % release.parts.len().max(1)).map(|part| part.0.clone());
    let chunks: Vec<&Vec<u8>> = release.content.values().collect();
    let chunk = |at: usize| chunks.get(at % chunks.len().max(1)).map(|bytes| (*bytes).clone());
    let parts = || release.parts.iter().map(|part| part.0.clone()).collect::<Vec<_>>();
    let thin = |part: Vec<u8>| manifest::shorten(&part).expect("a segment");
    match which % 15 {
        0 => FromAgent::Commit,
        1 => FromAgent::Names(noise),
        2 => FromAgent::Names(
            release.segments.iter().flat_map(|node| node.id.prefix().to_le_bytes()).collect(),
        ),
        3 => FromAgent::Segments(raw_segments(&parts())),
        4 => FromAgent::Segments(raw_segments(&part(at).into_iter().collect::<Vec<_>>())),
        8 => FromAgent::Segments(SegmentBatch::new(
            &parts().into_iter().map(thin).collect::<Vec<_>>(),
            at.is_multiple_of(3).then_some(noise.as_slice()),
            noise.iter().map(|byte| byte % 2 == 0).collect(),
        )),
        9 => FromAgent::Names(
            release.segments.iter().flat_map(|node| node.id.as_bytes()[..4].to_vec()).collect(),
        ),
        10 => {
            let some: Vec<Vec<u8>> = chunk(at).into_iter().collect();
            FromAgent::Parcel(parcel(&some, Basis::None, Codec::Raw, &some.concat()))
        }
        11 => FromAgent::Piece(chunk(at).unwrap_or_default()),
        12 => FromAgent::Piece(noise),
        13 => FromAgent::Parcel(Parcel {
            lengths: noise.iter().map(|byte| u32::from(*byte)).collect(),
            basis: match at % 3 {
                0 => Basis::None,
                1 => Basis::Prefix(vec![Span {
                    segment: SegmentIndex::new(0),
                    first: 0,
                    count: u32::try_from(at % 99).expect("small"),
                }]),
                _ => Basis::BlockSums(vec![Section { whole: 0, region: 0, chunks: 1, delta: noise.clone() }]),
            },
            codec: Codec::Zstd,
            payload_bytes: u32::try_from(noise.len()).expect("small"),
        }),
        14 => FromAgent::Grown(Grown {
            release: release.root.release(),
            totals: release.root.totals,
            segments: if at.is_multiple_of(2) {
                u32::try_from(release.segments.len()).expect("few")
            } else {
                u32::try_from(at >> 32).unwrap_or(u32::MAX)
            },
        }),
        5 => FromAgent::Chunks(raw(&chunk(at).into_iter().chain(chunk(at / 2)).collect::<Vec<_>>())),
        6 => FromAgent::Chunks(raw(&chunks.iter().map(|bytes| (*bytes).clone()).collect::<Vec<_>>())),
        _ => FromAgent::Chunks(Batch {
            codec: if at.is_multiple_of(2) { Codec::Zstd } else { Codec::Raw },
            lengths: noise.iter().map(|byte| u32::from(*byte)).collect(),
            payload: noise,
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_of_messages_commits_an_incomplete_release_or_panics_the_proxy(
        files in proptest::collection::vec(proptest::collection::vec(0u16..40, 0..6), 0..20),
        segments in prop_oneof![3 => Just(None), 1 => any::<u32>().prop_map(Some)],
        opening in 0u8..7,
        dry_run: bool,
        messages in proptest::collection::vec((any::<u8>(), any::<usize>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..12),
    ) {
        let release = release(&numbered(&files));
        let mut begin = open(&release, dry_run);
        // The view asserts that whatever it is given to keep and to commit is whole.
        let mut memory = Memory::default();
        match opening {
            0 => begin.manifest = ManifestForm::Short(Vec::new()),
            1 => begin = Agent::new(begin, release.segments.clone(), Opening::Short).1,
            2 => begin = Agent::new(begin, release.segments.clone(), Opening::Full).1,
            3 => begin = Agent::new(unread_yet(begin), Vec::new(), Opening::Growing).1,
            _ => {
                let older = crate::space_view::release(&numbered(&files[files.len() / 2..]));
                memory = Memory::holding(&older);
                let base = Opening::Base(older.root.release(), older.segments);
                begin = if opening == 4 {
                    Agent::new(unread_yet(begin), Vec::new(), Opening::Growing).1
                } else {
                    Agent::new(begin, release.segments.clone(), base).1
                };
            }
        }
        begin.segments = segments.unwrap_or(begin.segments);
        if let Ok((mut proxy, _)) = Proxy::open(begin, &mut memory) {
            for (which, at, noise) in messages {
                if proxy.receive(message(&release, which, at, noise), &mut memory).is_err() {
                    break;
                }
            }
        }
        prop_assert!(!dry_run || memory.content_kept.is_empty());
    }

    #[test]
    fn no_sequence_of_replies_panics_the_agent(
        files in proptest::collection::vec(proptest::collection::vec(0u16..40, 0..6), 0..20),
        dry_run: bool,
        opening in 0u8..6,
        replies in proptest::collection::vec((0u8..13, proptest::collection::vec(any::<bool>(), 0..40), any::<bool>()), 0..20),
    ) {
        let release = release(&numbered(&files));
        let opening = match opening {
            0 => Opening::Short,
            1 => Opening::Full,
            2 => Opening::Base(ReleaseId::of(b"base"), Vec::new()),
            3 => Opening::Growing,
            5 => Opening::Again(ReleaseId::of(b"base"), release.segments.iter().skip(1).copied().collect()),
            _ => Opening::Base(ReleaseId::of(b"base"), release.segments.iter().skip(1).copied().collect()),
        };
        let mut unread = release.segments.iter().copied();
        let grows = opening == Opening::Growing;
        let (mut agent, begin, mut actions) = if grows {
            Agent::new(unread_yet(open(&release, false)), Vec::new(), opening)
        } else {
            Agent::new(open(&release, dry_run), release.segments.clone(), opening)
        };
        for (which, marks, right) in replies {
            let count = release.segments.len();
            let marks: Marks =
                if right { (0..count).map(|at| marks.get(at) != Some(&false)).collect() } else { marks.into_iter().collect() };
            let destination = "web".parse().expect("a name");
            let reply = match which {
                0 => PushReply::WantNames,
                1 => PushReply::WantSegments(marks),
                2 | 3 => PushReply::Missing(marks),
                4 => PushReply::Stored(u64::MAX),
                5 => PushReply::Committed { record: Memory::record(&begin), existing: right },
                6 => PushReply::Delivery(DeliveryEvent { destination, state: DeliveryState::Running }),
                7 => PushReply::Done,
                8 => PushReply::Mismatch,
                9 => PushReply::BlockSums(BlockSums { region: 0, first: 0, chunks: 1, rule: 9, signature: Vec::new() }),
                10 => {
                    actions.extend(agent.eager_marked(marks));
                    PushReply::WantNames
                }
                12 if grows => {
                    actions.extend(if right {
                        agent.grow(unread.by_ref().take(2))
                    } else {
                        agent.grown(release.root.release(), release.root.totals)
                    });
                    continue;
                }
                _ => {
                    actions.extend(agent.chunks_sent());
                    continue;
                }
            };
            for action in actions.drain(..) {
                if let Action::SendSegments(Segments { segments, .. }) = action {
                    prop_assert!(segments.iter().all(|index| usize::from(*index) < count));
                }
            }
            match agent.receive(reply) {
                Ok(received) => actions = received,
                Err(Error::OutOfTurn(_) | Error::Mismatch) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
