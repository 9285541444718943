//! The two halves of a push against one another and against anything at all, without sockets or files.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use whit::compression::Codec;
use whit::faults::Fault;
use whit::ids::ChunkId;
use whit::manifest::{self, Builder, EntryPath, Item, NodeRef, Profile, Root, Shape};
use whit::pack::{Frame, FrameKind};
use whit::push::{Action, Agent, Error, Proposal, Proxy, Shelf};
use whit::recipe::{ChunkRef, Recipe};
use whit::record::{DeliveryEvent, DeliveryState, Record};
use whit::wire::{Batch, FromAgent, Marks, Open, PushReply, Refusal};

use crate::walker::raw;

/// A space in memory that believes nothing it is not shown.
#[derive(Default)]
struct Memory {
    chunks: HashMap<ChunkId, u32>,
    segments: HashMap<u64, (NodeRef, Vec<ChunkRef>)>,
    content_kept: Vec<ChunkId>,
    releases: HashSet<ChunkId>,
}

impl Memory {
    fn record(open: &Open) -> Record {
        Record {
            app: open.app.clone(),
            release: open.release,
            sequence: 1,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: Vec::new(),
            totals: open.totals,
            cost: whit::record::Cost::default(),
        }
    }

    fn has(&self, chunk: &ChunkRef) -> bool {
        self.chunks.get(&chunk.id) == Some(&chunk.bytes)
    }
}

impl Shelf for Memory {
    fn recognize(&mut self, open: &Open) -> Result<Option<(Record, bool)>, Refusal> {
        let known = self.releases.contains(&open.release.into());
        Ok(known.then(|| (Self::record(open), true)))
    }

    fn resolve(&mut self, names: &[u64]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        let known = |name: &u64| {
            let (node, chunks) = self.segments.get(name)?;
            chunks.iter().all(|chunk| self.has(chunk)).then_some(*node)
        };
        Ok(names.iter().map(known).collect())
    }

    fn holds(&mut self, chunks: &[ChunkRef]) -> Result<Vec<bool>, Refusal> {
        Ok(chunks.iter().map(|chunk| self.has(chunk)).collect())
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        let (mut zstd, mut plain) = (whit::compression::Decompressor::new(), Vec::new());
        let lengths = frame.chunks.iter().map(|chunk| chunk.bytes).collect();
        let batch = Batch { codec: frame.codec, lengths, payload: frame.payload };
        let parts = batch.open(&mut zstd, &mut plain).expect("only whole frames are kept");
        for (chunk, part) in frame.chunks.iter().zip(parts) {
            assert_eq!(
                chunk.id,
                ChunkId::of(&plain[part.clone()]),
                "only what is what its name says is kept"
            );
            if frame.kind == FrameKind::Content {
                self.content_kept.push(chunk.id);
                self.chunks.insert(chunk.id, chunk.bytes);
            } else {
                let chunks = manifest::segment_chunks(&plain[part]).expect("only segments are kept as such");
                let node = NodeRef { id: chunk.id, bytes: chunk.bytes };
                self.segments.insert(chunk.id.prefix(), (node, chunks));
            }
        }
        Ok(())
    }

    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal> {
        let record = Self::record(&proposal.open);
        assert_eq!(proposal.segments.len(), proposal.open.segments as usize, "no segment is missing");
        for segment in &proposal.segments {
            let (_, chunks) = self.segments.get(&segment.id.prefix()).expect("every segment is there");
            assert!(chunks.iter().all(|chunk| self.has(chunk)), "every chunk is there");
        }
        let Open { profile, shape, totals, release, .. } = proposal.open;
        let made = Root::above(profile, shape, totals, proposal.segments, |_| {}).expect("within limits");
        if made.release() != release {
            return Err(Refusal { fault: Fault::Corrupt, text: "another root".to_owned(), hint: None });
        }
        self.releases.insert(made.release().into());
        Ok((record, false))
    }
}

/// A release in memory.
struct Release {
    root: Root,
    segments: Vec<NodeRef>,
    /// Each segment's bytes and chunks.
    parts: Vec<(Vec<u8>, Vec<ChunkRef>)>,
    content: HashMap<ChunkId, Vec<u8>>,
}

