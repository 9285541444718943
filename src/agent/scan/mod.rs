//! Reads a directory or file on a build host and makes its manifest.
//!
//! A walker lists the entries in the manifest's order, workers read, cut and hash the files, a
//! collector puts the results back in order. The manifest goes to a [`Spool`], so that memory stays
//! bounded whatever the input's size. A file that looks as it did at the last push is not read: the
//! walker takes its chunks from the [`Memory`], whose files come in the same order.

mod archive_stream;
mod archives;
mod dropped;
mod entries;
mod error;
mod hasher;
mod lister;
mod located;
mod names;
mod nested;
mod refused;
mod section;
mod selection;
mod sparse;
mod spool;
mod stored;
#[cfg(test)]
mod tests;
mod unpack;
mod walk;

pub use archives::Archives;
pub use dropped::Dropped;
pub use error::Error;
pub use located::{Body, Holder, LastOpened, Located, Stored};
pub use refused::RefusedLinks;
pub use selection::{Links, Selection};
pub use spool::Spool;
pub use stored::{StoredScan, list_stored};

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use serde::Serialize;

use self::unpack::UnpackedArchive;
use super::memory::{self, Key, Memory, Stat, Stats, WriteOptions};
use disk::files::OnPath;
use format::chunking::Profile;
use format::manifest::{self, Builder, EntryPath, Item, NodeRef, Root, Shape};
use format::recipe::{ChunkRef, Recipe};
use ground::monitor::{Monitor, Phase};
use ground::threads;

/// A scanned tree or file: its root, its segments, and where each chunk can be read again.
#[derive(Debug)]
pub struct Scan {
    /// The manifest's root.
    pub root: Root,
    /// Its segments, in order.
    pub segments: Vec<NodeRef>,
    /// The segments' bytes.
    pub spool: Spool,
    /// The files' stats, for a memory.
    pub seen: Seen,
    /// Counts the archives that were unpacked.
    pub unpacked: Unpacked,
    /// Counts what the release does not keep of the tree.
    pub dropped: Vec<Dropped>,
}

/// Counts the archives of a release that are unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Unpacked {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Streams that stay packed, as no method reproduces them; only of archives that were read.
    pub packed_streams: u64,
    /// Bytes of these streams.
    pub packed_bytes: u64,
}

/// How the files looked.
#[derive(Debug)]
pub struct Seen {
    /// The path that was scanned, absolute.
    pub source: PathBuf,
    /// When the scan began, in nanoseconds since 1970.
    pub began: i64,
    /// Each file's stat, in the manifest's order.
    pub stats: Stats,
    /// The number of files that were not read, as they look as remembered.
    pub remembered: u64,
    /// The number of the remembered push, if nothing has changed since.
    pub same_as: Option<u64>,
}

impl Seen {
    /// Writes the memory of a push that the proxy has confirmed under `sequence`, unless it equals the one that the scan had.
    ///
    /// # Errors
    /// The memory cannot be written; an earlier one is then still there.
    pub fn remember(
        mut self,
        state: &Path,
        key: &Key,
        sequence: u64,
        (root, segments): (&Root, &[NodeRef]),
        spool: &Spool,
    ) -> memory::Result<()> {
        if self.same_as == Some(sequence) {
            return Ok(());
        }
        let confirmed =
            memory::Confirmed { sequence, root, segments, source: &self.source, began: self.began };
        let segment = |index| spool.segment(index);
        memory::write(state, key, &confirmed, segment, &mut self.stats, &WriteOptions::default())
    }
}

/// A part of what is found in one file.
enum Part {
    /// It was unpacked; comes first.
    UnpackedArchive(UnpackedArchive),
    /// It is an archive that stays as it is; comes first.
    PackedArchive,
    /// Its next chunks.
    Chunks(Vec<ChunkRef>),
}

/// One file's parts as they are found; an error ends them.
type Parts = Receiver<Result<Part, Error>>;

/// An entry in the manifest's order, with its parts still to come where it is a file.
enum Listed {
    Entry(Item),
    File {
        path: EntryPath,
        mode: u16,
        size: u64,
        stat: Stat,
        parts: Parts,
    },
    /// A file that is not read; all its chunks follow.
    Remembered(Item, Stat),
    Chunks(Vec<ChunkRef>),
}

