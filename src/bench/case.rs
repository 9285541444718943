//! The cases in which a release is brought.

use serde::{Deserialize, Serialize};

/// What is brought, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// OLD, to a receiver that has nothing.
    First,
    /// NEW, to a receiver that has OLD, from a sender that has NEW alone.
    Fresh,
    /// The same from the sender that brought OLD, with what it remembers.
    Kept,
    /// NEW, asked for by a receiver with an empty directory.
    Pull,
    /// NEW, asked for by a receiver whose directory holds OLD.
    Update,
}

impl Case {
    /// All cases, in the order of tables.
    pub const ALL: [Self; 5] = [Self::First, Self::Fresh, Self::Kept, Self::Pull, Self::Update];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Fresh => "fresh",
            Self::Kept => "kept",
            Self::Pull => "pull",
            Self::Update => "update",
        }
    }
}
