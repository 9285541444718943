//! HTTP for kinds: a client with credentials and deadlines, and the probe.

mod client;
mod probe;

pub use client::{Client, ClientOptions, received};
pub use probe::{PATIENCE_SECONDS, Probe};
