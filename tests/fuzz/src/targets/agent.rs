//! The agent's half of a push against a proxy that replies whatever it likes.

use std::collections::VecDeque;

use delta::similar::{SKETCH_BYTES, Sketch};
use format::manifest::{NodeRef, Profile, SegmentIndex, Shape, Totals};
use ground::ids::{ChunkId, ReleaseId};
use ground::limits::{MESSAGE_ITEMS_MAX, OPEN_NAMES_MAX, SEGMENT_BATCH_BYTES};
use protocol::push::{Action, Agent, Opening};
use protocol::wire::{
    BlockSums, Challenge, FromAgent, ManifestForm, Marks, Open, PushReply, Refusal, SegmentBatch, Sketches,
};
use protocol::{Chunks, Error, InputView, Segments};

use super::script::Script;

/// The most batches of segments without an answer, plus batches whose chunks are being sent.
const OPEN_MAX: usize = 8;

/// An input that answers whatever it likes, and checks what it is asked.
struct Input<'a> {
    script: Script<'a>,
    segments: Vec<NodeRef>,
    is_dry_run: bool,
    is_based: bool,
    /// Which segments were sent.
    sent: Vec<bool>,
    unanswered: usize,
    /// Batches whose chunks are being encoded.
    encoding: usize,
    /// Batches that were sketched and whose chunks wait.
    held: VecDeque<Vec<SegmentIndex>>,
}

impl Input<'_> {
    fn open(&self) -> usize {
        self.unanswered + self.encoding + self.held.len()
    }
}

impl InputView for Input<'_> {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        let Segments { segments: batch, eager, against, .. } = wanted;
        self.unanswered += 1;
        assert!(!batch.is_empty() && self.open() <= OPEN_MAX);
        assert_eq!(*eager, self.is_based && !self.is_dry_run);
        assert_eq!(against.is_some(), self.is_based);
        let bytes: usize = batch.iter().map(|at| self.segments[usize::from(*at)].bytes as usize).sum();
        assert!(batch.len() == 1 || bytes <= SEGMENT_BATCH_BYTES);
        for index in batch {
            assert!(!std::mem::replace(&mut self.sent[usize::from(*index)], true), "sent once");
        }
        let eager = if *eager { marks(&mut self.script, 20) } else { Marks::default() };
        Ok(SegmentBatch::new(&[b"a segment".to_vec()], None, eager))
    }

    fn prove(&mut self, segments: &[SegmentIndex], _: &Challenge) -> Result<[u8; 32], Error> {
        assert!(!segments.is_empty() && self.unanswered > 0);
        Ok([0; 32])
    }

    fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>, Error> {
        assert!(!self.is_dry_run && !chunks.segments.is_empty());
        self.held.push_back(chunks.segments.clone());
        let sketch = Sketch::from_bytes([self.script.byte(); SKETCH_BYTES]);
        Ok((self.script.below(2) == 0).then(|| Sketches::new(&[Some(sketch)])))
    }

    fn encode(&mut self, chunks: Chunks) -> Result<(), Error> {
        assert!(!chunks.segments.is_empty());
        if self.held.front() == Some(&chunks.segments) {
            self.held.pop_front();
        }
        assert!(!self.held.contains(&chunks.segments), "chunks that wait keep their order");
        self.encoding += 1;
        Ok(())
    }
}

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let count = script.below(6) * script.below(256);
    let size = 1 + u32::from(script.byte()) * 64;
    let segments: Vec<NodeRef> = (0..count)
        .map(|n| NodeRef { id: ChunkId::of(&n.to_le_bytes()), bytes: size + u32::try_from(n).expect("few") })
        .collect();
    let flags = script.byte();
    let opening = opening(flags, &segments);
    let told = opening.clone();
    let (mut agent, open) = Agent::new(open(count, flags & 1 == 1), segments.clone(), opening);
    let mut wanted = wanted(&open.manifest, &told, &segments);
    let mut answered = agent.is_based();
    let (is_dry_run, is_based) = (open.dry_run, agent.is_based());
    let (sent, held) = (vec![false; count], VecDeque::new());
    let mut input = Input { script, segments, is_dry_run, is_based, sent, unanswered: 0, encoding: 0, held };
    let mut actions = agent.begin(&mut input).expect("the input fails never");
    loop {
        for action in actions {
            match action {
                Action::Send(FromAgent::Names(names)) => {
                    assert!(names.len() <= 8 * MESSAGE_ITEMS_MAX);
                    // Everything starts over where the proxy does not know the base.
                    (input.unanswered, answered, input.sent) = (0, false, vec![false; count]);
                    input.held.clear();
                }
                Action::Send(FromAgent::Commit) => {
                    assert!(!is_dry_run && input.encoding + input.held.len() == 0);
                    assert!(agent.is_based() || input.unanswered == 0);
                    assert_eq!(input.sent, wanted, "a commit comes after all that was wanted");
                }
                Action::Send(FromAgent::Sketches(_)) => assert!(!input.held.is_empty()),
                Action::Finish => return,
                Action::Send(FromAgent::Segments(_) | FromAgent::Proof(_))
                | Action::Stored(_)
                | Action::Committed { .. }
                | Action::Cached(_)
                | Action::Delivery(_)
                | Action::RollsOut(_) => {}
                Action::Send(_) => panic!("not by this half"),
            }
        }
        if input.script.is_over() {
            return;
        }
        input.is_based = agent.is_based();
        let before = agent.round_trips();
        actions = match reply(&mut input.script, count) {
            None if input.encoding == 0 => Vec::new(),
            None => {
                input.encoding -= 1;
                agent.chunks_sent(&mut input).expect("the input fails never")
            }
            Some(reply) => {
                let is_answer = matches!(&reply, PushReply::Missing(_));
                let is_due = input.unanswered > 0;
                if is_answer {
                    input.unanswered = input.unanswered.saturating_sub(1);
                }
                if let PushReply::WantSegments(marks) = &reply
                    && marks.fits(count)
                    && !answered
                {
                    (wanted, answered) = (marks.iter().collect(), true);
                }
                match agent.receive(reply, &mut input) {
                    Ok(actions) => {
                        assert!(is_due || !is_answer, "an answer to what was sent");
                        actions
                    }
                    Err(error) => return drop(error.to_string()),
                }
            }
        };
        // One for an answer, and one where sketches are sent after it.
        assert!(agent.round_trips() <= before + 2);
    }
}

