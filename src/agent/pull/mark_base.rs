//! The base of a mark: an earlier whole mark, of which later ones hold only the difference (FORMAT 9).
//!
//! A mark has a chunk id for each 16 KiB, so that even a small change of a large release would write megabytes of it. A base is a
//! second name of a mark that was written whole: nothing is copied.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rmp_serde::{from_slice, to_vec};
use serde_bytes::ByteBuf;

use super::mark_parts::{Check, PART_BYTES_MAX, PartReader};
use delta::compression::{LEVEL_DEFAULT, compress_against, decompress_against};
use disk::files::{self, OnPath};

/// The end of a base's name, after the first 16 digits of its hash and a dot.
const NAME_END: &str = "base";

/// Parts of a base: its root, and its segments with their stats.
#[derive(Debug)]
pub(super) struct MarkBase {
    file: File,
    /// Its hash.
    pub check: Check,
    /// The bytes of the file.
    pub bytes: u64,
    /// Where each part is, and its length.
    parts: Vec<(u64, usize)>,
}

/// Parts of a mark in terms of its base, as MessagePack. Either `count` parts of the base from `first` on; or, where that is
/// 0, one of `plain_bytes` bytes that `payload` makes of the base's part `first` and the one after it.
type Record = (u32, u32, u32, ByteBuf);

impl MarkBase {
    /// Opens the base with this hash in `folder`; none where it is not there, or damaged.
    ///
    /// # Errors
    /// The disk's, with the path of the base.
    pub fn open(folder: &Path, check: &Check) -> io::Result<Option<Self>> {
        let path = path(folder, check);
        match Self::of(&path) {
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("its base {}: {error}", path.display()))),
            Ok(base) => Ok(base.filter(|base| base.check == *check)),
        }
    }

    /// Makes a base in `folder` of the whole mark at `mark`, which has this hash; none where the file system cannot link.
    ///
    /// # Errors
    /// The disk's.
    pub fn make(folder: &Path, mark: &Path, check: &Check) -> files::Result<Option<Self>> {
        let path = path(folder, check);
        match fs::hard_link(mark, &path) {
            Ok(()) => files::sync_folder(folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => return Ok(None),
        }
        Self::open(folder, check).on("read", &path)
    }

    /// Removes the bases in `folder` that none of these marks names, and none if one cannot be read. What cannot be removed is in
    /// nobody's way: the next pull tries again.
    pub fn remove_unused(folder: &Path, marks: &[PathBuf]) {
        let unused = Self::unused(folder, marks).unwrap_or_else(|error| {
            tracing::debug!(%error, "bases of marks are not removed");
            Vec::new()
        });
        for base in unused {
            if let Err(error) = files::remove(&base) {
                tracing::debug!(%error, "a base of marks is not removed");
            }
        }
    }

    fn unused(folder: &Path, marks: &[PathBuf]) -> files::Result<Vec<PathBuf>> {
        let is_base = |path: &PathBuf| path.extension().is_some_and(|end| end == NAME_END);
        let mut bases: Vec<PathBuf> = files::list(folder)?.into_iter().filter(is_base).collect();
        for mark in marks {
            let named = match base_of(mark) {
                // It counts as none.
                Err(error) if is_damage(&error) => None,
                named => named.on("read", mark)?,
            };
            bases.retain(|base| named.is_none_or(|check| *base != self::path(folder, &check)));
        }
        Ok(bases)
    }

    fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let Some(check) = PartReader::check(&mut file, bytes)? else { return Ok(None) };
        let Some(mut reader) = PartReader::open(file.try_clone()?)? else { return Ok(None) };
        let _beginning = reader.pass()?;
        let is_whole = !has_base(reader.version()) || names_none(reader.next()?);
        let mut parts = Vec::new();
        while let Some(part) = reader.pass()?.filter(|_| is_whole) {
            parts.push(part);
        }
        Ok((!parts.is_empty()).then_some(Self { file, check, bytes, parts }))
    }

    fn part(&self, index: usize) -> io::Result<Vec<u8>> {
        let Some((place, length)) = self.parts.get(index) else { return Ok(Vec::new()) };
        let mut part = vec![0; *length];
        self.file.read_exact_at(&mut part, *place)?;
        Ok(part)
    }

    /// Returns the two parts that a part is rebuilt against: from one segment to the next content moves by a few entries.
    fn parts_from(&self, first: u32) -> io::Result<Vec<u8>> {
        let first = first as usize;
        Ok([self.part(first)?, self.part(first.saturating_add(1))?].concat())
    }
}

