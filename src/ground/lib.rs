//! Bounds, names and patterns of names, what a reader of an error can do, progress, threads, shares.
//!
//! Knows nothing of whit's formats. No sockets; no files but the one random name.

pub mod limits;
pub mod escape;
pub mod leb128;
pub mod faults;
pub mod threads;
mod id_error;
mod counted_id;
pub mod ids;
pub mod token_id;
pub mod pattern;
pub mod rate;
pub mod monitor;
pub mod poison;
pub mod shares;
pub mod stall;
