//! How an artifact is rebuilt.

use ground::ids::{ArtifactId, ChunkId, ContentId};
use ground::limits::{STREAM_BYTES_FREE, STREAM_BYTES_MAX, STREAM_RATIO_MAX};

/// One chunk inside a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The chunk's name.
    pub id: ChunkId,
    /// The chunk's plain bytes.
    pub bytes: u32,
}

impl ChunkRef {
    /// Names a chunk's bytes, which are at most 64 KiB.
    pub fn of(bytes: &[u8]) -> Self {
        Self { id: ChunkId::of(bytes), bytes: u32::try_from(bytes.len()).expect("chunks are at most 64 KiB") }
    }
}

/// The recipe of one artifact. In a manifest its parts follow the artifact's entry as items.
///
/// The number of a variant is part of the format (FORMAT 2.2); a reader refuses numbers it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// 0: the chunk items that follow, one after another.
    Chunks,
    /// 1, in manifests of earlier versions, and 3: an archive that was unpacked.
    Container(Container),
    /// 2: an archive as it is: the chunk items that follow, one after another.
    Packed,
}

/// The chunk items that follow make a stream, from which the archive is rebuilt (`container`, FORMAT 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Container {
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// The archive.
    pub artifact: ArtifactId,
    /// The content of the archive as it is; none in manifests of earlier versions.
    pub content: Option<ContentId>,
}

/// Names a content by the chunks that it is cut into.
#[derive(Debug, Clone, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds the next chunk.
    pub fn push(&mut self, chunk: &ChunkRef) {
        self.0.update(chunk.id.as_bytes()).update(&chunk.bytes.to_le_bytes());
    }

    /// Returns the name of the content whose chunks were added.
    pub fn finish(&self) -> ContentId {
        ContentId::from_bytes(*self.0.finalize().as_bytes())
    }

    /// Names the content of these chunks.
    pub fn of<'a>(chunks: impl IntoIterator<Item = &'a ChunkRef>) -> ContentId {
        let mut hasher = Self::default();
        chunks.into_iter().for_each(|chunk| hasher.push(chunk));
        hasher.finish()
    }
}

impl Recipe {
    /// Returns the variant's number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Chunks => 0,
            Self::Container(Container { content: None, .. }) => 1,
            Self::Packed => 2,
            Self::Container(Container { content: Some(_), .. }) => 3,
        }
    }

    /// Returns the sum of the chunks of a file of `size` bytes.
    pub fn chunk_bytes(self, size: u64) -> u64 {
        match self {
            Self::Chunks | Self::Packed => size,
            Self::Container(container) => container.stream_bytes,
        }
    }

    /// Returns the recipe of an archive that was unpacked, where it is one.
    pub fn container(self) -> Option<Container> {
        match self {
            Self::Chunks | Self::Packed => None,
            Self::Container(container) => Some(container),
        }
    }
}

impl Container {
    /// Returns whether a stream may be this long for an archive of `size` bytes: what it costs to rebuild is
    /// bounded by it.
    pub fn is_bounded(self, size: u64) -> bool {
        let by_ratio = size.saturating_mul(STREAM_RATIO_MAX).saturating_add(STREAM_BYTES_FREE);
        self.stream_bytes <= by_ratio.min(STREAM_BYTES_MAX)
    }
}
