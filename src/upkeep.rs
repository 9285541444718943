//! What collecting and verifying report.

use serde::{Deserialize, Serialize};

use crate::ids::{AppName, ReleaseId};

/// What a run of the collector did, or in a dry run would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Packs looked at.
    pub packs: u64,
    /// Packs removed, because nothing or little in them was alive.
    pub packs_removed: u64,
    /// Chunks that releases name.
    pub live_chunks: u64,
    /// Chunks removed from disk.
    pub removed_chunks: u64,
    /// Bytes of disk given back, those of rewritten chunks taken off.
    pub reclaimed_bytes: u64,
    /// Chunks that no release names and that stay for now: in packs that are mostly alive.
    pub dead_chunks_left: u64,
    /// Whether chunks wait for pushes under way; the next run takes them.
    pub waits_for_pushes: bool,
}

/// One damaged place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The pack's file.
    pub pack: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Chunks that it costs, as far as is known.
    pub chunks: u64,
}

/// A release that lacks chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// The application.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Chunks of content that are gone; none where parts of the manifest itself are gone.
    pub missing_chunks: Option<u64>,
}

/// What a pass found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Packs read.
    pub packs: u64,
    /// Chunks hashed.
    pub chunks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whether the pass came to its end; else the next goes on from there.
    pub finished: bool,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Packs set aside.
    pub set_aside: u64,
    /// Entries that the index lacked and now has.
    pub indexed: u64,
    /// Chunks healed from delivered copies.
    pub healed_chunks: u64,
    /// Releases that lack chunks, after all repairs.
    pub incomplete: Vec<Incomplete>,
}
