//! Complete copies where they are needed: destinations, and the durable effort to put releases there in order.
//!
//! [`Deliveries`] writes a delivery down and queues it; a `worker` for each destination takes the next from its `queue`,
//! an [`Executor`] reads the release from its store, and the [`destination`] publishes it.

pub mod command;
pub mod actions;
pub mod destination;
pub mod rollout;
mod policy;
mod pending;
mod error;
mod ended;
mod backoff;
mod journal;
mod history;
mod board;
mod listeners;
mod queue;
mod ending;
mod shown_log;
mod telling;
mod worker;
mod executor;
mod deliveries;

pub use deliveries::{Deliveries, DeliveryOptions};
pub use ended::Ended;
pub use error::Error;
pub use executor::StoreExecutor;
pub use listeners::Events;
pub use pending::Delivery;
#[cfg(feature = "testing")]
pub use pending::LastFailure;
pub use policy::{Policies, Policy};
pub use worker::Executor;
#[cfg(feature = "testing")]
pub use worker::{Failure, Task};
