//! A space in memory that verifies everything, and releases to push into it.

use std::collections::{BTreeMap, HashMap, HashSet};

use delta::similar::Sketch;
use format::manifest::{
    self, Builder, EntryPath, Item, NodeRef, Profile, Reference, Root, SegmentName, Shape, Totals,
};
use format::pack::{Frame, FrameKind};
use format::recipe::{ChunkRef, Recipe};
use format::record::{Cost, Record};
use ground::faults::Fault;
use ground::ids::{ChunkId, ReleaseId, ShortId};
use protocol::Error;
use protocol::push::Proxy;
use protocol::wire::{Batch, FromAgent, ManifestForm, Open, PushReply, Refusal};
use protocol::{ContentView, Proposal, SpaceView, StorageView};

use crate::trees::noise;
use crate::walker::raw_segments;

/// A space in memory.
#[derive(Default, Clone)]
pub struct Memory {
    pub chunks: HashMap<ChunkId, Vec<u8>>,
    segments: HashMap<ChunkId, (Vec<u8>, Vec<ChunkRef>)>,
    /// The content that was given to be stored, in order.
    pub content_kept: Vec<ChunkId>,
    pub releases: HashMap<ReleaseId, Vec<NodeRef>>,
    latest: Option<ReleaseId>,
    /// Chunks that are wrongly found for short ids.
    pub alike: HashMap<ShortId, ChunkRef>,
    /// Sketches of chunks that were stored, or that belong to a release.
    pub sketches: Vec<(ShortId, Sketch)>,
    /// Chunks that the token may not read; none if it may read all.
    pub unreadable: Option<HashSet<ChunkId>>,
    nonces: u8,
}

impl Memory {
    /// Creates a space that has a release.
    pub fn holding(release: &Release) -> Self {
        let mut memory = Self { chunks: release.content.clone(), ..Self::default() };
        let sketch = |(id, bytes): (&ChunkId, &Vec<u8>)| Some(((*id).into(), Sketch::of(bytes)?));
        memory.sketches = release.content.iter().filter_map(sketch).collect();
        // Independent of the order of a map.
        memory.sketches.sort_unstable_by_key(|(id, _)| *id.as_bytes());
        for (node, part) in release.segments.iter().zip(&release.parts) {
            memory.segments.insert(node.id, part.clone());
        }
        memory.latest = Some(release.root.release());
        memory.releases.insert(release.root.release(), release.segments.clone());
        memory
    }

    /// Creates a space that has one chunk.
    pub fn holding_one(chunk: &[u8]) -> Self {
        let chunks = HashMap::from([(ChunkId::of(chunk), chunk.to_vec())]);
        Self { chunks, ..Self::default() }
    }

    /// Returns the result of a push, in full, of one segment that lists these chunks.
    pub fn push_of(mut self, chunks: &[(ChunkId, u32)]) -> Result<Vec<PushReply>, Error> {
        let path = EntryPath::new("file").expect("a plain path");
        let size = chunks.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let mut segment = vec![0x11];
        Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks }.encode(&mut segment);
        for (id, bytes) in chunks {
            Item::Chunk(ChunkRef { id: *id, bytes: *bytes }).encode(&mut segment);
        }
        let node = NodeRef { id: ChunkId::of(&segment), bytes: u32::try_from(segment.len()).expect("small") };
        let root = Root::above(Profile::DEFAULT, Shape::Tree, Totals::default(), vec![node], |_| {});
        let mut begin = opening(&root.expect("small"), 1);
        begin.manifest = ManifestForm::Full(node.id.prefix().to_le_bytes().to_vec());
        let (mut proxy, _) = Proxy::open(begin, &mut self)?;
        proxy.receive(FromAgent::Segments(raw_segments(&[segment])), &mut self)
    }

    pub fn record(open: &Open) -> Record {
        Record {
            app: open.app.clone(),
            release: open.release,
            sequence: 1,
            created: 0,
            user: "ada".parse().expect("a name"),
            labels: Vec::new(),
            totals: open.totals,
            cost: Cost::default(),
            behalf: Vec::new(),
        }
    }

    fn has(&self, chunk: &ChunkRef) -> bool {
        self.chunks.get(&chunk.id).is_some_and(|bytes| bytes.len() == chunk.bytes as usize)
    }
}

