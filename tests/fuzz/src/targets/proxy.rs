//! The proxy's half of a push against an agent that says anything, over a space in memory.
//!
//! The bytes are a script: first a release, honest or not, and how much of it the space has; then the agent's messages.
//! Whatever they are, a release is committed only if all of it is stored.

use std::collections::{HashMap, HashSet};

use delta::compression::{Codec, Compressor, Decompressor, LEVEL_FAST};
use delta::similar::{SKETCH_BYTES, Sketch};
use format::manifest::{
    EntryPath, Item, NodeRef, Outline, Profile, Reference, Root, SegmentName, Shape, Totals, segment_chunks,
    shorten,
};
use format::pack::Frame;
use format::recipe::{ChunkRef, Recipe};
use format::record::Record;
use ground::faults::Fault;
use ground::ids::{ChunkId, ReleaseId, ShortId};
use ground::limits::{FRAME_CHUNKS_MAX, FRAME_PLAIN_MAX, MESSAGE_BYTES_MAX};
use protocol::push::Proxy;
use protocol::wire::{
    Batch, FromAgent, Grown, ManifestForm, Open, Parcel, PushReply, Refusal, SegmentBatch, Sketches,
    pack_names, pack_short_names,
};
use protocol::{ContentView, Proposal, SpaceView, StorageView};
use whit::restore;
use whit::restore::{ChunkReader, SourceError, walk};

use super::parcel::basis;
use super::script::Script;

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let release = Release::read(&mut script);
    let mut space = Space::holding(&release, &mut script);
    let (open, names) = open(&release, &space.base, &mut script);
    let is_full = matches!(open.manifest, ManifestForm::Full(_));
    let named = match &open.manifest {
        ManifestForm::Short(names) => names.len() / 4,
        ManifestForm::Full(names) => names.len() / 8,
        ManifestForm::Base { .. } | ManifestForm::Growing => 0,
    };
    let mut agent = Talk {
        release: &release,
        names,
        is_full,
        named,
        wanted: Vec::new(),
        asked: Vec::new(),
        payload: Vec::new(),
    };
    if let ManifestForm::Base { outline, .. } = &open.manifest
        && let Some(applied) = outline.apply(&space.base, release.segments.len())
    {
        agent.wanted = (0..).zip(&applied).filter(|(_, node)| node.is_none()).map(|(at, _)| at).collect();
    }
    let (mut proxy, mut replies) = match Proxy::open(open, &mut space) {
        Ok(opened) => opened,
        Err(error) => return drop(error.to_string()),
    };
    loop {
        let answers = replies.iter().filter(|reply| !is_beside(reply)).count();
        assert!(answers <= 1, "one message, one answer");
        for reply in replies {
            let bytes = rmp_serde::to_vec(&reply).expect("a Vec takes every write");
            assert!(bytes.len() <= MESSAGE_BYTES_MAX, "a reply of {} B", bytes.len());
            agent.hear(reply);
        }
        if script.is_over() {
            break;
        }
        replies = match agent.next(&mut script).map(|message| proxy.receive(message, &mut space)) {
            None => Vec::new(),
            Some(Ok(replies)) => replies,
            Some(Err(error)) => return drop(error.to_string()),
        };
    }
}

/// Returns whether a reply only precedes the one that answers.
fn is_beside(reply: &PushReply) -> bool {
    use PushReply::{BlockSums, Prove, RecordAnswer, WantRecordQueries, WantSketches};
    matches!(reply, BlockSums(_) | RecordAnswer(_) | Prove(_) | WantRecordQueries | WantSketches)
}

/// The agent's content: segments and chunks, some of which are false.
pub struct Release {
    pub segments: Vec<Vec<u8>>,
    pub chunks: Vec<Vec<u8>>,
    pub root: Root,
}

