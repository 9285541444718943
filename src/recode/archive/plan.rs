//! How the bytes of an archive come from its framing and the plain content of its members.

use super::known::{KnownStream, Named, StreamName};
use crate::codec::{self, Method};
use ground::faults::{Fault, faulty};

/// The pieces of an archive, in order, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pieces: Vec<Piece>,
}

/// One piece of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Headers and directories: this many bytes of the framing stream, which is one for the whole plan.
    Framing(u64),
    /// A content stream of its own, of this many bytes, as it stands in the archive.
    Content(u64),
    /// A packed stream.
    Packed {
        /// Its bytes; 0 in a plan that was read from a stream, as rebuilding yields them.
        packed: u64,
        /// The method that encodes its plain bytes.
        method: Method,
        /// The plain bytes; one content stream if they are no archive.
        plain: Plan,
        /// The stream's name, where the planner was to name streams.
        named: Option<Named>,
    },
}

/// The reasons to refuse a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Lengths that no archive has.
    #[error("the pieces of an archive add up to more than 2^63 B")]
    Length,
    /// A method that this version cannot follow.
    #[error(transparent)]
    Method(#[from] codec::Error),
    /// Deeper than [`DEPTH_MAX`].
    #[error("archives are nested more than {DEPTH_MAX} deep")]
    Depth,
    /// An xz stream or zstd frame in another, for which there is no memory.
    #[error("an xz or zstd stream is inside another compressed stream")]
    Heavy,
    /// Bytes that are no plan.
    #[error("an archive's plan is malformed")]
    Malformed,
    /// Made by a newer whit.
    #[error("archive plan version {0} is unknown to this version")]
    Version(u8),
}

faulty! {
    Error;
    Self::Version(_)
    | Self::Method(codec::Error::Version(_) | codec::Error::Deflate(crate::deflate::Error::Version(_))) =>
        Fault::Version;
    Self::Length | Self::Method(_) | Self::Depth | Self::Heavy | Self::Malformed => Fault::Input;
}

/// 16: levels of nesting in any plan, whatever the limits it was made under.
pub const DEPTH_MAX: u8 = 16;

impl Plan {
    /// Returns the plan of a single content stream.
    pub fn plain(bytes: u64) -> Self {
        let mut plan = Self::default();
        plan.push(Piece::Content(bytes));
        plan
    }

