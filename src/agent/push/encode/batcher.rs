//! Cuts missing chunks into batches that are compressed together.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::agent::Result;
use crate::agent::pace::Pace;
use crate::agent::scan::{Body, Located};
use delta::rsync::Signature;
use delta::similar::Rule;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{
    FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, PARCEL_BASIS_MAX, PARCEL_CHUNKS_MAX, PARCEL_PLAIN_MAX,
};
use protocol::likeness::BaseFile;
use protocol::transfer::Encoding;
use protocol::wire::{BlockSums, ParcelError, RecordAnswer, Span};

/// 4 MiB: plain bytes of a parcel; with a window over all of it, larger ones save less than 1 %.
const PARCEL_PLAIN_TARGET: usize = 4 * 1024 * 1024;
/// 256 KiB: plain bytes of the first parcel, which the link waits for.
const PARCEL_PLAIN_FIRST: usize = 256 * 1024;
/// 7 MiB: the same against a reference, where each parcel's coder starts to learn again.
const PARCEL_PLAIN_AGAINST: usize = 7 * 1024 * 1024;
/// 12 MiB: reference bytes of one parcel.
const PARCEL_REFERENCE_TARGET: usize = 12 * 1024 * 1024;

/// Older content that some missing chunks resemble.
#[derive(Debug)]
pub struct Match {
    /// The first of these chunks, among all that are missing.
    pub first: usize,
    /// How many chunks.
    pub count: usize,
    /// The older content.
    pub older: DeltaReference,
    /// How it was found.
    pub rule: Rule,
    /// The path of the older file, if known.
    pub path: Option<String>,
}

impl Match {
    /// Takes a match that the proxy found, with the block sums of its content.
    ///
    /// # Errors
    /// The block sums are malformed.
    pub fn at_proxy(signed: &BlockSums) -> Result<Self, protocol::Error> {
        let mut bytes = signed.signature.as_slice();
        let signature = Signature::decode(&mut bytes, PARCEL_BASIS_MAX as u64).map_err(ParcelError::from)?;
        let (first, count) = (signed.first as usize, signed.chunks as usize);
        let older = DeltaReference::BlockSums(signed.region, signature);
        Ok(Self { first, count, older, rule: Rule::from_number(signed.rule), path: None })
    }
}

/// Older content that chunks are encoded against.
#[derive(Debug)]
pub enum DeltaReference {
    /// In the cache here, and at the proxy.
    Cached(Span, Vec<ChunkRef>),
    /// At the proxy alone, which sent block sums of this region.
    BlockSums(u32, Signature),
}

impl DeltaReference {
    fn bytes(&self) -> usize {
        match self {
            Self::Cached(_, chunks) => chunks.iter().map(|chunk| chunk.bytes as usize).sum(),
            Self::BlockSums(_, signature) => {
                usize::try_from(signature.geometry().reference_bytes()).unwrap_or(usize::MAX)
            }
        }
    }
}

/// An older executable, and the new one that resembles it.
#[derive(Debug)]
pub struct OlderExecutable {
    /// The new one.
    pub new: Body,
    /// The older one.
    pub reference: ExecutableReference,
}

/// An older executable, as a reference.
#[derive(Debug)]
pub enum ExecutableReference {
    /// It is cached here, and at the proxy.
    Cached(BaseFile),
    /// It is at the proxy, which answered the query for the new one.
    AtProxy(RecordAnswer),
}

/// Chunks that are encoded together.
#[derive(Debug)]
pub struct Batch {
    /// The chunks, in order.
    pub chunks: Vec<Located>,
    /// What some of them resemble; `first` counts in this batch.
    pub matches: Vec<Match>,
    /// The older version of the executable that all of them are of: all its missing chunks are here, of any number. Where
    /// encoding them by its functions does not pay, they are cut into batches like others.
    pub executable: Option<OlderExecutable>,
    /// How to compress.
    pub encoding: Encoding,
    /// Chunks that the proxy has evicted; empty where nobody asks why bytes cross.
    pub evicted: Arc<HashSet<ChunkId>>,
}

