//! The proxy's half of a push, with executables that an agent offers, or encodes against an older one: honest ones, and
//! every kind of lie.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use delta::compression::{Codec, compress_against};
use delta::relink::{Answer, Encoded, Normalised, Payload, RecordNames, Records, normalise};
use format::manifest::{self, Builder, EntryPath, Item, Profile, SegmentIndex, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::ChunkId;
use ground::limits::{
    ANSWER_BYTES_MAX, EXECUTABLE_CHUNKS_MAX, EXECUTABLE_PAYLOAD_MAX, PARCEL_PIECE_BYTES, PARCEL_SPANS_MAX,
    RECORD_QUERIES_MAX, RECORD_QUERY_BYTES_MAX,
};
use protocol::Error;
use protocol::push::{Agent, Opening, Proxy};
use protocol::wire::{
    Basis, BlockSums, Cut, FromAgent, Marks, Parcel, PushReply, RecordAnswer, RecordQuery, Span,
};

use crate::push_hostile::AnyInput;
use crate::space_view::{Memory, Release, open};
use crate::trees::noise;
use crate::walker::{raw, raw_segments};
use delta::relink::linked::{Program, link};

const OLD: Program = Program { functions: 300, changed: None, shift: 0 };
/// Every chunk of it differs.
const NEW: Program = Program { functions: 300, changed: Some(11), shift: 777 };
/// Chunks of fixed length: whatever moves, differs.
const CHUNK_BYTES: usize = 2048;

fn small(count: usize) -> u32 {
    u32::try_from(count).expect("small")
}

/// Returns a release of files.
fn release(files: &[(&str, &[u8])]) -> Release {
    let mut builder = Builder::new(Profile::DEFAULT);
    let (mut parts, mut content) = (Vec::new(), HashMap::new());
    let mut keep = |bytes: Vec<u8>| {
        let chunks = manifest::segment_chunks(&bytes).expect("a segment");
        parts.push((bytes, chunks));
    };
    for (path, bytes) in files {
        let path = EntryPath::new(*path).expect("a path");
        let entry = Item::File { path, mode: 0o755, size: bytes.len() as u64, recipe: Recipe::Chunks };
        let chunks = bytes.chunks(CHUNK_BYTES).map(|chunk| {
            let reference = ChunkRef { id: ChunkId::of(chunk), bytes: small(chunk.len()) };
            content.insert(reference.id, chunk.to_vec());
            Item::Chunk(reference)
        });
        for item in std::iter::once(entry).chain(chunks) {
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

/// A relinked program, and the two releases that consist of it.
struct Relinked {
    file: Vec<u8>,
    new_parts: Normalised,
    records: Records,
    old: Release,
    new: Release,
}

impl Relinked {
    fn new() -> Self {
        let (old, file) = (link(&OLD), link(&NEW));
        let new_parts = normalise(&file).expect("an executable");
        let records = Records::new(&new_parts);
        let (old, new) = (release(&[("program", &old)]), release(&[("program", &file)]));
        assert!(new.content.keys().all(|id| !old.content.contains_key(id)), "no chunk stayed");
        Self { file, new_parts, records, old, new }
    }

    fn names(&self) -> Vec<u8> {
        RecordNames::new(self.records.hashes()).encode()
    }

    fn chunks(&self) -> usize {
        self.file.len().div_ceil(CHUNK_BYTES)
    }

    fn offer(&self) -> RecordQuery {
        let chunks = small(self.chunks());
        RecordQuery {
            file: 0,
            segment: SegmentIndex::new(0),
            first: 0,
            chunks,
            names: self.names(),
            complete: true,
        }
    }

    fn segments(&self) -> FromAgent {
        let parts: Vec<Vec<u8>> = self.new.parts.iter().map(|part| part.0.clone()).collect();
        FromAgent::Segments(raw_segments(&parts))
    }

    /// Returns a proxy that has the older release and hears of the new one.
    fn proxy(&self, opening: Opening, dry_run: bool) -> (Memory, Proxy) {
        let mut memory = Memory::holding(&self.old);
        let begin = open(&self.new, dry_run);
        let (_, begin) = Agent::new(begin, self.new.segments.clone(), opening);
        let (proxy, _) = Proxy::open(begin, &mut memory).expect("an honest agent");
        (memory, proxy)
    }

    fn by_names(&self) -> (Memory, Proxy) {
        self.proxy(Opening::Short, false)
    }

    /// Returns a proxy that knows which chunks are missing, listed against the older release.
    fn by_base(&self) -> (Memory, Proxy) {
        let opening = Opening::Base(self.old.root.id(), self.old.segments.clone());
        let (mut memory, mut proxy) = self.proxy(opening, false);
        proxy.receive(self.segments(), &mut memory).expect("honest");
        (memory, proxy)
    }

    /// Returns a proxy that has answered the offer, and its answer.
    fn answered(&self) -> (Memory, Proxy, RecordAnswer) {
        let (mut memory, mut proxy) = self.by_names();
        let offer = FromAgent::RecordQuery(self.offer());
        assert_eq!(proxy.receive(offer, &mut memory).expect("honest"), []);
        let replies = proxy.receive(self.segments(), &mut memory).expect("honest");
        let [PushReply::RecordAnswer(answer), .., PushReply::Missing(_)] = replies.as_slice() else {
            panic!("{replies:?}");
        };
        (memory, proxy, answer.clone())
    }

    /// Encodes the new file against the answered records.
    fn payload(&self, answer: &RecordAnswer) -> Vec<u8> {
        let answer = Answer::decode(&answer.answer).expect("an answer");
        let agreed = answer.agreed(self.records.hashes()).expect("to this offer");
        Payload::new(self.new_parts.clone(), &self.records, &agreed, 3).encode()
    }

    /// Encodes the new file against the old one.
    fn kept(&self) -> Vec<u8> {
        let old = normalise(link(&OLD)).expect("an executable");
        Encoded::new(&old, &self.new_parts, 3).encode()
    }

    /// Returns all of the older file's chunks.
    fn spans(&self) -> Vec<Span> {
        vec![Span { segment: SegmentIndex::new(0), first: 0, count: small(self.old.content.len()) }]
    }

    /// Returns a parcel of all chunks.
    fn parcel(&self, basis: Basis, payload: &[u8]) -> Parcel {
        let lengths = self.file.chunks(CHUNK_BYTES).map(|chunk| small(chunk.len())).collect();
        Parcel { lengths, basis, codec: Codec::Raw, payload_bytes: small(payload.len()) }
    }

    fn cuts(&self) -> Vec<Cut> {
        vec![Cut { skipped: 0, chunks: small(self.chunks()) }]
    }
}

/// Sends a parcel with its payload.
fn send(
    proxy: &mut Proxy,
    memory: &mut Memory,
    parcel: Parcel,
    payload: &[u8],
) -> Result<Vec<PushReply>, Error> {
    let mut replies = proxy.receive(FromAgent::Parcel(parcel), memory)?;
    for piece in payload.chunks(PARCEL_PIECE_BYTES) {
        replies.extend(proxy.receive(FromAgent::Piece(piece.to_vec()), memory)?);
    }
    Ok(replies)
}

/// Asserts that a parcel was refused, or ends the push, and that nothing of it was stored.
fn assert_refused(what: &str, result: &Result<Vec<PushReply>, Error>, memory: &Memory, proxy: &mut Proxy) {
    assert!(memory.content_kept.is_empty(), "{what}");
    assert_eq!(memory.releases.len(), 1, "{what}");
    match result {
        Err(_) => {}
        Ok(replies) => {
            assert_eq!(replies.as_slice(), [PushReply::Mismatch], "{what}");
            assert!(proxy.is_finished(), "{what}");
            let after = proxy.receive(FromAgent::Commit, &mut memory.clone());
            assert!(matches!(after, Err(Error::OutOfTurn("Commit"))), "{what}: {after:?}");
        }
    }
}

#[test]
fn an_executable_is_told_by_the_records_that_the_proxy_has() {
    let relinked = Relinked::new();
    let (mut memory, mut proxy, answer) = relinked.answered();
    assert_eq!(answer.file, 0);
    let payload = relinked.payload(&answer);
    assert!(payload.len() * 4 < relinked.file.len(), "{} of {}", payload.len(), relinked.file.len());
    let parcel = relinked.parcel(Basis::Records(0, relinked.cuts()), &payload);
    assert_eq!(send(&mut proxy, &mut memory, parcel, &payload).expect("honest"), []);
    let replies = proxy.receive(FromAgent::Commit, &mut memory).expect("honest");
    assert!(matches!(replies.as_slice(), [PushReply::Committed { .. }]), "{replies:?}");
    let kept: HashSet<ChunkId> = memory.content_kept.into_iter().collect();
    assert_eq!(kept, relinked.new.content.keys().copied().collect());
}

#[test]
fn names_may_come_in_parts_before_the_segments() {
    let relinked = Relinked::new();
    let (mut memory, mut proxy) = relinked.by_names();
    let names = relinked.names();
    let pieces = names.chunks(100);
    let last = pieces.len();
    for (at, piece) in (1..).zip(pieces) {
        let offer = RecordQuery { names: piece.to_vec(), complete: at == last, ..relinked.offer() };
        assert_eq!(proxy.receive(FromAgent::RecordQuery(offer), &mut memory).expect("honest"), []);
    }
    let replies = proxy.receive(relinked.segments(), &mut memory).expect("honest");
    assert!(matches!(replies.first(), Some(PushReply::RecordAnswer(_))), "{replies:?}");
}

/// Returns whether an error is the expected one.
type Fits = fn(&Error) -> bool;

#[test]
fn offers_beyond_their_bounds_are_refused() {
    let relinked = Relinked::new();
    let first = relinked.offer();
    let of =
        |file, names: usize, complete| RecordQuery { file, names: vec![7; names], complete, ..first.clone() };
    let mebibyte = 1 << 20;
    let many = |count: usize| (0..small(count)).map(|file| of(file, 0, false)).collect::<Vec<_>>();
    let too_long: Fits = |error| matches!(error, Error::Limit { max: RECORD_QUERY_BYTES_MAX, .. });
    let too_many: Fits = |error| matches!(error, Error::Limit { max: RECORD_QUERIES_MAX, .. });
    let out_of_turn: Fits = |error| matches!(error, Error::OutOfTurn(_));
    let cases: [(&str, Vec<RecordQuery>, Fits); 6] = [
        ("names of one file beyond 8 MiB", vec![of(0, mebibyte, false); 9], too_long),
        ("names of many files beyond 8 MiB", (0..9).map(|file| of(file, mebibyte, true)).collect(), too_long),
        ("files beyond 4,096", many(RECORD_QUERIES_MAX + 1), too_many),
        ("a file twice", vec![first.clone(), of(0, 0, true)], out_of_turn),
        ("names twice before one Segments", vec![first.clone(), first.clone()], out_of_turn),
        ("an empty file twice", vec![of(0, 0, true), of(0, 0, true)], out_of_turn),
    ];
    for (what, offers, fits) in cases {
        let (mut memory, mut proxy) = relinked.by_names();
        let mut results =
            offers.into_iter().map(|offer| proxy.receive(FromAgent::RecordQuery(offer), &mut memory));
        let error = results.find_map(Result::err).unwrap_or_else(|| panic!("{what} was taken"));
        assert!(fits(&error), "{what}: {error}");
        assert!(memory.content_kept.is_empty());
    }
    let (mut memory, mut proxy) = relinked.by_names();
    for offer in many(RECORD_QUERIES_MAX) {
        proxy.receive(FromAgent::RecordQuery(offer), &mut memory).expect("as many as there may be");
    }
}

#[test]
fn names_after_the_last_of_a_file_are_refused_whether_it_was_answered_or_not() {
    let relinked = Relinked::new();
    let (mut memory, mut proxy, _) = relinked.answered();
    let again = proxy.receive(FromAgent::RecordQuery(relinked.offer()), &mut memory);
    assert!(matches!(again, Err(Error::OutOfTurn(_))), "{again:?}");
    let (mut memory, mut proxy) = relinked.by_names();
    let elsewhere = RecordQuery { segment: SegmentIndex::new(900), ..relinked.offer() };
    proxy.receive(FromAgent::RecordQuery(elsewhere), &mut memory).expect("within bounds");
    let replies = proxy.receive(relinked.segments(), &mut memory).expect("honest");
    assert!(!replies.iter().any(|reply| matches!(reply, PushReply::RecordAnswer(_))), "{replies:?}");
    let again = proxy.receive(FromAgent::RecordQuery(relinked.offer()), &mut memory);
    assert!(matches!(again, Err(Error::OutOfTurn(_))), "{again:?}");
    // An offer that only continues the file is within bounds.
    let on = RecordQuery { names: Vec::new(), ..relinked.offer() };
    assert_eq!(proxy.receive(FromAgent::RecordQuery(on), &mut memory).expect("within bounds"), []);
}

#[test]
fn offers_that_were_not_asked_for_are_out_of_turn() {
    let relinked = Relinked::new();
    let base = Opening::Base(relinked.old.root.id(), relinked.old.segments.clone());
    for (opening, dry_run) in [(base, false), (Opening::Short, true)] {
        let (mut memory, mut proxy) = relinked.proxy(opening, dry_run);
        let result = proxy.receive(FromAgent::RecordQuery(relinked.offer()), &mut memory);
        assert!(matches!(result, Err(Error::OutOfTurn("RecordQuery"))), "{result:?}");
    }
}

#[test]
fn an_offer_that_lies_is_not_answered_and_the_push_goes_on_without_it() {
    let relinked = Relinked::new();
    let honest = relinked.offer();
    let names = relinked.names();
    let foreign: Vec<u8> = names.iter().map(|byte| byte ^ 0x55).collect();
    let mut unknown = names.clone();
    unknown[4..].iter_mut().for_each(|byte| *byte ^= 0x55);
    let cases = [
        ("another segment", RecordQuery { segment: SegmentIndex::new(7), ..honest.clone() }),
        ("a segment behind all", RecordQuery { segment: SegmentIndex::new(u32::MAX), ..honest.clone() }),
        ("a chunk behind all", RecordQuery { first: u32::MAX, ..honest.clone() }),
        ("no chunks", RecordQuery { chunks: 0, ..honest.clone() }),
        ("more chunks than there are", RecordQuery { chunks: u32::MAX, ..honest.clone() }),
        ("no names", RecordQuery { names: Vec::new(), ..honest.clone() }),
        ("a count of no names", RecordQuery { names: vec![0], ..honest.clone() }),
        ("a count alone", RecordQuery { names: vec![0xff, 0xff, 3], ..honest.clone() }),
        ("names cut short", RecordQuery { names: names[..names.len() - 1].to_vec(), ..honest.clone() }),
        ("names and more", RecordQuery { names: [&names[..], &[0; 4]].concat(), ..honest.clone() }),
        ("no count", RecordQuery { names: foreign, ..honest.clone() }),
        ("names of nothing here", RecordQuery { names: unknown, ..honest.clone() }),
    ];
    for (what, offer) in cases {
        let (mut memory, mut proxy) = relinked.by_names();
        proxy.receive(FromAgent::RecordQuery(offer), &mut memory).expect("within bounds");
        let replies = proxy.receive(relinked.segments(), &mut memory).expect("honest");
        assert!(
            !replies.iter().any(|reply| matches!(reply, PushReply::RecordAnswer(_))),
            "{what}: {replies:?}"
        );
        let Some(PushReply::Missing(marks)) = replies.last() else { panic!("{what}: {replies:?}") };
        assert_eq!(marks.marked(), relinked.new.content.len(), "{what}");
        let told = relinked.parcel(Basis::Records(0, relinked.cuts()), b"anything");
        let mut other = proxy_clone(&relinked);
        let result = send(&mut other.1, &mut other.0, told, b"anything");
        assert!(matches!(result, Err(Error::OutOfTurn(_))), "{what}: {result:?}");
        for chunks in relinked.file.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect::<Vec<_>>().chunks(20) {
            proxy.receive(FromAgent::Chunks(raw(chunks)), &mut memory).expect("honest");
        }
        let replies = proxy.receive(FromAgent::Commit, &mut memory).expect("honest");
        assert!(matches!(replies.as_slice(), [PushReply::Committed { .. }]), "{what}: {replies:?}");
    }
}

/// Returns a proxy that was offered nothing and waits for chunks.
fn proxy_clone(relinked: &Relinked) -> (Memory, Proxy) {
    let (mut memory, mut proxy) = relinked.by_names();
    proxy.receive(relinked.segments(), &mut memory).expect("honest");
    (memory, proxy)
}

#[test]
fn a_damaged_older_file_costs_the_method_and_not_the_push() {
    let relinked = Relinked::new();
    let (mut memory, mut proxy) = relinked.by_names();
    let gone = *relinked.old.content.keys().next().expect("a chunk");
    memory.chunks.remove(&gone);
    proxy.receive(FromAgent::RecordQuery(relinked.offer()), &mut memory).expect("honest");
    let replies = proxy.receive(relinked.segments(), &mut memory).expect("honest");
    assert!(matches!(replies.last(), Some(PushReply::Missing(_))), "{replies:?}");
    assert!(!replies.iter().any(|reply| matches!(reply, PushReply::RecordAnswer(_))), "{replies:?}");
    // Or it is lost between the answer and the payload encoded against it.
    let (mut memory, mut proxy, answer) = relinked.answered();
    let payload = relinked.payload(&answer);
    memory.chunks.remove(&gone);
    let parcel = relinked.parcel(Basis::Records(0, relinked.cuts()), &payload);
    let result = send(&mut proxy, &mut memory, parcel, &payload);
    assert_eq!(result.expect("no fault of the agent"), [PushReply::Mismatch]);
}

/// Returns cuts that do not add up to the chunks of a file, for a parcel of `chunks` chunks.
fn lying_cuts(chunks: usize, bytes: usize) -> Vec<(&'static str, Vec<Cut>)> {
    let all = small(chunks);
    let cut = |skipped, chunks| Cut { skipped, chunks };
    vec![
        ("no cuts", Vec::new()),
        ("a cut behind the file", vec![cut(u32::MAX, all)]),
        ("a cut at the file's end", vec![cut(small(bytes), all)]),
        ("a cut one byte in", vec![cut(1, all)]),
        ("a cut of fewer chunks", vec![cut(0, all - 1)]),
        ("a cut of no chunks", vec![cut(0, 0)]),
        ("a gap that is none", vec![cut(0, 3), cut(5, all - 3)]),
        ("cuts that add up to more than a file", vec![cut(u32::MAX, 1); 4]),
        ("too many cuts", vec![cut(0, 1); PARCEL_SPANS_MAX + 1]),
    ]
}

/// Returns payloads that rebuild nothing, or not this file.
fn lying_payloads(honest: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let bomb = compress_against(&[], &vec![0; 64 << 20], 3);
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).expect("seven bits"));
        bytes
    };
    let announced =
        |bytes: u64, part: &[u8]| [varint(bytes), varint(part.len() as u64), part.to_vec()].concat();
    vec![
        ("one byte", vec![0]),
        ("noise", noise(3, 5000)),
        ("cut short", honest[..honest.len() / 2].to_vec()),
        ("cut by one", honest[..honest.len() - 1].to_vec()),
        ("a part of exabytes", announced(u64::MAX, &[1, 2, 3])),
        ("a bomb", announced(64 << 20, &bomb)),
        ("a bomb that says less", announced(1000, &bomb)),
        ("two bombs", [announced(64 << 20, &bomb), announced(64 << 20, &bomb)].concat()),
    ]
}

#[test]
fn records_that_lie_are_refused_and_nothing_of_them_is_kept() {
    let relinked = Relinked::new();
    let answer = relinked.answered().2;
    let payload = relinked.payload(&answer);
    let records = |cuts| relinked.parcel(Basis::Records(0, cuts), &payload);
    let mut cases: Vec<(&str, Parcel, Vec<u8>)> = vec![
        (
            "code records that were not requested",
            relinked.parcel(Basis::Records(1, relinked.cuts()), &payload),
            payload.clone(),
        ),
        (
            "a file by the last number",
            relinked.parcel(Basis::Records(u32::MAX, relinked.cuts()), &payload),
            payload.clone(),
        ),
        ("no chunks", Parcel { lengths: Vec::new(), ..records(relinked.cuts()) }, payload.clone()),
        (
            "a chunk of a gigabyte",
            Parcel { lengths: vec![1 << 30], ..records(relinked.cuts()) },
            payload.clone(),
        ),
        (
            "too many chunks",
            Parcel { lengths: vec![1; EXECUTABLE_CHUNKS_MAX + 1], ..records(relinked.cuts()) },
            payload.clone(),
        ),
        (
            "more bytes than an executable has",
            Parcel { lengths: vec![65536; 2049], ..records(relinked.cuts()) },
            payload.clone(),
        ),
        (
            "chunks of other lengths",
            Parcel { lengths: vec![100; relinked.chunks()], ..records(relinked.cuts()) },
            payload.clone(),
        ),
        (
            "a payload too long",
            Parcel { payload_bytes: small(EXECUTABLE_PAYLOAD_MAX + 1), ..records(relinked.cuts()) },
            payload.clone(),
        ),
        (
            "what tells by the whole file",
            relinked.parcel(Basis::Records(0, relinked.cuts()), &relinked.kept()),
            relinked.kept(),
        ),
    ];
    for (what, cuts) in lying_cuts(relinked.chunks(), relinked.file.len()) {
        cases.push((what, records(cuts), payload.clone()));
    }
    for (what, payload) in lying_payloads(&payload) {
        cases.push((what, relinked.parcel(Basis::Records(0, relinked.cuts()), &payload), payload));
    }
    for (what, parcel, payload) in cases {
        let (mut memory, mut proxy, _) = relinked.answered();
        let said = Parcel { payload_bytes: parcel.payload_bytes.max(small(payload.len())), ..parcel };
        let result = send(&mut proxy, &mut memory, said, &payload);
        assert!(!result.as_ref().is_ok_and(Vec::is_empty), "{what} was taken");
        assert_refused(what, &result, &memory, &mut proxy);
    }
}

#[test]
fn what_was_offered_tells_one_parcel() {
    let relinked = Relinked::new();
    let (mut memory, mut proxy, answer) = relinked.answered();
    let payload = relinked.payload(&answer);
    let half = relinked.chunks() / 2;
    let lengths = vec![small(CHUNK_BYTES); half];
    let cuts = vec![Cut { skipped: 0, chunks: small(half) }];
    let parcel = Parcel { lengths, ..relinked.parcel(Basis::Records(0, cuts), &payload) };
    assert_eq!(send(&mut proxy, &mut memory, parcel.clone(), &payload).expect("honest"), []);
    assert_eq!(memory.content_kept.len(), half);
    let again = send(&mut proxy, &mut memory, parcel, &payload);
    assert!(matches!(again, Err(Error::OutOfTurn(_))), "{again:?}");
}

#[test]
fn a_file_told_by_an_older_one_that_lies_is_refused_and_nothing_of_it_is_kept() {
    let relinked = Relinked::new();
    let payload = relinked.kept();
    let honest = relinked.parcel(Basis::Executable(relinked.spans(), relinked.cuts()), &payload);
    let (mut memory, mut proxy) = relinked.by_base();
    assert_eq!(send(&mut proxy, &mut memory, honest.clone(), &payload).expect("honest"), []);
    assert_eq!(memory.content_kept.len(), relinked.new.content.len());
    let with =
        |spans: Vec<Span>| Parcel { basis: Basis::Executable(spans, relinked.cuts()), ..honest.clone() };
    let all = relinked.spans()[0];
    let mut cases: Vec<(&str, Parcel, Vec<u8>)> = vec![
        ("no spans", with(Vec::new()), payload.clone()),
        (
            "a span behind the base",
            with(vec![Span { segment: SegmentIndex::new(900), ..all }]),
            payload.clone(),
        ),
        ("a span that ends behind it", with(vec![Span { count: all.count + 1, ..all }]), payload.clone()),
        (
            "a span that begins behind its segment",
            with(vec![Span { first: u32::MAX, count: 1, ..all }]),
            payload.clone(),
        ),
        ("a span of four billion chunks", with(vec![Span { count: u32::MAX, ..all }]), payload.clone()),
        ("part of the older file", with(vec![Span { count: all.count - 1, ..all }]), payload.clone()),
        ("the older file twice", with(vec![all, all]), payload.clone()),
        ("too many spans", with(vec![Span { count: 1, ..all }; PARCEL_SPANS_MAX + 1]), payload.clone()),
        (
            "a file of the same chunk over and over",
            with(vec![Span { count: all.count, ..all }; PARCEL_SPANS_MAX]),
            payload.clone(),
        ),
    ];
    for (what, cuts) in lying_cuts(relinked.chunks(), relinked.file.len()) {
        let basis = Basis::Executable(relinked.spans(), cuts);
        cases.push((what, Parcel { basis, ..honest.clone() }, payload.clone()));
    }
    for (what, payload) in lying_payloads(&payload) {
        cases.push((what, Parcel { payload_bytes: small(payload.len()), ..honest.clone() }, payload));
    }
    for (what, parcel, payload) in cases {
        let (mut memory, mut proxy) = relinked.by_base();
        let result = send(&mut proxy, &mut memory, parcel, &payload);
        assert!(!result.as_ref().is_ok_and(Vec::is_empty), "{what} was taken");
        assert_refused(what, &result, &memory, &mut proxy);
    }
}

#[test]
fn little_is_not_told_by_much() {
    // One small chunk is new, in a program a hundred times as long.
    let long = link(&Program { functions: 1500, ..OLD });
    let (old, new) =
        (release(&[("note", b"old"), ("program", &long)]), release(&[("note", b"new"), ("program", &long)]));
    let mut memory = Memory::holding(&old);
    let opening = Opening::Base(old.root.id(), old.segments.clone());
    let (_, begin) = Agent::new(open(&new, false), new.segments.clone(), opening);
    let (mut proxy, _) = Proxy::open(begin, &mut memory).expect("an honest agent");
    let changed = new.parts.iter().zip(&new.segments).filter(|(_, node)| !old.segments.contains(node));
    let changed: Vec<Vec<u8>> = changed.map(|(part, _)| part.0.clone()).collect();
    proxy.receive(FromAgent::Segments(raw_segments(&changed)), &mut memory).expect("honest");
    let spans = vec![Span {
        segment: SegmentIndex::new(0),
        first: 1,
        count: small(long.len().div_ceil(CHUNK_BYTES)),
    }];
    let basis = Basis::Executable(spans, vec![Cut { skipped: 0, chunks: 1 }]);
    let parcel = Parcel { lengths: vec![3], basis, codec: Codec::Raw, payload_bytes: 1 };
    let result = send(&mut proxy, &mut memory, parcel, &[0]);
    assert!(matches!(result, Err(Error::Limit { max: 192, .. })), "{result:?}");
}

/// Returns an agent whose segments were requested, with offers or without, and its input.
fn agent(relinked: &Relinked, offers: bool) -> (Agent, AnyInput) {
    let begin = open(&relinked.new, false);
    let (mut agent, _) = Agent::new(begin, relinked.new.segments.clone(), Opening::Short);
    let mut input = AnyInput::new(relinked.new.segments.len());
    if offers {
        assert_eq!(agent.receive(PushReply::WantRecordQueries, &mut input).expect("honest"), []);
    }
    let all: Marks = relinked.new.segments.iter().map(|_| true).collect();
    agent.receive(PushReply::WantSegments(all), &mut input).expect("honest");
    (agent, input)
}

fn answer(bytes: usize) -> PushReply {
    PushReply::RecordAnswer(RecordAnswer { file: 0, answer: vec![0; bytes] })
}

#[test]
fn an_agent_takes_answers_where_it_was_asked_to_offer_and_no_more_than_fit_its_offers() {
    let relinked = Relinked::new();
    let (mut agent_without, mut input) = agent(&relinked, false);
    let unasked = agent_without.receive(answer(3), &mut input);
    assert!(matches!(unasked, Err(Error::OutOfTurn("RecordAnswer"))), "{unasked:?}");

    let (mut asked, mut input) = agent(&relinked, true);
    assert_eq!(asked.receive(answer(3), &mut input).expect("honest"), []);
    let missing = PushReply::Missing(vec![true; relinked.chunks()].into_iter().collect());
    asked.receive(missing, &mut input).expect("honest");
    assert_eq!(input.encoded.first().map(|chunks| chunks.answers.len()), Some(1));

    let (mut long, mut input) = agent(&relinked, true);
    long.receive(answer(ANSWER_BYTES_MAX), &mut input).expect("as much as there may be");
    let over = long.receive(answer(1), &mut input);
    assert!(matches!(over, Err(Error::Limit { max: ANSWER_BYTES_MAX, .. })), "{over:?}");

    let (mut many, mut input) = agent(&relinked, true);
    for _ in 0..RECORD_QUERIES_MAX {
        many.receive(answer(0), &mut input).expect("as many as there may be");
    }
    let over = many.receive(answer(0), &mut input);
    assert!(matches!(over, Err(Error::OutOfTurn("RecordAnswer"))), "{over:?}");
}

#[test]
fn signatures_that_no_memory_would_hold_are_let_go() {
    let relinked = Relinked::new();
    let (mut agent, mut input) = agent(&relinked, true);
    let signature = vec![0; 1 << 20];
    for _ in 0..40 {
        let signed = BlockSums { region: 0, first: 0, chunks: 1, rule: 0, signature: signature.clone() };
        assert_eq!(agent.receive(PushReply::BlockSums(signed), &mut input).expect("within bounds"), []);
    }
    let missing = PushReply::Missing(vec![true; relinked.chunks()].into_iter().collect());
    agent.receive(missing, &mut input).expect("honest");
    assert_eq!(input.encoded.first().map(|chunks| chunks.block_sums.len()), Some(32));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_sequence_of_offers_and_records_keeps_what_is_not_of_the_release(
        by_base: bool,
        steps in prop::collection::vec(
            (0u8..8, any::<prop::sample::Index>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)),
            1..12,
        ),
    ) {
        thread_local!(static RELINKED: (Relinked, Vec<u8>, Vec<u8>) = {
            let relinked = Relinked::new();
            let answer = relinked.answered().2;
            let (payload, kept) = (relinked.payload(&answer), relinked.kept());
            (relinked, payload, kept)
        });
        RELINKED.with(|(relinked, payload, kept)| {
            let (mut memory, mut proxy) = if by_base { relinked.by_base() } else { relinked.by_names() };
            for (which, at, number, noise) in steps {
                let mut bytes = if by_base { kept.clone() } else { payload.clone() };
                // Half of them are honest.
                if number % 2 == 0 {
                    let at = at.index(bytes.len());
                    let end = bytes.len().min(at + noise.len());
                    bytes[at..end].copy_from_slice(&noise[..end - at]);
                }
                let cuts = if number % 3 == 0 {
                    vec![Cut { skipped: number % 5000, chunks: number % 90 }]
                } else {
                    relinked.cuts()
                };
                let basis = if by_base {
                    Basis::Executable(relinked.spans(), cuts)
                } else {
                    Basis::Records(number % 2, cuts)
                };
                let parcel = relinked.parcel(basis, &bytes);
                let result = match which {
                    0 | 1 => proxy.receive(FromAgent::RecordQuery(relinked.offer()), &mut memory),
                    2 => {
                        let offer = RecordQuery {
                            file: number % 3,
                            segment: SegmentIndex::new(number % 4),
                            first: number % 100,
                            chunks: number,
                            names: noise,
                            complete: number % 5 > 0,
                        };
                        proxy.receive(FromAgent::RecordQuery(offer), &mut memory)
                    }
                    3 => proxy.receive(relinked.segments(), &mut memory),
                    4..=6 => send(&mut proxy, &mut memory, parcel, &bytes),
                    _ => proxy.receive(FromAgent::Commit, &mut memory),
                };
                if result.is_err() {
                    break;
                }
            }
            // The view asserts that whatever is committed is whole.
            for id in &memory.content_kept {
                assert!(relinked.new.content.contains_key(id));
            }
        });
    }
}
