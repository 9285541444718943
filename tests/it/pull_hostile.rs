//! Peers of a pull that send anything, in any order.

use proptest::prelude::*;

use delta::compression::Codec;
use format::manifest::{NodeRef, SegmentIndex};
use ground::limits::PULL_REQUESTS_OPEN;
use protocol::pull::{Agent, Proxy, Window};
use protocol::transfer::Bounds;
use protocol::wire::{
    Basis, Batch, Cut, Marks, Parcel, PullReply, PullRequest, SegmentBatch, Span, pack_names,
};

use crate::pull_simulator::{Directory, Shelves, opened};
use crate::push_simulator::numbered;
use crate::space_view::{Release, release};

/// Makes a reply that is right in parts.
fn reply(release: &Release, which: u8, at: usize, noise: Vec<u8>) -> PullReply {
    let some =
        release.content.values().nth(at % release.content.len().max(1)).cloned().unwrap_or(noise.clone());
    let segment =
        release.parts.get(at % release.parts.len().max(1)).map_or(noise.clone(), |part| part.0.clone());
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
    match which {
        0 => {
            let opened = opened(release);
            let right = u32::try_from(opened.segments.len()).expect("few");
            let segments = if at.is_multiple_of(4) { u32::try_from(at).unwrap_or(u32::MAX) } else { right };
            PullReply::Release { record: opened.record, root: opened.root.encode(), segments }
        }
        1 => PullReply::Names(pack_names(release.segments.iter().map(NodeRef::name))),
        2 => PullReply::Names(noise),
        3 => PullReply::Segments(Batch {
            codec: Codec::Raw,
            lengths: vec![length(&segment)],
            payload: segment,
        }),
        4 => PullReply::Thin(SegmentBatch::new(&[segment], None, Marks::default())),
        5 => PullReply::Executables(u32::try_from(at % 5000).expect("small")),
        6 => PullReply::Chunks(Batch { codec: Codec::Raw, lengths: vec![length(&some)], payload: some }),
        7 => PullReply::Parcel(Parcel {
            lengths: vec![length(&some)],
            basis: match at % 4 {
                0 => Basis::None,
                1 => Basis::Patch(vec![Span { segment: SegmentIndex::new(0), first: 0, count: 1 }]),
                2 => Basis::Executable(Vec::new(), vec![Cut { skipped: 0, chunks: 1 }]),
                _ => Basis::Prefix(vec![Span { segment: SegmentIndex::new(0), first: 9, count: 7 }]),
            },
            codec: Codec::Raw,
            payload_bytes: length(&some),
        }),
        8 => PullReply::Piece(some),
        9 => PullReply::Piece(noise),
        _ => {
            let steps: Vec<(u32, u32, u32)> = vec![(0, u32::try_from(at % 9).expect("small"), 1), (1, 2, 3)];
            let bytes = rmp_serde::to_vec(&steps).expect("a Vec takes every write");
            rmp_serde::from_slice(&bytes).map_or(PullReply::Executables(0), PullReply::Outline)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_of_replies_panics_the_agent_or_keeps_what_its_name_does_not_say(
        files in proptest::collection::vec(proptest::collection::vec(0u16..40, 0..6), 0..20),
        by_base: bool,
        is_slow: bool,
        in_order: bool,
        replies in proptest::collection::vec((0u8..11, any::<usize>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..14),
    ) {
        let release = release(&numbered(&files));
        let older = crate::space_view::release(&numbered(&files[files.len() / 2..]));
        let mut directory = Directory { is_slow, ..Directory::of(&older) };
        let base = if by_base { older.segments.clone() } else { Vec::new() };
        let mut agent = Agent::new(Window { requests: 2, segments: 1 }, base);
        for (number, (which, at, noise)) in replies.into_iter().enumerate() {
            let which = if in_order && number < 2 { u8::try_from(number).expect("small") } else { which };
            match agent.receive(reply(&release, which, at, noise), &mut directory) {
                Ok(requests) => prop_assert!(requests.len() < PULL_REQUESTS_OPEN),
                Err(_) => break,
            }
            if agent.is_finished() {
                directory.assert_complete(&release);
                break;
            }
        }
    }

    #[test]
    fn no_sequence_of_requests_panics_the_proxy_or_gives_more_than_the_release(
        files in proptest::collection::vec(proptest::collection::vec(0u16..40, 0..6), 0..20),
        by_base: bool,
        requests in proptest::collection::vec((0u8..4, any::<u32>(), any::<u32>(), proptest::collection::vec(any::<bool>(), 0..40)), 0..24),
    ) {
        let release = release(&numbered(&files));
        let older = crate::space_view::release(&numbered(&files[files.len() / 2..]));
        let mut shelves = Shelves::of(&[&release, &older]);
        let base = by_base.then(|| older.segments.clone());
        let mut proxy = Proxy::open(opened(&release), base, Bounds::PULL, &mut shelves);
        let count = u32::try_from(release.segments.len()).expect("few");
        for (which, first, some, marks) in requests {
            let marks: Marks = marks.into_iter().collect();
            let request = match which {
                0 => PullRequest::WantSegments(marks),
                1 => PullRequest::WantExecutables,
                2 => PullRequest::WantChunks { first: SegmentIndex::new(first % (count + 1)), count: some % 3, marks },
                _ => PullRequest::WantChunks { first: SegmentIndex::new(first), count: some, marks },
            };
            if proxy.receive(request).is_err() {
                break;
            }
            if some % 2 == 0 {
                continue;
            }
            loop {
                match proxy.next(&mut shelves) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
        }
    }
}

#[test]
fn requests_beyond_the_credit_are_refused() {
    let release = release(&numbered(&[vec![1, 2, 3]]));
    let mut shelves = Shelves::of(&[&release]);
    let mut proxy = Proxy::open(opened(&release), None, Bounds::PULL, &mut shelves);
    let request = || PullRequest::WantSegments([false].into_iter().collect());
    for _ in 0..PULL_REQUESTS_OPEN {
        proxy.receive(request()).expect("within the credit");
    }
    assert!(proxy.receive(request()).is_err());
}
