//! The options of a store.

use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
use super::FaultInjection;
use disk::files::Durability;
use ground::limits::{INDEX_RECENT_CHUNKS, PACK_BYTES_TARGET};

/// The options of a store.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of the disk that pushes must leave free; 64 MiB, so that records and the index can still be written.
    pub reserve_bytes: u64,
    /// Bytes of rebuilt archives that may be kept beside the packs; 1 GiB.
    pub rebuilt_bytes: u64,
    /// Bytes at which a pack is sealed; [`PACK_BYTES_TARGET`].
    pub pack_bytes: u64,
    /// How long content that was pushed without a release is kept; 24 hours. Zero keeps none.
    pub cached_for: Duration,
    /// New chunks that memory answers for until the index has them; [`INDEX_RECENT_CHUNKS`].
    pub recent_chunks: usize,
    /// The chunks that a closed store leaves out of the index, for the next start to read from the packs; none. A store that is
    /// opened for one command is quicker so.
    pub unindexed_chunks: usize,
    /// The loss that sealed packs and the index must survive; a power loss. What [`Store::sync`](super::Store::sync) promises
    /// holds all the same.
    pub durability: Durability,
    /// The clock by which leases lapse; the system's.
    pub now: fn() -> Instant,
    /// The mistake that a test injects.
    #[cfg(feature = "testing")]
    pub fault_injection: Option<FaultInjection>,
}

impl Options {
    /// Options of a store that serves one command, beside other data: it needs room only for its own bytes and index, and
    /// begins anew after a power loss.
    pub const PASSING: Self = Self {
        reserve_bytes: 1024 * 1024,
        rebuilt_bytes: 0,
        pack_bytes: PACK_BYTES_TARGET,
        cached_for: Duration::ZERO,
        recent_chunks: INDEX_RECENT_CHUNKS,
        unindexed_chunks: 16 * 1024,
        durability: Durability::Unsynced,
        now: Instant::now,
        #[cfg(feature = "testing")]
        fault_injection: None,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reserve_bytes: 64 * 1024 * 1024,
            rebuilt_bytes: 1024 * 1024 * 1024,
            pack_bytes: PACK_BYTES_TARGET,
            cached_for: Duration::from_secs(24 * 3600),
            recent_chunks: INDEX_RECENT_CHUNKS,
            unindexed_chunks: 0,
            durability: Durability::Synced,
            now: Instant::now,
            #[cfg(feature = "testing")]
            fault_injection: None,
        }
    }
}