/// The first version that names its base, or that it has none.
pub(super) const VERSION_BASED: u32 = 4;

fn has_base(version: u32) -> bool {
    version >= VERSION_BASED
}

fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    [InvalidData, NotFound, UnexpectedEof].contains(&error.kind())
}

fn path(folder: &Path, check: &Check) -> PathBuf {
    let number = u64::from_be_bytes(*check.first_chunk().expect("a hash has 32 bytes"));
    folder.join(format!("{number:016x}.{NAME_END}"))
}

/// The part of a mark that names its base: the hash, and the bytes of the marks that were written against it before this one.
pub(super) type Based = Option<(ByteBuf, u64)>;

fn names_none(part: Option<Vec<u8>>) -> bool {
    part.is_some_and(|part| from_slice::<Based>(&part).is_ok_and(|based| based.is_none()))
}

/// Returns the hash of the base that the mark at `path` names, where there is such a mark.
fn base_of(path: &Path) -> io::Result<Option<Check>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let Some(mut reader) = PartReader::open(file)?.filter(|reader| has_base(reader.version())) else {
        return Ok(None);
    };
    reader.pass()?;
    let based = reader.next()?.and_then(|part| from_slice::<Based>(&part).ok()).flatten();
    Ok(based.and_then(|(check, _)| check.as_slice().try_into().ok()))
}

/// Reads parts in terms of a base.
#[derive(Debug, Default)]
pub(super) struct Rebuilding {
    /// The parts of the base that come next.
    same: std::ops::Range<usize>,
}

impl Rebuilding {
    /// Returns the next part; none at the end.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` for a damaged mark, or the disk's.
    pub fn next(&mut self, base: &MarkBase, records: &mut PartReader) -> io::Result<Option<Vec<u8>>> {
        if let Some(index) = self.same.next() {
            return base.part(index).map(Some);
        }
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let Some(record) = records.next()? else { return Ok(None) };
        let (first, count, plain_bytes, payload): Record = from_slice(&record).map_err(|_| invalid())?;
        if count > 0 {
            let end = (first as usize).saturating_add(count as usize);
            if end > base.parts.len() {
                return Err(invalid());
            }
            self.same = first as usize..end;
            return self.next(base, records);
        }
        let plain_bytes = plain_bytes as usize;
        if plain_bytes > PART_BYTES_MAX {
            return Err(invalid());
        }
        let (against, mut part) = (base.parts_from(first)?, Vec::new());
        decompress_against(&against, &payload, plain_bytes, &mut part).map_err(|_| invalid())?;
        Ok(Some(part))
    }
}

/// Turns parts into records in terms of a base. Memory: a hash for each part of the base.
#[derive(Debug)]
pub(super) struct Differing<'a> {
    base: &'a MarkBase,
    /// The number of each part by its hash.
    known: HashMap<blake3::Hash, u32>,
    /// The part of the base that is likely to be the next one.
    next: u32,
    same: std::ops::Range<u32>,
}

impl<'a> Differing<'a> {
    /// Begins before the root. Reads the base once.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(base: &'a MarkBase) -> io::Result<Self> {
        let known = (0..base.parts.len()).map(|index| {
            let number = u32::try_from(index).map_err(|_| io::ErrorKind::InvalidData)?;
            Ok((blake3::hash(&base.part(index)?), number))
        });
        Ok(Self { base, known: known.collect::<io::Result<_>>()?, next: 0, same: 0..0 })
    }

    /// Hands the records that are complete with this part to `write`.
    ///
    /// # Errors
    /// Those of `write`, or the disk's.
    pub fn part(&mut self, part: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some(number) = self.known.get(&blake3::hash(part)).copied() {
            if self.same.end != number {
                self.end(&mut write)?;
                self.same = number..number;
            }
            self.same.end = number + 1;
            self.next = number + 1;
            return Ok(());
        }
        self.end(&mut write)?;
        let against = self.base.parts_from(self.next)?;
        let payload = ByteBuf::from(compress_against(&against, part, LEVEL_DEFAULT));
        let plain_bytes = u32::try_from(part.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        write(&encode(&(self.next, 0, plain_bytes, payload)))?;
        self.next = self.next.saturating_add(1);
        Ok(())
    }

    /// Hands the last record to `write`, if one is under way.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn end(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let same = std::mem::take(&mut self.same);
        if same.is_empty() {
            return Ok(());
        }
        write(&encode(&(same.start, same.end - same.start, 0, ByteBuf::new())))
    }
}

fn encode(record: &Record) -> Vec<u8> {
    to_vec(record).expect("a Vec takes every write")
}
