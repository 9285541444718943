//! Which older content missing chunks resemble: by place, by name, and which older file an executable has.

mod listing;
mod matches;
mod segment_base;
mod base_file;
mod base_release;

pub use base_file::{BaseFile, Release, Target, edges};
pub use base_release::{BaseRelease, NewSegment};
pub use listing::{Edge, Edges};
pub use matches::{ChangedBase, Likeness};
pub use segment_base::{SegmentsReplaced, prefix_of};