impl Release {
    pub fn read(script: &mut Script<'_>) -> Self {
        let (mut segments, mut chunks) = (Vec::new(), Vec::new());
        let mut totals = Totals::default();
        for number in 0..script.below(6) {
            let kind = script.byte();
            if kind == 0xff {
                segments.push(script.run().to_vec());
                continue;
            }
            let mut segment = vec![0x11];
            for file in 0..=(kind % 4) {
                let path = EntryPath::new(format!("{number}-{file}")).expect("a plain path");
                let mut parts = Vec::new();
                for _ in 0..script.below(4) {
                    let (seed, lie) = (script.byte(), script.byte());
                    let bytes = vec![seed % 8; 1 + usize::from(seed) * 16];
                    let length = u32::try_from(bytes.len()).expect("a small chunk");
                    // Mostly the true length.
                    let length =
                        if lie > 250 { (length + 252).saturating_sub(u32::from(lie)) } else { length };
                    parts.push(ChunkRef { id: ChunkId::of(&bytes), bytes: length });
                    chunks.push(bytes);
                }
                let size = parts.iter().map(|part| u64::from(part.bytes)).sum();
                totals.files += 1;
                totals.chunks += parts.len() as u64;
                totals.bytes += size;
                Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }.encode(&mut segment);
                for part in parts {
                    Item::Chunk(part).encode(&mut segment);
                }
            }
            segments.push(segment);
        }
        let nodes = segments.iter().map(|bytes| node(bytes)).collect();
        let root = Root::above(Profile::DEFAULT, Shape::Tree, totals, nodes, |_| {}).expect("few segments");
        Self { segments, chunks, root }
    }
}

pub fn node(bytes: &[u8]) -> NodeRef {
    NodeRef { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("a small segment") }
}

/// Returns the opening, honest but for what the script changes, and all names of its segments.
fn open(release: &Release, base: &[NodeRef], script: &mut Script<'_>) -> (Open, Vec<SegmentName>) {
    let flags = script.byte();
    let mut names: Vec<SegmentName> = release.segments.iter().map(|bytes| node(bytes).name()).collect();
    let mut open = super::agent::open(names.len(), flags & 1 == 1);
    open.release = release.root.release();
    open.totals = release.root.totals;
    match flags >> 1 & 7 {
        1 => open.release = ReleaseId::of(b"another"),
        2 => open.segments = open.segments.wrapping_add(1),
        3 => open.segments = u32::MAX,
        4 => open.profile.max = u32::from(script.byte()) << 12,
        5 => open.labels = vec!["v1".parse().expect("a label"); script.below(256)],
        6 => names.reverse(),
        7 => names.iter_mut().for_each(|name| {
            *name = SegmentName::new(name.get().wrapping_add(u64::from(script.byte() == 1)));
        }),
        _ => {}
    }
    let packed = flags & 16 == 0;
    let told = names.iter().copied().filter(|_| packed);
    open.manifest = match flags >> 5 & 3 {
        0 => ManifestForm::Short(pack_short_names(told)),
        1 => ManifestForm::Full(pack_names(told)),
        3 => ManifestForm::Growing,
        // By a base that has the release's segments except the first few.
        _ => {
            let nodes: Vec<NodeRef> = release.segments.iter().map(|bytes| node(bytes)).collect();
            let outline = Outline::between(base, &nodes).expect("few segments");
            let unknown = ChunkId::of(b"unknown");
            ManifestForm::Base { root: if packed { base_root() } else { unknown }, outline }
        }
    };
    (open, names)
}

/// Returns the id of the release that the space has.
pub fn base_root() -> ChunkId {
    ChunkId::of(b"the base")
}

/// The state of the agent.
struct Talk<'a> {
    release: &'a Release,
    names: Vec<SegmentName>,
    is_full: bool,
    named: usize,
    wanted: Vec<usize>,
    asked: Vec<usize>,
    /// The rest of the current parcel's payload.
    payload: Vec<u8>,
}