/// Batches of entries listed ahead of the file whose chunks are being collected.
const BATCHES_AHEAD: usize = 16;

/// Scans `path` with `threads` workers, without a memory, archives as they are.
///
/// # Errors
/// As [`Reader::scan`].
#[cfg(feature = "testing")]
pub fn scan(
    path: &Path,
    selection: &Selection,
    profile: Profile,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Scan, Error> {
    Reader { selection, profile, threads, memory: None, archives: None, on_segment: None, monitor }.scan(path)
}

/// A segment that a scan has just ended, and where its chunks can be read.
#[derive(Debug)]
pub struct EndedSegment {
    /// Its id and length.
    pub node: NodeRef,
    /// The scan's spool.
    pub spool: Spool,
    /// Whether the input is a tree or a file.
    pub shape: Shape,
}

/// How a path is scanned.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Selects the part of a tree that is scanned.
    pub selection: &'a Selection,
    /// How content is cut.
    pub profile: Profile,
    /// Workers.
    pub threads: usize,
    /// The memory of the last push: files that look the same are not read.
    pub memory: Option<&'a Memory>,
    /// Where archives are unpacked; none to keep them as they are.
    pub archives: Option<&'a Archives>,
    /// Called with each segment as it ends; not with a memory, which may turn out to be wrong.
    pub on_segment: Option<&'a dyn Fn(EndedSegment)>,
    /// Shows progress.
    pub monitor: &'a dyn Monitor,
}

impl Reader<'_> {
    /// Scans `path`, a directory or a file. Memory: some MB and 44 B for each segment.
    ///
    /// The result is the same with a memory, unless a file got back its size, times and inode after a change. A memory that
    /// turns out to be damaged is not used.
    ///
    /// # Errors
    /// The first of [`Error`]; one [`Error::is_passing`] is worth a second scan.
    pub fn scan(&self, path: &Path) -> Result<Scan, Error> {
        match scan_once(self, path) {
            // Either the tree or the memory is to blame.
            Err(Error::Manifest(_)) if self.memory.is_some() => {
                scan_once(&Self { memory: None, ..*self }, path)
            }
            result => result,
        }
    }
}

fn scan_once(reader: &Reader<'_>, path: &Path) -> Result<Scan, Error> {
    let &Reader { selection, profile, threads, memory, archives, on_segment, monitor } = reader;
    monitor.begin(Phase::Scan, None);
    let began = memory::now();
    let top = walk::Top::of(path)?;
    let source = std::path::absolute(path).on("find", path)?;
    let recall = memory.map(Memory::recall).filter(|recall| recall.fits(&source, profile));
    let mut builder = Builder::new(profile);
    builder.folder_mode(top.mode);
    let mut collector = Collector {
        builder,
        spool: Spool::new(top.base.clone()),
        seen: Seen { source, began, stats: Stats::new(), remembered: 0, same_as: None },
        file: None,
        unpacked: Unpacked::default(),
        checker: manifest::Reader::new(),
        shape: top.shape,
        on_segment: on_segment.filter(|_| memory.is_none()),
    };
    let listing = std::thread::scope(|scope| {
        let (listed_in, listed) = sync_channel(BATCHES_AHEAD);
        let pool = hasher::Pool::start(scope, profile, threads.max(1), archives, monitor)?;
        let lister = lister::Lister::new(pool, recall, archives.is_some(), listed_in, monitor);
        let walker = threads::start(scope, || walk::list(&top, selection, lister))?;
        let collected = collector.collect(&listed);
        // The walker stops when nobody listens; its own error comes first, being the cause.
        drop(listed);
        let listing = walker.join().expect("the walker does not panic")?;
        collected.map(|()| listing)
    })?;
    let mut scan = collector.finish(listing.dropped)?;
    let totals = scan.root.totals;
    if totals.files + totals.symlinks == 0 && selection.needs_files {
        let path = path.to_owned();
        return Err(match listing.left_out {
            Some((first, pattern)) => Error::LeftOut { path, pattern, first },
            None => Error::Empty(path),
        });
    }
    let same = |memory: &&Memory| {
        scan.seen.remembered == scan.root.totals.files && memory.release() == scan.root.release()
    };
    scan.seen.same_as = memory.filter(same).map(Memory::sequence);
    Ok(scan)
}

