//! Links that lead outside a release, on the command line.

use clap::ValueEnum;

use crate::restore::OutsideLinks;

/// How to treat links that lead outside, where a release is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum WrittenLinks {
    /// Refuse the release.
    #[default]
    Refuse,
    /// Write them as they are.
    Keep,
}

impl From<WrittenLinks> for OutsideLinks {
    fn from(links: WrittenLinks) -> Self {
        match links {
            WrittenLinks::Refuse => Self::Refuse,
            WrittenLinks::Keep => Self::Keep,
        }
    }
}
