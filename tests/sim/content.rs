//! Content of the simulated pushers: trees made of chunks from one pool, so that releases share most of theirs.

use std::collections::HashMap;

use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, NodeRef, Root, Segment, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::ids::{AppName, ChunkId, ReleaseId};
use protocol::wire::{ManifestForm, Open};

use crate::random::Random;

/// All chunks that exist.
#[derive(Debug)]
pub struct Pool {
    pub chunks: Vec<ChunkRef>,
    bytes: HashMap<ChunkId, Vec<u8>>,
}

impl Pool {
    pub fn new(random: &mut Random, count: usize, bytes_max: usize) -> Self {
        let mut pool = Self { chunks: Vec::new(), bytes: HashMap::new() };
        for _ in 0..count {
            let length = 50 + random.below(bytes_max);
            let bytes = random.bytes(length);
            let id = ChunkId::of(&bytes);
            pool.chunks.push(ChunkRef { id, bytes: u32::try_from(bytes.len()).expect("it is small") });
            pool.bytes.insert(id, bytes);
        }
        pool
    }

    /// Returns the same chunks, each with one bit changed.
    pub fn changed(&self) -> Self {
        let mut pool = Self { chunks: Vec::new(), bytes: HashMap::new() };
        for chunk in &self.chunks {
            let mut bytes = self.bytes[&chunk.id].clone();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            let id = ChunkId::of(&bytes);
            pool.chunks.push(ChunkRef { id, ..*chunk });
            pool.bytes.insert(id, bytes);
        }
        pool
    }

    pub fn bytes(&self, id: &ChunkId) -> &[u8] {
        &self.bytes[id]
    }
}

/// A complete release, as its pusher has it.
#[derive(Debug)]
pub struct Build {
    pub release: ReleaseId,
    pub root: Root,
    pub nodes: Vec<NodeRef>,
    /// Each segment's bytes and chunk references.
    pub segments: Vec<(Vec<u8>, Vec<ChunkRef>)>,
    pub items: Vec<Item>,
}

impl Build {
    /// Builds a tree of files, each with these chunks.
    pub fn new(files: &[Vec<ChunkRef>]) -> Self {
        let mut items = Vec::new();
        for (number, chunks) in files.iter().enumerate() {
            let path = EntryPath::new(format!("file-{number:04}")).expect("a path");
            let size = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            items.push(Item::File { path, mode: 0o644, size, recipe: Recipe::Chunks });
            items.extend(chunks.iter().copied().map(Item::Chunk));
        }
        let mut builder = Builder::new(Profile::DEFAULT);
        let mut made: Vec<Segment> = items.iter().filter_map(|item| builder.push(item)).collect();
        let (last, root, nodes) = builder.finish(Shape::Tree).expect("it is within the limits");
        made.extend(last);
        let references = |segment: Segment| {
            let chunks = format::manifest::segment_chunks(&segment.bytes).expect("it was just made");
            (segment.bytes, chunks)
        };
        let segments = made.into_iter().map(references).collect();
        Self { release: root.release(), root, nodes, segments, items }
    }

    /// Returns the opening of a push of this build to `app`, which lists the segments by name.
    pub fn open(&self, app: AppName) -> Open {
        Open {
            app,
            labels: Vec::new(),
            destinations: Vec::new(),
            release: self.release,
            profile: self.root.profile,
            shape: self.root.shape,
            totals: self.root.totals,
            segments: u32::try_from(self.nodes.len()).expect("few"),
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

    /// Returns the ids of all chunk references, in order.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.segments.iter().flat_map(|(_, chunks)| chunks).map(|chunk| chunk.id)
    }
}

/// The content of one application as it changes from build to build.
#[derive(Debug, Clone)]
pub struct Draft(Vec<Vec<ChunkRef>>);

impl Draft {
    pub fn new(random: &mut Random, pool: &Pool) -> Self {
        let files = 1 + random.below(7);
        let mut chunk = || pool.chunks[random.below(pool.chunks.len())];
        Self((0..files).map(|file| (0..5 + file * 10).map(|_| chunk()).collect()).collect())
    }

    /// Changes some chunks, sometimes everything.
    pub fn change(&mut self, random: &mut Random, pool: &Pool) {
        if random.percent(10) {
            *self = Self::new(random, pool);
            return;
        }
        for _ in 0..=random.below(40) {
            let file = random.below(self.0.len());
            let chunk = pool.chunks[random.below(pool.chunks.len())];
            let chunks = &mut self.0[file];
            match random.below(3) {
                0 if chunks.len() > 1 => drop(chunks.remove(random.below(chunks.len()))),
                1 => chunks.insert(random.below(chunks.len()), chunk),
                _ => {
                    let at = random.below(chunks.len());
                    chunks[at] = chunk;
                }
            }
        }
    }

    pub fn build(&self) -> Build {
        Build::new(&self.0)
    }
}
