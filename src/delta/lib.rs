//! Encodes new content against older content: compression, block deltas, patches, executables, and the search for what is
//! similar.
//!
//! Pure: bytes in, bytes out. The folders name no other module than [`compression`] and the arithmetic coder.

pub mod compression;
pub mod probe;
mod arithmetic;
pub mod rsync;
pub mod similar;
pub mod patch;
pub mod relink;
