//! Whatever a disk or a peer returns: no decoder panics, reads beyond its input, or takes one thing for another.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use delta::compression::{Codec, Compressor, Decompressor, LEVEL_DEFAULT};
use delta::similar::{SKETCH_BYTES, Sketch};
use format::manifest::{
    Builder, EntryPath, Item, NodeRef, Profile, Reader, Root, SegmentIndex, Shape, Thin, decode_node,
    decode_segment, shorten,
};
use format::pack::{self, Footer, FooterView, Frame, FrameKind, FrameView, PackId, Scanner};
use format::recipe::{ChunkRef, Container, Recipe};
use ground::ids::{ArtifactId, ChunkId};
use protocol::wire::{
    Basis, Batch, BlockSums, FromAgent, ManifestForm, Marks, Open, Operation, Parcel, PullReply, PullRequest,
    PushReply, Request, Section, SegmentBatch, Sketches, Span,
};

use crate::trees::{noise, text};
use crate::walker::raw;

/// Passes every prefix and every copy with one flipped byte to `check`, with the place of the change.
fn mutations(good: &[u8], mut check: impl FnMut(&[u8], usize)) {
    for length in 0..good.len() {
        check(&good[..length], length);
    }
    for at in 0..good.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[at] ^= mask;
            check(&bytes, at);
        }
    }
}

fn file(name: &str, chunks: &[&[u8]]) -> Vec<Item> {
    let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let path = EntryPath::new(name).expect("a path");
    let mut items = vec![Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }];
    items.extend(chunks.iter().map(|bytes| {
        Item::Chunk(ChunkRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("small") })
    }));
    items
}

/// Returns the only segment of a small release, and its root.
fn segment() -> (Vec<u8>, Root) {
    let mut builder = Builder::new(Profile::DEFAULT);
    let mut items = vec![Item::Directory { path: EntryPath::new("a").expect("a path"), mode: 0o755 }];
    items.extend(file("a/b", &[b"one", &[7; 300]]));
    items.push(Item::Symlink { path: EntryPath::new("a/c").expect("a path"), target: b"b".to_vec() });
    let container = Container { stream_bytes: 5, artifact: ArtifactId::of(b"an archive"), content: None };
    let path = EntryPath::new("d").expect("a path");
    items.push(Item::File { path, mode: 0o644, size: 10, recipe: Recipe::Container(container) });
    items.push(Item::Chunk(ChunkRef { id: ChunkId::of(b"parts"), bytes: 5 }));
    for item in &items {
        assert!(builder.push(item).is_none());
    }
    let (last, root, _) = builder.finish(Shape::Tree).expect("small");
    (last.expect("a segment").bytes, root)
}

#[test]
fn a_segment_that_was_changed_is_refused_or_another() {
    let (good, root) = segment();
    let items = decode_segment(&good).expect("a segment");
    let mut reader = Reader::new();
    assert_eq!(reader.segment(&good).expect("a segment"), items);
    reader.finish(&root).expect("whole");
    mutations(&good, |bytes, at| {
        if let Ok(changed) = decode_segment(bytes) {
            assert_ne!(changed, items, "at {at}");
        }
        let mut reader = Reader::new();
        if reader.segment(bytes).is_ok() {
            drop(reader.finish(&root));
        }
    });
}

#[test]
fn a_root_or_node_that_was_changed_is_refused_or_another() {
    let children: Vec<NodeRef> =
        (0u32..1000).map(|n| NodeRef { id: ChunkId::of(&n.to_le_bytes()), bytes: n + 1 }).collect();
    let mut nodes = Vec::new();
    let (_, small) = segment();
    let root =
        Root::above(Profile::DEFAULT, Shape::Tree, small.totals, children, |node| nodes.push(node.bytes));
    let good = root.expect("within limits").encode();
    mutations(&good, |bytes, at| {
        if let Ok(changed) = Root::decode(bytes) {
            assert!(changed.encode() == bytes && bytes != good, "at {at}");
        }
    });
    let good = nodes.first().expect("a node");
    let children = decode_node(good).expect("a node");
    mutations(good, |bytes, at| {
        if let Ok(changed) = decode_node(bytes) {
            assert_ne!(changed, children, "at {at}");
        }
    });
}

