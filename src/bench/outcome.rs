//! What running a tool came to.

use serde::{Deserialize, Serialize};

/// One tool's figures, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row<T> {
    /// The tool's name.
    pub tool: String,
    /// Its outcome.
    #[serde(flatten)]
    pub outcome: Outcome<T>,
}

/// The outcome of running a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome<T> {
    /// It ran.
    Measured(Box<T>),
    /// A program is not installed.
    Missing {
        /// Its name.
        program: String,
    },
    /// The input is too large for the tool.
    PassedOver {
        /// The most bytes for it.
        input_bytes_max: u64,
    },
    /// It failed.
    Failed {
        /// The error's text.
        reason: String,
    },
}

impl<T> Outcome<T> {
    /// Returns the figures, where there are some.
    pub fn figures(&self) -> Option<&T> {
        match self {
            Self::Measured(figures) => Some(figures),
            _ => None,
        }
    }

    /// Returns in a clause why there are no figures.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Measured(_) => None,
            Self::Missing { program } => Some(format!("missing: {program} is not installed")),
            Self::PassedOver { input_bytes_max } => {
                Some(format!("passed over: the input is larger than {} MiB", input_bytes_max >> 20))
            }
            Self::Failed { reason } => Some(format!("failed: {reason}")),
        }
    }
}
