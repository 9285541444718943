//! Unpacks archives.
//!
//! The planner unpacks only streams that it has reproduced and compared; the proxy then proves the whole archive. An archive
//! without such streams, beyond a bound, or without gain is chunked as it is. The unpacked stream of another goes to a
//! temporary file without a name, from which its chunks are read again.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::section::{FileSection, OffsetWriter};
use crate::agent::pace::{History, Pace};
use disk::files::{self, OnPath};
use disk::mmap::Mapping;
use format::chunking::Profile;
use format::recipe::{ChunkRef, Container, ContentHasher};
use ground::ids::{ArtifactId, ChunkId, ContentId};
use ground::limits::{ROOM_RESERVE_BYTES, STREAM_CHUNKS_MAX};
use recode::archive::{self, HEAD_BYTES_MAX, begins_archive};
use recode::archive::{
    LeftPacked, Limits, Part, Parts, Piece, Plan, Planner, Scratch, Take, encode_head, unpack,
};
use recode::codec::Permits;

/// 16 KiB: a smaller archive is one chunk or two.
const ARCHIVE_BYTES_MIN: u64 = 16 * 1024;
/// 2 GiB: a larger archive is chunked as it is.
const ARCHIVE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// 32 MiB: a larger archive is copied and mapped, as the file itself may shrink meanwhile.
const MEMORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// 16 MiB: a larger nested archive is mapped from a temporary file.
const NESTED_MEMORY_MAX: u64 = 16 * 1024 * 1024;
/// A hundredth of an archive must be streams that can be reproduced.
const SHARE_MIN: u64 = 100;
/// 16 GiB: streams of one scan.
const STREAMS_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// 64 KiB: bytes written or compared at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where archives are unpacked in one scan, and how many bytes they may take: what is free there, but for a reserve. Archives
/// beyond that are chunked as they are.
#[derive(Debug)]
pub struct Archives {
    folder: PathBuf,
    bytes_left: AtomicU64,
    /// Set once an archive stayed as it is for lack of room.
    lacked_room: AtomicBool,
    turns: Arc<Permits>,
    pace: Option<(Pace, History)>,
    stopping: Arc<AtomicBool>,
}

impl Archives {
    /// Temporary files go to `folder`, which exists.
    pub fn new(folder: PathBuf) -> Self {
        Self::leaving(folder, ROOM_RESERVE_BYTES)
    }

    /// Temporary files go to `folder`, which exists, and leave `reserve_bytes` of its file system free.
    pub fn leaving(folder: PathBuf, reserve_bytes: u64) -> Self {
        // Where it cannot be known, creating a file there says why.
        let free = files::free_bytes(&folder).unwrap_or(u64::MAX).saturating_sub(reserve_bytes);
        Self::within(folder, free.min(STREAMS_BYTES_MAX))
    }

    /// Temporary files take at most `bytes` of `folder`.
    fn within(folder: PathBuf, bytes: u64) -> Self {
        Self {
            folder,
            bytes_left: AtomicU64::new(bytes),
            lacked_room: AtomicBool::new(false),
            turns: Arc::default(),
            pace: None,
            stopping: Arc::default(),
        }
    }

    /// Unpacks only archives for which the pace says so.
    #[must_use]
    pub fn paced(self, pace: Pace, history: History) -> Self {
        Self { pace: Some((pace, history)), ..self }
    }

    /// Leaves what is not unpacked yet as it is once `stopping` is set.
    #[must_use]
    pub fn stopped_by(self, stopping: &Arc<AtomicBool>) -> Self {
        Self { stopping: Arc::clone(stopping), ..self }
    }