impl Batch {
    /// Begins one without chunks.
    pub fn new(encoding: Encoding, evicted: Arc<HashSet<ChunkId>>) -> Self {
        Self { chunks: Vec::new(), matches: Vec::new(), executable: None, encoding, evicted }
    }

    /// Begins one of an executable.
    pub fn of_executable(older: OlderExecutable, encoding: Encoding) -> Self {
        Self { executable: Some(older), ..Self::new(encoding, Arc::default()) }
    }

    /// Returns whether a chunk is of another executable than this batch, or of none.
    pub fn excludes(&self, located: &Located) -> bool {
        self.executable.as_ref().is_none_or(|older| !located.is_of(&older.new))
    }

    /// Adds a chunk, and the match starting there, if any.
    pub fn push(&mut self, located: Located, matches: Option<Match>) {
        let first = self.chunks.len();
        self.matches.extend(matches.map(|matches| Match { first, ..matches }));
        self.chunks.push(located);
    }

    /// Cuts the chunks of an executable into batches as those of other files; ends when `take` returns false.
    pub fn cut(self, pace: &Pace, mut take: impl FnMut(Self) -> bool) -> bool {
        let mut ramp = Ramp::ended();
        let mut batcher = Batcher::new(pace, &mut ramp, self.matches);
        for located in self.chunks {
            if let Some(batch) = batcher.push(located)
                && !take(batch)
            {
                return false;
            }
        }
        batcher.finish().is_none_or(take)
    }
}

/// The plain bytes of a push's next parcel: few at first, as the link waits for it, then twice as many each time.
#[derive(Debug, Clone, Copy)]
pub struct Ramp(usize);

impl Ramp {
    /// Begins a push. Where bytes are what is short, no parcel is smaller than others.
    pub fn begin(pace: &Pace) -> Self {
        Self(if pace.hurries() { PARCEL_PLAIN_FIRST } else { PARCEL_PLAIN_TARGET })
    }

    /// Returns that of a push under way.
    pub fn ended() -> Self {
        Self(PARCEL_PLAIN_TARGET)
    }

    fn advance(&mut self) {
        self.0 = (self.0 * 2).min(PARCEL_PLAIN_TARGET);
    }
}

/// Collects missing chunks into batches.
#[derive(Debug)]
pub struct Batcher<'a> {
    pace: &'a Pace,
    ramp: &'a mut Ramp,
    matches: VecDeque<Match>,
    /// Missing chunks so far.
    count: usize,
    batch: Batch,
    bytes: usize,
    reference_bytes: usize,
    /// Chunks that the last match still covers.
    match_left: usize,
}

impl<'a> Batcher<'a> {
    /// Starts; `matches` must be sorted by the first chunk.
    pub fn new(pace: &'a Pace, ramp: &'a mut Ramp, matches: Vec<Match>) -> Self {
        let batch = Batch::new(pace.encoding(), Arc::default());
        let matches = matches.into();
        Self { pace, ramp, matches, count: 0, batch, bytes: 0, reference_bytes: 0, match_left: 0 }
    }

    /// Sets which chunks the proxy has evicted.
    #[must_use]
    pub fn with_evicted(mut self, evicted: Arc<HashSet<ChunkId>>) -> Self {
        self.batch.evicted = evicted;
        self
    }

