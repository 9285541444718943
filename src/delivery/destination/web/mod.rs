//! HTTP for kinds and webhooks: a client with credentials and deadlines, and the probe.

mod certificates;
mod client;
mod probe;

pub use client::{Client, ClientOptions, authorities, fault_of, received, retry_after, unanswered};
pub use probe::{PATIENCE_SECONDS, Probe};
