//! One look at one rollout.

use std::sync::Arc;

use super::super::Shared;
use super::members::{Error, boxed};
use crate::delivery::rollout::{Book, Rollout};
use crate::store::Store;
use ground::ids::RolloutId;

/// One look at one rollout.
pub(super) struct Turn<'a> {
    /// The proxy.
    pub shared: &'a Shared,
    /// The rollout's number.
    pub number: u64,
}

impl Turn<'_> {
    /// Returns where rollouts are written down.
    pub fn book(&self) -> &Book {
        &self.shared.rollouts.book
    }

    /// Returns the rollout's id.
    pub fn id(&self) -> RolloutId {
        self.book().id(self.number)
    }

    /// Returns the store of the rollout's space. Blocks for the disk at its first use.
    pub fn store(&self, rollout: &Rollout) -> Result<Arc<Store>, Error> {
        self.shared.spaces.open(&rollout.space).map_err(boxed)
    }
}
