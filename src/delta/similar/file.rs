//! Files of a release as lists of chunks.

/// A chunk, as far as the choice of references needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first eight bytes of its id: a collision costs a poor reference, nothing worse.
    pub id: u64,
    /// Its plain bytes.
    pub bytes: u32,
}

/// A file of a release.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its path inside the release, `/` between components.
    pub path: &'a [u8],
    /// Its chunks in order.
    pub chunks: &'a [Chunk],
}

impl File<'_> {
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }
}
