//! The mark: a file beside a pulled directory that lists what the pull put there (FORMAT 9).
//!
//! It identifies the directory itself (by inode and time of birth), and lists the release's entries with the stat of each
//! when it was written. From it the next pull knows which entries are not whit's. A damaged mark counts as none.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use crate::agent::Result;
use crate::agent::memory::{STAT_BYTES, Stat};
use disk::crash_points;
use disk::files::{self, OnPath};
use format::manifest::{EntryPath, Item, decode_segment};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ReleaseId};

const MAGIC: &[u8; 8] = b"whitpull";
const VERSION: u32 = 2;
/// The version without a root.
const VERSION_ROOTLESS: u32 = 1;
/// A segment and its stats, or the beginning: both are far below.
const PART_BYTES_MAX: usize = 1024 * 1024;
const CHECK_BYTES: usize = 32;
/// A week in nanoseconds: how often a proxy reads everything, too.
const BELIEVED_FOR: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// Identifies a directory: another one of the same name differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderId {
    inode: u64,
    /// When the inode was made, in nanoseconds since 1970, where the file system keeps that.
    born: Option<i64>,
    /// The device. Devices get other numbers when a machine starts, so this counts only where there is no time of birth.
    device: u64,
}

impl FolderId {
    /// Takes what the system says of a folder.
    pub fn of(found: &Statx) -> Self {
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = has_birth.then(|| nanoseconds(found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
        Self { inode: found.stx_ino, born, device: device(found) }
    }

    /// Returns whether both are the same directory.
    pub fn is(&self, other: &Self) -> bool {
        let born = self.born.is_some() && self.born == other.born;
        self.inode == other.inode && (born || (self.born == other.born && self.device == other.device))
    }
}

/// Returns how an entry looks.
pub(super) fn stat_of(found: &Statx) -> Stat {
    Stat {
        modified: nanoseconds(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: nanoseconds(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        inode: found.stx_ino,
        device: device(found),
    }
}

fn nanoseconds(seconds: i64, nanoseconds: u32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into())
}

fn device(found: &Statx) -> u64 {
    u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor)
}

/// The beginning of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// The release.
    pub release: ReleaseId,
    /// The mode of the top directory, where the release's root names one.
    pub folder_mode: Option<u16>,
    /// The directory that it was put into.
    pub folder: FolderId,
    /// The mode that the directory got.
    pub mode: u16,
    /// The mode that the user had given the directory: what it kept closed stays closed.
    pub limit: Option<u16>,
    /// When the entries were looked at, in nanoseconds since 1970.
    pub began: i64,
    /// True if entries that no pull had put into the directory may be removed.
    pub deletes: bool,
    /// The root of the manifest that was pulled; none in the first version.
    #[serde(default)]
    pub root: Option<ChunkId>,
}

/// The state of a directory's mark.
#[derive(Debug)]
pub(super) enum Mark {
    /// No readable mark: no pull is known.
    None,
    /// An older whit's, which names the release alone.
    Earlier(ReleaseId),
    /// A whole mark.
    Whole(Placed),
}

/// A mark that was checked.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its beginning.
    pub beginning: Beginning,
    /// When the directory was last written, or read and found as it says, in nanoseconds since 1970.
    pub read: i64,
    path: PathBuf,
}

impl Mark {
    /// Reads and checks the mark at `path`. Reads all of it once.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            file => file.on("open", path)?,
        };
        let metadata = file.metadata().on("examine", path)?;
        let nanosecond = u32::try_from(metadata.mtime_nsec()).unwrap_or_default();
        let (length, read) = (metadata.len(), nanoseconds(metadata.mtime(), nanosecond));
        if length == 64 {
            let text = files::read_bounded(path, 64)?;
            let release = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            return Ok(release.map_or(Self::None, Self::Earlier));
        }
        let mut parts = MarkReader { file: BufReader::with_capacity(256 * 1024, file) };
        match parts.check(length).and_then(|()| parts.beginning()) {
            Ok(Some(beginning)) => Ok(Self::Whole(Placed { beginning, read, path: path.to_owned() })),
            Ok(None) => Ok(Self::None),
            Err(error) => Err(error).on("read", path)?,
        }
    }
}