    /// Takes bytes of what is left, until they are given back; none where so many are not left.
    fn reserve(&self, bytes: u64) -> Option<Reserved<'_>> {
        let spend = |left: u64| left.checked_sub(bytes);
        let spent = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        self.lacked_room.fetch_or(spent.is_err(), Ordering::Relaxed);
        spent.ok().map(|_| Reserved { archives: self, bytes })
    }

    /// Returns whether an archive stayed as it is for lack of room.
    pub fn lacked_room(&self) -> bool {
        self.lacked_room.load(Ordering::Relaxed)
    }

    fn create(&self) -> files::Result<File> {
        tempfile::tempfile_in(&self.folder).on("create a temporary file in", &self.folder)
    }
}

/// Bytes that temporary files take; given back when it is dropped.
struct Reserved<'a> {
    archives: &'a Archives,
    bytes: u64,
}

impl Reserved<'_> {
    /// Takes them to the end of the scan.
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.archives.bytes_left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Streams of archives that were unpacked, one after the other in one file.
#[derive(Debug, Clone)]
pub struct Streams(Arc<File>);

impl PartialEq for Streams {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Streams {}

impl Hash for Streams {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Streams {
    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// Returns the file, for as long as it is needed.
    pub fn shared(&self) -> Arc<File> {
        Arc::clone(&self.0)
    }
}

/// An archive's recipe, and where its stream is.
#[derive(Debug, Clone)]
pub(super) struct UnpackedArchive {
    pub container: Container,
    pub streams: Streams,
    /// Where the stream begins.
    pub begin: u64,
    /// Where each of its parts ends, counted from there.
    pub part_ends: Arc<[u64]>,
    /// Counts what stays packed of it.
    pub left_packed: LeftPacked,
}

/// Unpacks archives on one worker's thread.
pub(super) struct Unpacker<'a> {
    archives: &'a Archives,
    planner: Planner,
    streams: Option<(Streams, u64)>,
}

impl<'a> Unpacker<'a> {
    /// Creates one that examines archives of many members with `threads` threads.
    pub fn new(archives: &'a Archives, threads: usize) -> Self {
        let planner = Planner::new(threads, Arc::clone(&archives.turns)).stopped_by(&archives.stopping);
        Self { archives, planner, streams: None }
    }

    /// Unpacks `file` of `size` bytes, which looks like an archive, if it can be rebuilt; returns its recipe and chunks.
    ///
    /// Memory: 32 MiB for the archive, 16 MiB for each level of what is nested in it; pages of what is larger;
    /// for xz and zstd what [`Permits`] allow. Time: two times what encoding it takes.
    pub fn take(
        &mut self,
        file: &File,
        path: &Path,
        size: u64,
        profile: Profile,
        buffer: &mut Vec<u8>,
    ) -> files::Result<Option<(UnpackedArchive, Vec<ChunkRef>)>> {
        if self.archives.pace.as_ref().is_some_and(|(pace, history)| !pace.unpacks(size, *history)) {
            return Ok(None);
        }
        if size <= MEMORY_BYTES_MAX {
            let mut archive = vec![0; usize::try_from(size).expect("at most 32 MiB")];
            if file.read_exact_at(&mut archive, 0).is_err() {
                // It has changed: whoever reads it next reports that.
                return Ok(None);
            }
            return self.take_bytes(&archive, profile, buffer);
        }
        let Some(_copy_room) = self.archives.reserve(size) else { return Ok(None) };
        let copy = self.archives.create()?;
        let folder = &self.archives.folder;
        let copied =
            io::copy(&mut FileSection::new(file, 0, size), &mut &copy).on("copy an archive to", folder)?;
        if copied != size {
            return Ok(None);
        }
        let archive = Mapping::of_own(&copy, path)?;
        let length = usize::try_from(size).expect("at most 2 GiB");
        self.take_bytes(archive.range(0, length).on("read", path)?, profile, buffer)
    }

