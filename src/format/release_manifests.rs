//! The manifests of a release that has archives (FORMAT 4.4).

use serde::{Deserialize, Serialize};

use crate::value::{self, NoValue};
use ground::ids::ChunkId;

/// First byte of the value.
const VERSION: u8 = 1;

/// The roots of the manifests that make a release, by how its archives are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseManifests {
    /// All archives are as they are.
    pub packed: Option<ChunkId>,
    /// Some are unpacked.
    pub unpacked: Option<ChunkId>,
}

impl ReleaseManifests {
    /// Returns the roots, the one that costs less to read first.
    pub fn roots(&self) -> impl Iterator<Item = ChunkId> {
        self.packed.into_iter().chain(self.unpacked)
    }

    /// Encodes the value, with a check.
    pub fn encode(&self) -> Vec<u8> {
        value::encode_checked(VERSION, self)
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// It is damaged, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoValue> {
        value::decode_checked(VERSION..=VERSION, bytes)
    }
}
