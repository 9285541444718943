//! Unpacks compressed streams and archives, and makes the same bytes of them again (docs/decisions/0015).
//!
//! Pure: bytes in, bytes out.

pub mod deflate;
pub mod codec;
pub mod archive;
