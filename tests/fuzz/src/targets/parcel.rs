//! Parcels: their headers, their pieces, and what they are compressed against.
//!
//! A proxy waits for the chunks of a small release, a little different from the one that its space has. The bytes are a
//! script of parcels. Whatever they are, only requested chunks are stored, each under its own name.

use delta::compression::{Codec, LEVEL_FAST, compress_against};
use delta::rsync::{Matcher, Signature};
use format::manifest::{EntryPath, Item, NodeRef, Profile, Root, SegmentIndex, Shape, Totals};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::ChunkId;
use ground::limits::PARCEL_PLAIN_MAX;
use protocol::push::{Agent, Opening, Proxy};
use protocol::wire::{Basis, BlockSums, FromAgent, Marks, Parcel, PushReply, Section, SegmentBatch, Span};

use super::proxy::{Space, base_root};
use super::script::Script;

/// Chunks of the only file.
const CHUNKS: usize = 8;

/// Returns a file's chunks, before or after some of them changed.
fn chunks(after: bool) -> Vec<Vec<u8>> {
    let chunk = |number: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::try_from(number).expect("few")]);
        let mut bytes = vec![0; 300 + number * 40];
        hasher.finalize_xof().fill(&mut bytes);
        if after && number % 3 == 1 {
            bytes[150] ^= 1;
        }
        bytes
    };
    (0..CHUNKS).map(chunk).collect()
}

/// Returns the release of one segment that has these chunks.
fn release(chunks: &[Vec<u8>]) -> (Vec<u8>, Root) {
    let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let path = EntryPath::new("app").expect("a path");
    let mut segment = vec![0x11];
    Item::File { path, mode: 0o755, size, recipe: Recipe::Chunks }.encode(&mut segment);
    for chunk in chunks {
        let bytes = u32::try_from(chunk.len()).expect("small");
        Item::Chunk(ChunkRef { id: ChunkId::of(chunk), bytes }).encode(&mut segment);
    }
    let totals = Totals { files: 1, chunks: CHUNKS as u64, bytes: size, ..Totals::default() };
    let node = NodeRef { id: ChunkId::of(&segment), bytes: u32::try_from(segment.len()).expect("small") };
    let root = Root::above(Profile::DEFAULT, Shape::Tree, totals, vec![node], |_| {});
    (segment, root.expect("small"))
}

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (old, new) = (chunks(false), chunks(true));
    let ((old_segment, old_root), (segment, root)) = (release(&old), release(&new));
    let mut space = Space::default();
    space.base.clone_from(&old_root.children);
    space.chunks.extend(old.iter().chain([&old_segment]).map(|bytes| (ChunkId::of(bytes), bytes.clone())));
    let opening = match script.byte() & 1 {
        0 => Opening::Short,
        _ => Opening::Base(base_root(), old_root.children),
    };
    let mut open = super::agent::open(1, false);
    (open.release, open.totals) = (root.release(), root.totals);
    let (_, open) = Agent::new(open, root.children.clone(), opening);
    let (mut proxy, _) = Proxy::open(open, &mut space).expect("an honest agent");
    let segments = FromAgent::Segments(SegmentBatch::new(&[segment], None, Marks::default()));
    let replies = proxy.receive(segments, &mut space).expect("an honest agent");
    let signed: Vec<&BlockSums> = replies
        .iter()
        .filter_map(|reply| if let PushReply::BlockSums(signed) = reply { Some(signed) } else { None })
        .collect();
    let known: Vec<ChunkId> = space.chunks.keys().copied().collect();
    let mut committed = false;
    while !script.is_over() && !committed {
        let messages = match script.below(4) {
            0 => rmp_serde::from_slice(script.run()).ok().into_iter().collect(),
            1 => vec![FromAgent::Commit],
            _ => parcel(&mut script, &old, &new, &signed),
        };
        for message in messages {
            match proxy.receive(message, &mut space) {
                Ok(replies) => {
                    committed |= replies.iter().any(|reply| matches!(reply, PushReply::Committed { .. }));
                }
                Err(error) => return drop(error.to_string()),
            }
            if committed {
                break;
            }
        }
        let asked: Vec<ChunkId> = new.iter().map(|chunk| ChunkId::of(chunk)).collect();
        let is_due = |id: &ChunkId| {
            known.contains(id) || asked.contains(id) || committed || *id == root.children[0].id
        };
        assert!(space.chunks.keys().all(is_due), "a chunk was kept that nobody asked for");
    }
}

