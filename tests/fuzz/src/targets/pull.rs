//! Both halves of a pull: the agent's against a proxy that replies whatever it likes, the proxy's against an agent that
//! asks whatever it likes.
//!
//! The bytes are a script: first a release, honest or not, and how much of it the directory or the agent has; then the
//! peer's messages.

use delta::compression::Codec;
use format::manifest::{NodeRef, Outline, Root, SegmentIndex, SegmentName, shorten};
use format::record::Record;
use ground::ids::ChunkId;
use ground::limits::MESSAGE_BYTES_MAX;
use protocol::pull::{self, Agent, DirectoryView, Proxy, ReleaseView, Window};
use protocol::transfer::Bounds;
use protocol::wire::{
    Basis, Batch, Cut, Marks, Parcel, PullReply, PullRequest, Refusal, SegmentBatch, Span, pack_names,
};

use super::parcel::basis;
use super::proxy::{Release, Space, node};
use super::script::Script;

impl DirectoryView for Space {
    fn announced(&mut self, _: &Record, _: &Root) -> Result<(), Refusal> {
        Ok(())
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        Ok(self.resolved(names))
    }

    fn is_unkept(&mut self, segment: &NodeRef) -> Result<bool, Refusal> {
        Ok(segment.bytes.is_multiple_of(2))
    }

    fn wants_executables(&self) -> bool {
        self.base.len() % 2 == 1
    }
}

impl ReleaseView for Space {}

/// The agent's half.
pub fn run_agent(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let release = Release::read(&mut script);
    let mut space = Space::holding(&release, &mut script);
    let window = Window { requests: 1 + script.below(4), segments: 1 + script.below(3) };
    let mut agent = Agent::new(window, space.base.clone());
    let mut said = Said { release: &release, payload: Vec::new() };
    while !script.is_over() {
        let Some(reply) = said.next(&space.base, &mut script) else { return };
        match agent.receive(reply, &mut space) {
            Ok(requests) => {
                assert!(requests.len() <= window.requests, "more requests than the window allows");
            }
            Err(error) => return drop(error.to_string()),
        }
        if agent.is_finished() {
            let (_, root) = agent.into_release().expect("it has finished");
            let shown = release.segments.iter().map(|bytes| node(bytes)).collect::<Vec<_>>();
            if root.release() == release.root.release() {
                assert!(shown.iter().all(|node| space.chunks.contains_key(&node.id)), "a segment is missing");
            }
            return;
        }
    }
}

/// What a proxy may say of a release.
struct Said<'a> {
    release: &'a Release,
    /// The rest of the current parcel's payload.
    payload: Vec<u8>,
}

impl Said<'_> {
    fn next(&mut self, base: &[NodeRef], script: &mut Script<'_>) -> Option<PullReply> {
        let Release { segments, chunks, root } = self.release;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        let some = |all: &[Vec<u8>], script: &mut Script<'_>| {
            let first = script.below(all.len());
            let count = 1 + script.below(4);
            all.iter().skip(first).take(count).cloned().collect::<Vec<_>>()
        };
        let batch = |parts: &[Vec<u8>]| {
            let lengths = parts.iter().map(|part| length(part)).collect();
            Batch { codec: Codec::Raw, lengths, payload: parts.concat() }
        };
        let nodes = || segments.iter().map(|bytes| node(bytes));
        Some(match script.below(12) {
            0 => {
                let segments = u32::try_from(segments.len()).expect("few");
                let segments = if script.byte() == 255 { u32::MAX } else { segments };
                let record = Record { release: root.release(), ..super::wire::record() };
                PullReply::Release { record, root: root.encode(), segments }
            }
            1 => PullReply::Names(pack_names(nodes().map(|node| node.name()))),
            2 => PullReply::Outline(Outline::between(base, &nodes().collect::<Vec<_>>())?),
            3 => PullReply::Segments(batch(&some(segments, script))),
            4 => {
                let thin =
                    some(segments, script).iter().filter_map(|part| shorten(part).ok()).collect::<Vec<_>>();
                PullReply::Thin(SegmentBatch::new(&thin, None, Marks::default()))
            }
            5 => PullReply::Executables(script.below(3).try_into().expect("few")),
            6 => PullReply::Chunks(batch(&some(chunks, script))),
            7 => {
                let Batch { codec, lengths, payload } = batch(&some(chunks, script));
                let basis = match script.below(3) {
                    0 => Basis::Prefix(vec![Span { segment: SegmentIndex::new(0), first: 0, count: 1 }]),
                    1 => Basis::Executable(Vec::new(), vec![Cut { skipped: 0, chunks: length(&payload) }]),
                    _ => basis(script),
                };
                let payload_bytes = length(&payload);
                self.payload = payload;
                PullReply::Parcel(Parcel { lengths, basis, codec, payload_bytes })
            }
            8 => PullReply::Piece(std::mem::take(&mut self.payload)),
            9 => {
                let half = self.payload.len() / 2;
                PullReply::Piece(self.payload.drain(..half).collect())
            }
            10 => PullReply::Names(script.run().to_vec()),
            _ => rmp_serde::from_slice(script.run()).ok()?,
        })
    }
}

