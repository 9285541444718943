//! A rolling checksum: the checksum of a window that moves by one byte costs one byte's work.
//!
//! The polynomial of Karp and Rabin ("Efficient randomized pattern-matching algorithms", 1987) modulo
//! 2^64 over bytes replaced by fixed random words. It rolls as fast as rsync's Adler sum, and a few of
//! its well mixed bits are as good as a strong checksum where nobody plans a collision; who does gets a
//! wrong copy that the chunk's own hash refuses.

/// Knuth's multiplier for 2^64 (MMIX): 5 modulo 8, so its powers take long to repeat.
const FACTOR: u64 = 0x5851_f42d_4c95_7f2d;
const FACTOR_2: u64 = FACTOR.wrapping_mul(FACTOR);
const FACTOR_3: u64 = FACTOR_2.wrapping_mul(FACTOR);
const FACTOR_4: u64 = FACTOR_3.wrapping_mul(FACTOR);

/// One fixed random word for each byte, by splitmix64 (Steele, Lea, Flood 2014).
static WORDS: [u64; 256] = words();

const fn words() -> [u64; 256] {
    let mut words = [0; 256];
    let mut state = 0u64;
    let mut at = 0;
    while at < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        words[at] = word ^ (word >> 31);
        at += 1;
    }
    words
}

/// Returns the checksum of `bytes`, all 64 bits. About 1 byte a cycle.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let word = |byte: u8| WORDS[byte as usize];
    let mut sum = 0u64;
    let mut quads = bytes.chunks_exact(4);
    for quad in &mut quads {
        let high = word(quad[0]).wrapping_mul(FACTOR_3).wrapping_add(word(quad[1]).wrapping_mul(FACTOR_2));
        let low = word(quad[2]).wrapping_mul(FACTOR).wrapping_add(word(quad[3]));
        sum = sum.wrapping_mul(FACTOR_4).wrapping_add(high.wrapping_add(low));
    }
    for byte in quads.remainder() {
        sum = sum.wrapping_mul(FACTOR).wrapping_add(word(*byte));
    }
    sum
}

/// Returns the top `bits` of a checksum after mixing all its bits; `bits` is 1 to 63.
#[inline]
pub(super) fn mixed(sum: u64, bits: u32) -> u64 {
    (sum ^ (sum >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)
}

/// Rolls checksums over windows of one length.
pub(super) struct Roller {
    /// The weight of a leaving byte after the window has moved.
    leaving: [u64; 256],
}

impl Roller {
    pub(super) fn new(window_bytes: usize) -> Self {
        let weight = (0..window_bytes).fold(1u64, |weight, _| weight.wrapping_mul(FACTOR));
        Self { leaving: WORDS.map(|word| word.wrapping_mul(weight)) }
    }

    /// Returns the checksum without `leaves` at the front and with `enters` at the back.
    #[inline]
    pub(super) fn roll(&self, sum: u64, leaves: u8, enters: u8) -> u64 {
        let change = WORDS[enters as usize].wrapping_sub(self.leaving[leaves as usize]);
        sum.wrapping_mul(FACTOR).wrapping_add(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolled_checksum_is_that_of_the_window() {
        let bytes: Vec<u8> = (0..1000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for window in [1, 2, 3, 4, 5, 64, 129] {
            let roller = Roller::new(window);
            let mut rolled = sum(&bytes[..window]);
            for at in 0..bytes.len() - window {
                assert_eq!(rolled, sum(&bytes[at..at + window]));
                rolled = roller.roll(rolled, bytes[at], bytes[at + window]);
            }
        }
    }

    #[test]
    fn checksums_never_change() {
        // Golden values: both ends of a link must agree.
        assert_eq!(sum(b""), 0);
        assert_eq!(mixed(sum(b"whit"), 32), GOLDEN);
    }

    const GOLDEN: u64 = 1_149_688_846;

    #[test]
    fn near_blocks_differ_in_few_bits_no_more_often_than_chance() {
        // Blocks that differ in one byte, or have two swapped, at 16 bits: 1 in 65,536 by chance.
        let block: Vec<u8> = (0..128u8).collect();
        let (own, mut equal, mut pairs) = (mixed(sum(&block), 16), 0, 0);
        for at in 0..128 {
            for other in 0..=255u8 {
                let mut near = block.clone();
                near[at] = other;
                if near != block {
                    (equal, pairs) = (equal + u32::from(mixed(sum(&near), 16) == own), pairs + 1);
                }
                let mut swapped = block.clone();
                swapped.swap(at, other as usize / 2);
                if swapped != block {
                    (equal, pairs) = (equal + u32::from(mixed(sum(&swapped), 16) == own), pairs + 1);
                }
            }
        }
        assert!(pairs > 60_000 && equal <= 5, "{equal} of {pairs}");
    }
}
