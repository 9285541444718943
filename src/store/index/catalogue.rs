//! The catalogue of the index: the packs that are indexed, and the runs that hold their chunks (FORMAT 7).
//!
//! One small file, read when the index is opened and written anew for each change: a crash leaves the old one or the new. Its
//! check shows damage; then the index is rebuilt.

use std::io;
use std::path::Path;

use super::error::Error;
use disk::files::{self, Durability};
use format::pack::PackId;
use ground::faults::{Fault, Faulty as _};

const FILE: &str = "catalogue";
/// The file of a catalogue that an earlier whit wrote.
const FILE_EARLIER: &str = "db";
const MAGIC: [u8; 8] = *b"whitcat1";
const RUN_BYTES: usize = 36;
const PACK_BYTES: usize = 24;
const CHECK_BYTES: usize = 16;
/// 256 MiB: some 10 M packs, of 64 MiB each.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The owner's alone, as the packs are.
const MODE: u32 = 0o600;

/// The content of the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The first pack number that was never given.
    pub next_number: u32,
    /// The runs that count, newest first: their numbers and hashes.
    pub runs: Vec<(u32, [u8; 32])>,
    /// The indexed packs, by number: number, id, chunks.
    pub packs: Vec<(u32, PackId, u32)>,
}

impl Catalogue {
    /// Reads the catalogue in `folder`; an empty one where none is there.
    ///
    /// # Errors
    /// It is damaged, unreadable, or an earlier whit's.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        match files::read_if_there(&folder.join(FILE), BYTES_MAX) {
            Ok(Some(bytes)) => Self::decode(&bytes).ok_or(Error::Catalogue),
            Ok(None) if folder.join(FILE_EARLIER).exists() => Err(Error::Older),
            Ok(None) => Ok(Self::default()),
            // Too large, or a part of the disk that cannot be read.
            Err(error) if is_damage(&error) => Err(Error::Catalogue),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the catalogue in `folder`.
    ///
    /// # Errors
    /// The disk's; the old one is then still there.
    pub fn write(&self, folder: &Path, durability: Durability) -> Result<(), Error> {
        Ok(durability.publish(&folder.join(FILE), &self.encode(), MODE)?)
    }

    fn encode(&self) -> Vec<u8> {
        let runs = u32::try_from(self.runs.len()).expect("runs are merged while they are few");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.next_number.to_le_bytes());
        bytes.extend_from_slice(&runs.to_le_bytes());
        for (number, hash) in &self.runs {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(hash);
        }
        for (number, id, chunks) in &self.packs {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(id.as_bytes());
            bytes.extend_from_slice(&chunks.to_le_bytes());
        }
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    /// Returns the catalogue; none where the bytes are not one.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if blake3::hash(content).as_bytes()[..CHECK_BYTES] != *check {
            return None;
        }
        let rest = content.strip_prefix(&MAGIC)?;
        let (next_number, rest) = rest.split_first_chunk()?;
        let (runs, rest) = rest.split_first_chunk()?;
        let runs = usize::try_from(u32::from_le_bytes(*runs)).ok()?;
        let (runs, packs) = rest.split_at_checked(runs.checked_mul(RUN_BYTES)?)?;
        let (packs, []) = packs.as_chunks::<PACK_BYTES>() else { return None };
        let run = |run: &[u8; RUN_BYTES]| {
            let (number, hash) = run.split_first_chunk()?;
            Some((u32::from_le_bytes(*number), hash.try_into().ok()?))
        };
        let pack = |pack: &[u8; PACK_BYTES]| {
            let (number, rest) = pack.split_first_chunk()?;
            let (id, chunks) = rest.split_first_chunk()?;
            let chunks = u32::from_le_bytes(chunks.try_into().ok()?);
            Some((u32::from_le_bytes(*number), PackId::from_bytes(*id), chunks))
        };
        Some(Self {
            next_number: u32::from_le_bytes(*next_number),
            runs: runs.as_chunks().0.iter().map(run).collect::<Option<_>>()?,
            packs: packs.iter().map(pack).collect::<Option<_>>()?,
        })
    }
}

fn is_damage(error: &files::Error) -> bool {
    error.source.kind() == io::ErrorKind::InvalidData || error.fault() == Fault::Corrupt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let pack = |number: u32| (number, PackId::from_bytes(u128::from(number).to_be_bytes()), 10 * number);
        let catalogue = Catalogue {
            next_number: 9,
            runs: vec![(4, [7; 32]), (2, [8; 32])],
            packs: vec![pack(3), pack(5), pack(8)],
        };
        let bytes = catalogue.encode();
        assert_eq!(bytes.len(), 16 + 2 * RUN_BYTES + 3 * PACK_BYTES + CHECK_BYTES);
        assert_eq!(Catalogue::decode(&bytes), Some(catalogue));
        let empty = Catalogue::default();
        assert_eq!(Catalogue::decode(&empty.encode()), Some(empty));
        for at in 0..bytes.len() {
            assert_eq!(Catalogue::decode(&bytes[..at]), None, "cut to {at}");
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert_eq!(Catalogue::decode(&other), None, "byte {at}");
        }
    }

    #[test]
    fn what_is_no_file_or_too_large_is_damage() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = std::fs::File::create(folder.path().join(FILE)).expect("created");
        file.set_len(BYTES_MAX + 1).expect("extended");
        assert!(matches!(Catalogue::read(folder.path()), Err(Error::Catalogue)));
    }
}
