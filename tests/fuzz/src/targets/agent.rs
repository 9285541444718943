//! The agent's half of a push against a proxy that replies whatever it likes.

use whit::ids::{ChunkId, ReleaseId};
use whit::limits::{MESSAGE_ITEMS_MAX, OPEN_NAMES_MAX, SEGMENT_BATCH_BYTES};
use whit::manifest::{NodeRef, Profile, Shape, Totals};
use whit::push::{Action, Agent};
use whit::wire::{FromAgent, Marks, Open, PushReply, Refusal};

use super::script::Script;

/// Batches of segments that may be without an answer, and chunks of batches that may be being sent.
const OPEN_MAX: usize = 8;

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let count = script.below(6) * script.below(256);
    let size = 1 + u32::from(script.byte()) * 64;
    let segments: Vec<NodeRef> = (0..count)
        .map(|n| NodeRef { id: ChunkId::of(&n.to_le_bytes()), bytes: size + u32::try_from(n).expect("few") })
        .collect();
    let open = open(count, script.byte() & 1 == 1);
    let (mut agent, open) = Agent::new(open, segments.clone());
    assert_eq!(open.names.len(), if count <= OPEN_NAMES_MAX { 8 * count } else { 0 });
    let (mut unanswered, mut sending, mut ended, mut sent) = (0usize, 0usize, false, vec![false; count]);
    let (mut wanted, mut answered) = (vec![false; count], false);
    while !script.is_over() && !ended {
        let before = agent.round_trips();
        let actions = match reply(&mut script, count) {
            None => {
                sending = sending.saturating_sub(1);
                agent.chunks_sent()
            }
            Some(reply) => {
                if let PushReply::WantSegments(marks) = &reply
                    && marks.fits(count)
                    && !answered
                {
                    wanted = marks.iter().collect();
                }
                answered |= matches!(&reply, PushReply::WantSegments(marks) if marks.fits(count));
                match agent.receive(reply) {
                    Ok(actions) => actions,
                    Err(error) => return drop(error.to_string()),
                }
            }
        };
        assert!(agent.round_trips() <= before + 1);
        for action in actions {
            match action {
                Action::Send(FromAgent::Names(names)) => assert!(names.len() <= 8 * MESSAGE_ITEMS_MAX),
                Action::Send(FromAgent::Commit) => {
                    assert!(!open.dry_run && unanswered == 0 && sending == 0);
                    assert_eq!(sent, wanted, "a commit comes after all that was wanted");
                }
                Action::Send(_) => panic!("not by this half"),
                Action::SendSegments(places) => {
                    unanswered += 1;
                    assert!(!places.is_empty() && unanswered + sending <= OPEN_MAX);
                    let bytes: usize = places.iter().map(|at| segments[*at as usize].bytes as usize).sum();
                    assert!(places.len() == 1 || bytes <= SEGMENT_BATCH_BYTES);
                    for place in places {
                        assert!(!std::mem::replace(&mut sent[place as usize], true), "sent once");
                    }
                }
                Action::SendChunks { segments, .. } => {
                    unanswered = unanswered.checked_sub(1).expect("an answer to what was sent");
                    sending += 1;
                    assert!(!segments.is_empty());
                }
                Action::Finish => ended = true,
                Action::Stored(_) | Action::Committed { .. } | Action::Delivery(_) => {}
            }
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
        names: Vec::new(),
        dry_run,
    }
}

/// The next reply; none where chunks have been sent instead.
fn reply(script: &mut Script<'_>, count: usize) -> Option<PushReply> {
    let marks = |script: &mut Script<'_>, count: usize| -> Marks {
        let pattern = script.byte() | 1;
        (0..count).map(|at| pattern >> (at % 8) & 1 == 1).collect()
    };
    Some(match script.below(9) {
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
                fault: whit::faults::Fault::Full,
                text: String::new(),
                hint: None,
            }),
            _ => PushReply::WantSegments(marks(script, count + 1)),
        },
        _ => rmp_serde::from_slice(script.run()).ok()?,
    })
}

pub fn seeds() -> Vec<Vec<u8>> {
    let known = [1, 3, 9, 0, 6, 1, 7, 0];
    let small = [1, 3, 9, 0, 2, 255, 4, 8, 255, 0, 6, 0, 7, 0];
    let large = [5, 200, 200, 0, 1, 2, 255, 4, 8, 255, 4, 8, 255, 0, 0, 4, 8, 255, 0, 5, 3];
    let dry = [1, 3, 9, 1, 2, 255, 4, 8, 255, 0];
    let marks = rmp_serde::to_vec(&PushReply::WantSegments((0..3).map(|n| n == 1).collect()));
    let marks = marks.expect("a Vec takes every write");
    let length = u8::try_from(marks.len()).expect("a small message");
    let raw = [&[1, 3, 9, 0, 8, length, 0], marks.as_slice(), &[4, 3, 255, 0]].concat();
    vec![known.to_vec(), small.to_vec(), large.to_vec(), dry.to_vec(), raw]
}
