//! The jobs that the planner gives to the workers.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::Timespec;

use format::manifest::EntryPath;
use format::recipe::{ChunkRef, Container};

/// 4 MiB: a larger file is cut into parts of this, so that all workers share it.
pub(super) const PART_BYTES: u64 = 4 * 1024 * 1024;
/// Chunks of one part: four times what 16 KiB chunks need, 36 KiB of memory; a bound for tiny chunks.
pub(super) const PART_CHUNKS_MAX: usize = 1024;
/// Chunks of a file that may be linked, which one worker verifies whole: 1 GiB, 2 MiB of memory.
pub(super) const LINK_CHUNKS_MAX: usize = 64 * 1024;
/// 1 MiB: small files that go to one worker together, as neighbours share frames.
pub(super) const BATCH_BYTES: u64 = 1024 * 1024;
/// Files of one batch.
pub(super) const BATCH_FILES_MAX: usize = 256;

/// Files that are linked by one worker.
pub(super) const LINKS_MAX: usize = 1024;
/// 64: fewer are not worth a worker of their own.
pub(super) const LINKS_MIN: usize = 64;
/// Chunks of these files: 576 KiB of memory.
pub(super) const LINKS_CHUNKS_MAX: usize = 16 * PART_CHUNKS_MAX;

/// How a file of the earlier copy that may be linked looks: its inode, and when it was modified, in seconds and nanoseconds.
pub(super) type Looks = (u64, i64, u32);

/// Work for one worker.
pub(super) enum Job {
    /// Files to be linked, mostly of one folder; they are made as [`Job::Files`] where that fails.
    Links(Vec<Whole>),
    /// Small files, one after another.
    Files(Vec<Whole>),
    /// A part of a large one.
    Part(Part),
    /// An archive, to be rebuilt of its stream.
    Archive(Whole, Container),
}

/// A file that one worker creates and writes.
pub(super) struct Whole {
    pub(super) path: EntryPath,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) chunks: Vec<ChunkRef>,
    /// True if the earlier copy has the same file.
    pub(super) same: bool,
    /// The looks of the earlier copy's file, if that may be linked.
    pub(super) linkable: Option<Looks>,
}

/// Some adjacent chunks of a file that the planner has created.
pub(super) struct Part {
    pub(super) output: Arc<Output>,
    pub(super) offset: u64,
    pub(super) chunks: Vec<ChunkRef>,
}

/// A file under work.
pub(super) struct Output {
    pub(super) path: EntryPath,
    pub(super) file: File,
    pub(super) basis: LocalBytes,
    /// When the earlier copy's file was modified.
    pub(super) modified: Option<Timespec>,
    /// True if a chunk had to come from the source although there is a basis.
    pub(super) rebuilt: AtomicBool,
}

/// The earlier copy's file. Nothing is known of its content.
pub(super) struct Earlier {
    pub(super) file: File,
    /// When it was modified.
    pub(super) modified: Timespec,
}

/// The local file that may have a file's bytes, so that the source need not send them. They are verified in any case.
pub(super) enum LocalBytes {
    /// No file.
    None,
    /// The earlier copy's file.
    Earlier(File),
    /// The new file itself, which is a reflink of the earlier one.
    InPlace,
}
