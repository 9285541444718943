//! Estimates by samples what content takes in an encoding, where encoding all of it would take seconds.
//!
//! The estimates choose encodings, so which samples are taken decides the bytes that cross. The same content always
//! gives the same samples.

use std::ops::Range;

use crate::compression::{self, Codec, Compressor, LEVEL_FAST};

/// How many samples are taken, how long each is, and how much of a reference it is encoded against.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Samples of one content.
    pub samples: usize,
    /// Bytes of one sample.
    pub sample_bytes: usize,
    /// Bytes of the reference for one sample.
    pub reference_bytes: usize,
}

/// 3 samples of 128 KiB against 1 MiB each: estimates what an executable takes other than by its functions.
pub const EXECUTABLE: Probe = Probe { samples: 3, sample_bytes: 128 * 1024, reference_bytes: 1024 * 1024 };
/// The first 64 KiB against 2 MiB: shows whether content resembles other content of the same path.
pub const SAME_PATH: Probe = Probe { samples: 1, sample_bytes: 64 * 1024, reference_bytes: 2 * 1024 * 1024 };

impl Probe {
    /// Returns where the samples of `length` units start, evenly spaced, the first at 0.
    pub fn starts(self, length: usize) -> impl Iterator<Item = usize> {
        (0..self.samples).map(move |number| number * length / self.samples)
    }

    /// Returns the part of `old` that a sample is encoded against: `place` and half of the reference's bytes on either side.
    pub fn reference(self, old: &[u8], place: Range<usize>) -> &[u8] {
        let end = (place.end + self.reference_bytes / 2).min(old.len());
        &old[place.start.saturating_sub(self.reference_bytes / 2).min(end)..end]
    }
}

/// The bytes of samples, plain and encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    plain: usize,
    encoded: usize,
}

impl Estimate {
    /// Measures samples; `encoded_bytes` returns the length of one sample's encoding.
    pub fn of(
        samples: impl Iterator<Item = Range<usize>>,
        encoded_bytes: impl Fn(Range<usize>) -> usize,
    ) -> Self {
        samples.fold(Self { plain: 0, encoded: 0 }, |sum, place| Self {
            plain: sum.plain + place.len(),
            encoded: sum.encoded + encoded_bytes(place),
        })
    }

    /// Returns the encoded bytes of `plain` bytes in proportion.
    pub fn scaled(self, plain: usize) -> usize {
        proportion(self.encoded, plain, self.plain)
    }

    /// Returns the encoded bytes of the samples, times how often they fit wholly into `plain` bytes; at least once.
    pub fn repeated(self, plain: usize) -> usize {
        self.encoded * (plain / self.plain.max(1)).max(1)
    }
}

/// Returns `all` in the proportion of `part` to `whole`.
pub fn proportion(part: usize, all: usize, whole: usize) -> usize {
    let share = part as u128 * all as u128 / whole.max(1) as u128;
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// Returns to how many percent the first 64 KiB compress at the fast level, 1 to 100.
pub fn compressed_percent(plain: &[u8]) -> u64 {
    let sample = &plain[..plain.len().min(64 * 1024)];
    let (_, compressed) = Compressor::new(LEVEL_FAST).compress(sample);
    (100 * compressed.len() / sample.len().max(1)).clamp(1, 100) as u64
}

/// Returns whether 8 samples of 16 KiB shrink by `slack` percent at most: compressed or encrypted content, on which high
/// levels would spend seconds for nothing. False below 128 KiB.
pub fn is_dense(plain: &[u8], slack: usize) -> bool {
    const SAMPLE: usize = 16 * 1024;
    if plain.len() < 8 * SAMPLE {
        return false;
    }
    let mut compressor = Compressor::new(LEVEL_FAST);
    plain.chunks(plain.len() / 8).all(|part| {
        let part = &part[..SAMPLE.min(part.len())];
        let (codec, payload) = compressor.compress(part);
        codec == Codec::Raw || payload.len() * 100 >= part.len() * (100 - slack)
    })
}

/// Returns whether 256 KiB from the middle of dense content shrink against `reference` to less than 98 percent, as only
/// copies do.
pub fn shares_copies(plain: &[u8], reference: &[u8]) -> bool {
    const SAMPLE: usize = 256 * 1024;
    let begin = plain.len().saturating_sub(SAMPLE) / 2;
    let sample = &plain[begin..plain.len().min(begin + SAMPLE)];
    compressed_bytes(reference, sample) < sample.len() / 100 * 98
}

/// Returns whether a sample shrinks by a quarter against `reference`, compared with compressing it alone.
pub fn resembles(sample: &[u8], reference: &[u8]) -> bool {
    compressed_bytes(reference, sample) * 4 < compressed_bytes(&[], sample) * 3
}

fn compressed_bytes(reference: &[u8], sample: &[u8]) -> usize {
    compression::compress_against(reference, sample, LEVEL_FAST).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn samples_are_taken_in_the_same_places_always() {
        assert_eq!(EXECUTABLE.starts(10).collect::<Vec<_>>(), [0, 3, 6]);
        assert_eq!(EXECUTABLE.starts(11).collect::<Vec<_>>(), [0, 3, 7]);
        assert_eq!(EXECUTABLE.starts(1).collect::<Vec<_>>(), [0, 0, 0]);
        assert_eq!(EXECUTABLE.starts(0).collect::<Vec<_>>(), [0, 0, 0]);
    }

    #[test]
    fn a_reference_lies_around_its_sample_as_far_as_there_are_bytes() {
        let (old, half) = (noise(3 << 20, 1), 512 * 1024);
        let place = 1 << 20..(1 << 20) + 9;
        assert_eq!(EXECUTABLE.reference(&old, place), &old[half..(1 << 20) + 9 + half]);
        assert_eq!(EXECUTABLE.reference(&old, 5..5), &old[..5 + half]);
        assert_eq!(EXECUTABLE.reference(&old, old.len()..old.len()), &old[old.len() - half..]);
        assert_eq!(EXECUTABLE.reference(&old[..7], 4 << 20..5 << 20), &[]);
    }

    #[test]
    fn an_estimate_is_scaled_exactly_or_in_whole_times() {
        let estimate = Estimate::of([0..40, 50..100].into_iter(), |place| place.len() / 3);
        assert_eq!(estimate, Estimate { plain: 90, encoded: 29 });
        assert_eq!((estimate.scaled(200), estimate.repeated(200)), (64, 58));
        assert_eq!((estimate.scaled(50), estimate.repeated(50)), (16, 29));
        let nothing = Estimate::of(std::iter::empty(), |_| 1);
        assert_eq!((nothing.scaled(9), nothing.repeated(9)), (0, 0));
    }

    #[test]
    fn dense_bytes_share_copies_with_their_older_version_alone() {
        let old = noise(1 << 20, 1);
        let mut new = old.clone();
        new.iter_mut().step_by(8_000).for_each(|byte| *byte ^= 1);
        assert!(is_dense(&new, 0) && is_dense(&new, 3));
        assert!(shares_copies(&new, &old), "edited here and there");
        assert!(!shares_copies(&noise(1 << 20, 2), &old), "made anew");
        assert!(resembles(&new[..64 * 1024], &old) && !resembles(&new[..64 * 1024], &[]));
    }
}
