//! QUIC and TLS, the proxy's keys and tokens, the rate of a link, and blocking work beside async tasks.

pub mod tokens;
pub mod identity;
pub mod link;
pub mod link_estimate;
pub mod blocking;
pub mod owned_task;
