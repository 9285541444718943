//! Messages and replies that no honest machine of a push sends are refused, and nothing of them is stored.

use proptest::prelude::*;

use delta::compression::{self, Codec, LEVEL_DEFAULT};
use format::manifest::{self, SegmentIndex};
use format::record::{DeliveryEvent, DeliveryState};
use ground::ids::{ChunkId, DeliveryId};
use protocol::Error;
use protocol::push::{Agent, Opening, Proxy};
use protocol::wire::{
    Basis, Batch, BlockSums, Challenge, FromAgent, Grown, ManifestForm, Marks, Parcel, PushReply, Section,
    SegmentBatch, Sketches, Span,
};
use protocol::{Chunks, InputView, Segments};

use crate::push_simulator::{edited, numbered, parcel, unread_yet};
use crate::space_view::{Memory, Release, open, release};
use crate::walker::{raw, raw_segments};

/// Returns a proxy that waits for the chunks of `new`, listed against a base or by name, and its last replies.
fn waiting(old: &Release, new: &Release, by_base: bool) -> (Memory, Proxy, Vec<PushReply>) {
    let mut memory = Memory::holding(old);
    let opening = Opening::Base(old.root.id(), old.segments.clone());
    let opening = if by_base { opening } else { Opening::Short };
    let (_, begin) = Agent::new(open(new, false), new.segments.clone(), opening);
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
    // A copy: zstd takes no prefix that overlaps its input.
    let against = zstd(&plain.clone(), &plain);
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("zeros compress");
    let few = u32::try_from(missing.len()).expect("few");
    let cases: Vec<(&str, Parcel, Vec<u8>)> = vec![
        ("a span after the base", honest(span(9000, 0, 1), &whole), whole.clone()),
        ("a span that ends after it", honest(span(0, 0, 1000), &whole), whole.clone()),
        ("a span that begins after its segment", honest(span(0, u32::MAX, u32::MAX), &whole), whole.clone()),
        ("another prefix", honest(span(0, 0, 3), &against), against.clone()),
        ("a patch of nothing", honest(Basis::Patch(Vec::new()), &whole), whole.clone()),
        (
            "a patch that is none",
            honest(Basis::Patch(vec![Span { segment: SegmentIndex::new(0), first: 0, count: 3 }]), &whole),
            whole.clone(),
        ),
        (
            "a patch after the base",
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
    // A stored chunk with another length counts as unseen: no bytes will match both name and length.
    let lie = Memory::holding_one(b"held!").push_of(&[chunk(b"held!", 6)]).expect("it is asked for");
    assert_eq!(lie, [PushReply::Missing([true].into_iter().collect())]);
}

/// Makes messages similar to those of an honest push of `release`, and some very different ones.
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
            root: None,
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

/// An input of this many segments that answers whatever it is asked.
#[derive(Default)]
pub struct AnyInput {
    segments: usize,
    /// Marks of the chunks that are sent unasked, fitting or not.
    eager: Marks,
    /// The chunks that it was asked for.
    pub encoded: Vec<Chunks>,
}

impl AnyInput {
    pub fn new(segments: usize) -> Self {
        Self { segments, ..Self::default() }
    }
}

impl InputView for AnyInput {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        assert!(wanted.segments.iter().all(|index| usize::from(*index) < self.segments));
        let eager = if wanted.eager { self.eager.clone() } else { Marks::default() };
        Ok(SegmentBatch::new(&[b"a segment".to_vec()], None, eager))
    }

    fn prove(&mut self, _: &[SegmentIndex], _: &Challenge) -> Result<[u8; 32], Error> {
        Ok([0; 32])
    }

    fn sketch(&mut self, chunks: &Chunks) -> Result<Option<Sketches>, Error> {
        Ok((chunks.marks.marked() > 1).then(|| Sketches::new(&[None])))
    }

    fn encode(&mut self, chunks: Chunks) -> Result<(), Error> {
        self.encoded.push(chunks);
        Ok(())
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
        // The view asserts that whatever it is given to store or commit is whole.
        let mut memory = Memory::default();
        match opening {
            0 => begin.manifest = ManifestForm::Short(Vec::new()),
            1 => begin = Agent::new(begin, release.segments.clone(), Opening::Short).1,
            2 => begin = Agent::new(begin, release.segments.clone(), Opening::Full).1,
            3 => begin = Agent::new(unread_yet(begin), Vec::new(), Opening::Growing).1,
            _ => {
                let older = crate::space_view::release(&numbered(&files[files.len() / 2..]));
                memory = Memory::holding(&older);
                let base = Opening::Base(older.root.id(), older.segments);
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
            2 => Opening::Base(ChunkId::of(b"base"), Vec::new()),
            3 => Opening::Growing,
            5 => Opening::Again(ChunkId::of(b"base"), release.segments.iter().skip(1).copied().collect()),
            _ => Opening::Base(ChunkId::of(b"base"), release.segments.iter().skip(1).copied().collect()),
        };
        let mut unread = release.segments.iter().copied();
        let grows = opening == Opening::Growing;
        let (mut agent, begin) = if grows {
            Agent::new(unread_yet(open(&release, false)), Vec::new(), opening)
        } else {
            Agent::new(open(&release, dry_run), release.segments.clone(), opening)
        };
        let count = release.segments.len();
        let mut input = AnyInput::new(count);
        agent.begin(&mut input).expect("it answers everything");
        for (which, marks, right) in replies {
            let marks: Marks =
                if right { (0..count).map(|at| marks.get(at) != Some(&false)).collect() } else { marks.into_iter().collect() };
            let destination = "web".parse().expect("a name");
            let reply = match which {
                0 => PushReply::WantNames,
                1 => PushReply::WantSegments(marks),
                2 | 3 => PushReply::Missing(marks),
                4 => PushReply::Stored(u64::MAX),
                5 => PushReply::Committed { record: Memory::record(&begin), existing: right },
                6 => {
                    let (state, id) = (DeliveryState::Queued, DeliveryId { proxy: [0; 4], number: 1 });
                    PushReply::Delivery(DeliveryEvent { destination, state, id })
                },
                7 => PushReply::Done,
                8 => PushReply::Mismatch,
                9 => PushReply::BlockSums(BlockSums { region: 0, first: 0, chunks: 1, rule: 9, signature: Vec::new() }),
                10 => {
                    input.eager = marks;
                    PushReply::WantSketches
                }
                11 if right => PushReply::Alike,
                12 if grows => {
                    if right {
                        agent.grow(unread.by_ref().take(2), &mut input)
                    } else {
                        agent.grown(&release.root, &mut input)
                    }
                    .expect("it answers everything");
                    continue;
                }
                _ => {
                    agent.chunks_sent(&mut input).expect("it answers everything");
                    continue;
                }
            };
            match agent.receive(reply, &mut input) {
                Ok(_) | Err(Error::OutOfTurn(_) | Error::Mismatch) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
