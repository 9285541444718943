//! Answers for most chunks that a run does not have, without a read.
//!
//! A Bloom filter in blocks of one cache line each: 10 bits a chunk, one wrong yes among some 80 answers. It
//! knows chunks by the first bytes of their ids, as short ids are looked for too.
// Putze, Sanders and Singler, Cache-, Hash- and Space-Efficient Bloom Filters, 2007: a block holds all bits of a key.

use ground::ids::ShortId;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;
const BLOCK_BITS: u64 = 8 * BLOCK_BYTES as u64;
const KEY_BITS: u64 = 10;
/// Bits that a key sets: each uses nine bits of a 64-bit number.
const KEY_PROBES: u32 = 6;

/// The most blocks of a run's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Vec<[u64; BLOCK_BYTES / 8]>);

impl Filter {
    /// Makes an empty filter for at most `keys` keys.
    pub fn new(keys: u64) -> Self {
        let blocks = (keys * KEY_BITS).div_ceil(BLOCK_BITS).max(1);
        Self(vec![[0; BLOCK_BYTES / 8]; usize::try_from(blocks).expect("a run's filter fits into memory")])
    }

    /// Adds an id, or a beginning of one that is no shorter than a short id.
    pub fn insert(&mut self, id: &[u8]) {
        let (block, bits) = self.places(id);
        for bit in bits {
            self.0[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Returns false only where no id was added that begins with `begin`; a beginning too short for the
    /// filter gives true.
    pub fn may_have(&self, begin: &[u8]) -> bool {
        if begin.len() < ShortId::BYTES {
            return true;
        }
        let (block, mut bits) = self.places(begin);
        bits.all(|bit| self.0[block][bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Returns the filter's blocks as bytes.
    pub fn encode(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().flatten().flat_map(|word| word.to_le_bytes())
    }

    /// Reads the output of [`Filter::encode`]; none if there is no block.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let blocks = words.as_chunks::<{ BLOCK_BYTES / 8 }>().0.to_vec();
        (!blocks.is_empty()).then_some(Self(blocks))
    }

    fn places(&self, id: &[u8]) -> (usize, impl Iterator<Item = usize> + use<>) {
        let mut key = [0; 8];
        key[..ShortId::BYTES].copy_from_slice(&id[..ShortId::BYTES]);
        let key = mixed(u64::from_le_bytes(key));
        let block = (u128::from(key) * self.0.len() as u128) >> 64;
        let bits = mixed(key);
        let bits = (0..KEY_PROBES).map(move |probe| ((bits >> (9 * probe)) % BLOCK_BITS) as usize);
        (usize::try_from(block).expect("less than the blocks"), bits)
    }
}

// SplitMix64, Steele, Lea and Flood 2014.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::ids::ChunkId;

    #[test]
    fn what_was_added_is_never_denied_and_little_else_is_affirmed() {
        let id = |number: u32| ChunkId::of(&number.to_le_bytes());
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|number| filter.insert(id(number).as_bytes()));
        let bytes: Vec<u8> = filter.encode().collect();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let filter = Filter::decode(&bytes).expect("a filter");
        for number in 0..10_000 {
            let id = id(number);
            let all = [32, 8, ShortId::BYTES, 3].map(|length| filter.may_have(&id.as_bytes()[..length]));
            assert_eq!(all, [true; 4], "{number}");
        }
        let wrong = (10_000..110_000).filter(|number| filter.may_have(id(*number).as_bytes())).count();
        assert!(wrong < 2500, "{wrong} of 100,000");
        assert_eq!(Filter::decode(&[]), None);
    }
}
