//! Files and members are found from their chunks.

use std::collections::HashMap;

use super::*;
use format::manifest::{self, EntryPath, Item, SegmentIndex};
use format::recipe::{Container, Recipe};
use ground::ids::{ArtifactId, ChunkId};
use ground::limits::STREAM_CHUNKS_MAX;
use recode::archive::{Piece, Plan, encode_head};

fn chunk(number: u32, bytes: u32) -> Item {
    Item::Chunk(ChunkRef { id: ChunkId::of(&number.to_le_bytes()), bytes })
}

fn file(path: &str, size: u64) -> Item {
    let path = EntryPath::new(path).expect("a path");
    Item::File { path, mode: 0o755, size, recipe: Recipe::Chunks }
}

fn segment(items: &[Item]) -> Vec<u8> {
    let mut bytes = vec![0x11];
    for item in items {
        item.encode(&mut bytes);
    }
    bytes
}

/// Three files in four segments; the second, of 10 chunks of 7 B, spans three of them.
fn segments() -> Vec<Vec<u8>> {
    let chunks = |range: std::ops::Range<u32>| range.map(|number| chunk(number, 7)).collect::<Vec<_>>();
    let directory = Item::Directory { path: EntryPath::new("d").expect("a path"), mode: 0o755 };
    vec![
        segment(&[vec![file("a", 14)], chunks(0..2), vec![file("b", 70)], chunks(2..5)].concat()),
        segment(&chunks(5..9)),
        segment(&[chunks(9..12), vec![directory], vec![file("e", 21)], chunks(12..14)].concat()),
        segment(&chunks(14..15)),
    ]
}

type Found = Result<Option<BaseFile>, manifest::Error>;

/// Segments, and the chunks that can be read.
#[derive(Default)]
struct Listing {
    segments: Vec<Vec<u8>>,
    chunks: HashMap<ChunkId, Vec<u8>>,
}

impl Release for Listing {
    type Error = manifest::Error;

    fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.segments.get(usize::from(index)).cloned())
    }

    fn chunk(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> bool {
        self.chunks.get(&chunk.id).map(|bytes| out.extend_from_slice(bytes)).is_some()
    }
}

fn around(segments: &[Vec<u8>], segment: u32, number: u32) -> Found {
    let mut listing = Listing { segments: segments.to_vec(), ..Listing::default() };
    BaseFile::like(
        &Span { segment: SegmentIndex::new(segment), first: number, count: 1 },
        &Target::default(),
        &mut listing,
    )
}

#[test]
fn a_file_is_found_from_each_of_its_chunks() {
    let segments = segments();
    let files = [
        ("a", Span { segment: SegmentIndex::new(0), first: 0, count: 2 }, 0..2),
        ("b", Span { segment: SegmentIndex::new(0), first: 2, count: 10 }, 2..12),
        ("e", Span { segment: SegmentIndex::new(2), first: 3, count: 3 }, 12..15),
    ];
    // The number of each segment's first chunk.
    let firsts = [0, 5, 9, 14];
    for (path, span, chunks) in files {
        let listed: Vec<ChunkId> =
            chunks.clone().map(|number: u32| ChunkId::of(&number.to_le_bytes())).collect();
        for number in chunks {
            let place = firsts.iter().rposition(|first| *first <= number).expect("from 0 on");
            let segment = u32::try_from(place).expect("few");
            let whole = around(&segments, segment, number - firsts[place]).expect("it decodes");
            let whole = whole.unwrap_or_else(|| panic!("chunk {number} is of {path}"));
            assert_eq!((whole.path.as_slice(), whole.span), (path.as_bytes(), span));
            let found: Vec<ChunkId> = whole.chunks.iter().map(|chunk| chunk.id).collect();
            assert_eq!(found, listed);
        }
    }
}

