//! Sketches: a few numbers that two chunks share where much of their content is the same.
//!
//! Odess (Zou, Deng, Xia, et al., "Odess: Speeding up Resemblance Detection for Redundancy Elimination by
//! Fast Content-Defined Sampling", ICDE 2021): a gear hash rolls over the bytes, one place in [`SAMPLE`] is
//! sampled where the content says so, twelve linear transforms of its hash each keep their maximum, and
//! four of these make a super-feature (Broder 1997). Two chunks that share one are alike with high odds.

/// One place in this many is sampled: enough for chunks of 4 KiB.
const SAMPLE: u64 = 64;
/// A chunk with fewer samples has no sketch.
const SAMPLES_MIN: usize = 8;
const FEATURES: usize = 12;
const SUPER_FEATURES: usize = 3;
/// Features of a super-feature.
const GROUP: usize = FEATURES / SUPER_FEATURES;
/// The bits of the gear hash that choose a sample: high ones, which depend on 32 or more bytes.
const MASK: u64 = (SAMPLE - 1) << 50;

/// Bytes of which a gear hash consists: an earlier one is shifted out.
const HASHED_BYTES: usize = 64;

/// Bytes of a sketch: three super-features of four bytes. Two chunks share one by chance once
/// in a thousand lookups among a million chunks, which costs a signature.
pub const SKETCH_BYTES: usize = SUPER_FEATURES * 4;

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

/// The super-features of a chunk, each under its own rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sketch([u32; SUPER_FEATURES]);

impl Sketch {
    /// Sketches a chunk; returns none for too few samples. About 1.8 GB/s.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let Samples { count, features } = Samples::of(bytes);
        let whole = |at: usize| {
            let group = &features[at * GROUP..(at + 1) * GROUP];
            let sum = group.iter().fold(at as u64 + 1, |sum, feature| random(sum ^ feature));
            u32::try_from(sum >> 32).expect("32 bits")
        };
        (count >= SAMPLES_MIN).then(|| Self(std::array::from_fn(whole)))
    }

    /// Returns the super-features.
    pub fn super_features(&self) -> [u32; SUPER_FEATURES] {
        self.0
    }

    /// Returns the super-features, little-endian.
    pub fn to_bytes(&self) -> [u8; SKETCH_BYTES] {
        let mut bytes = [0; SKETCH_BYTES];
        for (part, feature) in bytes.as_chunks_mut().0.iter_mut().zip(self.0) {
            *part = feature.to_le_bytes();
        }
        bytes
    }

    /// Decodes [`Sketch::to_bytes`]; any bytes are a valid sketch.
    pub fn from_bytes(bytes: [u8; SKETCH_BYTES]) -> Self {
        let (parts, _) = bytes.as_chunks();
        Self(std::array::from_fn(|at| u32::from_le_bytes(parts[at])))
    }
}

/// What was sampled of a chunk.
#[derive(Default)]
struct Samples {
    count: usize,
    /// The largest of each transform.
    features: [u64; FEATURES],
}

impl Samples {
    /// Samples both halves at once: the hash of a place comes of the 64 bytes before it, and while the one half waits for its last
    /// sum, the other adds.
    fn of(bytes: &[u8]) -> Self {
        let mut samples = Self::default();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let before = &first[first.len().saturating_sub(HASHED_BYTES)..];
        let (mut one, mut two) = (0, before.iter().fold(0, |hash, byte| rolled(hash, *byte)));
        let (paired, last) = second.split_at(first.len());
        // A branch is mispredicted once in 32 steps, which costs less than to store each hash.
        for (byte, other) in first.iter().zip(paired) {
            (one, two) = (rolled(one, *byte), rolled(two, *other));
            if one & MASK == 0 {
                samples.take(one);
            }
            if two & MASK == 0 {
                samples.take(two);
            }
        }
        for byte in last {
            two = rolled(two, *byte);
            if two & MASK == 0 {
                samples.take(two);
            }
        }
        samples
    }

    #[inline]
    fn take(&mut self, hash: u64) {
        self.count += 1;
        for (feature, (factor, addend)) in self.features.iter_mut().zip(FACTORS.iter().zip(&ADDENDS)) {
            *feature = (*feature).max(factor.wrapping_mul(hash).wrapping_add(*addend) >> 32);
        }
    }
}

/// Adds a byte to the gear hash.
fn rolled(hash: u64, byte: u8) -> u64 {
    (hash << 1).wrapping_add(GEAR[usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn shared(one: &Sketch, other: &Sketch) -> usize {
        one.0.iter().zip(&other.0).filter(|(one, other)| one == other).count()
    }

    #[test]
    fn what_was_edited_and_shifted_is_alike_and_the_rest_is_not() {
        let sketch = |bytes: &[u8]| Sketch::of(bytes).expect("long enough");
        let sketches: Vec<Sketch> = (0..200).map(|seed| sketch(&noise(seed, 16_000))).collect();
        let mut found = 0;
        for (seed, old) in (0..).zip(&sketches) {
            let mut near = noise(seed, 16_000);
            near.splice(3000..3010, *b"inserted");
            near.drain(..100);
            let near = sketch(&near);
            found += u32::from(shared(old, &near) > 0);
            let others = sketches.iter().filter(|other| *other != old);
            assert!(others.into_iter().all(|other| shared(other, &near) == 0));
            assert_eq!(Sketch::from_bytes(near.to_bytes()), near);
        }
        assert!(found >= 180, "{found} of 200");
    }

    #[test]
    fn halves_at_once_give_the_samples_of_the_whole() {
        let bytes = noise(2, 5001);
        for length in (0..200).chain([1000, 4999, 5000, 5001]) {
            let (mut hash, mut whole) = (0, Samples::default());
            for byte in &bytes[..length] {
                hash = rolled(hash, *byte);
                if hash & MASK == 0 {
                    whole.take(hash);
                }
            }
            let found = Samples::of(&bytes[..length]);
            assert_eq!((found.count, found.features), (whole.count, whole.features), "{length} B");
        }
    }

    #[test]
    fn what_is_short_or_dull_has_no_sketch() {
        assert_eq!(Sketch::of(b"short"), None);
        assert_eq!(Sketch::of(&[b'a'; 10_000]), None);
    }

    #[test]
    fn sketches_stay_what_they_are() {
        // Stores keep sketches: another computation would no longer find the stored ones.
        assert_eq!(
            Sketch::of(&noise(1, 16_000)).map(|sketch| sketch.super_features()),
            Some([4_024_655_583, 1_550_745_455, 1_294_160_246])
        );
    }
}
