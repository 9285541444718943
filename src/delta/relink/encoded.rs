//! A file encoded against an older one: its stream, compressed with the older one's as prefix, and the targets that did
//! not move as expected.

use super::frame::{compress, decompress};
use super::layout::Layout;
use super::moves::{Moves, hashes};
use super::normalised::{Error, Normalised, Skeleton};
use super::numbers::Cursor;
use super::targets::{self, Reference};
use ground::leb128;

/// A new file, encoded against an older one that both sides have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    body: Vec<u8>,
    body_bytes: usize,
    targets: Vec<u8>,
}

impl Encoded {
    /// Encodes `new` against `old`. Memory beside both: zstd's.
    pub fn new(old: &Normalised, new: &Normalised, level: i32) -> Self {
        let of = |parts: &Normalised| hashes(parts.stream(), &parts.function_ends);
        let moves = Moves::new((&of(old), &old.addresses), (&of(new), &new.addresses));
        Self {
            body: compress(old.body(), new.body(), level),
            body_bytes: new.body().len(),
            targets: targets::encode(&new.known(), &new.targets, Some(Reference { old, moves })),
        }
    }

    /// Encodes it as bytes: varints of the body's plain and compressed length, the body, the targets.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + self.targets.len() + 16);
        leb128::write(self.body_bytes as u64, &mut bytes);
        leb128::write(self.body.len() as u64, &mut bytes);
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&self.targets);
        bytes
    }

    /// Decodes bytes; `None` if they are malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let body_bytes = cursor.size()?;
        let body = cursor.size()?;
        Some(Self { body: cursor.take(body)?.to_vec(), body_bytes, targets: cursor.rest().to_vec() })
    }

    /// Rebuilds the new file; the caller checks its hash. Memory: about 2.5 times the larger file, the
    /// older one included.
    ///
    /// # Errors
    /// The bytes contradict themselves, or the file would be larger than `bytes_max`.
    pub fn rebuild(&self, old: Normalised, bytes_max: usize) -> Result<Vec<u8>, Error> {
        if self.body_bytes > bytes_max.saturating_mul(2) {
            return Err(Error::Bytes(self.body_bytes));
        }
        let body = decompress(old.body(), &self.body, self.body_bytes).ok_or(Error::Parts)?;
        self.rebuild_of(body, old, bytes_max)
    }

    /// Rebuilds the new file on the side that encoded it, which still has the body of `new`.
    ///
    /// # Errors
    /// Those of [`Encoded::rebuild`].
    pub fn rebuild_own(&self, new: Normalised, old: Normalised, bytes_max: usize) -> Result<Vec<u8>, Error> {
        self.rebuild_of(new.into_body(), old, bytes_max)
    }

    fn rebuild_of(&self, body: Vec<u8>, mut old: Normalised, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let old_hashes = hashes(old.stream(), &old.function_ends);
        old.drop_body();
        let mut cursor = Cursor::new(&body);
        let layout = Layout::decode(&mut cursor).ok_or(Error::Parts)?;
        let stream = cursor.rest();
        let skeleton = Skeleton::new(stream, &layout, bytes_max)?;
        let known = skeleton.known();
        let new_hashes = hashes(stream, skeleton.function_ends());
        drop(body);
        let moves = Moves::new((&old_hashes, &old.addresses), (&new_hashes, known.addresses));
        let reference = Some(Reference { old: &old, moves });
        let targets = targets::decode(&known, &self.targets, reference, skeleton.targets_max());
        skeleton.finish(&targets.ok_or(Error::Parts)?)
    }
}
