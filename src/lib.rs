//! whit sends only the whit that changed.
//!
//! A build host pushes an application's artifacts to a proxy near where they are needed. Artifacts are
//! cut into content-defined chunks named by their BLAKE3 hash; only chunks that the proxy's cache has
//! never seen cross the QUIC link. The proxy rebuilds complete artifacts and delivers them to
//! destinations that know nothing of chunks.
//!
//! The modules below stand bottom-up: each names only modules listed before it (tests/tidy.rs checks
//! that). docs/ARCHITECTURE.md is the map.

// What tests and benches look into is private otherwise, so that the compiler finds what nobody uses.
#[cfg(not(feature = "testing"))]
mod restore;
#[cfg(feature = "testing")]
pub mod restore;
#[cfg(not(feature = "testing"))]
mod ledger;
#[cfg(feature = "testing")]
pub mod ledger;
#[cfg(not(feature = "testing"))]
mod store;
#[cfg(feature = "testing")]
pub mod store;
#[cfg(not(feature = "testing"))]
mod net;
#[cfg(feature = "testing")]
pub mod net;
#[cfg(not(feature = "testing"))]
mod delivery;
#[cfg(feature = "testing")]
pub mod delivery;
#[cfg(not(feature = "testing"))]
mod agent;
#[cfg(feature = "testing")]
pub mod agent;
#[cfg(not(feature = "testing"))]
mod proxy;
#[cfg(feature = "testing")]
pub mod proxy;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(feature = "testing")]
pub mod config;
pub mod cli;
