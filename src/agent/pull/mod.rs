//! Pulls a release: only chunks that the directory's present content does not have cross the link.
//!
//! Chunks that were fetched wait in memory, or, if there are many, in a small store beside the directory; an interrupted pull goes on
//! where it was. The new tree is written beside the old one, verified on the way, and exchanged
//! with it in one step.

mod fetched_chunks;
mod local_chunks;
mod place;
mod mark_parts;
mod mark_base;
mod mark;
mod mark_writer;
mod comparison;
mod staging;
mod exchange;
mod unchanged;
mod options;
mod directory_view;
mod fetch;
mod prepare;
mod pulled;
mod publish;
mod marked_copy;

pub use directory_view::FetchOptions;
pub use fetch::{Fetched, LEAVE_TIME_MAX, fetch};
pub use fetched_chunks::FetchedChunks;
pub use local_chunks::{DirectoryChunks, LocalChunks};
pub use marked_copy::{CopyPlace, MarkedCopy};
pub use options::{BeforeSwitch, Layout, PullOptions};
pub use place::{Named, PlaceError, absolute};
pub use prepare::Belief;
pub use publish::{PlainDirectory, pull_tree};
pub use pulled::Pulled;
pub use staging::SetAside;
pub use unchanged::Unchanged;
