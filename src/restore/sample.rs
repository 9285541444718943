//! Releases made in memory, for tests: entries in, a root and a source of chunks out.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{ChunkReader, ChunkSource, SourceError};
use format::chunking::Profile;
use format::manifest::{Builder, EntryPath, Item, NodeRef, Root, Segment, Shape};
use format::recipe::{ChunkRef, Container, ContentHasher, Recipe};
use ground::ids::{ArtifactId, ChunkId};
use recode::archive::{Limits, Memory, Part, Parts, Planner, encode_head, unpack};
use recode::deflate::{Encoder, Method};

/// `length` bytes that repeat nowhere and depend on `seed` alone.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Concatenated gzip files of these contents.
pub(crate) fn gzips(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for plain in contents {
        file.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let mut encoder = Encoder::new(&Method::STOCK);
        encoder.write(plain, &mut file);
        encoder.finish(&mut file);
        file.extend([0; 8]);
    }
    file
}

/// An entry of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory(EntryPath, u16),
    File(EntryPath, u16, Vec<u8>),
    Symlink(EntryPath, Vec<u8>),
}

impl Entry {
    pub(crate) fn directory(path: impl Into<Vec<u8>>, mode: u16) -> Self {
        Self::Directory(EntryPath::new(path).expect("a plain path"), mode)
    }

    pub(crate) fn file(path: impl Into<Vec<u8>>, mode: u16, content: impl Into<Vec<u8>>) -> Self {
        Self::File(EntryPath::new(path).expect("a plain path"), mode, content.into())
    }

    pub(crate) fn symlink(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        Self::Symlink(EntryPath::new(path).expect("a plain path"), target.into())
    }

    pub(crate) fn path(&self) -> &EntryPath {
        match self {
            Self::Directory(path, _) | Self::File(path, ..) | Self::Symlink(path, _) => path,
        }
    }
}

/// Returns some of everything: empty files and folders, links, odd modes and names, a file of several parts.
pub(crate) fn one_of_each() -> Vec<Entry> {
    vec![
        Entry::file("README", 0o644, "read me"),
        Entry::directory("bin", 0o755),
        Entry::file("bin/app", 0o755, noise(1, 5_000_000)),
        Entry::symlink("bin/run", "app"),
        Entry::directory("empty", 0o700),
        Entry::file("nothing", 0o600, ""),
        Entry::directory("sealed", 0o555),
        Entry::directory("sealed/deep", 0o500),
        Entry::file("sealed/deep/secret", 0o400, noise(2, 100_000)),
        Entry::symlink("sealed/up", "../README"),
        Entry::file(b"not \xff utf-8".as_slice(), 0o640, noise(3, 30_000)),
        Entry::symlink("dangling", "nowhere/at all"),
    ]
}

/// Reads the tree below `folder`, in a manifest's order: paths, modes, contents and targets.
pub(crate) fn read_tree(folder: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    read_below(folder, Path::new(""), &mut entries);
    entries.sort_by(|one, other| one.path().cmp(other.path()));
    entries
}

fn read_below(folder: &Path, below: &Path, entries: &mut Vec<Entry>) {
    for found in fs::read_dir(folder.join(below)).expect("a folder") {
        let name = below.join(found.expect("an entry").file_name());
        let place = folder.join(&name);
        let metadata = fs::symlink_metadata(&place).expect("it is there");
        let path = EntryPath::new(name.as_os_str().as_bytes()).expect("a plain path");
        let mode = u16::try_from(metadata.permissions().mode() & 0o7777).expect("twelve bits");
        if metadata.is_dir() {
            entries.push(Entry::Directory(path, mode));
            read_below(folder, &name, entries);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&place).expect("a link").into_os_string().into_vec();
            entries.push(Entry::Symlink(path, target));
        } else {
            entries.push(Entry::File(path, mode, fs::read(&place).expect("a file")));
        }
    }
}

/// `entries` in a manifest's order.
pub(crate) fn sorted(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    entries.sort_by(|one, other| one.path().cmp(other.path()));
    entries
}

/// The place of `path` below `folder`.
pub(crate) fn place(folder: &Path, path: &EntryPath) -> std::path::PathBuf {
    folder.join(OsStr::from_bytes(path.as_bytes()))
}

/// Chunks in memory, and counts of what was read.
#[derive(Debug, Default)]
pub(crate) struct MemorySource {
    chunks: HashMap<ChunkId, Vec<u8>>,
    content: HashSet<ChunkId>,
    /// The segments of the release made last.
    pub(crate) segments: Vec<NodeRef>,
    content_reads: AtomicU64,
    buffer: Vec<u8>,
}

impl MemorySource {
    /// A release of `entries`, in any order.
    pub(crate) fn of(shape: Shape, entries: &[Entry]) -> (Root, Self) {
        let mut source = Self::default();
        let root = source.release(shape, entries);
        (root, source)
    }

