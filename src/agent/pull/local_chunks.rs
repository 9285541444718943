//! The chunks that a pull need not fetch: those of the directory, and those fetched before.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::fetched_chunks::{FetchedChunks, FetchedReader};
use super::mark::Placed;
use crate::agent::scan::{self, Holder, Scan};
use crate::restore::{ChunkReader, ChunkSource, SourceError};
use format::manifest::{Item, NodeRef, Root, SegmentIndex, SegmentName, decode_segment};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ReleaseId, ShortId};
use ground::monitor::Monitor;

/// Chunks of the directory held in memory: some 130 MB. Further ones are fetched again, which costs bytes only.
const CHUNKS_MAX: usize = 2 * 1024 * 1024;

/// The chunks and segments of a directory's present content.
#[derive(Debug, Default)]
pub struct DirectoryChunks {
    files: Vec<(Arc<Path>, Holder)>,
    /// By short id; one of two that share it.
    chunks: HashMap<ShortId, PresentChunk>,
    segments: HashMap<SegmentName, (NodeRef, Vec<u8>)>,
    /// The nodes between the segments and the root.
    nodes: HashMap<ChunkId, Vec<u8>>,
    /// The root of the directory's manifest, and its segments in order.
    root: Option<(Root, Vec<NodeRef>)>,
}

/// A chunk of a file of the directory.
#[derive(Debug)]
struct PresentChunk {
    chunk: ChunkRef,
    file: u32,
    offset: u64,
}

impl DirectoryChunks {
    /// Takes the chunks and segments that a scan of the directory found.
    ///
    /// # Errors
    /// The scan's temporary file cannot be read.
    pub fn of(scan: &Scan) -> Result<Self, scan::Error> {
        let mut present = Self::default();
        for (index, node) in SegmentIndex::enumerate(&scan.segments) {
            for located in scan.spool.chunks(index)? {
                present.push(&located.path, &located.holder, located.offset, located.chunk);
            }
            present.segments.insert(node.name(), (*node, scan.spool.segment(index)?));
        }
        present.end(scan.root.clone(), scan.segments.clone());
        Ok(present)
    }

    /// Takes the chunks and segments that a mark says to be in the directory at `place`, which is as the mark says. Reads no file of
    /// it. Returns none where the mark does not say, as archives were put there whose chunks are of what they hold.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub(super) fn of_mark(placed: &Placed, place: &Path) -> Result<Option<Self>, crate::agent::Error> {
        let Some(root) = &placed.root else { return Ok(None) };
        let (mut present, mut nodes) = (Self::default(), Vec::new());
        let (mut path, mut offset) = (Arc::from(place), 0);
        for part in placed.parts()? {
            let (segment, _) = part?;
            for item in decode_segment(&segment)? {
                match item {
                    Item::File { recipe, .. } if recipe.container().is_some() => return Ok(None),
                    Item::File { path: entry, .. } => {
                        path = place.join(OsStr::from_bytes(entry.as_bytes())).into();
                        offset = 0;
                    }
                    Item::Chunk(chunk) => {
                        present.push(&path, &Holder::File, offset, chunk);
                        offset += u64::from(chunk.bytes);
                    }
                    _ => {}
                }
            }
            let node = NodeRef {
                id: ChunkId::of(&segment),
                bytes: u32::try_from(segment.len()).unwrap_or(u32::MAX),
            };
            nodes.push(node);
            present.segments.insert(node.name(), (node, segment));
        }
        present.end(root.clone(), nodes);
        Ok(present.root.is_some().then_some(present))
    }

    /// Adds a chunk of a file.
    fn push(&mut self, path: &Arc<Path>, holder: &Holder, offset: u64, chunk: ChunkRef) {
        if self.files.last().is_none_or(|(last, held)| !Arc::ptr_eq(last, path) || held != holder) {
            self.files.push((Arc::clone(path), holder.clone()));
        }
        if self.chunks.len() < CHUNKS_MAX {
            let file = u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX);
            let short = ShortId::from(chunk.id);
            self.chunks.entry(short).or_insert(PresentChunk { chunk, file, offset });
        }
    }

    /// Adds the root and the nodes below it, unless it is not the one above these segments.
    fn end(&mut self, root: Root, segments: Vec<NodeRef>) {
        let mut nodes = HashMap::new();
        let rebuilt = root.over(segments.clone(), |node| drop(nodes.insert(node.node.id, node.bytes)));
        if rebuilt.is_ok_and(|rebuilt| rebuilt == root) {
            (self.nodes, self.root) = (nodes, Some((root, segments)));
        }
    }

    /// Takes what a scan found; nothing where it failed, which only costs bytes.
    pub fn found(scan: Result<Scan, scan::Error>, monitor: &dyn Monitor) -> Self {
        scan.and_then(|scan| Self::of(&scan)).unwrap_or_else(|error| {
            monitor.note(&format!("{error}; its content is fetched again"));
            Self::default()
        })
    }

    /// Returns the segment of that name, if the directory's manifest has it.
    pub fn segment(&self, name: SegmentName) -> Option<&(NodeRef, Vec<u8>)> {
        self.segments.get(&name)
    }

    /// Returns whether some file of the directory has the chunk.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.find_short((*id).into()).is_some_and(|chunk| chunk.id == *id)
    }

    /// Returns the chunk of some file of the directory whose id begins so.
    pub fn find_short(&self, short: ShortId) -> Option<ChunkRef> {
        self.chunks.get(&short).map(|present| present.chunk)
    }

    /// Returns the release that the directory holds.
    pub fn release(&self) -> Option<ReleaseId> {
        self.root.as_ref().map(|(root, _)| root.release())
    }

    /// Returns the root of the directory's manifest.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref().map(|(root, _)| root)
    }

    /// Returns its segments, in order; none where there is no release.
    pub fn release_segments(&self) -> &[NodeRef] {
        self.root.as_ref().map_or(&[], |(_, segments)| segments)
    }

    /// Returns the bytes of a segment or node, if the directory's manifest has it.
    pub fn part_bytes(&self, part: &ChunkRef) -> Option<&[u8]> {
        let segment = self.segment(part.id.into()).filter(|(node, _)| node.id == part.id);
        segment.map(|(_, bytes)| bytes).or_else(|| self.nodes.get(&part.id)).map(Vec::as_slice)
    }
}

