//! Chunks of zeros, which become holes in the files that they are written to.

use std::sync::LazyLock;

use format::recipe::ChunkRef;
use ground::ids::ChunkId;
use ground::limits::CHUNK_BYTES_MAX;

/// The largest chunk of zeros: every chunk of a longer run of zeros is this one, wherever the run begins.
static ZEROS: LazyLock<ChunkId> = LazyLock::new(|| ChunkId::of(&[0; CHUNK_BYTES_MAX as usize]));

/// Returns whether a chunk becomes a hole in its file: 64 KiB of zeros.
pub fn is_hole(chunk: &ChunkRef) -> bool {
    chunk.bytes == CHUNK_BYTES_MAX && chunk.id == *ZEROS
}
