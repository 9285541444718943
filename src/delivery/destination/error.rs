//! Why a release could not be delivered.

use std::path::PathBuf;
use std::time::Duration;

use crate::delivery::command::{self, Ended};
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
    /// A command that was to deliver could not be started.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A command that was to deliver failed.
    #[error("the command `{}` {ended}{}{output}", .program.display(), if .output.is_empty() { "" } else { ": " })]
    CommandFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        ended: Ended,
        /// True if another try may succeed.
        is_passing: bool,
        /// The last lines of its output.
        output: String,
    },
    /// A command said success before it had read its input.
    #[error("the command `{}` ended with success before it had read the release", .0.display())]
    Unread(PathBuf),
}

impl Error {
    /// Returns the time for which a service asks to be left alone; none if it asks for none.
    #[expect(clippy::unused_self, reason = "kinds that ask services say it by their variant")]
    pub fn retry_after(&self) -> Option<Duration> {
        None
    }
}

faulty! {
    Error passes on Rebuild, Ledger, File, Command;
    Self::NotAFolder(path) | Self::NotALink(path) => Fault::Input,
        format!("move `{}` away, or deliver to another folder", path.display());
    Self::NotOwn(path) => Fault::Input,
        format!("remove `{}`, or make it the proxy's own (chown, chmod go-w)", path.display());
    Self::Busy(_) | Self::CommandFailed { is_passing: true, .. } => Fault::Retry;
    Self::CommandFailed { is_passing: false, .. } => Fault::Input,
        "when the cause is removed, deliver again: `whit deliver`";
    Self::Unread(_) => Fault::Input,
        "let the command read standard input to its end, or set `input = \"none\"` for the destination";
}
