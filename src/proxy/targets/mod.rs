//! The targets of the proxy's applications: what each says of itself, what its group assigned to it, and its stream.
//!
//! Memory has the newest word of each target; the ledger has it as of its last change of state, written by one thread, and
//! each assignment before anybody hears of it.

mod dirty;
mod durable;
mod target_stream;
mod entry;
mod leaving;
mod list;
mod queue;
mod registry;
mod resolved;
mod stream;
mod wanted;
mod writer;

pub use registry::{Targets, Unassigned};

pub(super) use leaving::{forget, unassign};
pub(super) use list::list;
pub(super) use queue::queue;
pub(super) use stream::serve;
pub(super) use wanted::find;
pub(super) use writer::Writer;