impl Talk<'_> {
    fn hear(&mut self, reply: PushReply) {
        match reply {
            PushReply::WantSegments(marks) => {
                self.wanted = marks.places().map(|place| place as usize).collect();
            }
            // The space decides which are missing; the agent sends them all in order.
            PushReply::Missing(marks) => {
                assert!(marks.fits(marks.iter().count()));
                self.asked = (0..self.release.chunks.len()).collect();
            }
            PushReply::WantNames => self.named = 0,
            PushReply::BlockSums(_)
            | PushReply::WantRecordQueries
            | PushReply::WantSketches
            | PushReply::Alike
            | PushReply::RecordAnswer(_)
            | PushReply::Prove(_)
            | PushReply::Mismatch
            | PushReply::Unproven(_)
            | PushReply::Committed { .. }
            | PushReply::Cached(_) => {}
            reply => panic!("not by this half: {reply:?}"),
        }
    }

    fn next(&mut self, script: &mut Script<'_>) -> Option<FromAgent> {
        Some(match script.below(16) {
            0 => {
                let names = self.names.iter().skip(self.named).take(1 + script.below(8)).copied();
                self.named += names.len();
                FromAgent::Names(if self.is_full { pack_names(names) } else { pack_short_names(names) })
            }
            1 => FromAgent::Names(script.run().to_vec()),
            2 => {
                let count = self.wanted.len().min(1 + script.below(4));
                let places: Vec<usize> = self.wanted.drain(..count).collect();
                FromAgent::Segments(Self::segments(&self.release.segments, &places, script))
            }
            3 => {
                let places: Vec<usize> = (0..=script.below(3)).map(|_| script.below(8)).collect();
                FromAgent::Segments(Self::segments(&self.release.segments, &places, script))
            }
            4 => {
                let count = self.asked.len().min(1 + script.below(4));
                let places: Vec<usize> = self.asked.drain(..count).collect();
                FromAgent::Chunks(Self::batch(&self.release.chunks, &places, script))
            }
            5 => {
                let places: Vec<usize> = (0..=script.below(3)).map(|_| script.below(64)).collect();
                FromAgent::Chunks(Self::batch(&self.release.chunks, &places, script))
            }
            6 | 7 => FromAgent::Commit,
            8 => rmp_serde::from_slice(script.run()).ok()?,
            9 | 10 => {
                let count = self.asked.len().min(1 + script.below(4));
                let places: Vec<usize> = self.asked.drain(..count).collect();
                let Batch { codec, lengths, payload } = Self::batch(&self.release.chunks, &places, script);
                let payload_bytes = u32::try_from(payload.len()).expect("small");
                self.payload = payload;
                FromAgent::Parcel(Parcel { lengths, basis: basis(script), codec, payload_bytes })
            }
            11 => FromAgent::Piece(std::mem::take(&mut self.payload)),
            13 => {
                let half = self.payload.len() / 2;
                FromAgent::Piece(self.payload.drain(..half).collect())
            }
            12 => {
                let Release { root, segments, .. } = self.release;
                let segments = u32::try_from(segments.len() + script.below(3)).expect("few");
                FromAgent::Grown(Grown { release: root.release(), totals: root.totals, segments, root: None })
            }
            14 => {
                let count = script.below(9);
                let flags = script.byte();
                let sketch = |at: usize| {
                    (flags >> (at % 8) & 1 == 1).then(|| Sketch::from_bytes([flags; SKETCH_BYTES]))
                };
                FromAgent::Sketches(Sketches::new(&(0..count).map(sketch).collect::<Vec<_>>()))
            }
            _ => return None,
        })
    }

    fn segments(parts: &[Vec<u8>], places: &[usize], script: &mut Script<'_>) -> SegmentBatch {
        let flags = script.byte();
        let thin = |bytes: &Vec<u8>| if flags & 1 == 0 { shorten(bytes).ok() } else { None };
        let parts = places.iter().filter_map(|at| parts.get(*at));
        let parts: Vec<Vec<u8>> = parts.map(|part| thin(part).unwrap_or_else(|| part.clone())).collect();
        let pattern = flags >> 4;
        let offered = (0..usize::from(pattern) * 3).map(|at| pattern >> (at % 4) & 1 == 1).collect();
        let mut batch = SegmentBatch::new(&parts, None, offered);
        match flags >> 1 & 7 {
            1 => batch.lengths.iter_mut().for_each(|length| *length += u32::from(script.byte())),
            2 => batch.payload = script.run().to_vec(),
            3 => batch.against_base = true,
            _ => {}
        }
        batch
    }

    fn batch(parts: &[Vec<u8>], places: &[usize], script: &mut Script<'_>) -> Batch {
        let parts: Vec<&[u8]> = places.iter().filter_map(|at| parts.get(*at)).map(Vec::as_slice).collect();
        let plain = parts.concat();
        let mut lengths: Vec<u32> =
            parts.iter().map(|part| u32::try_from(part.len()).expect("small")).collect();
        let flags = script.byte();
        let (codec, mut payload) = match flags & 1 {
            0 => (Codec::Raw, plain),
            _ => Compressor::new(LEVEL_FAST).compress(&plain),
        };
        match flags >> 1 {
            1 => lengths.iter_mut().for_each(|length| *length += u32::from(script.byte())),
            2 => lengths = vec![u32::from(script.byte()); script.below(256) * 8],
            3 => payload = script.run().to_vec(),
            4 => payload.iter_mut().take(8).for_each(|byte| *byte ^= script.byte()),
            _ => {}
        }
        Batch { codec, lengths, payload }
    }
}

