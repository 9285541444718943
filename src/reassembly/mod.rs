//! Rebuilds complete artifacts from a manifest and a source of verified chunks.

mod source;

pub use source::{ChunkReader, ChunkSource, SourceError};