    fn take_bytes(
        &mut self,
        archive: &[u8],
        profile: Profile,
        buffer: &mut Vec<u8>,
    ) -> files::Result<Option<(UnpackedArchive, Vec<ChunkRef>)>> {
        let plan = self.planner.plan(archive, &Limits::default(), &mut Nested(self.archives));
        if !is_worth_it(&plan) || self.archives.stopping.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let head = encode_head(&plan);
        let lengths = Lengths::of(&plan, head.len() as u64);
        let artifact = ArtifactId::of(archive);
        let content = Some(content_of(archive, profile, buffer));
        let container = Container { stream_bytes: lengths.all(), artifact, content };
        let bounded = head.len() <= HEAD_BYTES_MAX && container.is_bounded(archive.len() as u64);
        if !bounded {
            return Ok(None);
        }
        let Some(room) = self.archives.reserve(lengths.all()) else { return Ok(None) };
        let folder = &self.archives.folder;
        let (streams, begin) = match &self.streams {
            Some((streams, end)) => (streams.clone(), *end),
            None => (Streams(Arc::new(self.archives.create()?)), 0),
        };
        write_stream(&plan, archive, &head, &lengths, streams.file(), begin).on("write to", folder)?;
        let parts = Parts::of(&plan, lengths.head);
        let chunks = cut(&parts, streams.file(), begin, profile, buffer).on("read in", folder)?;
        if chunks.len() as u64 > STREAM_CHUNKS_MAX {
            return Ok(None);
        }
        room.keep();
        self.streams = Some((streams.clone(), begin + lengths.all()));
        let part_ends = parts.lengths().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let (part_ends, left_packed) = (part_ends.collect(), self.planner.left_packed());
        Ok(Some((UnpackedArchive { container, streams, begin, part_ends, left_packed }, chunks)))
    }
}

/// Holds nested archives: in memory while small, else in a mapped temporary file.
struct Nested<'a>(&'a Archives);

/// A nested archive.
enum Held<'a> {
    Memory(Vec<u8>),
    Mapped(Mapping, usize, #[expect(dead_code, reason = "it is given back with the file")] Reserved<'a>),
}

impl AsRef<[u8]> for Held<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            // What the disk does not give is no archive.
            Self::Mapped(map, length, _) => map.range(0, *length).unwrap_or_default(),
        }
    }
}

impl<'a> Scratch for Nested<'a> {
    type Held = Held<'a>;

    fn hold(
        &mut self,
        bytes: u64,
        fill: &mut dyn FnMut(&mut Take<'_>) -> io::Result<()>,
    ) -> Option<Held<'a>> {
        if bytes <= NESTED_MEMORY_MAX {
            return archive::Memory.hold(bytes, fill).map(Held::Memory);
        }
        let room = self.0.reserve(bytes)?;
        let file = self.0.create().ok()?;
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, &file);
        fill(&mut |piece| writer.write_all(piece)).and_then(|()| writer.flush()).ok()?;
        drop(writer);
        let map = Mapping::of_own(&file, &self.0.folder).ok()?;
        Some(Held::Mapped(map, usize::try_from(bytes).ok()?, room))
    }
}

/// Lengths of a stream's head, framing and content.
struct Lengths {
    head: u64,
    framing: u64,
    content: u64,
}

impl Lengths {
    fn of(plan: &Plan, head: u64) -> Self {
        Self { head, framing: plan.framing_bytes(), content: plan.contents().iter().sum() }
    }

    fn all(&self) -> u64 {
        self.head + self.framing + self.content
    }
}

/// Returns whether a file of `size` bytes looks like an archive. Whoever reads the same bytes finds the same: it is part of the
/// release's name (FORMAT 2.6).
pub(super) fn may_be_archive(file: &File, size: u64) -> io::Result<bool> {
    if !(ARCHIVE_BYTES_MIN..=ARCHIVE_BYTES_MAX).contains(&size) {
        return Ok(false);
    }
    let (mut first, mut last) = ([0; 512], [0; 1024]);
    let read = file.read_exact_at(&mut first, 0).and_then(|()| file.read_exact_at(&mut last, size - 1024));
    match read {
        // It has changed: whoever reads it next reports that.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(begins_archive(&first) || last.windows(4).any(|bytes| bytes == b"PK\x05\x06")),
    }
}