/// One file for each list; each number stands for a chunk.
fn release(files: &[Vec<u16>]) -> Release {
    let mut builder = Builder::new(Profile::DEFAULT);
    let (mut parts, mut content) = (Vec::new(), HashMap::new());
    let mut keep = |bytes: Vec<u8>| {
        let chunks = manifest::segment_chunks(&bytes).expect("a segment");
        parts.push((bytes, chunks));
    };
    for (number, chunks) in files.iter().enumerate() {
        let bytes_of =
            |chunk: &u16| format!("chunk {chunk}").repeat(usize::from(*chunk % 50 + 1)).into_bytes();
        let size = chunks.iter().map(|chunk| bytes_of(chunk).len() as u64).sum();
        let path = EntryPath::new(format!("{number:06}")).expect("a path");
        let entry = Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks };
        let items = chunks.iter().map(|chunk| {
            let bytes = bytes_of(chunk);
            let reference =
                ChunkRef { id: ChunkId::of(&bytes), bytes: u32::try_from(bytes.len()).expect("small") };
            content.insert(reference.id, bytes);
            Item::Chunk(reference)
        });
        for item in std::iter::once(entry).chain(items) {
            if let Some(segment) = builder.push(&item) {
                keep(segment.bytes);
            }
        }
    }
    let (last, root, segments) = builder.finish(Shape::Tree).expect("within limits");
    if let Some(segment) = last {
        keep(segment.bytes);
    }
    Release { root, segments, parts, content }
}

fn open(release: &Release, dry_run: bool) -> Open {
    Open {
        app: "app".parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: release.root.release(),
        profile: release.root.profile,
        shape: release.root.shape,
        totals: release.root.totals,
        segments: u32::try_from(release.segments.len()).expect("few"),
        names: Vec::new(),
        dry_run,
    }
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Committed,
    Finished,
    BrokenOff,
}

/// Lets the two talk; `choices` decides whose turn it is. Breaks off after `steps` turns.
fn talk(release: &Release, memory: &mut Memory, dry_run: bool, choices: &[bool], steps: usize) -> End {
    let (mut agent, open) = Agent::new(open(release, dry_run), release.segments.clone());
    let (mut proxy, first) = Proxy::open(open, memory).expect("an honest agent");
    let mut to_agent: VecDeque<PushReply> = first.into();
    let mut to_proxy: VecDeque<FromAgent> = VecDeque::new();
    // What the agent is still compressing: messages, then that a job is done.
    let mut feeding: VecDeque<Option<FromAgent>> = VecDeque::new();
    let mut choices = choices.iter().copied().cycle();
    let mut committed = false;
    for _ in 0..steps {
        let mut actions = Vec::new();
        let choice = choices.next().unwrap_or(true);
        if choice && !to_proxy.is_empty() {
            if let Some(message) = to_proxy.pop_front() {
                to_agent.extend(proxy.receive(message, memory).expect("an honest agent"));
            }
        } else if !to_agent.is_empty() && (choices.next().unwrap_or(true) || feeding.is_empty()) {
            if let Some(reply) = to_agent.pop_front() {
                actions = agent.receive(reply).expect("an honest proxy");
            }
        } else if let Some(fed) = feeding.pop_front() {
            match fed {
                Some(message) => to_proxy.push_back(message),
                None => actions = agent.chunks_sent(),
            }
        } else if let Some(message) = to_proxy.pop_front() {
            to_agent.extend(proxy.receive(message, memory).expect("an honest agent"));
        } else if committed {
            return End::Committed;
        } else {
            panic!("both wait for the other");
        }
        for action in actions {
            match action {
                Action::Send(message) => to_proxy.push_back(message),
                Action::SendSegments(places) => {
                    let parts: Vec<_> =
                        places.iter().map(|place| release.parts[*place as usize].0.clone()).collect();
                    to_proxy.push_back(FromAgent::Segments(raw(&parts)));
                }
                Action::SendChunks { segments, marks } => {
                    let all = segments.iter().flat_map(|place| &release.parts[*place as usize].1);
                    let missing: Vec<_> = all
                        .zip(marks.iter())
                        .filter(|(_, mark)| *mark)
                        .map(|(chunk, _)| release.content[&chunk.id].clone())
                        .collect();
                    if !dry_run {
                        feeding.extend(missing.chunks(3).map(|part| Some(FromAgent::Chunks(raw(part)))));
                    }
                    feeding.push_back(None);
                }
                Action::Committed { .. } => committed = true,
                Action::Finish => return if committed { End::Committed } else { End::Finished },
                Action::Stored(_) | Action::Delivery(_) => {}
            }
        }
    }
    End::BrokenOff
}

