//! The errors of a scan.

use std::io;
use std::path::{Path, PathBuf};

use super::RefusedLinks;
use crate::restore;
use disk::files;
use format::manifest::{self, EntryPath};
use ground::faults::{Fault, faulty, io_hint};
use ground::threads;

/// The errors of a scan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file that was written while it was read.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// An archive that was not read, as its stat was unchanged, and whose content must be sent after all.
    #[error("{} must be read again: the proxy lacks some of its content", .0.display())]
    Unread(PathBuf),
    /// A file that vanished after it was listed.
    #[error("{} vanished while the tree was read", .0.display())]
    Vanished(PathBuf),
    /// No thread can be started.
    #[error(transparent)]
    Threads(#[from] threads::Error),
    /// A name, link or tree that no release can hold.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// A release in a store cannot be read.
    #[error(transparent)]
    Stored(#[from] restore::Error),
    /// Neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    Kind(PathBuf),
    /// Symbolic links that lead outside, where `--links` does not say what to do with them.
    #[error("{0}")]
    OutsideLinks(RefusedLinks),
    /// A link that cannot be followed, as it leads to a folder above it.
    #[error("the link `{0}` leads to a folder that contains it")]
    Circle(EntryPath),
    /// Links that cannot be followed, as they lead to too many entries.
    #[error("followed links lead to more than {1} entries, the last one `{0}`")]
    Endless(EntryPath, u64),
    /// A folder that the push itself changes.
    #[error("{} is {what}, and is inside the pushed tree", .place.display())]
    Overlaps {
        /// The folder.
        place: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A tree without files.
    #[error("{} contains no file", .0.display())]
    Empty(PathBuf),
    /// A tree all of whose files are excluded.
    #[error("all files of {} are excluded: `{}` excludes `{}`", .path.display(), .pattern, .first)]
    LeftOut {
        /// The tree.
        path: PathBuf,
        /// The first pattern that excluded anything.
        pattern: String,
        /// The entry that it excluded.
        first: EntryPath,
    },
    /// An `--exclude` that is not a pattern.
    #[error("`{pattern}` is not a pattern: {source}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
}

faulty! {
    Error passes on Threads, Manifest, Stored;
    Self::File(error) => error.fault(), hint_of_reading(&error.source, &error.path);
    Self::Changed(_) | Self::Vanished(_) => Fault::Retry, "push when the build has finished, or exclude the path";
    Self::Unread(_) => Fault::Retry;
    Self::OutsideLinks(_) => Fault::Input,
        "`--links keep` pushes them as they are, `--links follow` what they lead to, `--links skip` leaves them \
         out; or exclude them with --exclude or .whitignore";
    Self::Circle(_) | Self::Endless(..) => Fault::Input,
        "exclude the link with --exclude or .whitignore, or use `--links keep`";
    Self::Overlaps { .. } => Fault::Input,
        "move it out of the tree, or exclude it with --exclude or .whitignore";
    Self::Empty(_) | Self::LeftOut { .. } => Fault::Input,
        "to push a release without files, add --allow-empty";
    Self::Pattern { .. } => Fault::Input, "write it as in a .gitignore file, and quote it for the shell";
    _ => Fault::Input;
}

/// Returns what to do about a system's error while a tree was read.
fn hint_of_reading(error: &io::Error, path: &Path) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "make it readable, or exclude it with --exclude or .whitignore",
        // Reading needs no room; the spool does.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, or name folders with more room in TMPDIR and WHIT_STATE; --no-memory needs less"
        }
        _ => return io_hint(error, path),
    };
    Some(hint.to_owned())
}

impl Error {
    /// Returns whether reading everything once more may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Changed(_) | Self::Vanished(_) | Self::Unread(_))
    }
}
