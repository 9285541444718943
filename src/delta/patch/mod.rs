//! New content as a patch of old content that both sides hold, byte by byte where they nearly agree.
//!
//! bsdiff's idea (Percival, "Naive differences of executable code", 2003): a stretch of new bytes is the old
//! stretch plus a difference that is mostly zeros, even where code was relinked and every address moved. Here the
//! stretches are found by hashed seeds instead of a suffix array, and the differences are written by an adaptive
//! arithmetic coder that knows the old bytes, instead of by bzip2. The bytes: docs/PATCHES.md.
//!
//! A patch begins with nothing; it is one stream of the coder: until the new bytes are complete, a stretch's
//! length, the literals after it, and the step in the reference to the next one; then the stretch, then the
//! literals. Decoding another stream than was made gives other bytes, never more of them: hash what comes out.

use std::ops::Range;

mod differ;
mod model;
mod predictor;
mod recall;

use crate::arithmetic;
use ground::faults::{Fault, faulty};
use ground::leb128;
use model::{Model, Number};
use predictor::BITS;

type Encoder = arithmetic::Encoder<BITS, 1>;
type Decoder<'a> = arithmetic::Decoder<'a, BITS>;

/// 32 MiB: the longest reference of one patch; the differ holds 5 times as much.
pub const REFERENCE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a stretch between two checks that the patch has not ended too early.
const BETWEEN_CHECKS: usize = 4096;

/// Bytes of a patch from which on its final length is predicted.
const TOO_MUCH_MIN: usize = 16 * 1024;

/// The reasons why a patch cannot be made or applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The reference is longer than [`REFERENCE_BYTES_MAX`].
    #[error("a reference of {0} B is too long for one patch")]
    Reference(usize),
    /// The patch ends too early.
    #[error("a patch ends too early")]
    Short,
    /// The patch leaves its reference, or makes more than was announced.
    #[error("a patch exceeds its reference or the announced {0} B")]
    Bounds(usize),
}

faulty! {
    Error;
    Self::Reference(_) => Fault::Bug;
    Self::Short | Self::Bounds(_) => Fault::Corrupt;
}

/// Encodes `new` against `reference`.
///
/// 5 (relinked code) to 45 MB/s of new bytes; memory: 5 times the reference and up to 35 MiB of tables.
///
/// # Errors
/// [`Error::Reference`] past [`REFERENCE_BYTES_MAX`].
pub fn compress(new: &[u8], reference: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(compress_within(new, reference, usize::MAX)?.expect("there is no bound"))
}

