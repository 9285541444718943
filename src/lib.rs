//! whit sends only the whit that changed.
pub mod chunking;
pub mod compression;
pub mod destination;
pub mod faults;
pub mod files;
pub mod ids;
pub mod limits;
pub mod manifest;
pub mod mapping;
pub mod monitor;
pub mod pack;
pub mod reassembly;
pub mod recipe;
