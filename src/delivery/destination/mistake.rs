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
            Self::Nothing => "give 1 or more, or omit the key",
            Self::Command(mistake) => mistake.hint(),
            Self::NoFolder => {
                "give a folder of the proxy's user, in which a release is written for the command"
            }
        }
    }
}