fn frame(kind: FrameKind, seed: u64) -> Frame {
    let chunks = [noise(seed, 70), text(seed, 400), noise(seed + 1, 1)];
    Frame::compress(kind, chunks.iter().map(Vec::as_slice), &mut Compressor::new(LEVEL_DEFAULT))
}

/// Returns a sealed pack of two frames.
fn pack() -> Vec<u8> {
    let mut bytes = pack::header(PackId::from_bytes([3; 16])).to_vec();
    let mut footer = Footer::default();
    for frame in [frame(FrameKind::Content, 1), frame(FrameKind::Manifest, 2)] {
        let begin = bytes.len();
        frame.encode(&mut bytes);
        let length = u32::try_from(bytes.len() - begin).expect("small");
        footer.add(begin as u64, length, frame.kind, frame.chunks.iter().copied());
    }
    let end = bytes.len() as u64;
    bytes.extend(footer.encode(end));
    bytes
}

#[test]
fn a_frame_that_was_changed_is_never_whole() {
    let mut good = Vec::new();
    frame(FrameKind::Content, 1).encode(&mut good);
    assert!(FrameView::parse(&good, 0).is_ok_and(|view| view.is_whole()));
    mutations(&good, |bytes, at| {
        if let Ok(view) = FrameView::parse(bytes, 0) {
            assert!(!view.is_whole(), "at {at}");
            let mut plain = Vec::new();
            let mut zstd = Decompressor::new();
            let _ = zstd.decompress(view.codec(), view.payload(), view.plain_bytes(), &mut plain);
            assert!(plain.len() <= view.plain_bytes().max(view.payload().len()), "at {at}");
        }
    });
}

#[test]
fn a_pack_that_was_changed_gives_only_what_it_held() {
    let good = pack();
    let held: Vec<_> = FooterView::of_pack(&good).expect("a pack").chunks().collect();
    assert_eq!((held.len(), Scanner::new(&good).expect("a pack").count()), (6, 2));
    mutations(&good, |bytes, at| {
        if let Ok(scanner) = Scanner::new(bytes) {
            for (offset, view) in scanner {
                let here = |chunk: ChunkRef| {
                    held.iter().any(|entry| entry.chunk == chunk && entry.frame_offset == offset)
                };
                assert!(view.chunks().all(here), "at {at}");
            }
        }
        if let Ok(footer) = FooterView::of_pack(bytes) {
            assert!(footer.chunks().eq(held.iter().copied()), "at {at}");
            for entry in &held {
                assert_eq!(footer.find(&entry.chunk.id), Some(*entry), "at {at}");
            }
        }
    });
}

/// Checks a message: it survives a round trip, and no damaged form of it panics.
fn check_message<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let good = rmp_serde::to_vec(message).expect("a Vec takes every write");
    assert_eq!(&rmp_serde::from_slice::<T>(&good).expect("it was just written"), message);
    mutations(&good, |bytes, _| drop(rmp_serde::from_slice::<T>(bytes)));
}