impl Placed {
    /// Returns whether the directory was written or read within a week before `now`: until then a disk is believed that says
    /// that nothing has changed.
    pub fn was_read_lately(&self, now: i64) -> bool {
        (0..BELIEVED_FOR).contains(&now.saturating_sub(self.read))
    }

    /// Returns whether the directory was written within a week before `now`, and not read since: what was written just before its
    /// stats were taken is then read, and the rest believed with it. Once only, as a file that somebody touches is read each time.
    pub fn is_new(&self, now: i64) -> bool {
        self.was_read_lately(now) && self.read <= self.beginning.began
    }

    /// Notes that the directory was read from `began` on, and is as the mark says. If that fails, it is read once more.
    pub fn note_read(&self, began: i64) {
        drop(File::options().write(true).open(&self.path).and_then(|file| set_read(&file, began)));
    }

    /// Returns the entries, from the first.
    ///
    /// # Errors
    /// The mark cannot be read any more.
    pub fn entries(&self) -> Result<Entries> {
        let file = File::open(&self.path).on("open", &self.path)?;
        let mut parts = MarkReader { file: BufReader::with_capacity(256 * 1024, file) };
        parts.beginning().on("read", &self.path)?;
        Ok(Entries { parts, path: self.path.clone(), items: VecDeque::new(), is_over: false })
    }
}

/// The entries of a mark in the manifest's order, each with its looks, each file's chunks after it.
#[derive(Debug)]
pub(super) struct Entries {
    parts: MarkReader,
    path: PathBuf,
    items: VecDeque<(Item, Stat)>,
    /// True if all parts were read.
    is_over: bool,
}

impl Entries {
    /// Returns the next item without taking it; none at the end.
    pub fn peek(&mut self) -> Result<Option<&(Item, Stat)>> {
        while self.items.is_empty() && !self.is_over {
            let Some(part) = self.parts.next().on("read", &self.path)? else {
                self.is_over = true;
                break;
            };
            let (segment, stats): (ByteBuf, ByteBuf) = rmp_serde::from_slice(&part)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
                .on("read", &self.path)?;
            let (stats, _) = stats.as_chunks::<STAT_BYTES>();
            let mut stats = stats.iter();
            for item in decode_segment(&segment)? {
                let is_entry = item.path().is_some();
                let stat = if is_entry { stats.next().map(Stat::decode) } else { None };
                self.items.push_back((item, stat.unwrap_or_default()));
            }
        }
        Ok(self.items.front())
    }

    /// Returns the next item.
    pub fn next(&mut self) -> Result<Option<(Item, Stat)>> {
        self.peek()?;
        Ok(self.items.pop_front())
    }

    /// Returns the next chunk of the file that was taken last; none where it has no more.
    pub fn chunk(&mut self) -> Result<Option<ChunkRef>> {
        let Some((Item::Chunk(chunk), _)) = self.peek()? else { return Ok(None) };
        let chunk = *chunk;
        self.next()?;
        Ok(Some(chunk))
    }
}

/// Writes the mark of `tree`, which holds the release of these `segments`, durably, as `path`.
///
/// # Errors
/// The disk, or a manifest that cannot be read any more.
pub(super) fn write(
    path: &Path,
    beginning: &Beginning,
    tree: &Path,
    segments: impl IntoIterator<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let (aside, file) = files::create_aside(path, 0o600)?;
    let mut writer =
        MarkWriter { file: BufWriter::with_capacity(256 * 1024, file), hasher: blake3::Hasher::new() };
    crash_points::half_on(path, ".half", writer.file.get_ref(), MAGIC);
    let written = writer.write(beginning, tree, segments, &aside).and_then(|()| {
        let file = writer.file.into_inner().map_err(io::IntoInnerError::into_error).on("write", &aside)?;
        set_read(&file, beginning.began).and_then(|()| file.sync_all()).on("sync", &aside)?;
        crash_points::on(path, ".written");
        Ok(files::rename(&aside, path)?)
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&aside)))
}

