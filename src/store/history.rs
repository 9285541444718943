//! The history of an application: all its records in one file, and the often needed facts of each push in memory.
//!
//! The ledger is the truth. `releases/APP/history` spares a start reading each record, and can repair a damaged one. It is
//! appended to without a sync; records that it lacks, or has in a damaged part, are read from the ledger. Entries of records
//! that are gone do not count.
//!
//! | size | what |
//! |---|---|
//! | 2 | n, the bytes of the record, little-endian |
//! | n | the record in MessagePack |
//! | 8 | the first bytes of the BLAKE3 of the n bytes |

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use disk::files::{self, OnPath};
use format::record::Record;
use ground::ids::{Label, ReleaseId};

/// 1 GiB, some ten million pushes. A longer file is not read beyond this.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
const CHECK_BYTES: usize = 8;

/// One push, in some 70 B and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Counts the application's pushes from 1.
    pub sequence: u64,
    /// Seconds since 1970, by the proxy's clock.
    pub created: u64,
    /// The content.
    pub release: ReleaseId,
    /// Its labels.
    pub labels: Box<[Label]>,
}

impl From<&Record> for Pushed {
    fn from(record: &Record) -> Self {
        Self {
            sequence: record.sequence,
            created: record.created,
            release: record.release,
            labels: record.labels.as_slice().into(),
        }
    }
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    let entry = rmp_serde::to_vec(record).expect("a Vec takes every write");
    let Ok(length) = u16::try_from(entry.len()) else { return };
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&entry);
    out.extend_from_slice(&blake3::hash(&entry).as_bytes()[..CHECK_BYTES]);
}

impl Pushed {
    /// Returns whether the release's id begins with these hexadecimal digits, in lower case.
    pub fn begins_with(&self, digits: &str) -> bool {
        let nibble = |at: usize| {
            let byte = self.release.as_bytes().get(at / 2).copied().unwrap_or_default();
            char::from_digit(u32::from(if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 }), 16)
        };
        digits.len() <= 64 && digits.chars().enumerate().all(|(at, digit)| nibble(at) == Some(digit))
    }
}

/// Reads the history below an application's folder, in order, up to the first damage; and whether there was none.
///
/// # Errors
/// The file exists and cannot be read.
pub fn read(folder: &Path) -> files::Result<(Vec<Record>, bool)> {
    let Some(bytes) = files::read_if_there(&path(folder), BYTES_MAX)? else { return Ok((Vec::new(), true)) };
    let (mut records, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((record, after)) = split(rest) {
        records.push(record);
        rest = after;
    }
    Ok((records, rest.is_empty()))
}

/// Returns the latest record of that number in the history.
pub fn find(folder: &Path, sequence: u64) -> Option<Record> {
    let (records, _) = read(folder).ok()?;
    records.into_iter().rfind(|record| record.sequence == sequence)
}

fn split(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (entry, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (check, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let is_whole = blake3::hash(entry).as_bytes()[..CHECK_BYTES] == check[..];
    Some((rmp_serde::from_slice(entry).ok().filter(|_| is_whole)?, rest))
}

/// Appends a record; it need not be durable.
///
/// # Errors
/// The disk's.
pub fn append(folder: &Path, record: &Record) -> files::Result<()> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    files::create_folder(folder)?;
    let path = path(folder);
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).on("open", &path)?;
    (&file).write_all(&bytes).on("write", &path)
}

/// Rewrites the history.
///
/// # Errors
/// The disk's.
pub fn replace(folder: &Path, records: &[Record]) -> files::Result<()> {
    let mut bytes = Vec::new();
    for record in records {
        encode(record, &mut bytes);
    }
    files::create_folder(folder)?;
    files::publish(&path(folder), &bytes, 0o600)
}

fn path(folder: &Path) -> PathBuf {
    folder.join("history")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sequence: u64) -> Record {
        Record {
            app: "app".parse().expect("a name"),
            release: ReleaseId::of(&sequence.to_le_bytes()),
            sequence,
            created: 7,
            user: "ada".parse().expect("a name"),
            labels: (0..sequence % 3).map(|label| format!("v{label}").parse().expect("a label")).collect(),
            totals: format::manifest::Totals::default(),
            cost: format::record::Cost::default(),
            behalf: Vec::new(),
        }
    }

    #[test]
    fn what_is_whole_of_a_cut_or_changed_history_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(read(folder.path()).expect("none"), (Vec::new(), true));
        let all: Vec<Record> = (1..=5).map(record).collect();
        replace(folder.path(), &all[..2]).expect("written");
        all[2..].iter().for_each(|record| append(folder.path(), record).expect("appended"));
        assert_eq!(read(folder.path()).expect("readable"), (all.clone(), true));
        assert_eq!((find(folder.path(), 4), find(folder.path(), 6)), (Some(record(4)), None));
        let good = std::fs::read(path(folder.path())).expect("a file");
        let entry_end = |count: usize| {
            let mut bytes = Vec::new();
            all[..count].iter().for_each(|record| encode(record, &mut bytes));
            bytes.len()
        };
        for length in 0..good.len() {
            std::fs::write(path(folder.path()), &good[..length]).expect("written");
            let whole = (0..5).rev().find(|count| entry_end(*count) <= length).expect("none is whole");
            let is_all = entry_end(whole) == length;
            assert_eq!(read(folder.path()).expect("readable"), (all[..whole].to_vec(), is_all), "{length}");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            std::fs::write(path(folder.path()), bytes).expect("written");
            let (read, is_whole) = read(folder.path()).expect("readable");
            assert!(all.starts_with(&read) && !is_whole, "{at}");
        }
    }

    #[test]
    fn digits_are_compared_as_they_are_shown() {
        let pushed = Pushed::from(&record(1));
        let shown = pushed.release.to_string();
        assert!((0..=64).all(|length| pushed.begins_with(&shown[..length])));
        assert!(!pushed.begins_with(&format!("{shown}0")) && !pushed.begins_with("g"));
        let other = if shown.starts_with('0') { "1" } else { "0" };
        assert!(!pushed.begins_with(other));
    }
}
