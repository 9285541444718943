//! A file's stat, which shows without reading it that the file has not changed.

use std::fs::Metadata;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disk::files::{self, OnPath};

/// Bytes of a stat in a memory (FORMAT 8.2).
pub(in crate::agent) const STAT_BYTES: usize = 32;
/// 2 s: the coarsest times that a file system in use keeps (FAT), and some care about clocks.
const SETTLED: Duration = Duration::from_secs(2);
/// Stats in memory up to this: 256 Ki files.
const STATS_MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A file's stat, besides its size: times in nanoseconds since 1970, inode and device.
///
/// The time of change (ctime) moves with every write, rename, link and change of mode, and no program sets it
/// back without setting the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stat {
    /// When the content last changed (mtime), which writers of the file can set.
    pub modified: i64,
    /// When the file last changed in any way (ctime), which only the system sets.
    pub changed: i64,
    /// The inode.
    pub inode: u64,
    /// The device.
    pub device: u64,
}

impl Stat {
    /// Takes the stat from a file's metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let time = |seconds: i64, nanoseconds: i64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
        };
        Self {
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Returns whether a change of the file since `began` would show in this stat, which was taken after `began`.
    ///
    /// A file that was written shortly before may be written again within the same tick of the file
    /// system's clock, and look the same ("racy" in git's words, "same second" in rsync's).
    pub fn is_settled(&self, began: i64) -> bool {
        let margin = i64::try_from(SETTLED.as_nanos()).expect("two seconds");
        self.modified.max(self.changed) < began.saturating_sub(margin)
    }

    pub(in crate::agent) fn encode(&self) -> [u8; STAT_BYTES] {
        let mut bytes = [0; STAT_BYTES];
        let fields = [
            self.modified.to_le_bytes(),
            self.changed.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.device.to_le_bytes(),
        ];
        for (part, field) in bytes.chunks_exact_mut(8).zip(fields) {
            part.copy_from_slice(&field);
        }
        bytes
    }

    pub(in crate::agent) fn decode(bytes: &[u8; STAT_BYTES]) -> Self {
        let field = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            field
        };
        Self {
            modified: i64::from_le_bytes(field(0)),
            changed: i64::from_le_bytes(field(8)),
            inode: u64::from_le_bytes(field(16)),
            device: u64::from_le_bytes(field(24)),
        }
    }
}

/// Returns the time now, in nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The stats of a scan's files, in the manifest's order: 32 B a file, in memory up to 8 MiB, then in a
/// temporary file.
#[derive(Debug)]
pub struct Stats {
    file: tempfile::SpooledTempFile,
    count: u64,
}

impl Stats {
    /// Starts without any.
    pub fn new() -> Self {
        Self { file: tempfile::spooled_tempfile(STATS_MEMORY_BYTES_MAX), count: 0 }
    }

    /// Adds the next file's.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn push(&mut self, stat: &Stat) -> files::Result<()> {
        self.file.write_all(&stat.encode()).on("write the files' times to", &std::env::temp_dir())?;
        self.count += 1;
        Ok(())
    }

    /// Returns how many files there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Passes on the stats' bytes, from the first, at most `most` files at a time.
    pub(super) fn read(
        &mut self,
        most: usize,
        mut take: impl FnMut(&[u8], u32) -> files::Result<()>,
    ) -> files::Result<()> {
        let read = |error: io::Result<()>| error.on("read the files' times in", &std::env::temp_dir());
        read(self.file.rewind())?;
        let mut left = usize::try_from(self.count).expect("as many files as were listed");
        let mut buffer = vec![0; most.min(left) * STAT_BYTES];
        while left > 0 {
            let count = left.min(most);
            let bytes = &mut buffer[..count * STAT_BYTES];
            read(self.file.read_exact(bytes))?;
            take(bytes, u32::try_from(count).expect("a block is small"))?;
            left -= count;
        }
        Ok(())
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}