/// A mark's time of modification is when the directory was last read.
fn set_read(mark: &File, when: i64) -> io::Result<()> {
    let since = Duration::from_nanos(u64::try_from(when).unwrap_or_default());
    mark.set_modified(SystemTime::UNIX_EPOCH + since)
}

/// Returns how an entry of a tree looks that was just put there.
fn stat_in(folder: &OwnedFd, tree: &Path, path: &EntryPath) -> Result<Stat> {
    let found = files::examine(folder, path.as_bytes(), AtFlags::empty());
    Ok(stat_of(&found.on("examine", &tree.join(OsStr::from_bytes(path.as_bytes())))?))
}

struct MarkWriter {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl MarkWriter {
    fn write(
        &mut self,
        beginning: &Beginning,
        tree: &Path,
        segments: impl IntoIterator<Item = Result<Vec<u8>>>,
        aside: &Path,
    ) -> Result<()> {
        self.add(MAGIC).and_then(|()| self.add(&VERSION.to_le_bytes())).on("write", aside)?;
        self.part(&rmp_serde::to_vec(beginning).expect("a Vec takes every write")).on("write", aside)?;
        let folder = files::open_folder(CWD, tree).on("open", tree)?;
        for segment in segments {
            let (segment, mut stats) = (segment?, Vec::new());
            for item in decode_segment(&segment)? {
                if let Some(path) = item.path() {
                    stats.extend(stat_in(&folder, tree, path)?.encode());
                }
            }
            let part = (Bytes::new(&segment), Bytes::new(&stats));
            self.part(&rmp_serde::to_vec(&part).expect("a Vec takes every write")).on("write", aside)?;
        }
        self.add(&0u32.to_le_bytes()).on("write", aside)?;
        let check = self.hasher.finalize();
        Ok(self.file.write_all(check.as_bytes()).on("write", aside)?)
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).expect("a segment and its stats are small");
        self.add(&length.to_le_bytes())?;
        self.add(bytes)
    }
}

/// Reads the parts of a mark.
#[derive(Debug)]
struct MarkReader {
    file: BufReader<File>,
}

impl MarkReader {
    /// Checks the mark's hash and goes back to the beginning. An error of the kind `InvalidData` means a damaged mark, any
    /// other the disk's.
    fn check(&mut self, length: u64) -> io::Result<()> {
        let Some(before) = length.checked_sub(CHECK_BYTES as u64) else { return Ok(()) };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader((&mut self.file).take(before))?;
        let mut check = [0; CHECK_BYTES];
        self.file.read_exact(&mut check)?;
        // A malformed beginning says itself what is wrong.
        let from = if hasher.finalize() == check { 0 } else { length };
        self.file.seek(SeekFrom::Start(from))?;
        Ok(())
    }

    /// Reads the beginning; none where this is no mark.
    fn beginning(&mut self) -> io::Result<Option<Beginning>> {
        let mut bytes = [0; 12];
        match self.file.read_exact(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let is_version =
            [VERSION, VERSION_ROOTLESS].map(u32::to_le_bytes).iter().any(|version| bytes[8..] == *version);
        if bytes[..8] != *MAGIC || !is_version {
            return Ok(None);
        }
        Ok(self.next()?.and_then(|part| rmp_serde::from_slice(&part).ok()))
    }

    /// Reads the next part; none at the end.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PART_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut part = vec![0; length];
        self.file.read_exact(&mut part)?;
        Ok((length > 0).then_some(part))
    }
}
