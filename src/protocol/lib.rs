//! What crosses the link: messages, and both halves of a transfer as state machines (docs/PROTOCOL.md).
//!
//! Pure: no files, sockets, clocks or randomness.

pub mod address;
pub mod token;
pub mod wire;
mod error;
mod content_view;
mod space_view;
mod input_view;
pub mod likeness;
pub mod transfer;
pub mod push;
pub mod pull;

pub use content_view::{ContentView, StorageView};
pub use error::{Error, check_labels};
pub use input_view::{Chunks, InputView, Segments};
pub use space_view::{Proposal, SpaceView};
