//! The records that an application's targets want, each found once for all of them.

use std::collections::HashMap;

use format::record::Record;
use ground::ids::Label;

/// The records that are wanted.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The move after which they were found.
    pub moves: u64,
    /// By what is followed: none for the current release.
    pub records: HashMap<Option<Label>, Option<Record>>,
}
