//! The mark: a file beside a pulled directory that lists what the pull put there (FORMAT 9).
//!
//! It identifies the directory itself (by inode and time of birth), and lists the release's entries with the stat of each
//! when it was written. From it the next pull knows which entries are not whit's. A damaged mark counts as none. Where a release differs
//! little from an earlier one, its mark holds the difference from a base.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{Statx, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::mark_base::{Based, MarkBase, Rebuilding, VERSION_BASED};
use super::mark_parts::{Check, PartReader};
use crate::agent::Result;
use crate::agent::memory::{STAT_BYTES, Stat};
use disk::files::{self, OnPath};
use format::manifest::{Item, Root, decode_segment};
use format::recipe::ChunkRef;
use ground::ids::{ChunkId, ReleaseId};

pub(super) const VERSION: u32 = VERSION_BASED;
/// The first version with a root's bytes.
const VERSION_ROOTED: u32 = 3;
/// 2 s in nanoseconds: the coarsest times that a file system in use keeps (FAT).
const SETTLED_COARSE: i64 = 2_000_000_000;
/// 20 ms: where times are finer than a millisecond, two ticks of the slowest kernel clock, which has 100 each second.
const SETTLED_FINE: i64 = 20_000_000;
/// What a file system writes at least of a file.
const BLOCK_BYTES: u64 = 4096;
/// 10 minutes in nanoseconds: a pull may take as long to remove a large directory that it has replaced.
const NAMED_WITHIN: i64 = 600_000_000_000;
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
    /// Since when files that the pull linked were not read; none where all was written.
    #[serde(default)]
    pub believed_since: Option<i64>,
    /// When whit had removed the last of the earlier names of the files that it linked, each removal being a change of the file, or
    /// had read those of which only the time of change differed.
    #[serde(default)]
    pub relinked_until: Option<i64>,
    /// True if whit removed earlier names of files until the mark got its own name: up to then, where its time of modification
    /// says when, a change of a file counts as such a removal.
    #[serde(default)]
    pub relinks_until_named: bool,
}

/// The state of a directory's mark.
#[derive(Debug)]
pub(super) enum Mark {
    /// No readable mark: no pull is known.
    None,
    /// An older whit's, which names the release alone.
    Earlier(ReleaseId),
    /// A mark of this directory whose base is not there: nothing is known of its content.
    Baseless(FolderId),
    /// A whole mark.
    Whole(Box<Placed>),
}

/// A mark that was checked.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    /// Its beginning.
    pub beginning: Beginning,
    /// The root of the manifest; none in earlier versions.
    pub root: Option<Root>,
    /// When the directory was last written, or read and found as it says, in nanoseconds since 1970.
    pub read: i64,
    /// When the mark got its name or was last noted to be read, by its time of modification. Its time of change says neither: a
    /// base of it, and its moves while copies are kept, change that.
    noted: i64,
    /// The mark's hash.
    pub check: Check,
    /// The bytes of its file.
    pub bytes: u64,
    /// The base that it differs from, and the bytes of the marks before it that do.
    pub base: Option<(Arc<MarkBase>, u64)>,
    path: PathBuf,
}

impl Mark {
    /// Reads and checks the mark at `path`, whose base is in the folder `bases`. Reads all of both once.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(path: &Path, bases: &Path) -> Result<Self> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            file => file.on("open", path)?,
        };
        let metadata = file.metadata().on("examine", path)?;
        if metadata.len() == 64 {
            let text = files::read_bounded(path, 64)?;
            let release = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            return Ok(release.map_or(Self::None, Self::Earlier));
        }
        let Some(check) = PartReader::check(&mut file, metadata.len()).on("read", path)? else {
            return Ok(Self::None);
        };
        let mut lacks_base = false;
        let base = |check: &Check| {
            let base = MarkBase::open(bases, check)?;
            lacks_base = base.is_none();
            Ok(base.map(Arc::new))
        };
        let again = file.try_clone().on("open", path)?;
        let Some(begun) = Begun::read(file, base).on("read", path)? else {
            let begun = if lacks_base { Begun::begin(again).on("read", path)? } else { None };
            return Ok(begun.map_or(Self::None, |(_, beginning)| Self::Baseless(beginning.folder)));
        };
        let Begun { beginning, root, base, .. } = begun;
        let noted = Stat::of(&metadata).modified;
        let was_soon = (0..NAMED_WITHIN).contains(&noted.saturating_sub(beginning.began));
        let is_named = beginning.relinks_until_named && was_soon;
        Ok(Self::Whole(Box::new(Placed {
            beginning,
            root,
            read: if is_named { beginning.began } else { noted },
            noted,
            check,
            bytes: metadata.len(),
            base,
            path: path.to_owned(),
        })))
    }
}

