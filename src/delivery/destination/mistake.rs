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
    /// Nothing would be kept.
    #[error("0 keeps nothing")]
    Nothing,
    /// A mistake in a command.
    #[error(transparent)]
    Command(command::Mistake),
    /// A folder that this definition needs.
    #[error("`input = \"directory\"` needs a folder")]
    NoFolder,
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
            Self::Nothing => "give 1 or more, or omit the key",
            Self::Command(mistake) => mistake.hint(),
            Self::NoFolder => {
                "give a folder of the proxy's user, in which a release is written for the command"
            }
        }
    }
}
