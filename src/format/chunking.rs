//! Cuts byte streams into chunks at places that the content chooses.
//!
//! The algorithm is FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking", 2020), by the
//! `fastcdc` crate with its default normalization. An insertion moves only the cuts next to it, so
//! equal content at other offsets gives equal chunks. Promises: the same bytes and the same
//! [`Profile`] give the same cuts for ever; every chunk but a stream's last is at least `min` long,
//! none is longer than `max`.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use ground::ids::ChunkId;
use ground::limits::CHUNK_BYTES_MAX;

/// The chunker's parameters; they travel in the protocol and are stored in each release's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The algorithm: 1 is FastCDC 2020 with normalization level 1.
    pub algorithm: u8,
    /// The fewest bytes of a chunk, except a stream's last.
    pub min: u32,
    /// The expected bytes of a chunk.
    pub average: u32,
    /// The most bytes of a chunk.
    pub max: u32,
}

/// The reasons to refuse a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Made by a newer whit.
    #[error("chunking algorithm {0} is unknown to this version")]
    Algorithm(u8),
    /// Out of bounds or order.
    #[error("chunking profile {}/{}/{} is out of bounds", .0.min, .0.average, .0.max)]
    Bounds(Profile),
}

impl Profile {
    /// 4, 16, 64 KiB: few ids, and little loss against smaller chunks, as deltas exist (docs/decisions/0002).
    pub const DEFAULT: Self = Self { algorithm: 1, min: 4 * 1024, average: 16 * 1024, max: 64 * 1024 };

    /// Checks a profile from outside.
    ///
    /// # Errors
    /// An unknown algorithm, or sizes that are out of order or out of bounds.
    pub fn check(self) -> Result<Self, Error> {
        if self.algorithm != 1 {
            return Err(Error::Algorithm(self.algorithm));
        }
        let ordered = self.min < self.average && self.average < self.max;
        if ordered && self.min >= 1024 && self.max <= CHUNK_BYTES_MAX && self.average.is_power_of_two() {
            Ok(self)
        } else {
            Err(Error::Bounds(self))
        }
    }

    /// Returns the length of the first chunk of `bytes`, which must hold `max` bytes or be the end of the stream.
    ///
    /// Zero only for no bytes. Time O(length).
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let (min, average, max) = (self.min as usize, self.average as usize, self.max as usize);
        fastcdc::v2020::FastCDC::new(bytes, min, average, max).next().map_or(0, |chunk| chunk.length)
    }

    /// Cuts all bytes of `reader` and passes each chunk to `take`; returns the number of bytes read.
    ///
    /// Memory: `buffer`, which grows to 1 MiB and can be reused.
    ///
    /// # Errors
    /// The first error of `reader` or `take`.
    pub fn cut_all<E: From<io::Error>>(
        &self,
        mut reader: impl Read,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        buffer.resize(READ_BYTES, 0);
        let (mut begin, mut end, mut total) = (0, 0, 0);
        loop {
            buffer.copy_within(begin..end, 0);
            (begin, end) = (0, end - begin);
            while end < buffer.len() {
                match reader.read(&mut buffer[end..]) {
                    Ok(0) => break,
                    Ok(count) => end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let last = end < buffer.len();
            while end - begin >= self.max as usize || (last && begin < end) {
                let length = self.cut(&buffer[begin..end]);
                take(&buffer[begin..begin + length])?;
                begin += length;
                total += length as u64;
            }
            if last {
                return Ok(total);
            }
        }
    }
}

/// Cuts bytes that come in pieces as [`Profile::cut_all`] does. Memory: 1 MiB.
#[derive(Debug)]
pub struct Cutter {
    profile: Profile,
    bytes: Vec<u8>,
}

impl Cutter {
    /// Starts before the first byte.
    pub fn new(profile: Profile) -> Self {
        Self { profile, bytes: Vec::new() }
    }

    /// Takes the next bytes; passes each chunk that is whole to `take`.
    pub fn push(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= READ_BYTES {
            self.cut(self.profile.max as usize, take);
        }
    }

    /// Passes the last chunks to `take`.
    pub fn finish(mut self, take: &mut impl FnMut(&[u8])) {
        self.cut(1, take);
    }

    /// Cuts while `least` bytes are there.
    fn cut(&mut self, least: usize, take: &mut impl FnMut(&[u8])) {
        let mut begin = 0;
        while self.bytes.len() - begin >= least {
            let length = self.profile.cut(&self.bytes[begin..]);
            take(&self.bytes[begin..begin + length]);
            begin += length;
        }
        self.bytes.drain(..begin);
    }
}

/// 1 MiB: one read; many times the largest chunk, so that few bytes move inside the buffer.
const READ_BYTES: usize = 1024 * 1024;

/// A chunk whose id was computed here from its bytes, so that they belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChunk {
    id: ChunkId,
    bytes: Vec<u8>,
}

impl VerifiedChunk {
    /// Hashes `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { id: ChunkId::of(&bytes), bytes }
    }

    /// Returns the chunk's name.
    pub fn id(&self) -> ChunkId {
        self.id
    }

    /// Returns the chunk's plain bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| step()).collect()
    }

    fn cuts(bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        let total = Profile::DEFAULT
            .cut_all::<io::Error>(bytes, &mut Vec::new(), |chunk| {
                lengths.push(chunk.len());
                Ok(())
            })
            .expect("a slice can be read");
        assert_eq!(total, bytes.len() as u64);
        lengths
    }

    #[test]
    fn cut_points_never_change() {
        // Golden values: a change here makes every stored release unlike every new one.
        assert_eq!(cuts(&noise(150_000, 1)), GOLDEN);
    }

    const GOLDEN: [usize; 8] = [8992, 24170, 19690, 20460, 32940, 15942, 13321, 14485];

    #[test]
    fn pieces_of_any_length_are_cut_as_the_whole() {
        let bytes = noise(3_000_000, 3);
        for length in [1 << 20, 77_777, 100] {
            let (mut cutter, mut found) = (Cutter::new(Profile::DEFAULT), Vec::new());
            let mut take = |chunk: &[u8]| found.push(chunk.len());
            bytes.chunks(length).for_each(|piece| cutter.push(piece, &mut take));
            cutter.finish(&mut take);
            assert_eq!(found, cuts(&bytes), "{length}");
        }
    }

    #[test]
    fn an_insertion_changes_only_the_chunks_around_it() {
        let old = noise(4_000_000, 7);
        let mut new = old.clone();
        new.splice(2_000_000..2_000_000, *b"inserted");
        let ids = |bytes: &[u8]| {
            let mut ids = Vec::new();
            Profile::DEFAULT
                .cut_all::<io::Error>(bytes, &mut Vec::new(), |chunk| {
                    ids.push(ChunkId::of(chunk));
                    Ok(())
                })
                .expect("a slice can be read");
            ids
        };
        let (before, after) = (ids(&old), ids(&new));
        assert!(after.iter().filter(|id| !before.contains(id)).count() <= 3);
    }

    #[test]
    fn small_and_empty_streams_are_one_chunk_and_none() {
        assert_eq!(cuts(b""), [0usize; 0]);
        assert_eq!(cuts(b"x"), [1]);
    }

    #[test]
    fn a_hostile_profile_is_refused() {
        let bad = Profile { max: u32::MAX, ..Profile::DEFAULT };
        assert_eq!(bad.check(), Err(Error::Bounds(bad)));
        assert_eq!(Profile { algorithm: 9, ..Profile::DEFAULT }.check(), Err(Error::Algorithm(9)));
        assert_eq!(Profile::DEFAULT.check(), Ok(Profile::DEFAULT));
    }
}