/// Returns which segments the agent sends at once: those that its base lacks.
fn wanted(told: &ManifestForm, opening: &Opening, segments: &[NodeRef]) -> Vec<bool> {
    let count = segments.len();
    let fits = count <= OPEN_NAMES_MAX;
    let mut wanted = vec![false; count];
    match told {
        ManifestForm::Growing => panic!("a manifest that is all there grows"),
        ManifestForm::Short(names) => assert_eq!(names.len(), if fits { 4 * count } else { 0 }),
        ManifestForm::Full(names) => assert_eq!(names.len(), if fits { 8 * count } else { 0 }),
        ManifestForm::Base { outline, .. } => {
            let Opening::Base(_, base) = opening else { panic!("told by a base that nobody gave") };
            let applied = outline.apply(base, count).expect("its own base");
            assert!(
                applied.iter().zip(segments).all(|(stays, node)| stays.is_none_or(|stays| stays == *node))
            );
            wanted = applied.iter().map(Option::is_none).collect();
        }
    }
    wanted
}

/// Chooses how the agent lists its segments.
fn opening(flags: u8, segments: &[NodeRef]) -> Opening {
    match flags >> 1 & 3 {
        0 => Opening::Short,
        1 => Opening::Full,
        // A base that lacks some of the segments, and has others.
        _ => {
            let kept = segments.iter().enumerate().filter(|(at, _)| flags >> (3 + at % 5) & 1 == 0);
            let other = NodeRef { id: ChunkId::of(b"another"), bytes: 9 };
            let base = kept.map(|(_, node)| *node).chain([other]).collect();
            Opening::Base(ChunkId::of(b"base"), base)
        }
    }
}

pub fn open(segments: usize, dry_run: bool) -> Open {
    Open {
        app: "web".parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: ReleaseId::of(b"a root"),
        profile: Profile::DEFAULT,
        shape: Shape::Tree,
        totals: Totals::default(),
        segments: u32::try_from(segments).expect("few segments"),
        manifest: ManifestForm::Short(Vec::new()),
        dry_run,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    }
}

fn marks(script: &mut Script<'_>, count: usize) -> Marks {
    let pattern = script.byte() | 1;
    (0..count).map(|at| pattern >> (at % 8) & 1 == 1).collect()
}

/// Returns the next reply; none if chunks have been sent instead.
fn reply(script: &mut Script<'_>, count: usize) -> Option<PushReply> {
    Some(match script.below(14) {
        0 => return None,
        1 => PushReply::WantNames,
        2 => PushReply::WantSegments(marks(script, count)),
        3 => PushReply::WantSegments(Marks::from_iter(vec![false; count])),
        4 => {
            let found = script.below(64);
            PushReply::Missing(marks(script, found))
        }
        5 => PushReply::Stored(u64::from(script.byte())),
        6 => PushReply::Committed { record: super::wire::record(), existing: script.byte() & 1 == 1 },
        7 => match script.below(3) {
            0 => PushReply::Done,
            1 => PushReply::Refused(Refusal {
                fault: ground::faults::Fault::Full,
                text: String::new(),
                hint: None,
            }),
            _ => PushReply::WantSegments(marks(script, count + 1)),
        },
        8 => PushReply::Mismatch,
        9 => PushReply::BlockSums(BlockSums {
            region: 0,
            first: 1,
            chunks: 2,
            rule: 1,
            signature: script.run().to_vec(),
        }),
        10 => PushReply::WantSketches,
        11 => PushReply::Alike,
        12 => {
            let (nonce, found) = ([script.byte(); 32], script.below(64));
            PushReply::Prove(Challenge::new(nonce, marks(script, found)))
        }
        _ => rmp_serde::from_slice(script.run()).ok()?,
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let known = [1, 3, 9, 0, 6, 1, 7, 0];
    let based = [1, 3, 9, 4, 255, 4, 8, 255, 0, 6, 0, 7, 0];
    let unknown = [1, 3, 9, 4, 255, 1, 2, 255, 4, 8, 255, 0, 6, 0, 7, 0];
    let full = [1, 3, 9, 2, 2, 255, 4, 8, 255, 0, 8];
    let small = [1, 3, 9, 0, 2, 255, 4, 8, 255, 0, 6, 0, 7, 0];
    let large = [5, 200, 200, 0, 1, 2, 255, 4, 8, 255, 4, 8, 255, 0, 0, 4, 8, 255, 0, 5, 3];
    let dry = [1, 3, 9, 1, 2, 255, 4, 8, 255, 0];
    let marks = rmp_serde::to_vec(&PushReply::WantSegments((0..3).map(|n| n == 1).collect()));
    let marks = marks.expect("a Vec takes every write");
    let length = u8::try_from(marks.len()).expect("a small message");
    let raw = [&[1, 3, 9, 0, 10, length, 0], marks.as_slice(), &[4, 3, 255, 0]].concat();
    vec![
        known.to_vec(),
        based.to_vec(),
        unknown.to_vec(),
        full.to_vec(),
        small.to_vec(),
        large.to_vec(),
        dry.to_vec(),
        raw,
    ]
}
