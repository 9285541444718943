//! Errors of a ledger.

use super::{Key, VALUE_BYTES_MAX};
use disk::files;
use ground::faults::{Fault, faulty};

/// Why the ledger did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A change expected that there is no such key.
    #[error("{0} exists already")]
    Exists(Key),
    /// A value beyond the limit.
    #[error("{key} would have {bytes} B, expected at most {VALUE_BYTES_MAX} B")]
    TooLarge {
        /// The key.
        key: Key,
        /// The bytes of its value.
        bytes: usize,
    },
}

faulty! {
    Error passes on File;
    Self::Exists(_) => Fault::Retry;
    Self::TooLarge { .. } => Fault::Input;
}
