//! The errors of the index.

use super::run;
use disk::files;
use ground::faults::{Fault, faulty};

/// The errors of the index. The remedy is always to set it aside and rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// sled found its files damaged, or the disk failed.
    #[error("the index failed: {0}")]
    Failed(#[from] sled::Error),
    /// sled panicked, which it does at most damage.
    #[error("the index is damaged: {0}")]
    Panicked(String),
    /// A malformed entry.
    #[error("the index contains a malformed entry")]
    Entry,
    /// An older version of whit wrote it.
    #[error("the index was written by an older version of whit")]
    Older,
    /// A run cannot be used.
    #[error("{0}; the next start rebuilds the index")]
    Run(#[from] run::Damaged),
    /// The index folder cannot be used.
    #[error(transparent)]
    File(#[from] files::Error),
}

faulty! {
    Error passes on File;
    Self::Failed(sled::Error::Io(error)) if Fault::of_io(error) != Fault::Corrupt => Fault::of_io(error);
    Self::Failed(_) | Self::Panicked(_) | Self::Entry | Self::Older | Self::Run(_) => Fault::Corrupt,
        "restart the proxy: it rebuilds its index from the packs";
}