/// A mark that is read up to its first segment.
#[derive(Debug)]
struct Begun {
    beginning: Beginning,
    root: Option<Root>,
    base: Option<(Arc<MarkBase>, u64)>,
    rebuilding: Rebuilding,
    parts: PartReader,
}

impl Begun {
    /// Begins to read a mark, whose base `base` opens; none where this is no mark, or its base is not there.
    fn read(
        file: File,
        open_base: impl FnOnce(&Check) -> io::Result<Option<Arc<MarkBase>>>,
    ) -> io::Result<Option<Self>> {
        let Some((parts, beginning)) = Self::begin(file)? else { return Ok(None) };
        let version = parts.version();
        let mut begun = Self { beginning, root: None, base: None, rebuilding: Rebuilding::default(), parts };
        if version >= VERSION_BASED {
            let based = begun.parts.next()?.and_then(|part| rmp_serde::from_slice::<Based>(&part).ok());
            let Some(based) = based else { return Ok(None) };
            if let Some((check, written)) = based {
                let Ok(check) = check.as_slice().try_into() else { return Ok(None) };
                let Some(base) = open_base(check)? else { return Ok(None) };
                begun.base = Some((base, written));
            }
        }
        if version >= VERSION_ROOTED {
            begun.root = begun.next_part()?.and_then(|part| Root::decode(&part).ok());
        }
        Ok(Some(begun).filter(|begun| begun.root.is_some() == (version >= VERSION_ROOTED)))
    }

    /// Reads the beginning alone; none where this is no mark.
    fn begin(mut file: File) -> io::Result<Option<(PartReader, Beginning)>> {
        file.rewind()?;
        let Some(mut parts) = PartReader::open(file)? else { return Ok(None) };
        let beginning = parts.next()?.and_then(|part| rmp_serde::from_slice(&part).ok());
        let beginning = beginning.filter(|_| (1..=VERSION).contains(&parts.version()));
        Ok(beginning.map(|beginning| (parts, beginning)))
    }

    fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        match &self.base {
            Some((base, _)) => self.rebuilding.next(base, &mut self.parts),
            None => self.parts.next(),
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl Placed {
    /// Returns since when content of the directory was not read.
    pub fn believed_since(&self) -> i64 {
        self.beginning.believed_since.unwrap_or(self.read)
    }

    /// Returns whether the directory was written or read within a week before `now`: until then a disk is believed that says
    /// that nothing has changed.
    pub fn was_read_lately(&self, now: i64) -> bool {
        (0..BELIEVED_FOR).contains(&now.saturating_sub(self.believed_since()))
    }

    /// Returns whether the directory was written within a week before `now`, and not read since: what was written just before its
    /// stats were taken is then read, and the rest believed with it. Once only, as a file that somebody touches is read each time.
    pub fn is_new(&self, now: i64) -> bool {
        self.was_read_lately(now) && self.read <= self.beginning.began
    }

    /// Notes that the directory was read from `began` on, as far as its looks do not tell, and is as the mark says. If that fails, it
    /// is read once more.
    pub fn note_read(&self, began: i64) {
        drop(File::options().write(true).open(&self.path).and_then(|file| set_read(&file, began)));
    }

    /// Notes that the mark gets its name now, by its file system's clock: up to now whit changed linked files. If that fails, they are read.
    pub fn note_named(&self) {
        if !self.beginning.relinks_until_named {
            return;
        }
        let of = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps { last_access: of(UTIME_OMIT), last_modification: of(UTIME_NOW) };
        if let Ok(file) = File::options().write(true).open(&self.path) {
            rustix::fs::futimens(&file, &times).unwrap_or_default();
        }
    }

    /// Returns whether an entry looks as it did when `put` was taken, its device aside: devices get other numbers when a machine
    /// starts. Its names may have changed until it was read, or whit had removed the earlier ones of the files that it linked.
    pub fn is_same(&self, put: &Stat, found: &Stat) -> bool {
        let until = self.read.max(self.noted).max(self.beginning.relinked_until.unwrap_or(i64::MIN));
        // Nothing was linked into the directory before there was one: an earlier time is that of a clock that was set back.
        let since = self.beginning.folder.born.unwrap_or(put.changed).max(put.changed);
        let changed = if (since..=until).contains(&found.changed) { put.changed } else { found.changed };
        Stat { device: 0, ..*put } == Stat { device: 0, changed, ..*found }
    }

    /// Returns whether a file that looks as it did when `put` was taken has the content that it had then.
    ///
    /// A file that was written shortly before may be written again within the same tick of the file system's clock.
    pub fn is_settled(&self, put: &Stat) -> bool {
        // A time of modification may have been set, a time of change never is.
        let is_fine = [put.modified, put.changed].iter().any(|time| time % 1_000_000 != 0);
        put.modified < self.read.saturating_sub(if is_fine { SETTLED_FINE } else { SETTLED_COARSE })
    }

    /// Returns the entries, from the first.
    ///
    /// # Errors
    /// The mark cannot be read any more.
    pub fn entries(&self) -> Result<Entries> {
        Ok(Entries { parts: self.parts()?, items: VecDeque::new() })
    }

    /// Returns the parts of the mark after its beginning, as they are in its file, and whether the first of them names a base or none.
    ///
    /// # Errors
    /// The mark cannot be read any more.
    pub fn records(&self) -> Result<(PartReader, bool)> {
        let file = File::open(&self.path).on("open", &self.path)?;
        let parts = PartReader::open(file).and_then(|parts| parts.ok_or_else(invalid));
        let mut parts = parts.on("read", &self.path)?;
        parts.pass().on("read", &self.path)?;
        let names_base = parts.version() >= VERSION_BASED;
        Ok((parts, names_base))
    }

    /// Returns the base that a mark in the folder `bases` may differ from, and the bytes of those that do; makes one of this mark where it is
    /// whole. None once they have become as large as the base, or where no base can be made.
    ///
    /// # Errors
    /// The disk's.
    pub fn base_of_next(&self, bases: &Path) -> Result<Option<(Arc<MarkBase>, u64)>> {
        let Some((base, written)) = &self.base else {
            let is_rooted = self.root.is_some();
            let base = is_rooted.then(|| MarkBase::make(bases, &self.path, &self.check)).transpose()?;
            return Ok(base.flatten().map(|base| (Arc::new(base), 0)));
        };
        let written = written.saturating_add(self.bytes.next_multiple_of(BLOCK_BYTES));
        Ok((written < base.bytes).then(|| (Arc::clone(base), written)))
    }

    /// Returns the segments of the release's manifest in order, each with the stats of its entries.
    ///
    /// # Errors
    /// The mark cannot be read any more.
    pub fn parts(&self) -> Result<Parts> {
        let base = self.base.as_ref().map(|(base, _)| Arc::clone(base));
        let file = File::open(&self.path).on("open", &self.path)?;
        let begun = Begun::read(file, |_| Ok(base)).and_then(|begun| begun.ok_or_else(invalid));
        Ok(Parts { begun: begun.on("read", &self.path)?, path: self.path.clone(), is_over: false })
    }
}

/// The segments of a mark in order, each with the stats of its entries.
#[derive(Debug)]
pub(super) struct Parts {
    begun: Begun,
    path: PathBuf,
    /// True if all were read.
    is_over: bool,
}

impl Parts {
    fn read(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(part) = self.begun.next_part()? else { return Ok(None) };
        let (segment, stats): (ByteBuf, ByteBuf) = rmp_serde::from_slice(&part).map_err(|_| invalid())?;
        Ok(Some((segment.into_vec(), stats.into_vec())))
    }
}

impl Iterator for Parts {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let part = self.read();
        self.is_over = !matches!(part, Ok(Some(_)));
        part.on("read", &self.path).map_err(Into::into).transpose()
    }
}

/// The entries of a mark in the manifest's order, each with its looks, each file's chunks after it.
#[derive(Debug)]
pub(super) struct Entries {
    parts: Parts,
    items: VecDeque<(Item, Stat)>,
}

impl Entries {
    /// Returns the next item without taking it; none at the end.
    pub fn peek(&mut self) -> Result<Option<&(Item, Stat)>> {
        while self.items.is_empty() {
            let Some(part) = self.parts.next() else { break };
            let (segment, stats) = part?;
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

    /// Passes all before `path`, as paths of an order are asked for; returns the entry there and its looks.
    pub fn at(&mut self, path: &[u8]) -> Result<Option<(Item, Stat)>> {
        loop {
            let ordering = match self.peek()? {
                None => return Ok(None),
                Some((item, _)) => item.path().map_or(Ordering::Less, |at| order(at.as_bytes(), path)),
            };
            match ordering {
                Ordering::Less => drop(self.next()?),
                Ordering::Equal => return self.next(),
                Ordering::Greater => return Ok(None),
            }
        }
    }
}

/// Returns the order of a manifest: component by component.
pub(super) fn order(one: &[u8], other: &[u8]) -> Ordering {
    one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/'))
}

/// A mark's time of modification is when the directory was last read.
pub(super) fn set_read(mark: &File, when: i64) -> io::Result<()> {
    let since = Duration::from_nanos(u64::try_from(when).unwrap_or_default());
    mark.set_modified(SystemTime::UNIX_EPOCH + since)
}
