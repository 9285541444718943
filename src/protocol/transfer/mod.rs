//! What crosses besides plain frames: parcels, executables encoded against older ones, segments that are incomplete.

mod parcel;
mod relinked;
mod incomplete;

pub use incomplete::{Complete, Incomplete};
pub use parcel::{Parcels, Region, Regions, decode_parcel, open as open_parcel};
pub use relinked::{Answered, make as make_executable, open_kept, open_records, read_chunks};