/// As [`compress`], but returns `None` once the patch exceeds `bytes_max`, or is predicted to: after half of `bytes_max` it
/// has taken a quarter more than its share. The prediction may be wrong: use it where there is another way to send `new`.
///
/// # Errors
/// [`Error::Reference`] past [`REFERENCE_BYTES_MAX`].
pub fn compress_within(new: &[u8], reference: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, Error> {
    if reference.len() > REFERENCE_BYTES_MAX {
        return Err(Error::Reference(reference.len()));
    }
    let stretches = differ::stretches(reference, new);
    let (mut coder, mut model) = (Encoder::new(), Model::new(new.len()));
    let (mut made, mut place) = (0, 0);
    for stretch in &stretches {
        model.number(&mut coder, Number::Length, stretch.length as u64);
        model.number(&mut coder, Number::Literals, stretch.literals as u64);
        let step = signed(stretch.from) - signed(place);
        model.number(&mut coder, Number::Step, leb128::folded(step));
        place = stretch.from + stretch.length;
        for part in parts(stretch.from, place) {
            model.stretch(&mut coder, &reference[part.start..], part.len(), |at| new[made + at], |_| ());
            made += part.len();
            if coder.len() > bytes_max || is_too_much(coder.len(), made, new.len(), bytes_max) {
                return Ok(None);
            }
        }
        for at in place..place + stretch.literals {
            model.literal(&mut coder, new[made], &new[..made], reference, at);
            made += 1;
            if coder.len() > bytes_max {
                return Ok(None);
            }
        }
    }
    Ok(Some(coder.finish()).filter(|patch| patch.len() <= bytes_max))
}

/// Decodes a patch to exactly `new_bytes` bytes, which the caller has bounded, with the reference it was made against.
///
/// 6 MB/s, up to 100 where runs are long; memory: `new_bytes` and up to 27 MiB of tables, less for few bytes; the first
/// literal costs 4 ns a byte of the reference.
///
/// # Errors
/// [`Error::Short`] and [`Error::Bounds`] for what was not made by [`compress`].
pub fn decompress(patch: &[u8], reference: &[u8], new_bytes: usize) -> Result<Vec<u8>, Error> {
    let (mut coder, mut model) = (Decoder::new(patch), Model::new(new_bytes));
    let mut out = Vec::with_capacity(new_bytes);
    let mut place = 0usize;
    while out.len() < new_bytes {
        let bounds = Error::Bounds(new_bytes);
        let left = (new_bytes - out.len()) as u64;
        let length = model.number(&mut coder, Number::Length, 0);
        let literals = model.number(&mut coder, Number::Literals, 0);
        let step = leb128::unfolded(model.number(&mut coder, Number::Step, 0));
        let total = length.checked_add(literals).filter(|total| (1..=left).contains(total));
        total.ok_or(bounds)?;
        let from =
            signed(place).checked_add(step).and_then(|from| usize::try_from(from).ok()).ok_or(bounds)?;
        let to = usize::try_from(length).ok().and_then(|length| from.checked_add(length)).ok_or(bounds)?;
        reference.get(from..to).ok_or(bounds)?;
        for part in parts(from, to) {
            model.stretch(&mut coder, &reference[part.start..], part.len(), |_| 0, |byte| out.push(byte));
            if coder.is_over() {
                return Err(Error::Short);
            }
        }
        place = to;
        let literals = usize::try_from(literals).map_err(|_| bounds)?;
        for at in 0..literals {
            let byte = model.literal(&mut coder, 0, &out, reference, place + at);
            out.push(byte);
            if coder.is_over() {
                return Err(Error::Short);
            }
        }
    }
    Ok(out)
}

/// Returns whether `made` of `all` bytes took a quarter more than their share of `bytes_max`, and at least half of it.
fn is_too_much(bytes: usize, made: usize, all: usize, bytes_max: usize) -> bool {
    let share = bytes_max as u128 * made as u128;
    bytes >= (bytes_max / 2).max(TOO_MUCH_MIN) && bytes as u128 * all as u128 * 4 > share * 5
}

/// Cuts a stretch into the parts after each of which a decoder checks that the patch has not ended.
fn parts(from: usize, to: usize) -> impl Iterator<Item = Range<usize>> {
    (from..to).step_by(BETWEEN_CHECKS).map(move |at| at..to.min(at + BETWEEN_CHECKS))
}

fn signed(place: usize) -> i64 {
    i64::try_from(place).expect("a slice is shorter than 2^63 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn around(reference: &[u8], new: &[u8]) -> usize {
        let patch = compress(new, reference).expect("short enough");
        assert!(decompress(&patch, reference, new.len()).as_deref() == Ok(new));
        patch.len()
    }

    #[test]
    fn anything_comes_out_again() {
        let reference = noise(1, 50_000);
        assert!(around(&reference, &reference) < 200);
        assert_eq!(around(&reference, &[]), 4);
        assert!(around(&[], &reference) < 51_000);
        assert!(around(&reference, &noise(2, 20_000)) < 20_500);
        assert!(around(&vec![0; 10_000], &vec![0; 30_000]) < 200);
        let moved = [&reference[30_000..], b"between".as_slice(), &reference[..30_000]].concat();
        assert!(around(&reference, &moved) < 250);
    }

    #[test]
    fn long_runs_with_a_change_here_and_there_come_out_again() {
        let reference = noise(5, 200_000);
        let mut new = reference.clone();
        for at in (700..199_000).step_by(613) {
            new[at] ^= 0x21;
        }
        let cost = around(&reference, &new);
        assert!(cost < 1200, "{cost} B for 324 changes");
    }

    #[test]
    fn a_patch_that_would_be_too_long_is_given_up() {
        let (reference, new) = (noise(6, 200_000), noise(7, 200_000));
        let whole = compress(&new, &reference).expect("short enough").len();
        assert_eq!(compress_within(&new, &reference, whole / 2), Ok(None));
        let within = compress_within(&new, &reference, whole).expect("short enough").expect("as many bytes");
        assert_eq!(within.len(), whole);
        // All that differs is at the beginning.
        let new = [&noise(8, 10_000), &reference[10_000..]].concat();
        assert!(matches!(compress_within(&new, &reference, 15_000), Ok(Some(_))));
    }

    #[test]
    fn addresses_that_all_moved_cost_little() {
        let reference = noise(3, 100_000);
        let mut new = reference.clone();
        for at in (0..99_990).step_by(40) {
            let address =
                u32::from_le_bytes(new[at..at + 4].try_into().expect("four bytes")).wrapping_add(0x40);
            new[at..at + 4].copy_from_slice(&address.to_le_bytes());
        }
        let cost = around(&reference, &new);
        assert!(cost < 4000, "{cost} B for 2,500 addresses");
    }

    #[test]
    fn patches_that_are_cut_or_flipped_never_make_more_than_announced() {
        let reference = noise(4, 3000);
        let new = [&reference[1000..2000], b"some literals".as_slice(), &reference[..500]].concat();
        let patch = compress(&new, &reference).expect("short enough");
        for cut in 0..patch.len() {
            let result = decompress(&patch[..cut], &reference, new.len());
            assert!(result.is_err() || result.is_ok_and(|out| out.len() == new.len()), "cut at {cut}");
        }
        for at in 0..patch.len() {
            for flip in [1, 0x10, 0xff] {
                let mut bad = patch.clone();
                bad[at] ^= flip;
                let result = decompress(&bad, &reference, new.len());
                assert!(result.is_err() || result.is_ok_and(|out| out.len() == new.len()), "byte {at}");
            }
        }
    }
}