#[test]
fn what_is_not_listed_whole_is_none() {
    let all = segments();
    assert_eq!(around(&all, 9, 0), Ok(None), "no such segment");
    assert_eq!(around(&all, u32::MAX, u32::MAX), Ok(None), "no such segment");
    assert_eq!(around(&all[..2], 0, 2), Ok(None), "the file's end is missing");
    assert_eq!(around(&all[1..2], 0, 0), Ok(None), "the file's entry is missing");
    let listed = |items: &[Item]| around(&[segment(items)], 0, 0);
    assert_eq!(listed(&[file("a", 10), chunk(0, 7)]), Ok(None), "fewer bytes than the file has");
    assert_eq!(listed(&[file("a", 10), chunk(0, 11)]), Ok(None), "more bytes than the file has");
    let container = Container { stream_bytes: 7, artifact: ArtifactId::of(b"an archive"), content: None };
    let path = EntryPath::new("a").expect("a path");
    let archive = Item::File { path, mode: 0o644, size: 9, recipe: Recipe::Container(container) };
    assert_eq!(listed(&[archive, chunk(0, 7)]), Ok(None), "an archive's stream is no file");
    assert_eq!(listed(&[file("a", EXECUTABLE_BYTES_MAX as u64 + 1), chunk(0, 7)]), Ok(None), "too large");
}

#[test]
fn a_chunk_behind_the_last_counts_as_of_the_last_file() {
    let whole = around(&segments(), 2, 99).expect("it decodes").expect("a file");
    assert_eq!(whole.path, b"e");
}

#[test]
fn what_does_not_decode_is_an_error() {
    assert!(around(&[vec![0xff; 9]], 0, 0).is_err());
    let mut behind = segments();
    behind[2] = vec![0xff; 9];
    assert!(around(&behind, 0, 2).is_err(), "the file goes on there");
    assert_eq!(around(&behind, 0, 0).map(|whole| whole.map(|whole| whole.path)), Ok(Some(b"a".to_vec())));
}

#[test]
fn no_more_is_read_than_an_archive_of_the_most_chunks_takes() {
    /// A manifest without end, of segments of 40 chunks, each of one byte.
    struct Endless {
        entry: Vec<u8>,
        rest: Vec<u8>,
        read: usize,
    }

    impl Release for Endless {
        type Error = manifest::Error;

        fn segment(&mut self, index: SegmentIndex) -> Result<Option<Vec<u8>>, Self::Error> {
            self.read += 1;
            Ok(Some(if index == SegmentIndex::default() { self.entry.clone() } else { self.rest.clone() }))
        }

        fn chunk(&mut self, _: &ChunkRef, _: &mut Vec<u8>) -> bool {
            panic!("it is no archive")
        }
    }

    let chunks: Vec<Item> = (0..40).map(|number| chunk(number, 1)).collect();
    let (entry, rest) = (segment(&[file("a", 1 << 26)]), segment(&chunks));
    let most = usize::try_from(STREAM_CHUNKS_MAX).expect("half a million") / 40 + 4;
    for (begin, at) in [(0, 0), (500_000, 0), (500_000, u32::MAX)] {
        let mut endless = Endless { entry: entry.clone(), rest: rest.clone(), read: 0 };
        let span = Span { segment: SegmentIndex::new(begin), first: at, count: 1 };
        assert_eq!(BaseFile::like(&span, &Target::default(), &mut endless), Ok(None));
        assert!(endless.read <= most, "{} segments", endless.read);
    }
}

