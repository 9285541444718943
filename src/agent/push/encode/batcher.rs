//! Cuts missing chunks into units that are compressed together.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::agent::Result;
use crate::agent::link_speed::{Pace, Packing};
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
pub struct Resembled {
    /// The first of them, among all that are missing.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// The older content.
    pub older: Older,
    /// Why this content.
    pub rule: Rule,
    /// The older file, where its path is known.
    pub older_path: Option<String>,
}

impl Resembled {
    /// Older content at the proxy.
    ///
    /// # Errors
    /// A signature that is none.
    pub fn by(signed: &BlockSums) -> Result<Self, protocol::Error> {
        let mut bytes = signed.signature.as_slice();
        let signature = Signature::decode(&mut bytes, PARCEL_BASIS_MAX as u64).map_err(ParcelError::from)?;
        let (first, count) = (signed.first as usize, signed.chunks as usize);
        let older = Older::BlockSums(signed.region, signature);
        Ok(Self { first, count, older, rule: Rule::from_number(signed.rule), older_path: None })
    }
}

/// Older content, and how it is told.
#[derive(Debug)]
pub enum Older {
    /// Kept here, and at the proxy.
    Kept(Span, Vec<ChunkRef>),
    /// At the proxy alone, which has signed it as the region of that number.
    BlockSums(u32, Signature),
}

impl Older {
    fn bytes(&self) -> usize {
        match self {
            Self::Kept(_, chunks) => chunks.iter().map(|chunk| chunk.bytes as usize).sum(),
            Self::BlockSums(_, signature) => {
                usize::try_from(signature.geometry().basis_bytes()).unwrap_or(usize::MAX)
            }
        }
    }
}

/// Chunks that are compressed together.
#[derive(Debug)]
pub struct Unit {
    /// The chunks, in order.
    pub chunks: Vec<Located>,
    /// What some of them resemble; `first` counts in this unit.
    pub resembled: Vec<Resembled>,
    /// How to compress.
    pub packing: Packing,
    /// Chunks that the proxy has let go, as far as they are known; none where nobody asks why bytes cross.
    pub evicted: Arc<HashSet<ChunkId>>,
}

/// A unit under way.
#[derive(Debug)]
pub struct Gathering<'a> {
    pace: &'a Pace,
    resembled: VecDeque<Resembled>,
    /// Missing chunks so far.
    count: usize,
    unit: Unit,
    bytes: usize,
    basis_bytes: usize,
    /// Chunks that the last region still takes.
    region_left: usize,
}

impl<'a> Gathering<'a> {
    /// Begins; `resembled` is sorted by the first chunk.
    pub fn new(pace: &'a Pace, resembled: Vec<Resembled>) -> Self {
        let evicted = Arc::default();
        let unit = Unit { chunks: Vec::new(), resembled: Vec::new(), packing: pace.packing(), evicted };
        let resembled = resembled.into();
        Self { pace, resembled, count: 0, unit, bytes: 0, basis_bytes: 0, region_left: 0 }
    }

    /// Says which chunks the proxy has let go.
    #[must_use]
    pub fn with_evicted(mut self, evicted: Arc<HashSet<ChunkId>>) -> Self {
        self.unit.evicted = evicted;
        self
    }

    /// Takes the next missing chunk; gives the unit before it where that is full.
    pub fn push(&mut self, located: Located) -> Option<Unit> {
        while self.resembled.front().is_some_and(|next| next.first < self.count) {
            // It begins inside another region.
            self.resembled.pop_front();
        }
        let is_next = self.resembled.front().is_some_and(|next| next.first == self.count);
        let begins = if is_next { self.resembled.pop_front() } else { None };
        self.count += 1;
        let mut full = None;
        if let Some(next) = begins.filter(|next| self.region_left == 0 && next.count > 0) {
            let basis = next.older.bytes();
            let crowded = self.basis_bytes + basis > PARCEL_BASIS_TARGET
                || self.unit.chunks.len() + next.count > PARCEL_CHUNKS_MAX
                || matches!(self.unit.packing, Packing::Frames { .. });
            if crowded && !self.unit.chunks.is_empty() {
                full = Some(self.end());
            }
            if basis <= PARCEL_BASIS_TARGET && next.count <= PARCEL_CHUNKS_MAX / 2 {
                // Only parcels can be told against older content.
                self.unit.packing = self.unit.packing.parcels();
                self.basis_bytes += basis;
                self.region_left = next.count;
                self.unit.resembled.push(Resembled { first: self.unit.chunks.len(), ..next });
            }
        }
        self.bytes += located.chunk.bytes as usize;
        self.unit.chunks.push(located);
        self.region_left = self.region_left.saturating_sub(1);
        let (bytes_full, chunks_full) = match self.unit.packing {
            Packing::Frames { .. } => (FRAME_PLAIN_TARGET, FRAME_CHUNKS_MAX),
            Packing::Parcels { .. } if self.basis_bytes > 0 => (PARCEL_PLAIN_AGAINST, PARCEL_CHUNKS_MAX / 2),
            Packing::Parcels { .. } => (PARCEL_PLAIN_TARGET, PARCEL_CHUNKS_MAX / 2),
        };
        let is_full = self.bytes >= bytes_full || self.unit.chunks.len() >= chunks_full;
        // A region stays whole, as long as the parcel's bound allows.
        let bound = self.bytes + ground::limits::CHUNK_BYTES_MAX as usize > PARCEL_PLAIN_MAX
            || self.unit.chunks.len() == PARCEL_CHUNKS_MAX;
        if full.is_none() && (bound || (is_full && self.region_left == 0)) {
            full = Some(self.end());
        }
        full
    }

    /// Passes over the next missing chunk, which is sent otherwise; gives what begins to resemble it there.
    pub fn pass(&mut self) -> Option<Resembled> {
        while self.resembled.front().is_some_and(|next| next.first < self.count) {
            self.resembled.pop_front();
        }
        let is_next = self.resembled.front().is_some_and(|next| next.first == self.count);
        self.count += 1;
        if is_next { self.resembled.pop_front() } else { None }
    }

    /// The last unit, if there is one.
    pub fn finish(mut self) -> Option<Unit> {
        (!self.unit.chunks.is_empty()).then(|| self.end())
    }

    fn end(&mut self) -> Unit {
        let (packing, evicted) = (self.pace.packing(), Arc::clone(&self.unit.evicted));
        let next = Unit { chunks: Vec::new(), resembled: Vec::new(), packing, evicted };
        (self.bytes, self.basis_bytes) = (0, 0);
        let mut unit = std::mem::replace(&mut self.unit, next);
        if self.region_left > 0 {
            // Cut inside a region: the rest of it goes whole, and so does this part.
            unit.resembled.pop();
            self.region_left = 0;
        }
        unit
    }
}

/// Chooses between older content found by sketches and content kept here. Where both are for the same chunks, takes what
/// was found by content, if it covers most of them.
pub fn merge(mut signed: Vec<Resembled>, mut kept: Vec<Resembled>) -> Vec<Resembled> {
    let common = |one: &Resembled, other: &Resembled| {
        let end = (one.first + one.count).min(other.first + other.count);
        end.saturating_sub(one.first.max(other.first))
    };
    kept.retain(|kept| signed.iter().map(|signed| common(kept, signed)).sum::<usize>() * 2 <= kept.count);
    signed.retain(|signed| kept.iter().all(|kept| common(kept, signed) == 0));
    signed.append(&mut kept);
    signed.sort_by_key(|resembled| resembled.first);
    signed
}
