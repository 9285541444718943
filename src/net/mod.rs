//! Other machines: QUIC and TLS, the proxy's keys and tokens, and blocking work beside async tasks.

pub mod tokens;
pub mod identity;
pub mod link;
pub mod link_estimate;
pub mod blocking;