#[test]
fn messages_survive_their_bytes_and_no_change_of_them_panics() {
    let (segment, root) = segment();
    let open = Open {
        app: "app".parse().expect("a name"),
        labels: vec!["v1".parse().expect("a label")],
        destinations: vec!["web".parse().expect("a name")],
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: 1,
        manifest: ManifestForm::Short(vec![7; 4]),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    };
    let marks: Marks = (0..21).map(|n| n % 3 == 0).collect();
    let batch = raw(&[segment, b"more".to_vec()]);
    let section = Section { whole: 1, region: 2, chunks: 300, delta: vec![1, 2, 3] };
    let parcel = |basis| Parcel { lengths: vec![9, 400], basis, codec: Codec::Zstd, payload_bytes: 70 };
    for operation in [
        Operation::Push(open),
        Operation::Pull { release: "app@v1".parse().expect("a selector"), have: None, unpacked: false },
        Operation::Deliver {
            release: "app".parse().expect("a selector"),
            destinations: vec![],
            then: Vec::new(),
        },
        Operation::Statistics(None),
        Operation::Identify,
    ] {
        check_message(&operation);
        let request = Request::new("token", &operation);
        check_message(&request);
        mutations(&request.operation, |bytes, _| {
            drop(Request { operation: bytes.to_vec(), ..request.clone() }.operation());
        });
    }
    for message in [
        FromAgent::Names(vec![1; 16]),
        FromAgent::Segments(SegmentBatch::new(&[vec![1; 40]], Some(b"base"), marks.clone())),
        FromAgent::Parcel(parcel(Basis::None)),
        FromAgent::Parcel(parcel(Basis::Prefix(vec![Span {
            segment: SegmentIndex::new(1),
            first: 2,
            count: 300,
        }]))),
        FromAgent::Parcel(parcel(Basis::BlockSums(vec![section]))),
        FromAgent::Piece(vec![9; 30]),
        FromAgent::Sketches(Sketches::new(&[None, Some(Sketch::from_bytes([7; SKETCH_BYTES]))])),
        FromAgent::Chunks(batch.clone()),
        FromAgent::Commit,
    ] {
        check_message(&message);
    }
    for message in [
        PushReply::WantNames,
        PushReply::WantSketches,
        PushReply::Alike,
        PushReply::WantSegments(marks.clone()),
        PushReply::Missing(marks.clone()),
        PushReply::BlockSums(BlockSums { region: 1, first: 2, chunks: 3, rule: 1, signature: vec![4; 9] }),
        PushReply::Mismatch,
        PushReply::Stored(9),
        PushReply::Done,
    ] {
        check_message(&message);
    }
    check_message(&PullRequest::WantChunks { first: SegmentIndex::new(3), count: 4, marks: marks.clone() });
    check_message(&PullRequest::WantExecutables);
    check_message(&PullReply::Chunks(batch));
    check_message(&PullReply::Executables(3));
    let good = rmp_serde::to_vec(&marks).expect("a Vec takes every write");
    mutations(&good, |bytes, at| {
        if let Ok(changed) = rmp_serde::from_slice::<Marks>(bytes)
            && changed.fits(21)
        {
            assert_eq!((changed.iter().count(), changed.places().count()), (21, changed.marked()), "at {at}");
        }
    });
}

#[test]
fn a_thin_segment_that_was_changed_is_refused_or_another() {
    let (segment, _) = segment();
    let good = shorten(&segment).expect("a segment");
    let read = Thin::decode(&good).expect("just made");
    mutations(&good, |bytes, at| {
        if let Ok(changed) = Thin::decode(bytes) {
            assert_ne!(changed, read, "at {at}");
            let chunk = ChunkRef { id: ChunkId::of(b"any"), bytes: 3 };
            drop(changed.fill(std::iter::repeat_n(chunk, changed.references().count())));
        }
    });
}

#[test]
fn segments_that_were_changed_on_their_way_stay_within_their_bounds() {
    let (segment, _) = segment();
    let (base, marks) = (text(3, 900), (0..9).map(|n| n % 2 == 0).collect::<Marks>());
    let parts = [shorten(&segment).expect("a segment"), segment];
    for (against, base) in [(None, b"".as_slice()), (Some(base.as_slice()), base.as_slice())] {
        let batch = SegmentBatch::new(&parts, against, marks.clone());
        assert_eq!(batch.open(base).expect("just made"), parts);
        let encoded = rmp_serde::to_vec(&batch).expect("a Vec takes every write");
        mutations(&encoded, |bytes, _| {
            if let Ok(batch) = rmp_serde::from_slice::<SegmentBatch>(bytes)
                && let Ok(opened) = batch.open(base)
            {
                let lengths = opened.iter().map(|part| u32::try_from(part.len()).expect("small"));
                assert!(lengths.eq(batch.lengths.iter().copied()));
            }
        });
    }
}

