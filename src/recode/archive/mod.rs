//! Unpacks archives into framing and plain content, and rebuilds them bit for bit.
//!
//! A [`Plan`] says how; [`Planner`] makes it, and keeps of a packed stream only what it has proven; what it
//! does not understand stays as it is. [`unpack`] returns the framing and the content by the plan,
//! [`rebuild`] joins them to the archive. Plan, framing and content one after another are the archive's *stream*, whose
//! head [`encode_head`] makes. Known containers: zip and its kin, gzip, xz, zstd, tar, `ar` (Debian
//! packages), PNG; archives in archives to a bounded depth. No name in an archive is read or used. The
//! whole archive's hash is the caller's to check, as for any other artifact.

mod ar;
mod copying;
mod encoding;
mod gzip;
mod known;
mod limits;
mod parts;
mod plan;
mod planner;
mod png;
mod rebuilding;
mod scratch;
mod sought;
mod tar;
mod unpacking;
mod zip;

use crate::deflate::Hint;

pub use copying::{PackedPiece, PackedStreams, Skip, locate};
pub use encoding::{HEAD_BYTES_MAX, PREFIX_BYTES, decode_head, encode_head, head_bytes};
pub use known::{KnownStream, KnownStreams, Named, StreamName};
pub use limits::Limits;
pub use parts::Parts;
pub use plan::{DEPTH_MAX, Error, Piece, Plan};
pub use planner::{LeftPacked, Planner, begins_archive, is_tight};
pub use rebuilding::{rebuild, rebuild_copying};
pub use scratch::{Memory, Scratch, Take};
pub use unpacking::{Part, unpack};

/// A range of an archive that holds a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    at: u64,
    bytes: u64,
    packing: Packing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Stored,
    Deflated(Hint),
}

impl Member {
    fn stored(at: u64, bytes: u64) -> Self {
        Self { at, bytes, packing: Packing::Stored }
    }

    fn deflated(at: u64, bytes: u64, hint: Hint) -> Self {
        Self { at, bytes, packing: Packing::Deflated(hint) }
    }

    fn end(&self) -> u64 {
        self.at.saturating_add(self.bytes)
    }
}
