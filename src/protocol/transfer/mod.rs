//! What crosses besides plain frames: parcels, executables encoded against older ones, segments that are incomplete.

mod parcel;
mod relinked;
mod incomplete;
mod credit;
mod encoding;
mod storing;

pub use credit::{BeyondCredit, Bounds, Credit};
pub use encoding::{Encoding, SCARCE_RATE};
pub use incomplete::{Complete, Incomplete};
pub use parcel::{Parcels, Region, Regions, open as open_parcel};
pub use relinked::{Answered, open_kept, open_records, read_chunks};
pub use storing::{SegmentBuffer, keep_chunks, read_segment};
