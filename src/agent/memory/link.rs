//! What the last push over a link found out about it (FORMAT 8.4).
//!
//! One small file for each address of a proxy. It is a hint: damaged, of another version or lost, it counts as none.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::net::link_estimate::{LinkEstimate, Origin};
use disk::files::{self, OnPath};
use protocol::address::ProxyUrl;

/// The folder below the state folder.
const FOLDER: &str = "links";
const MAGIC: &[u8; 8] = b"whitlink";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 48;
const CHECK_BYTES: usize = 16;
/// 1 kB/s to 100 GB/s: what else a file says is damage.
const RATES: std::ops::RangeInclusive<f64> = 1e3..=1e11;

/// Returns what is remembered of the link to `proxy`, if anything.
pub fn recall_link(state: &Path, proxy: &ProxyUrl) -> Option<LinkEstimate> {
    decode(&fs::read(path(state, proxy)).ok()?)
}

/// Remembers the link to `proxy`. Not synced.
///
/// # Errors
/// The state folder cannot be written.
pub fn remember_link(state: &Path, proxy: &ProxyUrl, estimate: &LinkEstimate) -> files::Result<()> {
    write(&state.join(FOLDER), &path(state, proxy), &encode(estimate))
}

/// Writes a small file whole, aside in its `folder` first. Not synced.
pub(super) fn write(folder: &Path, path: &Path, bytes: &[u8]) -> files::Result<()> {
    files::create_folder(folder)?;
    let mut aside = tempfile::NamedTempFile::new_in(folder).on("create a file in", folder)?;
    aside.write_all(bytes).on("write to", folder)?;
    aside.persist(path).map_err(|error| error.error).on("rename to", path)?;
    Ok(())
}

/// Returns where the file is: another address is another link, also to the same proxy.
fn path(state: &Path, proxy: &ProxyUrl) -> PathBuf {
    let mut hasher = blake3::Hasher::new_derive_key("whit link v1: proxy's address");
    hasher.update(proxy.to_string().as_bytes());
    let key = hasher.finalize().to_hex();
    state.join(FOLDER).join(format!("{}.link", &key[..32]))
}

fn encode(estimate: &LinkEstimate) -> [u8; FILE_BYTES] {
    let mut file = [0; FILE_BYTES];
    file[..8].copy_from_slice(MAGIC);
    file[8..12].copy_from_slice(&VERSION.to_le_bytes());
    file[16..24].copy_from_slice(&estimate.rate.to_le_bytes());
    file[24..32].copy_from_slice(&estimate.round_trip.to_le_bytes());
    let check = blake3::hash(&file[..FILE_BYTES - CHECK_BYTES]);
    file[FILE_BYTES - CHECK_BYTES..].copy_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    file
}

fn decode(file: &[u8]) -> Option<LinkEstimate> {
    let file: &[u8; FILE_BYTES] = file.try_into().ok()?;
    let number = |at: usize| file[at..].first_chunk().map(|bytes| f64::from_le_bytes(*bytes));
    let (rate, round_trip) = (number(16)?, number(24)?);
    let estimate = LinkEstimate { rate, round_trip, origin: Origin::Remembered };
    let is_sane = RATES.contains(&rate) && (0.0..1e3).contains(&round_trip);
    (is_sane && *file == encode(&estimate)).then_some(estimate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::address::Fingerprint;

    fn proxy(port: u16) -> ProxyUrl {
        ProxyUrl::new("proxy.example", port, Fingerprint::of_key(b"a key")).expect("an address")
    }

    #[test]
    fn a_link_is_remembered_for_its_address_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("new");
        assert_eq!(recall_link(&state, &proxy(1)), None);
        let estimate = LinkEstimate { rate: 625e3, round_trip: 0.1, origin: Origin::Remembered };
        for rate in [1e6, 625e3] {
            remember_link(&state, &proxy(1), &LinkEstimate { rate, ..estimate }).expect("written");
        }
        assert_eq!(recall_link(&state, &proxy(1)), Some(estimate));
        assert_eq!(recall_link(&state, &proxy(2)), None);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let estimate = LinkEstimate { rate: 625e3, round_trip: 0.1, origin: Origin::Remembered };
        let file = encode(&estimate);
        assert_eq!(decode(&file), Some(estimate));
        for place in 0..file.len() {
            let mut damaged = file;
            damaged[place] ^= 1;
            assert_eq!((decode(&damaged), decode(&file[..place])), (None, None), "at {place}");
        }
        let endless = LinkEstimate { rate: f64::INFINITY, ..estimate };
        assert_eq!(decode(&encode(&endless)), None);
    }
}
