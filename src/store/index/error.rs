//! The errors of the index.

use super::run;
use disk::files;
use ground::faults::{Fault, faulty};

/// The errors of the index. The remedy is always to set it aside and rebuild it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue is damaged or cannot be read.
    #[error("the catalogue of the index is damaged")]
    Catalogue,
    /// A run is another than the catalogue names.
    #[error("the index has another run than its catalogue names")]
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
    Self::Catalogue | Self::Entry | Self::Older | Self::Run(_) => Fault::Corrupt,
        "restart the proxy: it rebuilds its index from the packs";
}
