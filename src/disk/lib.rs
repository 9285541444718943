//! Durable files and memory maps. Blocking, without tokio.

pub mod crash_points;
pub mod files;
pub mod mmap;
