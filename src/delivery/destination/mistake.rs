//! Mistakes in a definition that its types cannot exclude.

use std::path::PathBuf;

use crate::delivery::command;

/// A mistake in a definition.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// A path that depends on where the proxy was started.
    #[error("`{}` is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// Something in braces that is no placeholder.
    #[error("`{0}` is not a placeholder")]
    Placeholder(String),
    /// A number beyond its bounds.
    #[error("expected {least} to {most}")]
    Range {
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
    /// A value that no header can have.
    #[error("`{}` is no value of a header", ground::escape::text(.0))]
    Header(String),
    /// An address that is none, or not of a kind that fits.
    #[error("`{0}` is not an address that starts with http:// or https://")]
    Url(String),
    /// Keys that exclude one another, or need one another.
    #[error("{0}")]
    Keys(&'static str),
    /// A rate that is none.
    #[error("`{0}` is not a rate")]
    Rate(String),
    /// What gives no name of an application.
    #[error("`{0}` makes no name of an application")]
    App(String),
    /// Nothing would be kept.
    #[error("0 keeps nothing")]
    Nothing,
    /// A mistake in a command.
    #[error(transparent)]
    Command(command::Mistake),
    /// A folder that this definition needs.
    #[error("`input = \"directory\"` needs a folder")]
    NoFolder,
    /// A shared path that could lead elsewhere.
    #[error("`{0}` is not a path inside a release")]
    Shared(String),
    /// A shared path that another one covers.
    #[error("`{0}` lies in another shared path")]
    Overlap(String),
    /// More than are supported.
    #[error("more than {0} are given")]
    Many(usize),
    /// A user or group that this machine does not know.
    #[error("there is no {kind} `{name}`")]
    Account {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Permission bits that are none.
    #[error("`{0}` are not permissions")]
    Permissions(String),
    /// Permission bits that lock out the owner.
    #[error("the owner needs more permissions")]
    Closed,
}

impl Mistake {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Relative(_) => "give the absolute path, starting with /",
            Self::Placeholder(_) => "the only placeholder is {app}, the application's name",
            Self::Range { .. } => "give a number within these bounds, or omit the key",
            Self::Header(_) => "use printable ASCII",
            Self::Url(_) => "give an address like https://files.example.com/{app}/, without user or password",
            Self::Keys(_) => "docs/CONFIG.md says which keys belong together",
            Self::Rate(_) => "write it like 20mbit",
            Self::App(_) => "use lower-case letters, digits, `-`, `_` and `.` around {app}",
            Self::Nothing => "give 1 or more, or omit the key",
            Self::Command(mistake) => mistake.hint(),
            Self::NoFolder => {
                "give a folder of the proxy's user, in which a release is written for the command"
            }
            Self::Shared(_) => "give a relative path like `uploads` or `config/local.toml`, without `..`",
            Self::Overlap(_) => "give the upper path alone",
            Self::Many(_) => "share the folders above them",
            Self::Account { .. } => "create it on this machine, or give a number",
            Self::Permissions(_) => "give three octal digits as text, like \"640\"",
            Self::Closed => "give 4 or more of files, 5 or more of folders to the owner",
        }
    }
}
