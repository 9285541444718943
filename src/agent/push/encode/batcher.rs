//! Cuts missing chunks into batches that are compressed together.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::agent::Result;
use crate::agent::link_speed::{Encoding, LinkSpeed};
use crate::agent::scan::Located;
use delta::rsync::Signature;
use delta::similar::Rule;
use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::{
    FRAME_CHUNKS_MAX, FRAME_PLAIN_TARGET, PARCEL_BASIS_MAX, PARCEL_CHUNKS_MAX, PARCEL_PLAIN_MAX,
};
use protocol::wire::{BlockSums, ParcelError, Span};

/// 4 MiB: plain bytes of a parcel; with a window over all of it, larger ones save less than 1 %.
const PARCEL_PLAIN_TARGET: usize = 4 * 1024 * 1024;
/// 7 MiB: the same against older content, where each parcel's coder learns anew.
const PARCEL_PLAIN_AGAINST: usize = 7 * 1024 * 1024;
/// 12 MiB: older bytes that one parcel is compressed against.
const PARCEL_BASIS_TARGET: usize = 12 * 1024 * 1024;

/// Older content that some missing chunks resemble.
#[derive(Debug)]
pub struct Match {
    /// The first of them, among all that are missing.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// The older content.
    pub older: DeltaReference,
    /// Why this content.
    pub rule: Rule,
    /// The older file, where its path is known.
    pub path: Option<String>,
}

impl Match {
    /// Older content at the proxy.
    ///
    /// # Errors
    /// A signature that is none.
    pub fn at_proxy(signed: &BlockSums) -> Result<Self, protocol::Error> {
        let mut bytes = signed.signature.as_slice();
        let signature = Signature::decode(&mut bytes, PARCEL_BASIS_MAX as u64).map_err(ParcelError::from)?;
        let (first, count) = (signed.first as usize, signed.chunks as usize);
        let older = DeltaReference::BlockSums(signed.region, signature);
        Ok(Self { first, count, older, rule: Rule::from_number(signed.rule), path: None })
    }
}

/// Older content, and how it is told.
#[derive(Debug)]
pub enum DeltaReference {
    /// Kept here, and at the proxy.
    Cached(Span, Vec<ChunkRef>),
    /// At the proxy alone, which has signed it as the region of that number.
    BlockSums(u32, Signature),
}

impl DeltaReference {
    fn bytes(&self) -> usize {
        match self {
            Self::Cached(_, chunks) => chunks.iter().map(|chunk| chunk.bytes as usize).sum(),
            Self::BlockSums(_, signature) => {
                usize::try_from(signature.geometry().basis_bytes()).unwrap_or(usize::MAX)
            }
        }
    }
}

/// Chunks that are compressed together.
#[derive(Debug)]
pub struct Batch {
    /// The chunks, in order.
    pub chunks: Vec<Located>,
    /// What some of them resemble; `first` counts in this batch.
    pub matches: Vec<Match>,
    /// How to compress.
    pub encoding: Encoding,
    /// Chunks that the proxy has let go, as far as they are known; none where nobody asks why bytes cross.
    pub evicted: Arc<HashSet<ChunkId>>,
}

/// A batch under way.
#[derive(Debug)]
pub struct Batcher<'a> {
    speed: &'a LinkSpeed,
    matches: VecDeque<Match>,
    /// Missing chunks so far.
    count: usize,
    batch: Batch,
    bytes: usize,
    basis_bytes: usize,
    /// Chunks that the last region still takes.
    region_left: usize,
}

impl<'a> Batcher<'a> {
    /// Begins; `matches` is sorted by the first chunk.
    pub fn new(speed: &'a LinkSpeed, matches: Vec<Match>) -> Self {
        let evicted = Arc::default();
        let batch = Batch { chunks: Vec::new(), matches: Vec::new(), encoding: speed.encoding(), evicted };
        let matches = matches.into();
        Self { speed, matches, count: 0, batch, bytes: 0, basis_bytes: 0, region_left: 0 }
    }

    /// Says which chunks the proxy has let go.
    #[must_use]
    pub fn with_evicted(mut self, evicted: Arc<HashSet<ChunkId>>) -> Self {
        self.batch.evicted = evicted;
        self
    }

