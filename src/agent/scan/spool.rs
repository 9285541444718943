//! Holds the segments of a scan until the push is done: in memory while small, then in a temporary file.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::archive_stream::StreamPart;
use super::located::{Holder, Located, Stored};
use super::unpack::UnpackedArchive;
use super::{Error, path_below};
use disk::files::{self, OnPath};
use format::manifest::{self, EntryPath, Item, SegmentIndex};
use format::recipe::{ChunkRef, Recipe};
use ground::poison::Unpoisoned as _;

/// Kept in memory up to this: the manifest of about 4 GiB.
const MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Stores each segment with the file that its first chunks belong to. Clones share the segments: one may read what another has
/// just written.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Mutex<Written>>);

#[derive(Debug)]
struct Written {
    base: PathBuf,
    file: tempfile::SpooledTempFile,
    /// Where each segment's record begins.
    offsets: Vec<u64>,
    end: u64,
    /// The file and offset of the first chunk, if the segment under way begins inside a file.
    context: Context,
    begun: bool,
    /// Archives that were unpacked in this scan.
    unpacked: HashMap<EntryPath, UnpackedArchive>,
    /// Those that were not read.
    unread: HashSet<EntryPath>,
    /// Where all chunks are read, if the release is in a store.
    stored: Option<Stored>,
}

/// The file that a segment's first chunks belong to, and the offset of the first, where it begins inside a file.
type Context = Option<(EntryPath, u64)>;

/// Where the chunks of one file can be read.
struct Source<'a> {
    path: Arc<Path>,
    holder: Holder,
    begin: u64,
    /// For an unpacked archive: the parts of its stream.
    parts: Option<&'a [StreamPart]>,
}

impl Source<'_> {
    fn locate(&self, offset: u64, chunk: ChunkRef) -> Located {
        let path = Arc::clone(&self.path);
        let Some(parts) = self.parts else {
            return Located { path, holder: self.holder.clone(), body: 0..u64::MAX, offset, chunk };
        };
        let number = parts.partition_point(|part| part.end <= offset - self.begin);
        let begin = number.checked_sub(1).map_or(0, |before| parts[before].end);
        let part = parts.get(number);
        let body = self.begin + begin..part.map_or(u64::MAX, |part| self.begin + part.end);
        let holder = match part {
            Some(StreamPart { is_hole: true, is_elf, .. }) => Holder::Member { is_elf: *is_elf },
            _ => self.holder.clone(),
        };
        Located { path, holder, body, offset, chunk }
    }
}

impl Spool {
    /// Starts for entries below `base`.
    pub fn new(base: PathBuf) -> Self {
        let file = tempfile::spooled_tempfile(MEMORY_BYTES_MAX);
        Self(Arc::new(Mutex::new(Written {
            base,
            file,
            offsets: Vec::new(),
            end: 0,
            context: None,
            begun: false,
            unpacked: HashMap::new(),
            unread: HashSet::new(),
            stored: None,
        })))
    }

    /// Starts for a release whose chunks are in a store.
    pub(super) fn of_stored(stored: Stored) -> Self {
        let spool = Self::new(PathBuf::new());
        spool.written().stored = Some(stored);
        spool
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unpoisoned()
    }

    /// Takes an archive that was unpacked, before its entry.
    pub(super) fn unpacked(&self, path: &EntryPath, unpacked: UnpackedArchive) {
        self.written().unpacked.insert(path.clone(), unpacked);
    }

    /// Takes the next item; for a chunk, with its file and offset.
    pub(super) fn item(&self, item: &Item, at: Option<(&EntryPath, u64)>) {
        self.written().item(item, at);
    }

    /// Takes a finished segment.
    pub(super) fn end_segment(&self, bytes: &[u8]) -> Result<(), Error> {
        self.written().end_segment(bytes)
    }

