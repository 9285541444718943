//! Where the reassembler's chunks come from: a store, or what a pulling agent has fetched and holds.

use super::Rebuilt;
use format::recipe::ChunkRef;
use ground::faults::{Fault, faulty};
use ground::ids::ChunkId;

/// Why a chunk could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No place holds it.
    #[error("chunk {0} is not there")]
    Unknown(ChunkId),
    /// A place holds something else.
    #[error("chunk {id} is damaged")]
    Damaged {
        /// The chunk.
        id: ChunkId,
        /// The file that should hold it: for the log of who reads, not for a peer.
        place: String,
    },
    /// The place cannot be read.
    #[error(transparent)]
    File(#[from] disk::files::Error),
    /// The index cannot answer.
    #[error("the index could not answer: {text}")]
    Index {
        /// What can be done.
        fault: Fault,
        /// Why not.
        text: String,
    },
}

faulty! {
    SourceError passes on File;
    Self::Unknown(_) | Self::Damaged { .. } => Fault::Corrupt;
    Self::Index { fault, .. } => *fault;
}

/// Gives out readers, one for each thread.
pub trait ChunkSource: Sync {
    /// A reader with its own small cache of decoded frames.
    fn reader(&self) -> Box<dyn ChunkReader + '_>;

    /// Archives that were rebuilt earlier, where some are kept.
    fn rebuilt(&self) -> Option<&Rebuilt> {
        None
    }
}

/// Reads chunks; neighbours in quick succession are cheap.
pub trait ChunkReader {
    /// Appends the chunk's plain bytes to `out`, verified by their BLAKE3.
    ///
    /// # Errors
    /// The chunk is unknown, damaged or unreadable; `out` is then as it was.
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), SourceError>;
}
