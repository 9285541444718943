//! The question of a sender without the older file: which of these records do you have?

use blake3::Hash;
use ground::leb128;

use super::numbers::Cursor;

/// More records than a file of 1 GiB has.
pub const NAMES_MAX: usize = 1 << 23;
/// Bytes of a name. Of 100,000 names that the other side lacks some five match one of its 200,000 by chance: the
/// checks of an [`Answer`](super::Answer) find them.
const NAME_BYTES: usize = 4;

/// A short name of a record.
pub type Name = [u8; NAME_BYTES];

/// Returns the name of the record with this hash.
pub fn name(hash: &Hash) -> Name {
    *hash.as_bytes().first_chunk().expect("a hash is longer than a name")
}

/// The names of records, in the order of the new file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordNames {
    names: Vec<Name>,
}

impl RecordNames {
    /// Names the records with these hashes.
    pub fn new<'a>(hashes: impl IntoIterator<Item = &'a Hash>) -> Self {
        Self { names: hashes.into_iter().map(name).collect() }
    }

    /// Returns the names.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Encodes it: the number of names, then the names.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(NAME_BYTES * self.names.len() + 4);
        leb128::write(self.names.len() as u64, &mut bytes);
        bytes.extend_from_slice(self.names.as_flattened());
        bytes
    }

    /// Decodes names; `None` if they are malformed or more than [`NAMES_MAX`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.size().filter(|count| *count <= NAMES_MAX)?;
        let (names, rest) = cursor.rest().as_chunks();
        (names.len() == count && rest.is_empty()).then(|| Self { names: names.to_vec() })
    }
}
