//! Sketches: a few numbers that two chunks share where much of their content is the same.
//!
//! Odess (Zou, Deng, Xia, et al., "Odess: Speeding up Resemblance Detection for Redundancy Elimination by
//! Fast Content-Defined Sampling", ICDE 2021): a gear hash rolls over the bytes, one place in [`SAMPLE`] is
//! sampled where the content says so, twelve linear transforms of its hash each keep their maximum, and
//! four of these make a super-feature (Broder 1997). Two chunks that share one are alike with high odds.

use std::collections::HashMap;

/// One place in so many is sampled: enough for chunks of 4 KiB.
const SAMPLE: u64 = 64;
const FEATURES: usize = 12;
const SUPER_FEATURES: usize = 3;
/// The five spread bits of the gear hash that choose; high ones, which 32 or more bytes decide.
const MASK: u64 = (SAMPLE - 1) << 50;

const fn random(mut state: u64) -> u64 {
    state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

const fn table<const N: usize>(from: u64) -> [u64; N] {
    let mut table = [0; N];
    let mut at = 0;
    while at < N {
        table[at] = random(from + at as u64);
        at += 1;
    }
    table
}

static GEAR: [u64; 256] = table(1);
static FACTORS: [u64; FEATURES] = table(1001);
static ADDENDS: [u64; FEATURES] = table(2001);

/// Three super-features of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sketch([u64; SUPER_FEATURES]);

impl Sketch {
    /// Sketches a chunk; none where too little was sampled to mean anything. About 1 GB/s.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (mut hash, mut samples) = (0u64, 0);
        let mut features = [0u32; FEATURES];
        for byte in bytes {
            hash = (hash << 1).wrapping_add(GEAR[*byte as usize]);
            if hash & MASK == 0 {
                samples += 1;
                for at in 0..FEATURES {
                    let value = FACTORS[at].wrapping_mul(hash).wrapping_add(ADDENDS[at]) >> 32;
                    features[at] = features[at].max(u32::try_from(value).expect("32 bits"));
                }
            }
        }
        let whole = |at: usize| {
            let group = &features[at * FEATURES / SUPER_FEATURES..(at + 1) * FEATURES / SUPER_FEATURES];
            group.iter().fold(at as u64 + 1, |sum, feature| random(sum ^ u64::from(*feature)))
        };
        (samples >= 4).then(|| Self(std::array::from_fn(whole)))
    }

    /// The numbers, each under its own rank.
    pub fn super_features(&self) -> [u64; SUPER_FEATURES] {
        self.0
    }
}

/// Finds values by sketches alike; the latest of each super-feature is kept.
#[derive(Debug)]
pub struct Sketches<T> {
    entries: HashMap<u64, T>,
}

impl<T: Copy + PartialEq> Sketches<T> {
    /// Empty; each chunk put in costs some 60 bytes.
    pub fn new() -> Self {
        Self { entries: HashMap::new() }
    }

    /// Puts a value under its sketch.
    pub fn insert(&mut self, sketch: &Sketch, value: T) {
        for feature in sketch.0 {
            self.entries.insert(feature, value);
        }
    }

    /// The value that shares the most super-features with `sketch`, if any does.
    pub fn most_similar(&self, sketch: &Sketch) -> Option<T> {
        let found: Vec<T> =
            sketch.0.iter().filter_map(|feature| self.entries.get(feature).copied()).collect();
        let shared = |value: &T| found.iter().filter(|other| *other == value).count();
        found.iter().copied().max_by_key(shared)
    }
}

impl<T: Copy + PartialEq> Default for Sketches<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn what_was_edited_and_shifted_is_found_and_the_rest_is_not() {
        let mut sketches = Sketches::new();
        for seed in 0..200 {
            sketches.insert(&Sketch::of(&noise(seed, 16_000)).expect("long enough"), seed);
        }
        let mut found = 0;
        for seed in 0..200 {
            let mut near = noise(seed, 16_000);
            near.splice(3000..3010, *b"inserted");
            near.drain(..100);
            let result = sketches.most_similar(&Sketch::of(&near).expect("long enough"));
            assert!(result.is_none_or(|other| other == seed));
            found += u32::from(result.is_some());
        }
        assert!(found >= 180, "{found} of 200");
        let other = Sketch::of(&noise(1000, 16_000)).expect("long enough");
        assert_eq!(sketches.most_similar(&other), None);
    }

    #[test]
    fn what_is_short_or_dull_has_no_sketch() {
        assert_eq!(Sketch::of(b"short"), None);
        assert_eq!(Sketch::of(&[b'a'; 10_000]), None);
    }
}