fn files() -> impl Strategy<Value = Vec<Vec<u16>>> {
    prop_oneof![
        4 => proptest::collection::vec(proptest::collection::vec(0u16..300, 0..20), 0..60),
        // More segments than names that `Open` carries.
        1 => (4000u16..9000).prop_map(|files| (0..files).map(|file| vec![file, file / 3]).collect()),
    ]
}

/// Never in any of [`files`] with fewer turns than this.
const ENDLESS: usize = 1_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_push_ends_committed_with_exactly_the_missing_chunks_sent_once(
        files in files(),
        known in proptest::collection::hash_set(0u16..300, 0..200),
        choices in proptest::collection::vec(any::<bool>(), 1..40),
        broken_off in 0usize..60,
    ) {
        let release = release(&files);
        let mut memory = Memory::default();
        for (id, bytes) in &release.content {
            if known.contains(&(id.as_bytes()[0].into())) {
                memory.chunks.insert(*id, u32::try_from(bytes.len()).expect("small"));
            }
        }
        let mut expected: HashSet<ChunkId> = release.content.keys().copied().collect();
        expected.retain(|id| !memory.chunks.contains_key(id));
        talk(&release, &mut memory, false, &choices, broken_off);
        if memory.releases.is_empty() {
            prop_assert_eq!(talk(&release, &mut memory, false, &choices, ENDLESS), End::Committed);
        }
        prop_assert!(memory.releases.contains(&release.root.release().into()));
        let sent: HashSet<ChunkId> = memory.content_kept.iter().copied().collect();
        prop_assert_eq!(sent.len(), memory.content_kept.len(), "none was sent twice");
        prop_assert_eq!(sent, expected);
        // And once more: recognized at once.
        prop_assert_eq!(talk(&release, &mut memory, false, &choices, 10), End::Committed);
    }

    #[test]
    fn a_dry_run_ends_and_keeps_nothing(files in files(), choices in proptest::collection::vec(any::<bool>(), 1..40)) {
        let mut memory = Memory::default();
        let end = talk(&release(&files), &mut memory, true, &choices, ENDLESS);
        prop_assert_eq!(end, End::Finished);
        prop_assert!(memory.chunks.is_empty() && memory.segments.is_empty() && memory.releases.is_empty());
    }
}

/// Messages near those of an honest push of `release`, and some far from any.
fn message(release: &Release, which: u8, at: usize, noise: Vec<u8>) -> FromAgent {
    let part = |at: usize| release.parts.get(at % release.parts.len().max(1)).map(|part| part.0.clone());
    let chunks: Vec<&Vec<u8>> = release.content.values().collect();
    let chunk = |at: usize| chunks.get(at % chunks.len().max(1)).map(|bytes| (*bytes).clone());
    match which % 8 {
        0 => FromAgent::Commit,
        1 => FromAgent::Names(noise),
        2 => FromAgent::Names(
            release.segments.iter().flat_map(|node| node.id.prefix().to_le_bytes()).collect(),
        ),
        3 => FromAgent::Segments(raw(&release.parts.iter().map(|part| part.0.clone()).collect::<Vec<_>>())),
        4 => FromAgent::Segments(raw(&part(at).into_iter().collect::<Vec<_>>())),
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
        with_names: bool,
        dry_run: bool,
        messages in proptest::collection::vec((any::<u8>(), any::<usize>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..12),
    ) {
        let release = release(&files);
        let mut begin = open(&release, dry_run);
        if with_names {
            begin = Agent::new(begin, release.segments.clone()).1;
        }
        begin.segments = segments.unwrap_or(begin.segments);
        // The shelf asserts that whatever it is given to keep and to commit is whole.
        let mut memory = Memory::default();
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
        replies in proptest::collection::vec((0u8..9, proptest::collection::vec(any::<bool>(), 0..40), any::<bool>()), 0..20),
    ) {
        let release = release(&files);
        let (mut agent, begin) = Agent::new(open(&release, dry_run), release.segments.clone());
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
                _ => {
                    drop(agent.chunks_sent());
                    continue;
                }
            };
            match agent.receive(reply) {
                Ok(actions) => for action in actions {
                    if let Action::SendSegments(places) = action {
                        prop_assert!(places.iter().all(|place| (*place as usize) < count));
                    }
                },
                Err(Error::OutOfTurn(_)) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
