//! whit sends only the whit that changed.
//!
//! A build host pushes an application's artifacts to a proxy near where they are needed. Artifacts are
//! cut into content-defined chunks named by their BLAKE3 hash; only chunks that the proxy's cache has
//! never seen cross the QUIC link. The proxy rebuilds complete artifacts and delivers them to
//! destinations that know nothing of chunks.
//!
//! The modules below stand bottom-up: each names only modules listed before it (tests/tidy.rs checks
//! that). docs/ARCHITECTURE.md is the map.

// Words: bounds, names, what a reader of an error can do, threads, shares.
pub mod limits;
pub mod escape;
pub mod ids;
pub mod faults;
pub mod monitor;
pub mod threads;
pub mod shares;
pub mod stall;

// The pure core: bytes in, values out; no files, sockets, clocks or randomness.
pub mod chunking;
pub mod recipe;
pub mod manifest;
pub mod compression;
pub mod delta;
pub mod basis;
pub mod patch;
pub mod executable;
pub mod deflate;
pub mod codec;
pub mod container;
pub mod pack;
pub mod address;
pub mod token;
pub mod record;
pub mod upkeep;
pub mod wire;
pub mod push;

// The disk: blocking, without tokio.
pub mod crash;
pub mod files;
pub mod mapping;
pub mod identity;
pub mod reassembly;
pub mod store;
pub mod difference;
pub mod statistics;

// The outside: other machines and places.
pub mod link;
pub mod destination;
pub mod blocking;

// The roles.
pub mod agent;
pub mod deliveries;
pub mod proxy;

// The faces.
pub mod config;
pub mod bench;
pub mod cli;
