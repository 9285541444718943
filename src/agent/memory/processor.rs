//! How slow the last push found this machine's processors (FORMAT 8.6).
//!
//! A small file. It is a hint: damaged, of another version or lost, it counts as none.

use std::fs;
use std::path::{Path, PathBuf};

use super::link::write;
use crate::agent::processor::SLOWNESS;
use disk::files;

const MAGIC: &[u8; 8] = b"whitproc";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 40;
const CHECK_BYTES: usize = 16;

/// Returns how slow the processors were found, if that is known.
pub fn recall_slowness(state: &Path) -> Option<f64> {
    decode(&fs::read(path(state)).ok()?)
}

/// Remembers how slow the processors are. Not synced.
///
/// # Errors
/// The state folder cannot be written.
pub fn remember_slowness(state: &Path, slowness: f64) -> files::Result<()> {
    write(state, &path(state), &encode(slowness))
}

fn path(state: &Path) -> PathBuf {
    state.join("processor")
}

fn encode(slowness: f64) -> [u8; FILE_BYTES] {
    let mut file = [0; FILE_BYTES];
    file[..8].copy_from_slice(MAGIC);
    file[8..12].copy_from_slice(&VERSION.to_le_bytes());
    file[16..24].copy_from_slice(&slowness.to_le_bytes());
    let check = blake3::hash(&file[..FILE_BYTES - CHECK_BYTES]);
    file[FILE_BYTES - CHECK_BYTES..].copy_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    file
}

fn decode(file: &[u8]) -> Option<f64> {
    let file: &[u8; FILE_BYTES] = file.try_into().ok()?;
    let slowness = f64::from_le_bytes(*file[16..].first_chunk()?);
    (SLOWNESS.contains(&slowness) && *file == encode(slowness)).then_some(slowness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_last_is_recalled() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("new");
        assert_eq!(recall_slowness(&state), None);
        for slowness in [0.5, 3.25] {
            remember_slowness(&state, slowness).expect("written");
        }
        assert_eq!(recall_slowness(&state), Some(3.25));
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let file = encode(2.0);
        assert_eq!(decode(&file), Some(2.0));
        for place in 0..file.len() {
            let mut damaged = file;
            damaged[place] ^= 1;
            assert_eq!((decode(&damaged), decode(&file[..place])), (None, None), "at {place}");
        }
        assert_eq!((decode(&encode(11.0)), decode(&encode(f64::NAN))), (None, None));
    }
}
