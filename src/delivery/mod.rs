//! Complete copies where they are needed: destinations, and the durable queue of what goes there.

pub mod destination;
pub mod queue;
