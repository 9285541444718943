//! The memory of the last push: the manifest that the proxy confirmed, and the stat of each file.
//!
//! One file for each proxy, space and application (FORMAT 8). It is a cache. Without it, or where it is
//! damaged, of another version or out of date, a push reads and sends more; what it pushes is the same.
//! The parts of the manifest in it are checked against the release's id. It does not notice a file that was changed and given back its old size, times and inode: like
//! rsync and git, it trusts those (docs/decisions/0012).
//!
//! A memory is written aside and renamed, without a sync: one that a crash has torn fails its check.

mod block;
mod confirmed;
mod folder;
mod footer;
mod link;
mod processor;
mod recall;
mod stat;
mod stream_file;
mod stream_memory;
mod streams;
#[cfg(test)]
mod tests;
mod underway;
mod writer;

pub use confirmed::Confirmed;
pub use folder::WriteOptions;
pub use link::{recall_link, remember_link};
pub use processor::{recall_slowness, remember_slowness};
pub use recall::Recall;
pub(in crate::agent) use stat::STAT_BYTES;
pub use stat::{Stat, Stats, now};
pub use stream_memory::{KnownMember, StreamMemory, UnpackedStream};
pub use streams::{RememberedStreams, Use, forget_streams};
pub use underway::Underway;
pub use writer::write;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use block::{Block, Decoder};
use footer::Footer;

use disk::files::{self, OnPath};
use format::manifest::{Item, NodeRef, Root, SegmentIndex, decode_segment};
use format::recipe::Recipe;
use ground::faults::{Fault, faulty};
use ground::ids::{AppName, ChunkId, ReleaseId};
use ground::poison::Unpoisoned as _;
use protocol::address::Fingerprint;
use protocol::token;

/// 128 MiB: a release of some 3,000,000 chunks, or 50 GB; larger ones are not remembered.
pub const MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The errors of a memory. None stops a push.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be written, or the memory cannot be read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A release with too many chunks or files.
    #[error("a release of {0} files and chunks is too large to remember")]
    TooLarge(u64),
    /// The memory has changed since it was opened.
    #[error("the memory {} is damaged", .0.display())]
    Damaged(PathBuf),
}

faulty! {
    Error passes on File;
    Self::TooLarge(_) => Fault::Full, "push with --no-memory";
    Self::Damaged(_) => Fault::Corrupt, "push with --no-memory";
}

/// The result of an operation on a memory.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The key of a memory: a proxy's key, a space, an application.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key for pushes of `app` to the proxy with this fingerprint, with `token`.
    ///
    /// The space is the one that the token names. Nobody checks the token here: a wrong space costs bytes.
    /// For text that is no token, the text itself counts as the space.
    pub fn new(proxy: &Fingerprint, token: &str, app: &AppName) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("whit memory v1: proxy, space, application");
        hasher.update(proxy.as_bytes());
        match token::claimed_space(token) {
            Some(space) => hasher.update(b"space:").update(space.as_str().as_bytes()),
            None => hasher.update(b"token:").update(blake3::hash(token.as_bytes()).as_bytes()),
        };
        hasher.update(b"\0").update(app.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..16].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An open memory. It stays readable while others replace or remove it.
///
/// Memory: 36 B for each segment of the release, and one block (256 KiB).
#[derive(Debug)]
pub struct Memory {
    file: File,
    path: PathBuf,
    sequence: u64,
    release: ReleaseId,
    root: Root,
    segments: Vec<NodeRef>,
    source: PathBuf,
    /// When the scan of the stats began, in nanoseconds since 1970.
    began: i64,
    segment_blocks: Vec<Block>,
    stat_blocks: Vec<Block>,
    /// The block that a segment was last read from.
    last: Mutex<Decoder>,
    /// Whether an archive is as it is; looked for once.
    has_archives_packed: OnceLock<bool>,
}

impl Memory {
    /// Opens the memory in the state folder; returns `None` if none can be used.
    ///
    /// Reads the file once (a tenth of a second for the largest), and marks it as used.
    pub fn open(folder: &Path, key: &Key) -> Option<Self> {
        let path = folder::path(folder, key);
        let file = File::open(&path).ok()?;
        folder::mark_used(&file);
        Self::read(file, &path, key)
    }

    /// Reads an open file as the memory of `key`; `path` names it in errors.
    pub fn read(file: File, path: &Path, key: &Key) -> Option<Self> {
        let Footer { sequence, root, segments, source, began, segment_blocks, stat_blocks } =
            footer::read(&file, key)?;
        let release = root.release();
        let last = Mutex::default();
        let path = path.to_owned();
        Some(Self {
            file,
            path,
            sequence,
            release,
            root,
            segments,
            source,
            began,
            segment_blocks,
            stat_blocks,
            last,
            has_archives_packed: OnceLock::new(),
        })
    }

    /// Returns the release that the proxy confirmed.
    pub fn release(&self) -> ReleaseId {
        self.release
    }

    /// Returns the number that the proxy gave that push.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the release's root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Returns the release's segments, in order.
    pub fn segments(&self) -> &[NodeRef] {
        &self.segments
    }

    /// Returns the absolute path that was scanned.
    #[cfg(test)]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Returns the bytes of a segment, one of [`Memory::segments`], verified by its id.
    ///
    /// Segments are some KiB, compressed 256 KiB at a time: reading them in order decodes each block once.
    ///
    /// # Errors
    /// The file cannot be read, or was changed since it was opened.
    pub fn segment(&self, index: SegmentIndex) -> Result<Vec<u8>> {
        let mut last = self.last.lock().unpoisoned();
        self.decode_segment(index, &mut last).map(<[u8]>::to_vec)
    }

    /// Returns the bytes of a segment, which lie in the decoder's block.
    fn decode_segment<'a>(&self, index: SegmentIndex, decoder: &'a mut Decoder) -> Result<&'a [u8]> {
        let damaged = || Error::Damaged(self.path.clone());
        let number = self.segment_blocks.partition_point(|block| block.end <= index.get());
        let block = self.segment_blocks.get(number).ok_or_else(damaged)?;
        let bytes = decoder.block(&self.file, block).on("read", &self.path)?.ok_or_else(damaged)?;
        let node = &self.segments[usize::from(index)];
        let before = &self.segments[block.begin as usize..index.into()];
        let begin: usize = before.iter().map(|segment| segment.bytes as usize).sum();
        let segment = bytes.get(begin..begin + node.bytes as usize).ok_or_else(damaged)?;
        if ChunkId::of(segment) == node.id { Ok(segment) } else { Err(damaged()) }
    }

    /// Returns whether an archive of the release was left as it is. Time: once, that of decoding the segments up to it.
    pub fn has_archives_packed(&self) -> bool {
        *self.has_archives_packed.get_or_init(|| {
            let mut decoder = Decoder::default();
            let mut items = SegmentIndex::range(0..self.segments.len()).flat_map(|index| {
                let segment = self.decode_segment(index, &mut decoder).ok();
                segment.and_then(|bytes| decode_segment(bytes).ok()).unwrap_or_default()
            });
            items.any(|item| matches!(item, Item::File { recipe: Recipe::Packed, .. }))
        })
    }

    /// Recalls the files of the release, for a scan of `source`.
    pub fn recall(&self) -> Recall<'_> {
        Recall::new(self)
    }
}
