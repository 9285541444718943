//! Packed streams by name: who has seen one before says how it was made, and nobody inflates or encodes it again.

use std::collections::HashMap;
use std::hash::BuildHasher;

use crate::codec::Method;
use ground::ids::ArtifactId;

/// Bytes of a name.
const NAME_BYTES: usize = 16;

/// The name of a packed stream: the first 16 bytes of the BLAKE3 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName([u8; NAME_BYTES]);

impl StreamName {
    /// Names the bytes of a stream.
    pub fn of(packed: &[u8]) -> Self {
        let hash = ArtifactId::of(packed);
        Self(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; NAME_BYTES] {
        &self.0
    }

    /// Returns the name with these bytes.
    pub const fn from_bytes(bytes: [u8; NAME_BYTES]) -> Self {
        Self(bytes)
    }
}

/// What is known of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownStream {
    /// The method that makes it.
    pub method: Method,
    /// Bytes that it decodes to; where they are not known, the stream is decoded.
    pub plain: Option<u64>,
    /// True if its plain bytes are known not to begin an archive: nobody looks into them.
    pub is_leaf: bool,
}

/// Tells what is known of streams. What it tells is believed: only rebuilding the archive proves it.
pub trait KnownStreams: Send + Sync {
    /// Returns what is known of the stream with this name.
    fn find(&self, name: &StreamName) -> Option<KnownStream>;
}

impl<S: BuildHasher + Send + Sync> KnownStreams for HashMap<StreamName, KnownStream, S> {
    fn find(&self, name: &StreamName) -> Option<KnownStream> {
        self.get(name).copied()
    }
}

/// The name of a packed piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: StreamName,
    /// True if its plain bytes do not begin an archive.
    pub is_leaf: bool,
}
