//! What the halves of a transfer need of the content that they build on, and of where they store what arrives.

use std::sync::{Arc, Mutex};

use crate::wire::Refusal;
use format::manifest::Reference;
use format::pack::Frame;
use format::recipe::ChunkRef;

/// Content that can be read: chunks, and the segments of a manifest. Errors are the refusals that the peer or the user
/// gets.
pub trait ContentView {
    /// Appends the bytes of a chunk or segment.
    ///
    /// # Errors
    /// It is not there, or damaged.
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal>;

    /// Returns the lock of heavy work, which takes memory: one at a time in the process.
    fn heavy_work(&self) -> Arc<Mutex<()>> {
        Arc::default()
    }
}

/// Content that the receiving half of a transfer finds and adds to.
pub trait StorageView: ContentView {
    /// Returns the chunk that each reference means, where it is here, or will be once what was given to keep is stored.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal>;

    /// Takes a frame over, to be stored soon.
    ///
    /// # Errors
    /// There is no room, or the disk failed.
    fn keep(&mut self, frame: Frame) -> Result<(), Refusal>;
}
