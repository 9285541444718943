//! What a sender with the older file sends: the new stream after the old one, and what targets did not
//! move as expected.

use super::frame::{compress, decompress};
use super::layout::Layout;
use super::moves::Moves;
use super::normalised::{Error, Normalised, Skeleton};
use super::numbers::{Cursor, put_varint};
use super::targets::{self, Basis};

/// A new file, given an older one that both sides have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    body: Vec<u8>,
    body_bytes: usize,
    targets: Vec<u8>,
}

/// The layout and the records: what is compressed, and what serves as its prefix.
fn body(normalised: &Normalised) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(normalised.stream.len() + normalised.stream.len() / 32);
    normalised.layout.encode(&mut bytes);
    bytes.extend_from_slice(&normalised.stream);
    bytes
}

impl Kept {
    /// Describes `new` by `old`. Memory: both streams again, and what zstd takes.
    pub fn new(old: &Normalised, new: &Normalised, level: i32) -> Self {
        let plain = body(new);
        let moves = Moves::new(old, &new.stream, &new.function_ends, &new.addresses);
        Self {
            body: compress(&body(old), &plain, level),
            body_bytes: plain.len(),
            targets: targets::encode(&new.known(), &new.targets, Some(Basis { old, moves })),
        }
    }

    /// Bytes of the targets among it.
    pub fn targets_bytes(&self) -> usize {
        self.targets.len()
    }

    /// The description as it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + self.targets.len() + 16);
        put_varint(&mut bytes, self.body_bytes as u64);
        put_varint(&mut bytes, self.body.len() as u64);
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&self.targets);
        bytes
    }

    /// Reads a description; `None` where it is malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let body_bytes = cursor.size()?;
        let body = cursor.size()?;
        Some(Self { body: cursor.take(body)?.to_vec(), body_bytes, targets: cursor.rest().to_vec() })
    }

    /// Puts the new file together; whoever called checks its hash.
    ///
    /// # Errors
    /// The description contradicts itself, or the file would be larger than `bytes_max`.
    pub fn rebuild(&self, old: &Normalised, bytes_max: usize) -> Result<Vec<u8>, Error> {
        if self.body_bytes > bytes_max.saturating_mul(2) {
            return Err(Error::Bytes(self.body_bytes));
        }
        let body = decompress(&body(old), &self.body, self.body_bytes).ok_or(Error::Parts)?;
        let mut cursor = Cursor::new(&body);
        let layout = Layout::decode(&mut cursor).ok_or(Error::Parts)?;
        let stream = cursor.rest();
        let skeleton = Skeleton::new(stream, &layout, bytes_max)?;
        let known = skeleton.known();
        let moves = Moves::new(old, stream, skeleton.function_ends(), known.addresses);
        let basis = Some(Basis { old, moves });
        let targets = targets::decode(&known, &self.targets, basis, skeleton.targets_max());
        skeleton.finish(&targets.ok_or(Error::Parts)?)
    }
}
