//! The format of packs: a header, self-describing frames of neighbouring chunks, a footer (FORMAT 3).
//!
//! This module turns values into bytes and back; it opens no file. A pack that was cut short is still
//! readable: [`Scanner`] walks its frames from the start and stops at the first that is not whole.

mod footer;
mod frame;
mod framer;
mod scanner;

pub use footer::{Footer, FooterChunk, FooterView, TRAILER_BYTES, Trailer, begins_footer};
pub use frame::{FRAME_HEAD_BYTES, FRAME_OVERHEAD, Frame, FrameKind, FrameView, frame_bytes, frame_length};
pub use framer::{FrameEnd, Framer, split};
pub use scanner::Scanner;

use std::fmt;

use ground::faults::{Fault, faulty};

/// A pack's name: 16 random bytes, drawn when the pack is created.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId([u8; 16]);

impl PackId {
    /// Takes over 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the id in a file name's 32 digits, if it is one.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok()?;
        digits.then_some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The reasons to refuse a pack's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a pack.
    #[error("not a pack: its first bytes are not a pack's")]
    Magic,
    /// Made by a newer whit.
    #[error("pack version {0} is unknown to this version")]
    Version(u32),
    /// Damaged or cut short.
    #[error("the {part} at byte {offset} is damaged or cut short")]
    Damaged {
        /// `header`, `frame`, `footer` or `trailer`.
        part: &'static str,
        /// Its offset.
        offset: u64,
    },
    /// A payload that does not decode.
    #[error(transparent)]
    Payload(#[from] delta::compression::Error),
}

faulty! {
    Error;
    Self::Version(_) => Fault::Version;
    _ => Fault::Corrupt;
}

/// Bytes of a pack's header.
pub const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"whitpack";
const VERSION: u32 = 1;

/// Returns the first bytes of the pack named `id`.
pub fn header(id: PackId) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(id.as_bytes());
    bytes
}

/// Reads a header.
///
/// # Errors
/// Bytes that are no header of a known version.
pub fn read_header(bytes: &[u8]) -> Result<PackId, Error> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Error::Damaged { part: "header", offset: 0 })?;
    if header[..8] != MAGIC {
        return Err(Error::Magic);
    }
    match u32::from_le_bytes(four(header, 8)) {
        VERSION => Ok(PackId(header[16..].try_into().expect("a header has 32 bytes"))),
        version => Err(Error::Version(version)),
    }
}

/// Returns the four bytes at `offset`, which the caller has bounded.
fn four(bytes: &[u8], offset: usize) -> [u8; 4] {
    bytes[offset..offset + 4].try_into().expect("four bytes")
}

/// Returns the eight bytes at `offset`, which the caller has bounded.
fn eight(bytes: &[u8], offset: usize) -> [u8; 8] {
    bytes[offset..offset + 8].try_into().expect("eight bytes")
}