/// The present content of a directory, read when it is needed.
pub struct Present {
    /// The root of the directory's manifest.
    root: Option<ChunkId>,
    read: Box<dyn Fn() -> DirectoryChunks + Send + Sync>,
    chunks: OnceLock<DirectoryChunks>,
}

impl Present {
    /// Creates the content of a directory that holds the release with this root; `read` reads all of it.
    pub fn unread(root: ChunkId, read: impl Fn() -> DirectoryChunks + Send + Sync + 'static) -> Self {
        Self { root: Some(root), read: Box::new(read), chunks: OnceLock::new() }
    }

    /// Returns the root of the directory's manifest.
    pub fn root(&self) -> Option<ChunkId> {
        self.root
    }

    /// Returns the chunks; reads the directory at the first call.
    pub fn chunks(&self) -> &DirectoryChunks {
        self.chunks.get_or_init(&self.read)
    }
}

impl From<DirectoryChunks> for Present {
    fn from(chunks: DirectoryChunks) -> Self {
        let root = chunks.root().map(Root::id);
        Self { root, read: Box::new(DirectoryChunks::default), chunks: chunks.into() }
    }
}

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Present").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Reads chunks from the directory if it still has them, else from those fetched.
#[derive(Debug)]
pub struct LocalChunks<'a> {
    /// The directory's content.
    pub present: &'a DirectoryChunks,
    /// Fetched chunks.
    pub fetched: &'a FetchedChunks,
}

impl ChunkSource for LocalChunks<'_> {
    fn reader(&self) -> Box<dyn ChunkReader + '_> {
        Box::new(LocalReader::of(self))
    }
}

/// Reads chunks of the directory, and those fetched.
pub(super) struct LocalReader<'a> {
    present: &'a DirectoryChunks,
    fetched: FetchedReader<'a>,
    open: Option<(u32, File)>,
}

impl ChunkReader for LocalReader<'_> {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if let Some(bytes) = self.present.part_bytes(chunk) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let begin = out.len();
        if self.read_present(chunk, out).is_some() {
            return Ok(());
        }
        out.truncate(begin);
        self.fetched.read(chunk, out)
    }
}

impl<'a> LocalReader<'a> {
    /// Begins to read.
    pub fn of(chunks: &LocalChunks<'a>) -> Self {
        Self { present: chunks.present, fetched: chunks.fetched.reader(), open: None }
    }

    /// Appends the chunk if the directory's file still holds it.
    fn read_present(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Option<()> {
        let PresentChunk { chunk: present, file: number, offset } =
            self.present.chunks.get(&chunk.id.into())?;
        if present.id != chunk.id {
            return None;
        }
        let (path, holder) = self.present.files.get(*number as usize)?;
        let file = match holder {
            Holder::Unread | Holder::Member { .. } | Holder::Stored(_) => return None,
            Holder::Streams(streams) => streams.file(),
            Holder::File => {
                if self.open.as_ref().is_none_or(|(open, _)| open != number) {
                    self.open = Some((*number, File::open(path).ok()?));
                }
                &self.open.as_ref()?.1
            }
        };
        let begin = out.len();
        out.resize(begin + chunk.bytes as usize, 0);
        file.read_exact_at(&mut out[begin..], *offset).ok()?;
        (ChunkId::of(&out[begin..]) == chunk.id).then_some(())
    }
}
