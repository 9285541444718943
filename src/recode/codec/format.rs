//! The formats of streams, and how each begins.

use super::{frame, xz};

/// A format of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Deflate (RFC 1951), without a frame of its own.
    Deflate,
    /// xz.
    Xz,
    /// zstd (RFC 8878).
    Zstd,
}

impl Format {
    /// Returns the format of the xz stream or zstd frame that begins here.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if xz::begins(bytes) {
            Some(Self::Xz)
        } else if frame::begins(bytes) {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// Returns whether making a stream takes some 100 MiB and, for most settings, a second for a few
    /// megabytes.
    pub fn is_heavy(self) -> bool {
        self != Self::Deflate
    }
}