/// The proxy's half.
pub fn run_proxy(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let release = Release::read(&mut script);
    let mut space = Space::holding(&release, &mut script);
    // A space that lacks a part of the release refuses; nothing that is not of the release goes out.
    let base = space.base.clone();
    for part in release.segments.iter().chain(&release.chunks) {
        if script.byte() < 250 {
            space.chunks.insert(ChunkId::of(part), part.clone());
        }
    }
    let segments: Vec<NodeRef> = release.segments.iter().map(|bytes| node(bytes)).collect();
    let count = u32::try_from(segments.len()).expect("few");
    let record = Record { release: release.root.release(), ..super::wire::record() };
    let opened = pull::Release { record, root: release.root.clone(), segments };
    let has_base = script.byte() & 1 == 1;
    let mut proxy = Proxy::open(opened, has_base.then_some(base), Bounds::PULL, &mut space);
    loop {
        loop {
            match proxy.next(&mut space) {
                Ok(Some(reply)) => {
                    let bytes = rmp_serde::to_vec(&reply).expect("a Vec takes every write");
                    assert!(bytes.len() <= MESSAGE_BYTES_MAX, "a reply of {} B", bytes.len());
                }
                Ok(None) => break,
                Err(error) => return drop(error.to_string()),
            }
        }
        if script.is_over() {
            return;
        }
        for _ in 0..=script.below(3) {
            let marks = |script: &mut Script<'_>| {
                let (pattern, count) = (script.byte(), script.below(64));
                (0..count).map(|at| pattern >> (at % 8) & 1 == 1).collect::<Marks>()
            };
            let request = match script.below(5) {
                0 => PullRequest::WantSegments((0..count).map(|_| script.byte() & 1 == 1).collect()),
                1 => PullRequest::WantSegments(marks(&mut script)),
                2 => PullRequest::WantExecutables,
                3 => {
                    let first = SegmentIndex::of(script.below(8));
                    let count = u32::try_from(script.below(8)).expect("few");
                    PullRequest::WantChunks { first, count, marks: marks(&mut script) }
                }
                _ => match rmp_serde::from_slice(script.run()) {
                    Ok(request) => request,
                    Err(_) => return,
                },
            };
            if proxy.receive(request).is_err() {
                return;
            }
        }
    }
}

/// One segment of a file with two chunks, and one with two files; then what is here.
const RELEASE: [u8; 14] = [2, 0, 2, 9, 0, 18, 0, 1, 1, 27, 0, 1, 36, 0];

pub fn seeds_agent() -> Vec<Vec<u8>> {
    let script = |rest: &[u8]| [&RELEASE, rest].concat();
    vec![
        // By names into an empty directory, and in parcels.
        script(&[0, 0, 3, 1, 0, 0, 1, 3, 0, 1, 6, 0, 3]),
        script(&[0, 0, 0, 0, 0, 0, 1, 3, 0, 1, 7, 0, 3, 2, 0, 9, 8, 6, 2, 1]),
        // By a base that has one of the segments.
        script(&[3, 1, 3, 1, 0, 0, 2, 4, 1, 0, 5, 0, 6, 0, 3]),
        script(&[3, 1, 3, 1, 0, 0, 2, 4, 1, 0, 5, 1, 7, 0, 3, 1, 8]),
        script(&[0, 0, 3, 1, 0, 255]),
    ]
}

pub fn seeds_proxy() -> Vec<Vec<u8>> {
    let script = |rest: &[u8]| [&RELEASE, rest].concat();
    vec![
        // All is there; by names, then by a base.
        script(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 3, 0, 2, 255, 9]),
        script(&[3, 1, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 3, 0, 2, 255, 9]),
        script(&[3, 1, 0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 3, 7, 7, 255, 63]),
    ]
}
