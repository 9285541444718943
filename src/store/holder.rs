//! Why a release stays in the store.

use ground::ids::{DestinationName, TargetName};

/// Why a release stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Holder {
    /// It is current.
    #[error("it is current")]
    Current,
    /// A rollback goes back to it.
    #[error("a rollback goes back to it")]
    Previous,
    /// A destination shows it, or keeps what it showed before.
    #[error("destination `{0}` has it")]
    Shown(DestinationName),
    /// A target shows it, goes back to it, fetches it, or is to have it.
    #[error("target `{0}` has it")]
    Target(TargetName),
}
