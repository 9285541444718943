//! Durable files, memory maps, the clock. Blocking, without tokio.

pub mod clock;
pub mod crash_points;
pub mod files;
pub mod mmap;
