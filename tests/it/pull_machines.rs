//! The two machines of a pull agree, whatever the turns, the windows and the content of the directory.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use format::manifest::SegmentIndex;
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ShortId};
use protocol::ContentView;
use protocol::pull::{Proxy, ReleaseView, Window};
use protocol::transfer::{Bounds, Encoding};
use protocol::wire::{PullReply, PullRequest, Refusal};

use crate::pull_simulator::{Directory, End, Mistake, Pull, Queues, Shelves, opened};
use crate::push_machines::{changed, files};
use crate::push_simulator::{Dice, edited, numbered};
use crate::space_view::{Release, release};

/// No pull of [`files`] takes this many turns.
const ENDLESS: usize = 1_000_000;

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window { requests: 1, segments: 1 }),
        Just(Window { requests: 15, segments: 1 }),
        Just(Window { requests: 2, segments: 3 }),
        Just(Window::default()),
    ]
}

fn queues() -> impl Strategy<Value = Queues> {
    (1usize..4, 1usize..5).prop_map(|(requests, replies)| Queues { requests, replies })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_pull_into_an_empty_directory_brings_each_chunk_once_and_goes_on_where_it_broke_off(
        files in files(),
        known in 0u8..200,
        window in windows(),
        queues in queues(),
        seed in 1u64..,
        broken_off in 0usize..60,
    ) {
        let release = release(&numbered(&files));
        let (mut directory, mut dice) = (Directory::default(), Dice(seed));
        directory.held.extend(release.content.clone().into_iter().filter(|(id, _)| id.as_bytes()[0] < known));
        let before: HashSet<ChunkId> = directory.held.keys().copied().collect();
        let pull = Pull { window, queues, ..Pull::new(&release, None) };
        pull.talk(&mut directory, &mut dice, broken_off);
        prop_assert_eq!(pull.talk(&mut directory, &mut dice, ENDLESS), End::Finished);
        directory.assert_complete(&release);
        prop_assert!(directory.came.iter().all(|id| !before.contains(id)), "none came that was there");
    }

    #[test]
    fn a_pull_over_another_release_brings_exactly_what_changed(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..30),
        by_base: bool,
        is_slow: bool,
        window in windows(),
        queues in queues(),
        seed in 1u64..,
        broken_off in 0usize..40,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let mut directory = Directory { is_slow, ..Directory::of(&old) };
        let mut dice = Dice(seed);
        let pull = Pull { window, queues, ..Pull::new(&new, by_base.then_some(&old)) };
        pull.talk(&mut directory, &mut dice, broken_off);
        prop_assert_eq!(pull.talk(&mut directory, &mut dice, ENDLESS), End::Finished);
        directory.assert_complete(&new);
        let needed: HashSet<ChunkId> =
            new.content.keys().filter(|id| !old.content.contains_key(id)).copied().collect();
        let came: HashSet<ChunkId> = directory.came.iter().copied().collect();
        prop_assert_eq!(came, needed);
    }

    #[test]
    fn a_short_id_that_meets_a_wrong_chunk_ends_in_a_pull_by_names(
        files in proptest::collection::vec(proptest::collection::vec(0u16..300, 1..20), 1..40),
        seed in 1u64..,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &[(0, 0), (3, 2)]));
        let (old, new) = (release(&old), release(&new));
        let (mut directory, mut dice) = (Directory::of(&old), Dice(seed));
        let needed = new.content.keys().filter(|id| !old.content.contains_key(id));
        let any = *old.content.keys().next().expect("there is content");
        let wrong = format::recipe::ChunkRef::of(&old.content[&any]);
        directory.alike = needed.map(|id| (ShortId::from(*id), wrong)).collect::<HashMap<_, _>>();
        let lied = !directory.alike.is_empty();
        let end = Pull::new(&new, Some(&old)).talk(&mut directory, &mut dice, ENDLESS);
        prop_assert_eq!(end, if lied { End::Mismatch } else { End::Finished });
        let end = Pull::new(&new, None).talk(&mut directory, &mut dice, ENDLESS);
        prop_assert_eq!(end, End::Finished);
        directory.assert_complete(&new);
    }

    #[test]
    fn a_reply_that_is_lost_repeated_or_out_of_order_is_noticed(
        files in files(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..30),
        by_base: bool,
        which in 0u8..3,
        at in 1usize..12,
        seed in 1u64..,
    ) {
        let (old, new) = (numbered(&files), changed(&numbered(&files), &changes));
        let (old, new) = (release(&old), release(&new));
        let mistake = [Mistake::Lost(at), Mistake::Swapped(at), Mistake::Repeated(at)][usize::from(which)];
        let pull = Pull { mistake: Some(mistake), ..Pull::new(&new, by_base.then_some(&old)) };
        let mut directory = Directory::of(&old);
        // Whatever was kept is what its name says; the directory asserts that.
        match pull.talk(&mut directory, &mut Dice(seed), ENDLESS) {
            // The mistake met nothing, or only order that does not matter.
            End::Finished => directory.assert_complete(&new),
            End::Failed(_) | End::Stuck => {}
            end => prop_assert!(false, "{:?}", end),
        }
    }
}

