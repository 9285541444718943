//! Encodes missing chunks for the link: batches, compression, deltas against older content.

pub mod batcher;
pub mod encoder;
pub mod explain;
pub mod pipeline;
pub mod relinked;
