//! Other machines: QUIC and TLS, the proxy's keys, and blocking work beside async tasks.

pub mod identity;
pub mod link;
pub mod blocking;
