//! How an artifact is rebuilt.

use crate::ids::ChunkId;

/// One chunk inside a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The chunk's name.
    pub id: ChunkId,
    /// The chunk's plain bytes.
    pub bytes: u32,
}

/// How one artifact is rebuilt. In a manifest the recipe's parts follow its entry as items.
///
/// The number of a variant is part of the format (FORMAT 2.2); a reader refuses numbers it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// 0: the chunk items that follow, one after another.
    Chunks,
}

impl Recipe {
    /// The variant's number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Chunks => 0,
        }
    }

    /// The variant of a number, or none that this version knows.
    pub fn from_number(number: u8) -> Option<Self> {
        (number == 0).then_some(Self::Chunks)
    }
}
