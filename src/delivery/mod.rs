//! Complete copies where they are needed: destinations, and the durable effort to put releases there in order.
//!
//! [`Deliveries`] writes a delivery down and queues it; a `worker` for each destination takes the next from its `queue`,
//! an [`Executor`] reads the release from its store, and the [`destination`] publishes it.

mod command;
pub mod destination;
mod pending;
mod journal;
mod queue;
mod shown_log;
mod worker;
mod executor;
mod deliveries;

pub use deliveries::{Deliveries, Error};
pub use executor::StoreExecutor;
pub use pending::Delivery;
pub use queue::Events;
pub use worker::Executor;
