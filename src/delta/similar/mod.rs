//! Finds old content that new content resembles.
//!
//! Pure functions over two releases' lists of files. The rules, in the order of trust:
//!
//! 1. what stood between the same known neighbours, in the file that shares most chunks ([`Rule::Neighbours`]),
//! 2. the file of the same path ([`Rule::Path`]),
//! 3. the file of the most similar path ([`Rule::Name`], [`Names`]),
//! 4. the most similar content, whatever file or application it is of ([`Rule::Content`], [`Sketch`]).
//!
//! A reference is a guess that costs bytes where it is wrong and never correctness.

mod anchors;
mod choice;
mod file;
mod names;
mod sketch;

pub use choice::{Place, Region, Rule, choose};
pub use file::{Chunk, File};
pub use names::Names;
pub use sketch::{SKETCH_BYTES, Sketch};