impl ContentView for Memory {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let segment = self.segments.get(&chunk.id).map(|(bytes, _)| bytes);
        let missing = || Refusal { fault: Fault::Corrupt, text: "no such chunk".to_owned(), hint: None };
        out.extend_from_slice(segment.or_else(|| self.chunks.get(&chunk.id)).ok_or_else(missing)?);
        Ok(())
    }
}

impl StorageView for Memory {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        let mut by_short: HashMap<ShortId, ChunkRef> = HashMap::new();
        for (id, bytes) in &self.chunks {
            let bytes = u32::try_from(bytes.len()).expect("small");
            by_short.insert(ShortId::from(*id), ChunkRef { id: *id, bytes });
        }
        let find = |reference: &Reference| match reference {
            Reference::Short(short) => self.alike.get(short).or_else(|| by_short.get(short)).copied(),
            Reference::Full(chunk) => self.has(chunk).then_some(*chunk),
        };
        Ok(references.iter().map(find).collect())
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        let (mut zstd, mut plain) = (delta::compression::Decompressor::new(), Vec::new());
        let lengths = frame.chunks.iter().map(|chunk| chunk.bytes).collect();
        let batch = Batch { codec: frame.codec, lengths, payload: frame.payload };
        let parts = batch.open(&mut zstd, &mut plain).expect("only whole frames are kept");
        for (chunk, part) in frame.chunks.iter().zip(parts) {
            let bytes = plain[part].to_vec();
            assert_eq!(chunk.id, ChunkId::of(&bytes), "only what is what its name says is kept");
            if frame.kind == FrameKind::Content {
                self.content_kept.push(chunk.id);
                self.chunks.insert(chunk.id, bytes);
            } else {
                let chunks = manifest::segment_chunks(&bytes).expect("only segments are kept as such");
                self.segments.insert(chunk.id, (bytes, chunks));
            }
        }
        Ok(())
    }
}

impl SpaceView for Memory {
    fn recognize(&mut self, open: &Open) -> Result<Option<(Record, bool)>, Refusal> {
        let known = self.releases.contains_key(&open.release);
        Ok(known.then(|| (Self::record(open), true)))
    }

    fn base(&mut self, root: Option<&ChunkId>) -> Result<Option<Vec<NodeRef>>, Refusal> {
        // Without archives, a root has the name of its release.
        let release = root.map(|root| ReleaseId::from(*root)).or(self.latest);
        Ok(release.and_then(|release| self.releases.get(&release)).cloned())
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        let known: HashMap<SegmentName, ChunkId> =
            self.segments.keys().map(|id| ((*id).into(), *id)).collect();
        let resolve = |name: &SegmentName| {
            let id = known.get(name)?;
            let (bytes, chunks) = &self.segments[id];
            let node = NodeRef { id: *id, bytes: u32::try_from(bytes.len()).expect("small") };
            chunks.iter().all(|chunk| self.has(chunk)).then_some(node)
        };
        Ok(names.iter().map(resolve).collect())
    }

    fn reads_all(&self) -> bool {
        self.unreadable.is_none()
    }

    fn may_read(&mut self, chunk: &ChunkRef) -> Result<bool, Refusal> {
        Ok(self.unreadable.as_ref().is_none_or(|unreadable| !unreadable.contains(&chunk.id)))
    }

    fn nonce(&mut self) -> Result<[u8; 32], Refusal> {
        self.nonces += 1;
        Ok([self.nonces; 32])
    }

    fn sketch(&mut self, chunks: Vec<(ShortId, Sketch)>) {
        self.sketches.extend(chunks);
    }

    fn has_sketches(&mut self) -> bool {
        !self.sketches.is_empty()
    }