    /// Takes the next missing chunk; gives the batch before it where that is full.
    pub fn push(&mut self, located: Located) -> Option<Batch> {
        while self.matches.front().is_some_and(|next| next.first < self.count) {
            // It begins inside another region.
            self.matches.pop_front();
        }
        let is_next = self.matches.front().is_some_and(|next| next.first == self.count);
        let begins = if is_next { self.matches.pop_front() } else { None };
        self.count += 1;
        let mut full = None;
        if let Some(next) = begins.filter(|next| self.region_left == 0 && next.count > 0) {
            let basis = next.older.bytes();
            let crowded = self.basis_bytes + basis > PARCEL_BASIS_TARGET
                || self.batch.chunks.len() + next.count > PARCEL_CHUNKS_MAX
                || matches!(self.batch.encoding, Encoding::Frames { .. });
            if crowded && !self.batch.chunks.is_empty() {
                full = Some(self.end());
            }
            if basis <= PARCEL_BASIS_TARGET && next.count <= PARCEL_CHUNKS_MAX / 2 {
                // Only parcels can be told against older content.
                self.batch.encoding = self.batch.encoding.parcels();
                self.basis_bytes += basis;
                self.region_left = next.count;
                self.batch.matches.push(Match { first: self.batch.chunks.len(), ..next });
            }
        }
        self.bytes += located.chunk.bytes as usize;
        self.batch.chunks.push(located);
        self.region_left = self.region_left.saturating_sub(1);
        let (bytes_full, chunks_full) = match self.batch.encoding {
            Encoding::Frames { .. } => (FRAME_PLAIN_TARGET, FRAME_CHUNKS_MAX),
            Encoding::Parcels { .. } if self.basis_bytes > 0 => (PARCEL_PLAIN_AGAINST, PARCEL_CHUNKS_MAX / 2),
            Encoding::Parcels { .. } => (PARCEL_PLAIN_TARGET, PARCEL_CHUNKS_MAX / 2),
        };
        let is_full = self.bytes >= bytes_full || self.batch.chunks.len() >= chunks_full;
        // A region stays whole, as long as the parcel's bound allows.
        let bound = self.bytes + ground::limits::CHUNK_BYTES_MAX as usize > PARCEL_PLAIN_MAX
            || self.batch.chunks.len() == PARCEL_CHUNKS_MAX;
        if full.is_none() && (bound || (is_full && self.region_left == 0)) {
            full = Some(self.end());
        }
        full
    }

    /// Passes over the next missing chunk, which is sent otherwise; gives what begins to resemble it there.
    pub fn pass(&mut self) -> Option<Match> {
        while self.matches.front().is_some_and(|next| next.first < self.count) {
            self.matches.pop_front();
        }
        let is_next = self.matches.front().is_some_and(|next| next.first == self.count);
        self.count += 1;
        if is_next { self.matches.pop_front() } else { None }
    }

    /// The last batch, if there is one.
    pub fn finish(mut self) -> Option<Batch> {
        (!self.batch.chunks.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> Batch {
        let (encoding, evicted) = (self.speed.encoding(), Arc::clone(&self.batch.evicted));
        let next = Batch { chunks: Vec::new(), matches: Vec::new(), encoding, evicted };
        (self.bytes, self.basis_bytes) = (0, 0);
        let mut batch = std::mem::replace(&mut self.batch, next);
        if self.region_left > 0 {
            // Cut inside a region: the rest of it goes whole, and so does this part.
            batch.matches.pop();
            self.region_left = 0;
        }
        batch
    }
}

/// Chooses between older content found by sketches and content kept here. Where both are for the same chunks, takes what
/// was found by content, if it covers most of them.
pub fn merge(mut signed: Vec<Match>, mut kept: Vec<Match>) -> Vec<Match> {
    let common = |one: &Match, other: &Match| {
        let end = (one.first + one.count).min(other.first + other.count);
        end.saturating_sub(one.first.max(other.first))
    };
    kept.retain(|kept| signed.iter().map(|signed| common(kept, signed)).sum::<usize>() * 2 <= kept.count);
    signed.retain(|signed| kept.iter().all(|kept| common(kept, signed) == 0));
    signed.append(&mut kept);
    signed.sort_by_key(|matches| matches.first);
    signed
}
