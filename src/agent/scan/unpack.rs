//! Unpacks archives.
//!
//! The planner unpacks only streams that it has reproduced and compared; the proxy then proves the whole archive. An archive
//! without such streams, beyond a bound, or without gain is chunked as it is. The unpacked stream of another goes to a
//! temporary file without a name, from which its chunks are read again.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::archive_stream::{KnownMembers, Lengths, StreamPart, cut, write_stream};
use super::archives::Archives;
use super::nested::Nested;
use super::section::FileSection;
use crate::agent::memory::{KnownMember, StreamMemory, UnpackedStream};
use disk::files::{self, OnPath};
use disk::mmap::Mapping;
use format::chunking::Profile;
use format::recipe::{ChunkRef, Container, ContentHasher};
use ground::ids::{ArtifactId, ContentId};
use ground::limits::STREAM_CHUNKS_MAX;
use recode::archive::{HEAD_BYTES_MAX, LeftPacked, Limits, Parts, Piece, Plan, Planner};
use recode::archive::{KnownStreams, StreamName, begins_archive, encode_head};

/// 16 KiB: a smaller archive is one chunk or two.
const ARCHIVE_BYTES_MIN: u64 = 16 * 1024;
/// 2 GiB: a larger archive is chunked as it is.
const ARCHIVE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// 32 MiB: a larger archive is copied and mapped, as the file itself may shrink meanwhile.
const MEMORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A hundredth of an archive must be streams that can be reproduced.
const SHARE_MIN: u64 = 100;

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
    /// Its parts.
    pub parts: Arc<[StreamPart]>,
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
        Self { archives, planner: archives.planner(threads), streams: None }
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
        if !self.archives.unpacks(file, size) {
            return Ok(None);
        }
        if size <= MEMORY_BYTES_MAX {
            let mut archive = vec![0; usize::try_from(size).expect("at most 32 MiB")];
            if file.read_exact_at(&mut archive, 0).is_err() {
                // It has changed: whoever reads it next reports that.
                return Ok(None);
            }
            return self.take_bytes(&archive, profile, buffer, self.archives.memory());
        }
        let Some(_copy_room) = self.archives.reserve(size) else { return Ok(None) };
        let copy = self.archives.create()?;
        let folder = self.archives.folder();
        let copied =
            io::copy(&mut FileSection::new(file, 0, size), &mut &copy).on("copy an archive to", folder)?;
        if copied != size {
            return Ok(None);
        }
        let archive = Mapping::of_own(&copy, path)?;
        let length = usize::try_from(size).expect("at most 2 GiB");
        let bytes = archive.range(0, length).on("read", path)?;
        self.take_bytes(bytes, profile, buffer, self.archives.memory())
    }

    fn take_bytes(
        &mut self,
        archive: &[u8],
        profile: Profile,
        buffer: &mut Vec<u8>,
        memory: Option<&dyn StreamMemory>,
    ) -> files::Result<Option<(UnpackedArchive, Vec<ChunkRef>)>> {
        let known = memory.map(|memory| memory as &dyn KnownStreams);
        let plan = self.planner.plan(archive, &Limits::default(), &mut Nested(self.archives), known);
        if !is_worth_it(&plan) || self.archives.is_stopping() {
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
        let folder = self.archives.folder();
        let (streams, begin) = match &self.streams {
            Some((streams, end)) => (streams.clone(), *end),
            None => (Streams(Arc::new(self.archives.create()?)), 0),
        };
        let parts = Parts::of(&plan, lengths.head);
        let members = memory.map(|memory| known_members(&parts, memory)).unwrap_or_default();
        let file = streams.file();
        match write_stream(&plan, archive, &head, &lengths, file, begin, &members) {
            // What is remembered of a stream was wrong.
            Err(error) if error.kind() == io::ErrorKind::InvalidData && memory.is_some() => {
                drop(room);
                return self.take_bytes(archive, profile, buffer, None);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            result => result.on("write to", folder)?,
        }
        let (chunks, parts) = cut(&parts, file, begin, profile, buffer, &members).on("read in", folder)?;
        if chunks.len() as u64 > STREAM_CHUNKS_MAX {
            return Ok(None);
        }
        room.keep();
        if let Some(memory) = self.archives.memory() {
            memory.remember(streams_of(&plan, &parts, &chunks));
        }
        self.streams = Some((streams.clone(), begin + lengths.all()));
        let (parts, left_packed) = (parts.into(), self.planner.left_packed());
        Ok(Some((UnpackedArchive { container, streams, begin, parts, left_packed }, chunks)))
    }
}

/// Returns the parts that need not be decoded.
fn known_members(parts: &Parts, memory: &dyn StreamMemory) -> KnownMembers {
    let known = |(bytes, name): (u64, Option<StreamName>)| {
        let member = memory.member(&name?)?;
        let sum: u64 = member.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        (sum == bytes).then_some((name?, member))
    };
    parts.named().filter_map(known).collect()
}

/// Returns the packed streams of an archive, with the chunks of those whose plain bytes are a part.
fn streams_of(plan: &Plan, parts: &[StreamPart], chunks: &[ChunkRef]) -> Vec<UnpackedStream> {
    let mut members = HashMap::new();
    let mut begin = 0;
    for part in parts {
        let chunks = &chunks[begin..part.chunks_end];
        members.extend(part.name.map(|name| (name, (chunks, part.is_elf))));
        begin = part.chunks_end;
    }
    let stream = |(name, known)| {
        let member = members.get(&name);
        let member = member.map(|(chunks, is_elf)| KnownMember { chunks: chunks.to_vec(), is_elf: *is_elf });
        UnpackedStream { name, known, member }
    };
    plan.named_streams().into_iter().map(stream).collect()
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
}