/// Names the content of the archive as it is.
fn content_of(archive: &[u8], profile: Profile, buffer: &mut Vec<u8>) -> ContentId {
    let mut content = ContentHasher::default();
    let cut = profile.cut_all::<io::Error>(archive, buffer, |bytes| {
        content.push(&ChunkRef::of(bytes));
        Ok(())
    });
    cut.expect("a slice can be read");
    content.finish()
}

fn is_worth_it(plan: &Plan) -> bool {
    let packed = |piece: &Piece| if let Piece::Packed { packed, .. } = piece { *packed } else { 0 };
    let packed: u64 = plan.pieces().iter().map(packed).sum();
    packed > 0 && packed >= plan.bytes() / SHARE_MIN
}

fn write_stream(
    plan: &Plan,
    archive: &[u8],
    head: &[u8],
    lengths: &Lengths,
    streams: &File,
    begin: u64,
) -> io::Result<()> {
    streams.write_all_at(head, begin)?;
    let writer = |offset| BufWriter::with_capacity(BUFFER_BYTES, OffsetWriter { file: streams, offset });
    let mut framing = writer(begin + lengths.head);
    let mut content = writer(begin + lengths.head + lengths.framing);
    unpack(plan, archive, &mut |part| match part {
        Part::Framing(bytes) => framing.write_all(bytes),
        Part::Content(bytes) => content.write_all(bytes),
        Part::End => Ok(()),
    })?;
    framing.flush()?;
    content.flush()
}

/// Cuts the stream into chunks; each of its parts begins with a chunk of its own.
fn cut(
    parts: &Parts,
    streams: &File,
    begin: u64,
    profile: Profile,
    buffer: &mut Vec<u8>,
) -> io::Result<Vec<ChunkRef>> {
    let (mut chunks, mut offset) = (Vec::new(), begin);
    for length in parts.lengths() {
        profile.cut_all::<io::Error>(FileSection::new(streams, offset, length), buffer, |bytes| {
            let length = u32::try_from(bytes.len()).expect("chunks are at most 64 KiB");
            chunks.push(ChunkRef { id: ChunkId::of(bytes), bytes: length });
            Ok(())
        })?;
        offset += length;
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use recode::deflate::{Encoder, Method};

    use super::super::{Reader, Scan, Selection};
    use super::*;
    use ground::monitor::Silent;

    #[test]
    fn an_archive_beyond_the_room_that_is_left_is_chunked_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text: String = (0..2000_u32).map(|n| blake3::hash(&n.to_le_bytes()).to_string()).collect();
        let (mut encoder, mut file) =
            (Encoder::new(&Method::STOCK), vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        encoder.write(text.as_bytes(), &mut file);
        encoder.finish(&mut file);
        file.extend([0; 8]);
        let top = folder.path().join("a.gz");
        std::fs::write(&top, file).expect("written");
        let scan = |archives: Option<&Archives>| -> Scan {
            let selection = Selection::default();
            let reader = Reader {
                selection: &selection,
                profile: Profile::DEFAULT,
                threads: 1,
                memory: None,
                archives,
                on_segment: None,
                monitor: &Silent,
            };
            reader.scan(&top).expect("a scan")
        };
        let within = |bytes| Archives::within(folder.path().to_owned(), bytes);
        let packed = scan(None).root;
        assert_eq!(scan(Some(&within(text.len() as u64))).root, packed);
        assert_ne!(scan(Some(&within(2 * text.len() as u64))).root, packed);
        // Nothing is left on a full disk.
        assert_eq!(scan(Some(&Archives::leaving(folder.path().to_owned(), u64::MAX))).root, packed);
    }

    #[test]
    fn room_is_given_back_unless_it_is_kept() {
        let archives = Archives::within(std::env::temp_dir(), 10);
        let some = archives.reserve(6).expect("there is room");
        assert!(archives.reserve(5).is_none());
        drop(some);
        archives.reserve(6).expect("there is room").keep();
        assert!(archives.reserve(5).is_none() && archives.reserve(4).is_some());
    }
}
