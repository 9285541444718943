//! Why a release could not be delivered.

use std::path::PathBuf;

use crate::{ledger, restore};
use disk::files;
use ground::faults::{Fault, faulty};

/// Why a release could not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is where a folder is needed.
    #[error("`{}` is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Something else than the link is where the link goes.
    #[error("`{}` is not a symbolic link", .0.display())]
    NotALink(PathBuf),
    /// A folder of whit's own that others may write to.
    #[error("`{}` belongs to another user, or others may write to it", .0.display())]
    NotOwn(PathBuf),
    /// Another delivery to the same folder is under way.
    #[error("another delivery to `{}` is under way", .0.display())]
    Busy(PathBuf),
    /// The release could not be rebuilt.
    #[error(transparent)]
    Rebuild(#[from] restore::Error),
    /// What the destination shows could not be written down.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The destination's folders could not be changed.
    #[error(transparent)]
    File(#[from] files::Error),
}

faulty! {
    Error passes on Rebuild, Ledger, File;
    Self::NotAFolder(path) | Self::NotALink(path) => Fault::Input,
        format!("move `{}` away, or deliver to another folder", path.display());
    Self::NotOwn(path) => Fault::Input,
        format!("remove `{}`, or make it the proxy's own (chown, chmod go-w)", path.display());
    Self::Busy(_) => Fault::Retry;
}