    /// Returns the pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns whether anything but content was found.
    pub fn is_plain(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Content(_))) && self.pieces.len() < 2
    }

    /// Returns the bytes of what the plan describes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(Piece::bytes).sum()
    }

    /// Returns the bytes of the framing, at all levels.
    pub fn framing_bytes(&self) -> u64 {
        let framing = |piece: &Piece| match piece {
            Piece::Framing(bytes) => *bytes,
            Piece::Content(_) => 0,
            Piece::Packed { plain, .. } => plain.framing_bytes(),
        };
        self.pieces.iter().map(framing).sum()
    }

    /// Returns the bytes of all content streams, at all levels.
    pub fn content_bytes(&self) -> u64 {
        let content = |piece: &Piece| match piece {
            Piece::Framing(_) => 0,
            Piece::Content(bytes) => *bytes,
            Piece::Packed { plain, .. } => plain.content_bytes(),
        };
        self.pieces.iter().map(content).sum()
    }

    /// Returns the packed pieces at all levels.
    pub(super) fn packed_count(&self) -> u32 {
        let count = |piece: &Piece| match piece {
            Piece::Packed { plain, .. } => 1 + plain.packed_count(),
            _ => 0,
        };
        self.pieces.iter().map(count).sum()
    }

    /// Returns the bytes of each content stream, at all levels, in the order in which they occur.
    pub fn contents(&self) -> Vec<u64> {
        self.named_contents().into_iter().map(|(bytes, _)| bytes).collect()
    }

    /// Returns the same, each with the name of the packed stream that decodes to it, where it has one.
    pub(super) fn named_contents(&self) -> Vec<(u64, Option<StreamName>)> {
        let mut contents = Vec::new();
        self.append_contents(&mut contents);
        contents
    }

    fn append_contents(&self, contents: &mut Vec<(u64, Option<StreamName>)>) {
        for piece in &self.pieces {
            match (piece, piece.content_name()) {
                (_, Some((name, bytes))) => contents.push((bytes, Some(name))),
                (Piece::Content(bytes), None) => contents.push((*bytes, None)),
                (Piece::Packed { plain, .. }, None) => plain.append_contents(contents),
                (Piece::Framing(_), None) => {}
            }
        }
    }

    /// Returns the packed streams that have names, at all levels, as they may be known from now on.
    pub fn named_streams(&self) -> Vec<(StreamName, KnownStream)> {
        let mut streams = Vec::new();
        self.append_streams(&mut streams);
        streams
    }

    fn append_streams(&self, streams: &mut Vec<(StreamName, KnownStream)>) {
        for piece in &self.pieces {
            let Piece::Packed { method, plain, named, .. } = piece else { continue };
            if let Some(Named { name, is_leaf }) = *named {
                let known = KnownStream { method: *method, plain: Some(plain.bytes()), is_leaf };
                streams.push((name, known));
            }
            plain.append_streams(streams);
        }
    }

    /// Returns whether an xz stream or a zstd frame is in it, at any level.
    pub fn is_heavy(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Packed { method, plain, .. } => method.format().is_heavy() || plain.is_heavy(),
            _ => false,
        })
    }

    /// Returns the pieces at all levels.
    pub fn count(&self) -> usize {
        let count = |piece: &Piece| match piece {
            Piece::Packed { plain, .. } => 1 + plain.count(),
            _ => 1,
        };
        self.pieces.iter().map(count).sum()
    }

    /// Appends a piece; drops an empty one, joins framing to framing.
    pub fn push(&mut self, piece: Piece) {
        match (self.pieces.last_mut(), piece) {
            (_, Piece::Framing(0) | Piece::Content(0)) => {}
            (Some(Piece::Framing(before)), Piece::Framing(bytes)) => *before += bytes,
            (_, piece) => self.pieces.push(piece),
        }
    }

    /// Appends the pieces of another plan.
    pub fn append(&mut self, other: Self) {
        for piece in other.pieces {
            self.push(piece);
        }
    }

    /// Checks a plan that came from outside.
    ///
    /// # Errors
    /// Lengths, methods or levels out of bounds.
    pub fn check(&self) -> Result<(), Error> {
        self.check_below(DEPTH_MAX, false).map(drop)
    }

    /// Checks a plan at this depth; `heavy` is true inside an xz or zstd stream.
    fn check_below(&self, depth: u8, heavy: bool) -> Result<u64, Error> {
        let depth = depth.checked_sub(1).ok_or(Error::Depth)?;
        let mut total = 0u64;
        for piece in &self.pieces {
            if let Piece::Packed { method, plain, .. } = piece {
                method.check()?;
                let packing = method.format().is_heavy();
                if heavy && packing {
                    return Err(Error::Heavy);
                }
                plain.check_below(depth, heavy || packing)?;
            }
            total = total.checked_add(piece.bytes()).filter(|total| *total < 1 << 63).ok_or(Error::Length)?;
        }
        Ok(total)
    }
}

impl Piece {
    /// Returns the bytes in the archive.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Framing(bytes) | Self::Content(bytes) | Self::Packed { packed: bytes, .. } => *bytes,
        }
    }

    /// Returns the name of a packed stream whose plain bytes are one content stream, and their number.
    pub(super) fn content_name(&self) -> Option<(StreamName, u64)> {
        let Self::Packed { plain, named: Some(named), .. } = self else { return None };
        match plain.pieces() {
            [Self::Content(bytes)] => Some((named.name, *bytes)),
            _ => None,
        }
    }
}