/// A space in memory that checks what it receives.
#[derive(Default)]
pub struct Space {
    pub chunks: HashMap<ChunkId, Vec<u8>>,
    known: HashMap<SegmentName, NodeRef>,
    /// The segments of its one release.
    pub base: Vec<NodeRef>,
    recognized: bool,
}

impl Space {
    pub fn holding(release: &Release, script: &mut Script<'_>) -> Self {
        let mut space = Self::default();
        let flags = script.byte();
        for (at, chunk) in release.chunks.iter().enumerate() {
            if flags >> (at % 7) & 1 == 1 {
                space.chunks.insert(ChunkId::of(chunk), chunk.clone());
            }
        }
        let segments = script.byte();
        for (at, segment) in release.segments.iter().enumerate() {
            if segments >> (at % 7) & 1 == 1 && space.is_complete(segment) {
                space.chunks.insert(ChunkId::of(segment), segment.clone());
                space.known.insert(node(segment).name(), node(segment));
                space.base.push(node(segment));
            }
        }
        space.recognized = segments == 0xff;
        space
    }

    /// Returns the segments of these names.
    pub fn resolved(&self, names: &[SegmentName]) -> Vec<Option<NodeRef>> {
        names.iter().map(|name| self.known.get(name).copied()).collect()
    }

    fn is_complete(&self, segment: &[u8]) -> bool {
        let whole = |chunk: &ChunkRef| {
            self.chunks.get(&chunk.id).is_some_and(|bytes| bytes.len() == chunk.bytes as usize)
        };
        segment_chunks(segment).is_ok_and(|chunks| chunks.iter().all(whole))
    }
}

impl ContentView for Space {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let missing = || Refusal { fault: Fault::Corrupt, text: String::new(), hint: None };
        out.extend_from_slice(self.chunks.get(&chunk.id).ok_or_else(missing)?);
        Ok(())
    }
}

impl StorageView for Space {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        let find = |reference: &Reference| {
            let (id, bytes) = self.chunks.iter().find(|(id, _)| ShortId::from(**id) == reference.short())?;
            let found = ChunkRef { id: *id, bytes: u32::try_from(bytes.len()).expect("a small chunk") };
            (reference.full().is_none_or(|chunk| chunk == found)).then_some(found)
        };
        Ok(references.iter().map(find).collect())
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        assert!((1..=FRAME_CHUNKS_MAX).contains(&frame.chunks.len()));
        let bytes = usize::try_from(frame.plain_bytes()).expect("it is small");
        assert!(bytes <= FRAME_PLAIN_MAX && frame.payload.len() <= FRAME_PLAIN_MAX);
        let mut plain = Vec::new();
        let decoded = Decompressor::new().decompress(frame.codec, &frame.payload, bytes, &mut plain);
        decoded.expect("a frame that can be read back");
        let mut rest = plain.as_slice();
        for chunk in &frame.chunks {
            let (bytes, after) = rest.split_at(chunk.bytes as usize);
            assert_eq!(ChunkId::of(bytes), chunk.id, "a chunk under its own name");
            self.chunks.insert(chunk.id, bytes.to_vec());
            rest = after;
        }
        Ok(())
    }
}

