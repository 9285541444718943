//! The bytes of a mark: a version, parts with their lengths, and a hash of all (FORMAT 9).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

/// BLAKE3 of all before it, at the end of a mark.
pub(super) type Check = [u8; CHECK_BYTES];

const CHECK_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"whitpull";
/// The magic, and a version of 4 bytes.
const HEAD_BYTES: usize = MAGIC.len() + 4;
/// A segment and its stats, the root, or the beginning: all are far below.
pub(super) const PART_BYTES_MAX: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads the parts of a mark, from the first.
#[derive(Debug)]
pub(super) struct PartReader {
    file: BufReader<File>,
    version: u32,
}

impl PartReader {
    /// Begins to read a mark; none where the file is not one.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(file: File) -> io::Result<Option<Self>> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut head = [0; HEAD_BYTES];
        match file.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let version = u32::from_le_bytes(*head.last_chunk().expect("there are twelve"));
        Ok(head.starts_with(MAGIC).then_some(Self { file, version }))
    }

    /// Reads a file of `length` bytes to its end and returns its hash, if that is right; begins again.
    ///
    /// # Errors
    /// The disk's.
    pub fn check(file: &mut File, length: u64) -> io::Result<Option<Check>> {
        let Some(before) = length.checked_sub(CHECK_BYTES as u64) else { return Ok(None) };
        let mut hasher = blake3::Hasher::new();
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, &mut *file);
        hasher.update_reader((&mut reader).take(before))?;
        let mut check = [0; CHECK_BYTES];
        reader.read_exact(&mut check)?;
        file.seek(SeekFrom::Start(0))?;
        Ok((hasher.finalize() == check).then_some(check))
    }

    /// Returns the version of the mark.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Reads the next part; none at the end.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` for a damaged mark, or the disk's.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut part = vec![0; self.length()?];
        self.file.read_exact(&mut part)?;
        Ok((!part.is_empty()).then_some(part))
    }

    /// Passes the next part; returns its place and length, none at the end.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn pass(&mut self) -> io::Result<Option<(u64, usize)>> {
        let length = self.length()?;
        let place = self.file.stream_position()?;
        self.file.seek_relative(i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?)?;
        Ok((length > 0).then_some((place, length)))
    }

    fn length(&mut self) -> io::Result<usize> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PART_BYTES_MAX { Err(io::ErrorKind::InvalidData.into()) } else { Ok(length) }
    }
}

/// Writes the parts of a mark.
pub(super) struct PartWriter {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl PartWriter {
    /// Begins a mark in an empty file.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(file: File, version: u32) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = Self { file, hasher: blake3::Hasher::new() };
        writer.add(MAGIC)?;
        writer.add(&version.to_le_bytes())?;
        Ok(writer)
    }

    /// Adds a part, which is not empty.
    ///
    /// # Errors
    /// The disk's.
    pub fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).expect("a segment and its stats are small");
        self.add(&length.to_le_bytes())?;
        self.add(bytes)
    }

    /// Ends the mark, and returns its file, not synced, and its hash.
    ///
    /// # Errors
    /// The disk's.
    pub fn end(mut self) -> io::Result<(File, Check)> {
        self.add(&0u32.to_le_bytes())?;
        let check = self.hasher.finalize();
        self.file.write_all(check.as_bytes())?;
        Ok((self.file.into_inner().map_err(io::IntoInnerError::into_error)?, check.into()))
    }

    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}
