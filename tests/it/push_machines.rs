//! The two machines of a push agree, whatever the turns, the opening and the content of the space.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use ground::ids::{ChunkId, ShortId};
use protocol::Error;
use protocol::push::{Action, Agent, Opening, Proxy};
use protocol::wire::{BlockSums, Challenge, FromAgent, PushReply};

use crate::push_simulator::{Dice, End, Offering, Push, edited, numbered};
use crate::space_view::{Files, Memory, Release, open, release};
use crate::walker::raw_segments;

pub fn files() -> impl Strategy<Value = Vec<Vec<u16>>> {
    prop_oneof![
        4 => proptest::collection::vec(proptest::collection::vec(0u16..300, 0..20), 0..60),
        // Many segments.
        1 => (4000u16..9000).prop_map(|files| (0..files).map(|file| vec![file % 300, file % 299]).collect()),
    ]
}

/// Changes files: other chunks, more, fewer, copies.
pub fn changed(files: &Files, changes: &[(usize, u8)]) -> Files {
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

/// No push of [`files`] takes this many turns.
const ENDLESS: usize = 1_000_000;

/// Pushes until the release is committed, as an agent does: in full after a mismatch.
fn push_through(push: &mut Push<'_>, memory: &mut Memory, dice: &mut Dice) {
    let mut end = push.talk(memory, dice, ENDLESS);
    if end == End::Mismatch {
        (push.opening, push.base) = (Opening::Full, None);
        end = push.talk(memory, dice, ENDLESS);
    }
    assert_eq!(end, End::Committed);
}

/// Asserts that all chunks are there, and that none was sent twice or was there before.
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
        // The same push again is recognized at once.
        prop_assert_eq!(push.talk(&mut memory, &mut dice, ENDLESS), End::Committed);
    }

    #[test]
    fn a_push_after_another_keeps_exactly_what_changed_in_every_form(
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
            // No chunk of a segment that stays is needed: the proxy has them, or it does not know the base.
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
                let again = Opening::Again(old.root.id(), old.segments.clone());
                Push { opening: again, ..Push::based(&new, &old, &memory) }
            }
            5 => Push::new(&new, Opening::Growing),
            2 => {
                let unknown = Opening::Base(ChunkId::of(b"unknown"), old.segments.clone());
                Push { opening: unknown, ..Push::based(&new, &old, &memory) }
            }
            _ => Push::based(&new, &old, &memory),
        };
        if wrong_offers {
            push.offering = Offering::Wrong;
        }
        let mut brought = HashSet::new();
        if push.talk(&mut memory, &mut dice, broken_off) == End::BrokenOff && bringing {
            // Another push sends some of the chunks before this one runs again.
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
        // The first chunk that is new to the space is confused with another of the same short id.
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
        // Some of the new content is there, but this token may not read it.
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
                let again = Opening::Again(old.root.id(), old.segments.clone());
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
        // Chunks that an interrupted push sent count as anybody's, so they must be proven too.
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
        let opening = Opening::Base(old.root.id(), believed.segments.clone());
        let mut push = Push { opening, ..Push::based(&new, &believed, &memory) };
        // The view checks whatever is committed against the intended release.
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

#[test]
fn chunks_that_changed_a_little_are_signed_and_come_as_deltas() {
    let (old, new) = edited(20);
    let mut memory = Memory::holding(&old);
    // The agent has no base; or its base is gone and the application has another release.
    for opening in [Opening::Short, Opening::Base(ChunkId::of(b"gone"), old.segments.clone())] {
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
        let (_, begin) = Agent::new(open(&new, false), new.segments.clone(), Opening::Short);
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
    let (mut agent, _) = Agent::new(open(&new, false), new.segments.clone(), Opening::Short);
    let (mut push, mut feeding, mut dice) = (Push::new(&new, Opening::Short), VecDeque::new(), Dice(1));
    let mut receive = |reply| agent.receive(reply, &mut push.view(&mut feeding, &mut dice));
    let wants = PushReply::WantSegments(new.segments.iter().map(|_| true).collect());
    let actions = receive(wants).expect("in turn");
    let sends = |action: &Action| matches!(action, Action::Send(FromAgent::Segments(_)));
    assert!(actions.iter().any(sends), "{actions:?}");
    let prove = |marks: [bool; 3]| PushReply::Prove(Challenge::new([1; 32], marks.into_iter().collect()));
    for marks in [[true, false, false], [false, true, true]] {
        let actions = receive(prove(marks)).expect("honest");
        assert!(matches!(actions.as_slice(), [Action::Send(FromAgent::Proof(_))]), "{actions:?}");
    }
    for marks in [[true, false, false], [false; 3]] {
        assert!(receive(prove(marks)).is_err(), "it would read on and on");
    }
}