    fn most_similar(&mut self, sketch: &Sketch) -> Option<(ShortId, usize)> {
        let shared = |other: &Sketch| {
            let pairs = sketch.super_features().into_iter().zip(other.super_features());
            pairs.filter(|(one, other)| one == other).count()
        };
        let alike = self.sketches.iter().map(|(id, other)| (*id, shared(other)));
        alike.max_by_key(|(_, shared)| *shared).filter(|(_, shared)| *shared > 0)
    }

    fn kept_message(&mut self) {}

    fn commit(&mut self, proposal: Proposal) -> Result<(Record, bool), Refusal> {
        assert_eq!(proposal.segments.len(), proposal.open.segments as usize, "no segment is missing");
        for segment in &proposal.segments {
            let (_, chunks) = self.segments.get(&segment.id).expect("every segment is there");
            assert!(chunks.iter().all(|chunk| self.has(chunk)), "every chunk is there");
        }
        let Open { profile, shape, totals, release, .. } = proposal.open;
        let made =
            Root::above(profile, shape, totals, proposal.segments.clone(), |_| {}).expect("within limits");
        assert!(made == proposal.root && made.release() == release, "only what was meant is committed");
        self.latest = Some(release);
        self.releases.insert(release, proposal.segments);
        Ok((Self::record(&proposal.open), false))
    }
}

/// A release in memory.
pub struct Release {
    pub root: Root,
    pub segments: Vec<NodeRef>,
    /// Each segment's bytes and chunks.
    pub parts: Vec<(Vec<u8>, Vec<ChunkRef>)>,
    pub content: HashMap<ChunkId, Vec<u8>>,
}

/// Files by their numbers; each number in one stands for a chunk.
pub type Files = BTreeMap<u32, Vec<u16>>;

/// Returns the bytes that a number stands for; numbers 300 apart stand for nearly the same bytes.
fn bytes_of(chunk: u16) -> Vec<u8> {
    let (kind, edit) = (u64::from(chunk % 300), chunk / 300);
    let mut bytes = noise(kind, 300 + usize::from(chunk % 300) * 4);
    if edit > 0 {
        bytes[170..172].copy_from_slice(&edit.to_le_bytes());
        bytes.insert(200, 7);
    }
    bytes
}

pub fn release(files: &Files) -> Release {
    let mut builder = Builder::new(Profile::DEFAULT);
    let (mut parts, mut content) = (Vec::new(), HashMap::new());
    let mut keep = |bytes: Vec<u8>| {
        let chunks = manifest::segment_chunks(&bytes).expect("a segment");
        parts.push((bytes, chunks));
    };
    for (number, chunks) in files {
        let chunks: Vec<Vec<u8>> = chunks.iter().map(|chunk| bytes_of(*chunk)).collect();
        let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let path = EntryPath::new(format!("{number:07}")).expect("a path");
        let entry = Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks };
        let items = chunks.into_iter().map(|bytes| {
            let reference =
                ChunkRef { id: ChunkId::of(&bytes), bytes: u32::try_from(bytes.len()).expect("small") };
            content.insert(reference.id, bytes);
            Item::Chunk(reference)
        });
        for item in std::iter::once(entry).chain(items) {
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

fn opening(root: &Root, segments: usize) -> Open {
    Open {
        app: "app".parse().expect("a name"),
        labels: Vec::new(),
        destinations: Vec::new(),
        release: root.release(),
        profile: root.profile,
        shape: root.shape,
        totals: root.totals,
        segments: u32::try_from(segments).expect("few"),
        manifest: ManifestForm::Short(Vec::new()),
        dry_run: false,
        behalf: Vec::new(),
        then: Vec::new(),
        keeps_current: false,
        moves: false,
        cache_only: false,
        root: None,
    }
}

/// Returns the opening of a push of the release, before it lists the segments.
pub fn open(release: &Release, dry_run: bool) -> Open {
    Open { dry_run, ..opening(&release.root, release.segments.len()) }
}
