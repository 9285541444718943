//! The source of chunks to rebuild from: a store, or the chunks that a pulling agent fetched and has.

use std::sync::Arc;

use super::Rebuilt;
use format::recipe::ChunkRef;
use ground::faults::{Fault, faulty};
use ground::ids::ChunkId;

/// The reason why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source does not have it.
    #[error("chunk {0} is missing")]
    Unknown(ChunkId),
    /// The source has other bytes for it.
    #[error("chunk {id} is damaged")]
    Damaged {
        /// The chunk.
        id: ChunkId,
        /// The place where it should be: for the reader's own log, not for a peer.
        location: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] disk::files::Error),
    /// The index cannot answer.
    #[error("the index could not answer: {text}")]
    Index {
        /// The kind of the failure.
        fault: Fault,
        /// The reason.
        text: String,
    },
}

faulty! {
    SourceError passes on File;
    Self::Unknown(_) | Self::Damaged { .. } => Fault::Corrupt;
    Self::Index { fault, .. } => *fault;
}

/// Creates readers of chunks, one for each thread.
pub trait ChunkSource: Sync {
    /// Returns a reader with its own small cache of decoded frames.
    fn reader(&self) -> Box<dyn ChunkReader + '_>;

    /// Returns the cache of rebuilt archives, if there is one.
    fn rebuilt(&self) -> Option<&Rebuilt> {
        None
    }

    /// Returns the same chunks for threads that outlive this borrow; none where the source cannot be shared.
    fn shared(&self) -> Option<Arc<dyn SharedSource>> {
        None
    }
}

/// A source of chunks that several threads hold.
pub trait SharedSource: Send + Sync {
    /// Returns a reader with its own small cache of decoded frames.
    fn shared_reader(self: Arc<Self>) -> Box<dyn ChunkReader + Send>;

    /// Returns whether the chunk is there, without reading it.
    fn holds_chunk(&self, chunk: &ChunkRef) -> bool;
}

/// Reads chunks; neighbours in quick succession are cheap.
pub trait ChunkReader {
    /// Appends the chunk's plain bytes to `out`, verified by their BLAKE3.
    ///
    /// # Errors
    /// The chunk is unknown, damaged or unreadable; `out` is then as it was.
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError>;
}
