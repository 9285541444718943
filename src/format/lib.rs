//! The stored format: chunks, recipes, manifests, packs, records (docs/FORMAT.md).
//!
//! Pure: no files, sockets, clocks or randomness.

pub mod value;
pub mod chunking;
pub mod recipe;
pub mod manifest;
pub mod pack;
pub mod hop;
pub mod record;
pub mod shown;
pub mod target;
pub mod watched;
pub mod current;
pub mod cache_mark;
pub mod release_manifests;
pub mod maintenance;