/// An archive of members of 7, 3, 2 and 7 chunks of 1,024 B, whose plan takes two chunks and whose framing one,
/// in segments of five chunks; where each member begins.
fn archive() -> (Listing, Vec<RefAt>) {
    let (mut plan, counts) = (Plan::default(), [7, 3, 2, 7]);
    for count in counts {
        plan.push(Piece::Framing(10));
        plan.push(Piece::Content(count * 1024));
    }
    let head = encode_head(&plan);
    let (one, other) = head.split_at(3);
    let mut listing = Listing::default();
    let mut items = Vec::new();
    for bytes in [one, other] {
        let id = ChunkId::of(bytes);
        items.push(Item::Chunk(ChunkRef { id, bytes: u32::try_from(bytes.len()).expect("few") }));
        listing.chunks.insert(id, bytes.to_vec());
    }
    items.push(chunk(1000, 40));
    let mut begins = Vec::new();
    for count in counts {
        let at = u32::try_from(items.len()).expect("few");
        begins.push(RefAt { segment: SegmentIndex::new(at / 5), reference: at % 5 });
        items.extend((0..u32::try_from(count).expect("few")).map(|number| chunk(at + number, 1024)));
    }
    let stream_bytes = head.len() as u64 + 40 + 19 * 1024;
    let container = Container { stream_bytes, artifact: ArtifactId::of(b"an archive"), content: None };
    let path = EntryPath::new("a.zip").expect("a path");
    let entry = Item::File { path, mode: 0o644, size: 9999, recipe: Recipe::Container(container) };
    for (number, items) in items.chunks(5).enumerate() {
        let entry = (number == 0).then_some(&entry).into_iter();
        let items: Vec<Item> = entry.chain(items).cloned().collect();
        listing.segments.push(segment(&items));
    }
    (listing, begins)
}

#[test]
fn a_member_is_found_from_each_of_its_chunks() {
    let (mut listing, begins) = archive();
    for (begin, count) in begins.into_iter().zip([7, 3, 2, 7]) {
        for number in 0..count {
            let at = begin.segment.get() * 5 + begin.reference + number;
            let span = Span { segment: SegmentIndex::new(at / 5), first: at % 5, count: 1 };
            let found = BaseFile::like(&span, &Target::default(), &mut listing)
                .expect("it decodes")
                .expect("a member");
            assert_eq!(
                found.span,
                Span { segment: begin.segment, first: begin.reference, count },
                "from {span:?}"
            );
            assert_eq!(found.chunks.len(), count as usize);
            assert_eq!(found.path, b"a.zip");
        }
    }
}

#[test]
fn of_members_that_are_touched_the_most_alike_in_length_is_taken() {
    let (mut listing, begins) = archive();
    let mut like = |begin: RefAt, count, chunks| {
        let span = Span { segment: begin.segment, first: begin.reference, count };
        let new = Target { chunks, ..Target::default() };
        BaseFile::like(&span, &new, &mut listing).expect("it decodes").map(|found| found.chunks.len())
    };
    assert_eq!(like(begins[0], 12, 3), Some(3));
    assert_eq!(like(begins[0], 12, 2), Some(2));
    assert_eq!(like(begins[0], 7, 2), Some(7), "the others are beyond the span");
    assert_eq!(like(RefAt::default(), 2, 1), None, "the plan is no member");
}

#[test]
fn a_member_that_shares_chunks_goes_before_one_that_is_touched() {
    let (mut listing, begins) = archive();
    let span = Span { segment: begins[0].segment, first: begins[0].reference, count: 1 };
    let at = begins[2].segment.get() * 5 + begins[2].reference;
    let known = HashSet::from([ChunkId::of(&(at + 1).to_le_bytes())]);
    let found = BaseFile::like(&span, &Target { chunks: 7, known }, &mut listing).expect("it decodes");
    assert_eq!(found.map(|found| found.span.begin()), Some(begins[2]));
}

#[test]
fn an_archive_whose_plan_is_not_there_or_not_one_has_no_members() {
    let (mut listing, begins) = archive();
    let RefAt { segment, reference: first } = begins[1];
    let span = Span { segment, first, count: 1 };
    for bytes in listing.chunks.values_mut() {
        bytes.reverse();
    }
    assert_eq!(BaseFile::like(&span, &Target::default(), &mut listing), Ok(None));
    listing.chunks.clear();
    assert_eq!(BaseFile::like(&span, &Target::default(), &mut listing), Ok(None));
}