/// Returns the missing chunks as a parcel, mostly honest, and its pieces.
fn parcel(
    script: &mut Script<'_>,
    old: &[Vec<u8>],
    new: &[Vec<u8>],
    signed: &[&BlockSums],
) -> Vec<FromAgent> {
    let mut missing: Vec<&[u8]> =
        (0..CHUNKS).filter(|at| old[*at] != new[*at]).map(|at| new[at].as_slice()).collect();
    let flags = script.byte();
    if flags & 1 == 1 {
        missing.truncate(1 + script.below(3));
    }
    let mut lengths: Vec<u32> =
        missing.iter().map(|chunk| u32::try_from(chunk.len()).expect("small")).collect();
    let plain = missing.concat();
    let zstd = |prefix: &[u8], plain: &[u8]| (Codec::Zstd, compress_against(prefix, plain, LEVEL_FAST));
    let (mut basis, (codec, mut payload)) = match flags >> 1 & 3 {
        0 => (Basis::None, (Codec::Raw, plain)),
        1 => (Basis::None, zstd(&[], &plain)),
        2 => {
            let span =
                Span { segment: SegmentIndex::new(0), first: 0, count: u32::try_from(CHUNKS).expect("few") };
            (Basis::Prefix(vec![span]), zstd(&old.concat(), &plain))
        }
        _ => {
            let (sections, literals, copied) = deltas(&missing, signed);
            (Basis::BlockSums(sections), zstd(&copied, &literals))
        }
    };
    let mut payload_bytes = u32::try_from(payload.len()).expect("small");
    match flags >> 3 & 7 {
        1 => lengths.iter_mut().for_each(|length| *length ^= u32::from(script.byte())),
        2 => payload = script.run().to_vec(),
        3 => basis = self::basis(script),
        4 => payload.iter_mut().skip(script.below(64)).take(2).for_each(|byte| *byte ^= script.byte()),
        5 => payload_bytes = payload_bytes.wrapping_sub(u32::from(script.byte())),
        _ => {}
    }
    if let (6, Basis::BlockSums(sections)) = (flags >> 3 & 7, &mut basis) {
        for section in sections {
            section.delta.iter_mut().for_each(|byte| *byte ^= script.byte());
            section.whole ^= u32::from(script.byte());
        }
    }
    let parcel = Parcel { lengths, basis, codec, payload_bytes };
    if let Ok(bytes) = parcel.plain_bytes() {
        assert!(bytes <= PARCEL_PLAIN_MAX);
    }
    let pieces = payload.chunks(1 + script.below(256) * 16).map(|piece| FromAgent::Piece(piece.to_vec()));
    std::iter::once(FromAgent::Parcel(parcel)).chain(pieces).collect()
}

/// Returns the sections, the bytes they insert, and the bytes they copy.
fn deltas(missing: &[&[u8]], signed: &[&BlockSums]) -> (Vec<Section>, Vec<u8>, Vec<u8>) {
    let (mut sections, mut literals, mut copied, mut done) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for signed in signed {
        let (first, count) = (signed.first as usize, signed.chunks as usize);
        let (Some(whole), Some(chunks)) = (missing.get(done..first), missing.get(first..first + count))
        else {
            continue;
        };
        let signature =
            Signature::decode(&mut signed.signature.as_slice(), 1 << 20).expect("an honest proxy");
        literals.extend(whole.concat());
        let new = chunks.concat();
        let found = Matcher::new(&signature).delta(&new, &mut literals);
        for (range, _) in found.copies() {
            let at = |offset: u64| usize::try_from(offset).expect("small");
            copied.extend_from_slice(&new[at(range.start)..at(range.end)]);
        }
        let mut delta = Vec::new();
        found.encode(&mut delta);
        let whole = u32::try_from(whole.len()).expect("few");
        sections.push(Section { whole, region: signed.region, chunks: signed.chunks, delta });
        done = first + count;
    }
    literals.extend(missing[done..].concat());
    (sections, literals, copied)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let honest = |by_base: u8, kind: u8| vec![by_base, 2, kind << 1, 200, 1];
    let raw = rmp_serde::to_vec(&FromAgent::Piece(vec![1, 2, 3])).expect("a Vec takes every write");
    let length = u8::try_from(raw.len()).expect("small");
    vec![
        honest(0, 0),
        honest(0, 1),
        honest(1, 2),
        honest(0, 3),
        // Chunk by chunk, with a commit between; then wrong spans; a damaged delta; a piece without a parcel.
        vec![1, 2, 1, 0, 255, 1, 2, 0, 200],
        vec![1, 2, 28, 1, 1, 0, 0, 9, 200],
        vec![0, 2, 54, 1, 0, 0, 0, 200],
        [&[0, 0, length, 0], raw.as_slice()].concat(),
    ]
}

/// Returns what a parcel claims to be compressed against.
pub fn basis(script: &mut Script<'_>) -> Basis {
    let number = |script: &mut Script<'_>| {
        let byte = script.byte();
        if byte == 0xff { u32::MAX } else { u32::from(byte) }
    };
    match script.below(3) {
        0 => Basis::None,
        1 => {
            let span = |script: &mut Script<'_>| Span {
                segment: SegmentIndex::new(number(script)),
                first: number(script),
                count: number(script),
            };
            Basis::Prefix((0..script.below(4)).map(|_| span(script)).collect())
        }
        _ => {
            let section = |script: &mut Script<'_>| Section {
                whole: number(script),
                region: number(script),
                chunks: number(script),
                delta: script.run().to_vec(),
            };
            Basis::BlockSums((0..script.below(4)).map(|_| section(script)).collect())
        }
    }
}
