//! Deltas of new bytes against old ones that only the other side has.
//!
//! rsync's algorithm (Tridgell and Mackerras, "The rsync algorithm", 1996): the side with the reference sends its
//! [`Signature`], a few bits for each block; the side with the new bytes lets a [`Matcher`] find these blocks at any
//! offset and answers with a [`Delta`] of copies and inserts, the inserted bytes in a stream of their own.
//! From zsync (Phipps, 2005) comes that two neighbouring blocks must match before either is believed, so that
//! each needs only half as many bits.
//!
//! **Nothing here proves a result.** A match is only likely, and a peer may lie: the caller hashes the chunks
//! that [`Delta::apply`] rebuilds, and asks for those that are not what their ids say in full.
//!
//! Bytes in, values out. Whatever a peer sends, memory is bounded by a small multiple of the message and of
//! what the caller announced, time by O((reference + new) log reference).

mod geometry;
mod instructions;
mod matcher;
mod rolling;
mod signature;

pub use geometry::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Geometry, REFERENCE_BYTES_MAX};
pub use instructions::{ApplyError, Delta, Instruction};
pub use matcher::Matcher;
pub use signature::{ODDS_DEFAULT, Signature, block_bytes, checksum_bits};

use ground::faults::{Fault, faulty};
use ground::leb128;

/// The reasons to refuse a signature or a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends in the middle.
    #[error("a delta message ends too early")]
    Short,
    /// It goes on after its end.
    #[error("a delta message has {0} surplus bytes")]
    Long(usize),
    /// A number of more than 64 bits, or with leading zeros.
    #[error("a number in a delta message is not in its shortest form")]
    Number,
    /// Lengths out of bounds.
    #[error("a reference of {reference_bytes} B in blocks of {block_bytes} B is out of bounds")]
    Geometry {
        /// Bytes of the reference.
        reference_bytes: u64,
        /// Bytes of one block.
        block_bytes: u32,
    },
    /// Checksums that are too short for their use, or too long.
    #[error("checksums of {0} bits are out of bounds")]
    Bits(u8),
    /// A copy of what the reference does not have.
    #[error("a copy of {count} blocks from block {first} exceeds the reference of {blocks} blocks")]
    Copy {
        /// First block.
        first: i64,
        /// Number of blocks.
        count: u64,
        /// Blocks of the reference.
        blocks: u32,
    },
    /// Instructions make more than was announced.
    #[error("a delta produces more than the announced {0} B")]
    Total(u64),
}

impl From<leb128::Error> for Error {
    fn from(error: leb128::Error) -> Self {
        match error {
            leb128::Error::Short => Self::Short,
            leb128::Error::Malformed => Self::Number,
        }
    }
}

faulty! {
    Error;
    _ => Fault::Corrupt;
}
