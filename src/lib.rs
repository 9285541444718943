//! whit sends only the whit that changed.
pub mod limits;
pub mod ids;
pub mod faults;
pub mod monitor;
pub mod chunking;
pub mod recipe;
pub mod manifest;
pub mod compression;
pub mod pack;
pub mod files;
pub mod mapping;
pub mod reassembly;
pub mod destination;
