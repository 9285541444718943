//! The keys of a destination's definition that every kind has.

use std::collections::BTreeMap;

use serde::Deserialize;

use ground::ids::DestinationName;

/// Policies by destination.
pub type Policies = BTreeMap<DestinationName, Policy>;

/// The keys of a destination's definition that every kind has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// True if only an application's latest waiting release is delivered.
    pub latest_only: bool,
}