    /// Adds one more release.
    pub(crate) fn release(&mut self, shape: Shape, entries: &[Entry]) -> Root {
        let mut items = Vec::new();
        for entry in sorted(entries) {
            match entry {
                Entry::Directory(path, mode) => items.push(Item::Directory { path, mode }),
                Entry::Symlink(path, target) => items.push(Item::Symlink { path, target }),
                Entry::File(path, mode, content) => {
                    items.push(Item::File { path, mode, size: content.len() as u64, recipe: Recipe::Chunks });
                    items.extend(self.cut(&content).into_iter().map(Item::Chunk));
                }
            }
        }
        self.manifest(shape, &items)
    }

    /// Adds a manifest of `items`, honest or not.
    pub(crate) fn manifest(&mut self, shape: Shape, items: &[Item]) -> Root {
        let mut builder = Builder::new(Profile::DEFAULT);
        let mut segments: Vec<Segment> = items.iter().filter_map(|item| builder.push(item)).collect();
        let totals = builder.totals();
        let (last, made, nodes) = builder.finish(shape).expect("a small release");
        segments.extend(last);
        let mut parts: Vec<Vec<u8>> = segments.into_iter().map(|segment| segment.bytes).collect();
        self.segments.clone_from(&nodes);
        let root = Root::above(Profile::DEFAULT, shape, totals, nodes, |node| parts.push(node.bytes))
            .expect("a small release");
        for part in parts {
            self.add(part);
        }
        Root { named: made.named, ..root }
    }

    fn cut(&mut self, content: &[u8]) -> Vec<ChunkRef> {
        let mut chunks = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        Profile::DEFAULT
            .cut_all::<io::Error>(content, &mut buffer, |chunk| {
                let NodeRef { id, bytes } = self.add(chunk.to_vec());
                self.content.insert(id);
                chunks.push(ChunkRef { id, bytes });
                Ok(())
            })
            .expect("a slice can be read");
        self.buffer = buffer;
        chunks
    }

    /// Adds an archive: unpacked, then as it is.
    pub(crate) fn archive(&mut self, archive: &[u8]) -> (Container, Vec<ChunkRef>, Vec<ChunkRef>) {
        let plan = Planner::default().plan(archive, &Limits::default(), &mut Memory, None);
        let (mut framing, mut content) = (Vec::new(), Vec::new());
        let part = &mut |part: Part<'_>| {
            match part {
                Part::Framing(bytes) => framing.extend_from_slice(bytes),
                Part::Content(bytes) => content.extend_from_slice(bytes),
                Part::Known(_) | Part::End => {}
            }
            Ok(())
        };
        unpack(&plan, archive, &|_| false, part).expect("the plan is of this archive");
        let head = encode_head(&plan);
        let stream = [&head[..], &framing, &content].concat();
        let (mut chunks, mut rest) = (Vec::new(), &stream[..]);
        for length in Parts::of(&plan, head.len() as u64).lengths() {
            let (part, after) = rest.split_at(usize::try_from(length).expect("in memory"));
            chunks.extend(self.cut(part));
            rest = after;
        }
        let packed = self.cut(archive);
        let content = Some(ContentHasher::of(&packed));
        let container =
            Container { stream_bytes: stream.len() as u64, artifact: ArtifactId::of(archive), content };
        (container, chunks, packed)
    }

    /// Adds any chunk.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> NodeRef {
        let length = u32::try_from(bytes.len()).expect("a small chunk");
        let node = NodeRef { id: ChunkId::of(&bytes), bytes: length };
        self.chunks.insert(node.id, bytes);
        node
    }

    /// Adds a node over any children.
    pub(crate) fn add_node(&mut self, children: &[NodeRef]) -> NodeRef {
        // FORMAT 2.3: a version byte and the children.
        let mut bytes = vec![0x12];
        rmp_serde::encode::write(&mut bytes, children).expect("a Vec takes every write");
        self.add(bytes)
    }

    /// Forgets a chunk.
    pub(crate) fn lose_chunk(&mut self, chunk: &ChunkRef) {
        self.chunks.remove(&chunk.id);
    }

    /// Forgets the chunks of `content`.
    pub(crate) fn lose(&mut self, content: &[u8]) {
        for chunk in self.cut(content) {
            self.chunks.remove(&chunk.id);
        }
    }

    /// Returns how many chunks of artifacts were read since the last call.
    pub(crate) fn content_reads(&self) -> u64 {
        self.content_reads.swap(0, Ordering::Relaxed)
    }
}

impl ChunkSource for MemorySource {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(self)
    }
}

impl ChunkReader for &MemorySource {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        let bytes = self.chunks.get(&chunk.id).ok_or(SourceError::Unknown(chunk.id))?;
        if self.content.contains(&chunk.id) {
            self.content_reads.fetch_add(1, Ordering::Relaxed);
        }
        out.extend_from_slice(bytes);
        Ok(())
    }
}
