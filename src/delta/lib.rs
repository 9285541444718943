//! What makes new content small beside older content: compression, block deltas, patches, executables, and the search
//! for what is similar.
//!
//! Pure: bytes in, bytes out. The folders do not name one another, but for [`compression`].

pub mod compression;
mod arithmetic;
pub mod rsync;
pub mod similar;
pub mod patch;
pub mod relink;
