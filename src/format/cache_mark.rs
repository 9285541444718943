//! The mark of content that was pushed to fill the cache, without a release (FORMAT 4.3).

use serde::{Deserialize, Serialize};

use crate::value;
use ground::ids::UserName;

/// First byte of the value.
const VERSION: u8 = 1;

/// Says for whom, and until when, a manifest's chunks are kept although no release names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMark {
    /// On whose behalf it was pushed.
    pub user: UserName,
    /// Seconds since 1970 up to which it counts.
    pub until: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of content that were sent for it.
    pub sent_bytes: u64,
}

impl CacheMark {
    /// Returns whether the mark no longer counts at `now`, seconds since 1970.
    pub fn has_lapsed(&self, now: u64) -> bool {
        self.until <= now
    }

    /// Encodes the value.
    pub fn encode(&self) -> Vec<u8> {
        value::encode(VERSION, self)
    }

    /// Decodes a value; none if it is damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        value::decode(VERSION..=VERSION, bytes).ok()
    }
}