#[test]
fn chunks_that_changed_a_little_come_as_changes_to_the_older_ones() {
    let (old, new) = edited(200);
    let mut directory = Directory::of(&old);
    let end = Pull::new(&new, Some(&old)).talk(&mut directory, &mut Dice(1), ENDLESS);
    assert_eq!(end, End::Finished);
    directory.assert_complete(&new);
}

#[test]
fn a_credit_that_is_never_given_back_and_a_window_that_is_too_small_are_noticed() {
    let many: Vec<Vec<u16>> = (0..3000).map(|file| vec![file % 300, file % 299]).collect();
    let (old, new) =
        (numbered(&many), changed(&numbered(&many), &(0..3000).map(|at| (at, 0)).collect::<Vec<_>>()));
    let (old, new) = (release(&old), release(&new));
    let window = Window { requests: 3, segments: 1 };
    let pull = Pull { window, ..Pull::new(&new, Some(&old)) };
    assert_eq!(pull.talk(&mut Directory::of(&old), &mut Dice(7), ENDLESS), End::Finished);
    for lost in 1..10 {
        let pull = Pull { window, mistake: Some(Mistake::Unasked(lost)), ..Pull::new(&new, Some(&old)) };
        let end = pull.talk(&mut Directory::of(&old), &mut Dice(7), ENDLESS);
        assert!(matches!(end, End::Stuck | End::Failed(_)), "{lost}: {end:?}");
    }
    let pull = Pull { window, mistake: Some(Mistake::Window), ..Pull::new(&new, Some(&old)) };
    let ends = (1..9).map(|seed| pull.talk(&mut Directory::of(&old), &mut Dice(seed), ENDLESS));
    assert!(ends.into_iter().any(|end| matches!(end, End::Failed(_))), "a request too many");
}

#[test]
fn each_lost_reply_of_a_pull_is_noticed() {
    let (old, new) = edited(200);
    let mut noticed = 0;
    for lost in 1.. {
        let pull = Pull { mistake: Some(Mistake::Lost(lost)), ..Pull::new(&new, Some(&old)) };
        let end = pull.talk(&mut Directory::of(&old), &mut Dice(7), ENDLESS);
        if end == End::Finished {
            break;
        }
        assert!(matches!(end, End::Stuck | End::Failed(_)), "{lost}: {end:?}");
        noticed += 1;
    }
    assert!(noticed > 3, "the release, the outline, the segments and the chunks: {noticed}");
}

/// A release as seen over a link for which it is encoded so.
struct Over(Shelves, Encoding);

impl ContentView for Over {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.0.read(chunk, out)
    }
}

impl ReleaseView for Over {
    fn encoding(&mut self) -> Encoding {
        self.1
    }
}

/// Returns all that the proxy sends of a release into an empty directory.
fn sent(release: &Release, view: &mut impl ReleaseView) -> Vec<PullReply> {
    let mut proxy = Proxy::open(opened(release), None, Bounds::PULL, view);
    while proxy.next(view).expect("it opens").is_some() {}
    let count = u32::try_from(release.segments.len()).expect("few");
    let marks = release.parts.iter().flat_map(|(_, chunks)| chunks.iter().map(|_| true)).collect();
    let first = SegmentIndex::of(0);
    proxy.receive(PullRequest::WantChunks { first, count, marks }).expect("the first request");
    std::iter::from_fn(|| proxy.next(view).expect("all is there")).collect()
}

#[test]
fn over_a_slow_link_content_comes_in_parcels_of_fewer_bytes() {
    let (text, _) = edited(1500);
    let over = |encoding| sent(&text, &mut Over(Shelves::of(&[&text]), encoding));
    let bytes = |replies: &[PullReply]| -> usize {
        let of = |reply: &PullReply| match reply {
            PullReply::Chunks(batch) => batch.payload.len(),
            PullReply::Piece(piece) => piece.len(),
            _ => 0,
        };
        replies.iter().map(of).sum()
    };
    let is_parcel = |reply: &PullReply| matches!(reply, PullReply::Parcel(_));
    let [slow, fast, fastest] =
        [Encoding::Parcels { level: 6 }, Encoding::LIGHT, Encoding::Frames { level: -2 }].map(over);
    assert!(slow.iter().any(is_parcel) && !fast.iter().chain(&fastest).any(is_parcel));
    assert!(bytes(&slow) * 10 < bytes(&fast) * 9, "{} B, {} B", bytes(&slow), bytes(&fast));
}