    /// Returns the bytes of a segment, which is one of the scan's.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn segment(&self, index: SegmentIndex) -> files::Result<Vec<u8>> {
        self.written().record(index).map(|(_, bytes)| bytes)
    }

    /// Returns the chunks of a segment, in order, and where each can be read again.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn chunks(&self, index: SegmentIndex) -> Result<Vec<Located>, Error> {
        self.written().chunks(index)
    }
}

impl Written {
    fn item(&mut self, item: &Item, at: Option<(&EntryPath, u64)>) {
        if let Item::File { path, recipe: Recipe::Container(_), .. } = item
            && !self.unpacked.contains_key(path)
        {
            self.unread.insert(path.clone());
        }
        if !self.begun {
            self.begun = true;
            self.context = match item {
                Item::Chunk(_) => at.map(|(path, offset)| (path.clone(), offset)),
                _ => None,
            };
        }
    }

    fn end_segment(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let (path, offset) = match &self.context {
            Some((path, offset)) => (path.as_bytes(), *offset),
            None => (&[][..], 0),
        };
        let length =
            |value: usize| u32::try_from(value).expect("segments and paths are some KiB").to_le_bytes();
        let mut record = Vec::with_capacity(16 + path.len() + bytes.len());
        record.extend_from_slice(&length(path.len()));
        record.extend_from_slice(&length(bytes.len()));
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(bytes);
        // A reader may have been elsewhere.
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&record));
        written.on("write the manifest to", &std::env::temp_dir())?;
        self.offsets.push(self.end);
        self.end += record.len() as u64;
        (self.begun, self.context) = (false, None);
        Ok(())
    }

    fn chunks(&mut self, index: SegmentIndex) -> Result<Vec<Located>, Error> {
        let (context, bytes) = self.record(index)?;
        let mut at = context.map(|(path, offset)| {
            let source = self.source(&path, self.unread.contains(&path));
            let offset = source.begin + offset;
            (source, offset)
        });
        let mut chunks = Vec::new();
        for item in manifest::decode_segment(&bytes)? {
            match item {
                Item::File { path, recipe, .. } => {
                    let source = self.source(&path, recipe.container().is_some());
                    let begin = source.begin;
                    at = Some((source, begin));
                }
                Item::Chunk(chunk) => {
                    if let Some((source, offset)) = &mut at {
                        chunks.push(source.locate(*offset, chunk));
                        *offset += u64::from(chunk.bytes);
                    }
                }
                _ => {}
            }
        }
        Ok(chunks)
    }

    /// Returns where the chunks of a file can be read.
    fn source(&self, path: &EntryPath, is_archive: bool) -> Source<'_> {
        let unpacked = self.unpacked.get(path);
        let (holder, begin) = match (unpacked, &self.stored) {
            (_, Some(stored)) => (Holder::Stored(stored.clone()), 0),
            (Some(unpacked), None) => (Holder::Streams(unpacked.streams.clone()), unpacked.begin),
            (None, None) if is_archive => (Holder::Unread, 0),
            (None, None) => (Holder::File, 0),
        };
        let parts = unpacked.map(|unpacked| &*unpacked.parts);
        Source { path: path_below(&self.base, path).into(), holder, begin, parts }
    }

    fn record(&mut self, index: SegmentIndex) -> files::Result<(Context, Vec<u8>)> {
        let mut read = |offset: u64| -> io::Result<(Vec<u8>, u64, Vec<u8>)> {
            self.file.seek(SeekFrom::Start(offset))?;
            let mut head = [0; 16];
            self.file.read_exact(&mut head)?;
            let number =
                |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
            let mut path = vec![0; number(0)];
            let mut bytes = vec![0; number(4)];
            self.file.read_exact(&mut path)?;
            self.file.read_exact(&mut bytes)?;
            let (_, offset) = head.split_at(8);
            Ok((path, u64::from_le_bytes(offset.try_into().expect("eight bytes")), bytes))
        };
        let offset = self.offsets[usize::from(index)];
        let (path, offset, bytes) = read(offset).on("read the manifest in", &std::env::temp_dir())?;
        Ok((EntryPath::new(path).ok().map(|path| (path, offset)), bytes))
    }
}