struct Collector<'a> {
    builder: Builder,
    spool: Spool,
    seen: Seen,
    /// The file whose chunks come next, and the offset of the next.
    file: Option<(EntryPath, u64)>,
    unpacked: Unpacked,
    checker: manifest::Reader,
    shape: Shape,
    on_segment: Option<&'a dyn Fn(EndedSegment)>,
}

impl Collector<'_> {
    fn collect(&mut self, listed: &Receiver<Vec<Listed>>) -> Result<(), Error> {
        while let Ok(batch) = listed.recv() {
            batch.into_iter().try_for_each(|entry| self.entry(entry))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: Listed) -> Result<(), Error> {
        match entry {
            Listed::Entry(item) => {
                self.file = None;
                self.push(&item)
            }
            Listed::File { path, mode, size, stat, parts } => {
                let first = parts.recv().ok().transpose()?;
                let (recipe, chunks) = match first {
                    Some(Part::UnpackedArchive(unpacked)) => {
                        self.unpacked.packed_streams += unpacked.left_packed.streams;
                        self.unpacked.packed_bytes += unpacked.left_packed.bytes;
                        let recipe = Recipe::Container(unpacked.container);
                        self.spool.unpacked(&path, unpacked);
                        (recipe, Vec::new())
                    }
                    Some(Part::PackedArchive) => (Recipe::Packed, Vec::new()),
                    Some(Part::Chunks(chunks)) => (Recipe::Chunks, chunks),
                    None => (Recipe::Chunks, Vec::new()),
                };
                self.begin_file(&Item::File { path, mode, size, recipe }, &stat)?;
                self.chunks(chunks)?;
                parts.iter().try_for_each(|part| match part? {
                    Part::Chunks(chunks) => self.chunks(chunks),
                    Part::UnpackedArchive(_) | Part::PackedArchive => unreachable!("it comes first"),
                })
            }
            Listed::Remembered(item, stat) => {
                self.seen.remembered += 1;
                self.begin_file(&item, &stat)
            }
            Listed::Chunks(chunks) => self.chunks(chunks),
        }
    }

    fn begin_file(&mut self, item: &Item, stat: &Stat) -> Result<(), Error> {
        self.file = None;
        self.push(item)?;
        if let Item::File { path, size, recipe, .. } = item {
            self.file = Some((path.clone(), 0));
            if recipe.container().is_some() {
                self.unpacked.files += 1;
                self.unpacked.bytes += size;
            }
        }
        Ok(self.seen.stats.push(stat)?)
    }

    fn chunks(&mut self, chunks: Vec<ChunkRef>) -> Result<(), Error> {
        chunks.into_iter().try_for_each(|chunk| self.push(&Item::Chunk(chunk)))
    }

    /// Adds an item; the place of the next chunk is known before its segment may end.
    fn push(&mut self, item: &Item) -> Result<(), Error> {
        let segment = self.builder.push(item);
        self.spool.item(item, self.file.as_ref().map(|(path, offset)| (path, *offset)));
        if let (Item::Chunk(chunk), Some((_, offset))) = (item, &mut self.file) {
            *offset += u64::from(chunk.bytes);
        }
        match segment {
            Some(segment) => self.end_segment(&segment),
            None => Ok(()),
        }
    }

    fn end_segment(&mut self, segment: &manifest::Segment) -> Result<(), Error> {
        // What the proxy would refuse is refused here, where the path can still be named.
        self.checker.segment(&segment.bytes)?;
        self.spool.end_segment(&segment.bytes)?;
        if let Some(announce) = self.on_segment {
            announce(EndedSegment { node: segment.node, spool: self.spool.clone(), shape: self.shape });
        }
        Ok(())
    }

    fn finish(mut self, dropped: Vec<Dropped>) -> Result<Scan, Error> {
        let builder = std::mem::replace(&mut self.builder, Builder::new(Profile::DEFAULT));
        let (last, root, segments) = builder.finish(self.shape)?;
        if let Some(segment) = last {
            self.end_segment(&segment)?;
        }
        std::mem::take(&mut self.checker).finish(&root)?;
        Ok(Scan { root, segments, spool: self.spool, seen: self.seen, unpacked: self.unpacked, dropped })
    }
}

/// Returns the path of an entry below `base`, on this machine.
pub fn path_below(base: &Path, entry: &EntryPath) -> PathBuf {
    base.join(std::ffi::OsStr::from_bytes(entry.as_bytes()))
}