    /// Adds the next missing chunk; returns a batch when one is full.
    pub fn push(&mut self, located: Located) -> Option<Batch> {
        while self.matches.front().is_some_and(|next| next.first < self.count) {
            // It begins inside another match.
            self.matches.pop_front();
        }
        let is_next = self.matches.front().is_some_and(|next| next.first == self.count);
        let begins = if is_next { self.matches.pop_front() } else { None };
        self.count += 1;
        let mut full = None;
        if let Some(next) = begins.filter(|next| self.match_left == 0 && next.count > 0) {
            let reference = next.older.bytes();
            let crowded = self.reference_bytes + reference > PARCEL_REFERENCE_TARGET
                || self.batch.chunks.len() + next.count > PARCEL_CHUNKS_MAX
                || matches!(self.batch.encoding, Encoding::Frames { .. });
            if crowded && !self.batch.chunks.is_empty() {
                full = Some(self.end());
            }
            if reference <= PARCEL_REFERENCE_TARGET && next.count <= PARCEL_CHUNKS_MAX / 2 {
                // Only parcels can be encoded against references.
                self.batch.encoding = self.batch.encoding.parcels();
                self.reference_bytes += reference;
                self.match_left = next.count;
                self.batch.matches.push(Match { first: self.batch.chunks.len(), ..next });
            }
        }
        self.bytes += located.chunk.bytes as usize;
        self.batch.chunks.push(located);
        self.match_left = self.match_left.saturating_sub(1);
        let (bytes_full, chunks_full) = match self.batch.encoding {
            Encoding::Frames { .. } => (FRAME_PLAIN_TARGET, FRAME_CHUNKS_MAX),
            Encoding::Parcels { .. } if self.reference_bytes > 0 => {
                (PARCEL_PLAIN_AGAINST, PARCEL_CHUNKS_MAX / 2)
            }
            Encoding::Parcels { .. } => (self.ramp.0, PARCEL_CHUNKS_MAX / 2),
        };
        let is_full = self.bytes >= bytes_full || self.batch.chunks.len() >= chunks_full;
        // The chunks of a match stay in one batch, as long as the parcel's bound allows.
        let bound = self.bytes + ground::limits::CHUNK_BYTES_MAX as usize > PARCEL_PLAIN_MAX
            || self.batch.chunks.len() == PARCEL_CHUNKS_MAX;
        if full.is_none() && (bound || (is_full && self.match_left == 0)) {
            full = Some(self.end());
        }
        full
    }

    /// Skips one missing chunk that is encoded elsewhere; returns the match starting there, if any.
    pub fn skip(&mut self) -> Option<Match> {
        while self.matches.front().is_some_and(|next| next.first < self.count) {
            self.matches.pop_front();
        }
        let is_next = self.matches.front().is_some_and(|next| next.first == self.count);
        self.count += 1;
        if is_next { self.matches.pop_front() } else { None }
    }

    /// Returns the last batch, if there is one.
    pub fn finish(mut self) -> Option<Batch> {
        (!self.batch.chunks.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> Batch {
        let next = Batch::new(self.pace.encoding(), Arc::clone(&self.batch.evicted));
        (self.bytes, self.reference_bytes) = (0, 0);
        self.ramp.advance();
        let mut batch = std::mem::replace(&mut self.batch, next);
        if self.match_left > 0 {
            // Cut inside a match: neither part of it uses the reference.
            batch.matches.pop();
            self.match_left = 0;
        }
        batch
    }
}

/// Merges matches at the proxy with those in the cache. Where both are for the same chunks, the proxy's, which were found by
/// content, win if they cover most of them.
pub fn merge(mut signed: Vec<Match>, mut cached: Vec<Match>) -> Vec<Match> {
    let common = |one: &Match, other: &Match| {
        let end = (one.first + one.count).min(other.first + other.count);
        end.saturating_sub(one.first.max(other.first))
    };
    cached.retain(|one| signed.iter().map(|signed| common(one, signed)).sum::<usize>() * 2 <= one.count);
    signed.retain(|signed| cached.iter().all(|cached| common(cached, signed) == 0));
    signed.append(&mut cached);
    signed.sort_by_key(|matches| matches.first);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pace::Effort;
    use crate::net::link_estimate::Link;
    use std::time::Duration;

    #[test]
    fn the_first_parcels_of_a_push_are_small_unless_bytes_are_what_is_short() {
        let parcels = |effort| {
            let pace = Pace::new(effort, Link::told(12.5e6, Duration::from_millis(20)), 2);
            let mut ramp = Ramp::begin(&pace);
            let next = || {
                let bytes = ramp.0 / 1024;
                ramp.advance();
                bytes
            };
            std::iter::repeat_with(next).take(6).collect::<Vec<_>>()
        };
        assert_eq!(parcels(Effort::Auto), [256, 512, 1024, 2048, 4096, 4096]);
        assert_eq!(parcels(Effort::Bytes), [4096; 6]);
    }
}