#[test]
fn a_few_bytes_that_announce_gigabytes_cost_nothing() {
    // MessagePack: an array of 2^32 - 1 entries, and a text and bytes of the same length.
    for announced in
        [[0xdd, 0xff, 0xff, 0xff, 0xff], [0xdb, 0xff, 0xff, 0xff, 0xff], [0xc6, 0xff, 0xff, 0xff, 0xff]]
    {
        for version in [0x11, 0x12, 0x13] {
            let mut bytes = vec![version];
            bytes.extend(announced);
            assert!(
                decode_segment(&bytes).is_err()
                    && decode_node(&bytes).is_err()
                    && Root::decode(&bytes).is_err()
            );
        }
        assert!(rmp_serde::from_slice::<Batch>(&announced).is_err());
        assert!(rmp_serde::from_slice::<Marks>(&announced).is_err());
        assert!(rmp_serde::from_slice::<Request>(&announced).is_err());
    }
}

#[test]
fn a_batch_that_was_changed_gives_parts_within_its_bytes() {
    let plain = text(1, 5000);
    let payload = zstd::bulk::compress(&plain, 3).expect("compressed");
    let good = Batch { codec: Codec::Zstd, lengths: vec![2000, 3000], payload };
    let encoded = rmp_serde::to_vec(&good).expect("a Vec takes every write");
    mutations(&encoded, |bytes, _| {
        if let Ok(batch) = rmp_serde::from_slice::<Batch>(bytes) {
            check_batch(&batch);
        }
    });
}

fn check_batch(batch: &Batch) {
    let mut plain = Vec::new();
    if let Ok(parts) = batch.open(&mut Decompressor::new(), &mut plain) {
        assert_eq!(parts.len(), batch.lengths.len());
        assert_eq!(parts.last().map(|part| part.end), Some(plain.len()));
    }
    assert!(plain.capacity() <= 1024 * 1024, "{} B for {batch:?}", plain.capacity());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn noise_panics_no_decoder(version in prop_oneof![Just(0x11u8), Just(0x12), Just(0x13), Just(0x14), any::<u8>()], noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![version];
        bytes.extend(&noise);
        drop(decode_segment(&bytes));
        drop(Thin::decode(&bytes));
        drop(decode_node(&bytes));
        drop(Root::decode(&bytes));
        prop_assert!(FrameView::parse(&bytes, 0).is_err() && FooterView::of_pack(&bytes).is_err());
        let mut with_header = pack::header(PackId::from_bytes([0; 16])).to_vec();
        with_header.extend(&noise);
        prop_assert_eq!(Scanner::new(&with_header).expect("a header").count(), 0);
        drop(rmp_serde::from_slice::<Request>(&noise));
        drop(rmp_serde::from_slice::<Operation>(&noise));
        drop(rmp_serde::from_slice::<FromAgent>(&noise));
        drop(rmp_serde::from_slice::<PushReply>(&noise));
        drop(rmp_serde::from_slice::<PullReply>(&noise));
    }

    #[test]
    fn any_batch_stays_within_its_bounds(
        zstd: bool,
        lengths in proptest::collection::vec(prop_oneof![0u32..100, any::<u32>(), 60_000u32..70_000], 0..12),
        payload in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let codec = if zstd { Codec::Zstd } else { Codec::Raw };
        check_batch(&Batch { codec, lengths, payload });
    }

    #[test]
    fn items_survive_their_segments(sizes in proptest::collection::vec(proptest::collection::vec(1usize..2000, 0..30), 1..60)) {
        let mut builder = Builder::new(Profile::DEFAULT);
        let (mut all, mut segments) = (Vec::new(), Vec::new());
        for (number, chunks) in sizes.iter().enumerate() {
            let chunks: Vec<Vec<u8>> = chunks.iter().map(|size| noise(*size as u64, *size)).collect();
            let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            for item in file(&format!("{number:04}"), &parts) {
                segments.extend(builder.push(&item));
                all.push(item);
            }
        }
        let (last, root, nodes) = builder.finish(Shape::Tree).expect("small");
        segments.extend(last);
        prop_assert_eq!(nodes, segments.iter().map(|segment| segment.node).collect::<Vec<_>>());
        let mut reader = Reader::new();
        let mut read = Vec::new();
        for segment in &segments {
            read.extend(reader.segment(&segment.bytes).expect("a segment"));
        }
        reader.finish(&root).expect("whole");
        prop_assert_eq!(read, all);
        prop_assert_eq!(Root::decode(&root.encode()), Ok(root));
    }
}
