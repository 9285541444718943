//! The records that an application's targets want, each found once for all of them.

use std::collections::HashMap;

use format::record::Record;
use ground::ids::Label;

/// The most records: 100 KB. Beyond, all are forgotten, and found again.
const RECORDS_MAX: usize = 256;

/// The records that are wanted.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// The move after which they were found.
    pub moves: u64,
    /// By what is followed: none for the current release.
    pub records: HashMap<Option<Label>, Option<Record>>,
    /// Whether the application has releases.
    pub has_releases: bool,
}

impl Resolved {
    /// Notes what was found.
    pub fn note(&mut self, at: Option<Label>, record: Option<Record>) {
        if self.records.len() >= RECORDS_MAX {
            self.records.clear();
        }
        self.records.insert(at, record);
    }
}