impl SpaceView for Space {
    fn recognize(&mut self, _: &Open) -> Result<Option<(Record, bool)>, Refusal> {
        Ok(self.recognized.then(|| (super::wire::record(), true)))
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        Ok(self.resolved(names))
    }

    fn base(&mut self, root: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal> {
        let known = root.is_none_or(|root| *root == base_root());
        Ok(known.then(|| self.base.clone()))
    }

    fn has_sketches(&mut self) -> bool {
        !self.chunks.is_empty()
    }

    fn most_similar(&mut self, sketch: &Sketch) -> Option<(ShortId, usize)> {
        // A hint need not be right: it is a stored chunk, or none.
        let at = usize::from(sketch.to_bytes()[0]);
        let id = self.chunks.keys().nth(at % 4).copied().unwrap_or_else(|| ChunkId::of(b"gone"));
        Some((id.into(), 1 + at % 3))
    }

    fn kept_message(&mut self) {}

    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal> {
        assert!(!proposal.open.dry_run);
        assert_eq!(proposal.root.release(), proposal.open.release, "another release than was meant");
        for segment in proposal.segments.iter().collect::<HashSet<_>>() {
            let bytes = self.chunks.get(&segment.id).expect("a segment that is there");
            assert_eq!(bytes.len(), segment.bytes as usize);
            assert!(self.is_complete(bytes), "a release is committed that cannot be rebuilt");
        }
        let open = &proposal.open;
        let refuse = |error: &restore::Error| Refusal::of(error);
        let root = Root::above(open.profile, open.shape, open.totals, proposal.segments, |node| {
            self.chunks.insert(node.node.id, node.bytes);
        });
        let root = root.map_err(|error| Refusal::of(&error))?;
        walk::<restore::Error>(&root, &mut Shown(&self.chunks), &mut |_| Ok(())).map_err(|e| refuse(&e))?;
        Ok((super::wire::record(), false))
    }
}

/// Reads the chunks of a space.
struct Shown<'a>(&'a HashMap<ChunkId, Vec<u8>>);

impl ChunkReader for Shown<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        out.extend_from_slice(self.0.get(&chunk.id).ok_or(SourceError::Unknown(chunk.id))?);
        Ok(())
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // One segment of a file with two chunks; one with two files; then what the space has, and the opening.
    let release = [2, 0, 2, 9, 0, 18, 0, 1, 1, 27, 0, 1, 36, 0];
    let script = |rest: &[u8]| [&release, rest].concat();
    vec![
        script(&[0, 0, 0, 2, 1, 0, 4, 3, 1, 4, 3, 0, 6]),
        script(&[3, 1, 0, 2, 0, 1, 5, 0, 3, 0, 6]),
        script(&[0, 0, 16, 0, 0, 0, 7, 2, 1, 0, 4, 3, 0, 6]),
        script(&[0xff, 0, 0, 2, 1, 1, 6]),
        // In full; by a base; by one that is unknown; with chunks in a parcel.
        script(&[0, 0, 32, 2, 1, 1, 4, 3, 1, 4, 3, 0, 6]),
        script(&[3, 1, 64, 2, 1, 0x30, 4, 3, 0, 6]),
        script(&[3, 1, 80, 2, 1, 0, 0, 7, 2, 1, 0, 4, 3, 0, 6]),
        script(&[0, 0, 0, 2, 1, 0, 9, 3, 0, 0, 12, 11, 9, 3, 1, 0, 11, 6]),
        script(&[0, 0, 1, 2, 0, 0, 2, 0, 0]),
        script(&[0, 0xff, 0, 6]),
    ]
}
