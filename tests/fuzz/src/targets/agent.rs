//! The agent's half of a push against a proxy that replies whatever it likes.

use delta::similar::{SKETCH_BYTES, Sketch};
use format::manifest::{NodeRef, Profile, Shape, Totals};
use ground::ids::{ChunkId, ReleaseId};
use ground::limits::{MESSAGE_ITEMS_MAX, OPEN_NAMES_MAX, SEGMENT_BATCH_BYTES};
use protocol::push::{Action, Agent, Chunks, Opening, Segments};
use protocol::wire::{
    BlockSums, Challenge, FromAgent, ManifestForm, Marks, Open, PushReply, Refusal, Sketches,
};

use super::script::Script;

/// The most batches of segments without an answer, plus batches whose chunks are being sent.
const OPEN_MAX: usize = 8;

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
    let (mut agent, open, mut actions) = Agent::new(open(count, flags & 1 == 1), segments.clone(), opening);
    let mut wanted = wanted(&open.manifest, &told, &segments);
    let (mut unanswered, mut sending, mut sent) = (0usize, 0usize, vec![false; count]);
    // Batches that were sketched and whose chunks wait.
    let mut held = 0usize;
    let mut answered = agent.is_based();
    loop {
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                match action {
                    Action::Send(FromAgent::Names(names)) => {
                        assert!(names.len() <= 8 * MESSAGE_ITEMS_MAX);
                        // Everything starts over where the proxy does not know the base.
                        (unanswered, answered, sent) = (0, false, vec![false; count]);
                    }
                    Action::Send(FromAgent::Commit) => {
                        assert!(
                            !open.dry_run && sending + held == 0 && (agent.is_based() || unanswered == 0)
                        );
                        assert_eq!(sent, wanted, "a commit comes after all that was wanted");
                    }
                    Action::Send(FromAgent::Sketches(_)) => assert!(held > 0),
                    Action::Send(_) => panic!("not by this half"),
                    Action::SendSegments(Segments { segments: batch, eager, against, .. }) => {
                        unanswered += 1;
                        assert!(!batch.is_empty() && unanswered + sending + held <= OPEN_MAX);
                        assert_eq!(eager, agent.is_based() && !open.dry_run);
                        assert_eq!(against.is_some(), agent.is_based());
                        let bytes: usize =
                            batch.iter().map(|at| segments[usize::from(*at)].bytes as usize).sum();
                        assert!(batch.len() == 1 || bytes <= SEGMENT_BATCH_BYTES);
                        for index in batch {
                            assert!(!std::mem::replace(&mut sent[usize::from(index)], true), "sent once");
                        }
                        if eager {
                            more.extend(agent.eager_marked(marks(&mut script, 20)));
                        }
                    }
                    Action::Sketch(chunks) => {
                        assert!(!open.dry_run && !chunks.segments.is_empty());
                        let sketches = sketches(&mut script);
                        held += 1;
                        more.extend(agent.sketched(chunks, sketches));
                    }
                    Action::Prove { segments, .. } => assert!(!segments.is_empty() && unanswered > 0),
                    Action::SendChunks(Chunks { segments, .. }) => {
                        held = held.saturating_sub(1);
                        sending += 1;
                        assert!(!segments.is_empty());
                    }
                    Action::Finish => return,
                    Action::Stored(_)
                    | Action::Committed { .. }
                    | Action::Cached(_)
                    | Action::Delivery(_) => {}
                }
            }
            actions = more;
        }
        if script.is_over() {
            return;
        }
        let before = agent.round_trips();
        actions = match reply(&mut script, count) {
            None if sending == 0 => Vec::new(),
            None => {
                sending -= 1;
                agent.chunks_sent()
            }
            Some(reply) => {
                let is_answer = matches!(&reply, PushReply::Missing(_));
                if let PushReply::WantSegments(marks) = &reply
                    && marks.fits(count)
                    && !answered
                {
                    (wanted, answered) = (marks.iter().collect(), true);
                }
                match agent.receive(reply) {
                    Ok(actions) => {
                        if is_answer {
                            unanswered = unanswered.checked_sub(1).expect("an answer to what was sent");
                        }
                        actions
                    }
                    Err(error) => return drop(error.to_string()),
                }
            }
        };
        assert!(agent.round_trips() <= before + 1);
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

/// Returns one sketch, or none at all.
fn sketches(script: &mut Script<'_>) -> Option<Sketches> {
    let sketch = Sketch::from_bytes([script.byte(); SKETCH_BYTES]);
    (script.below(2) == 0).then(|| Sketches::new(&[Some(sketch)]))
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
            Opening::Base(ReleaseId::of(b"base"), base)
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
