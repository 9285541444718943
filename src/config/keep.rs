//! Retention rules.

use serde::Deserialize;

use ground::pattern::Pattern;

/// A retention rule. A release stays while any of its keys keeps it; the latest always stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepConfig {
    /// Which applications: a name, or a pattern like `web-*`.
    pub app: Pattern,
    /// The number of newest releases.
    pub last: Option<usize>,
    /// Releases pushed at most this many days before the latest.
    pub days: Option<u64>,
    /// Releases with a label that fits one of these.
    #[serde(default)]
    pub labels: Vec<Pattern>,
}
